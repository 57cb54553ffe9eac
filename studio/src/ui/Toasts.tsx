import { hush, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { IconButton } from "./IconButton";

/** Short notes at the bottom; they go by themselves. */
export function Toasts() {
  const t = useTexts();
  const toasts = useStudio((state) => state.toasts);
  return (
    <div className="toasts" role="status" aria-live="polite">
      {toasts.map((toast) => (
        <div key={toast.id} className={`toast ${toast.kind}`}>
          <span>{toast.text}</span>
          {toast.act && (
            <button
              type="button"
              onClick={() => {
                toast.act?.run();
                hush(toast.id);
              }}
            >
              {toast.act.label}
            </button>
          )}
          <IconButton icon="close" small label={t("close.label")} onClick={() => hush(toast.id)} />
        </div>
      ))}
    </div>
  );
}
