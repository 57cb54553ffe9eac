import { attempt, keepMine, takeTheirs } from "../state/saving";
import { useTexts } from "../texts";
import { Dialog } from "../ui/Dialog";

/** Another window has changed the project: whose is kept? */
export function Conflict() {
  const t = useTexts();
  return (
    <Dialog title={t("save.conflict.title")} onClose={null}>
      <div className="dialog-body" style={{ maxWidth: 480 }}>
        <p>{t("save.conflict.text")}</p>
        <div className="dialog-acts">
          <button type="button" className="button" onClick={() => void attempt(keepMine)}>
            {t("save.conflict.keep")}
          </button>
          <button type="button" className="button strong" onClick={() => void attempt(takeTheirs)}>
            {t("save.conflict.reload")}
          </button>
        </div>
      </div>
    </Dialog>
  );
}
