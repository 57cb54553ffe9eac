import { type ReactNode, useEffect, useId, useRef } from "react";
import { useTexts } from "../texts";
import { IconButton } from "./IconButton";

interface Props {
  readonly title: string;
  readonly onClose: (() => void) | null; // null: only what is inside closes it
  readonly onKey?: (key: string) => void; // pressed anywhere in it
  readonly className?: string;
  readonly bare?: boolean; // without a visible head
  readonly children: ReactNode;
}

/** A window over the page, which holds the focus while it is open. */
export function Dialog({ title, onClose, onKey, className = "", bare, children }: Props) {
  const t = useTexts();
  const ref = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={ref}
      className={className}
      aria-labelledby={heading}
      onCancel={(event) => {
        event.preventDefault();
        onClose?.();
      }}
      onKeyDown={(event) => onKey?.(event.key)}
      onClick={(event) => event.target === ref.current && onClose?.()}
    >
      {bare ? (
        <h2 id={heading} className="hidden">
          {title}
        </h2>
      ) : (
        <div className="dialog-head">
          <h2 id={heading}>{title}</h2>
          {onClose && <IconButton icon="close" label={t("close.label")} onClick={onClose} />}
        </div>
      )}
      {children}
    </dialog>
  );
}
