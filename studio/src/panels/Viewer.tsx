import { useEffect, useState } from "react";
import { api, imageUrl } from "../api/client";
import { openRecipe } from "../state/adding";
import { pin } from "../state/ideas";
import { attempt } from "../state/saving";
import { set, useStudio } from "../state/store";
import { readable } from "../state/view";
import { useTexts } from "../texts";
import { Dialog } from "../ui/Dialog";
import { Icon } from "../ui/Icon";
import { IconButton } from "../ui/IconButton";
import { copySnippet, copyText, saveDrawing, savePicture, saveRecipe } from "./exporting";

/** One picture, large, with all that can be done with it. */
export function Viewer() {
  const t = useTexts();
  const made = useStudio((state) => state.viewed);
  const pinned = useStudio((state) => state.history.now.pinned.some((p) => p.image === made?.image));
  const open = useStudio((state) => state.id !== null);
  const among = useStudio((state) => state.among);
  const job = made?.job;
  const [favourite, setFavourite] = useState(false);
  useEffect(() => {
    if (!job) return;
    api.job(job).then(
      (found) => setFavourite(found.favourite ?? false),
      () => undefined,
    );
  }, [job]);
  if (!made) return null;
  const close = (): void => set({ viewed: null });
  const recipe = made.recipe;
  const at = among.findIndex((one) => one.image === made.image);
  const turn = (by: number): void => {
    const next = among[at + by];
    if (at >= 0 && next) set({ viewed: next });
  };
  return (
    <Dialog
      title={t("view.title")}
      onClose={close}
      onKey={(key) => turn(key === "ArrowLeft" ? -1 : key === "ArrowRight" ? 1 : 0)}
      className="viewer"
    >
      <div className="viewer-body">
        <div className="frame">
          <img src={imageUrl(made.image)} alt={readable(recipe.expression)} />
        </div>
        <div className="viewer-side">
          {at >= 0 && among.length > 1 && (
            <div className="turns">
              <IconButton icon="back" label={t("view.before")} disabled={at === 0} onClick={() => turn(-1)} />
              <span className="quiet" role="status">
                {t("view.count", { n: at + 1, all: among.length })}
              </span>
              <IconButton
                icon="next"
                label={t("view.after")}
                disabled={at === among.length - 1}
                onClick={() => turn(1)}
              />
            </div>
          )}
          <p className="code">{readable(recipe.expression)}</p>
          <p className="quiet">{t("node.seed", { seed: made.seed })}</p>
          <button type="button" className="button" aria-pressed={pinned} onClick={() => pin(made)} disabled={!open}>
            <Icon name="pin" size={16} fill={pinned} />
            {t(pinned ? "node.unpin" : "node.pin")}
          </button>
          <button
            type="button"
            className="button"
            aria-pressed={favourite}
            onClick={() =>
              void attempt(() => api.favourite(made.job, !favourite)).then(
                (done) => done !== undefined && setFavourite(!favourite),
              )
            }
          >
            <Icon name="star" size={16} fill={favourite} />
            {t("view.favourite")}
          </button>
          <button
            type="button"
            className="button"
            onClick={() => {
              close();
              void openRecipe(recipe);
            }}
          >
            <Icon name="board" size={16} />
            {t("history.open")}
          </button>
          <h3 className="quiet">{t("view.export")}</h3>
          <button type="button" className="button strong" onClick={() => savePicture(made)}>
            <Icon name="export" size={16} />
            {t("export.png")}
          </button>
          <button type="button" className="button" onClick={() => void saveDrawing(recipe, "equation")}>
            {t("export.equation")}
          </button>
          <button type="button" className="button" onClick={() => void saveDrawing(recipe, "tree")}>
            {t("export.tree")}
          </button>
          <button type="button" className="button" onClick={() => void copyText(readable(recipe.expression))}>
            {t("export.expression")}
          </button>
          <button type="button" className="button" onClick={() => saveRecipe(recipe)}>
            {t("export.recipe")}
          </button>
          <button type="button" className="button" onClick={() => void copySnippet(recipe, "python")}>
            {t("export.python")}
          </button>
          <button type="button" className="button" onClick={() => void copySnippet(recipe, "command")}>
            {t("export.command")}
          </button>
        </div>
      </div>
    </Dialog>
  );
}
