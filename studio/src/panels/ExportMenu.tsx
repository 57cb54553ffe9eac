import type { Recipe } from "../api/types";
import { isMade, type NodeId } from "../model/types";
import { keyOf, usePictures } from "../state/pictures";
import { flush } from "../state/saving";
import { get, type Made, project, readableOf, recipeOf, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { Menu } from "../ui/Menu";
import { copySnippet, copyText, saveDrawing, savePicture, saveProjectFile, saveRecipe } from "./exporting";

/** Exports of the node whose expression stands in the line. */
export function ExportMenu({ node }: { node: NodeId | null }) {
  const t = useTexts();
  const made = useStudio((state) => node !== null && isMade(state.history.now.nodes[node]));
  const recipe = (): Recipe => recipeOf(project(), get().specs, node!);
  const picture = (): Made | null => {
    const wanted = recipe();
    const shown = usePictures.getState().byKey[keyOf(wanted)];
    return shown?.image && shown.job
      ? { image: shown.image, job: shown.job, seed: wanted.seeds?.[0] ?? 0, recipe: wanted }
      : null;
  };
  return (
    <Menu
      label={t("view.export")}
      place="up"
      trigger={(props) => (
        <button type="button" className="button" {...props}>
          <Icon name="export" size={16} />
          {t("view.export")}
        </button>
      )}
    >
      {(close) => {
        const item = (label: string, run: () => void, off = false) => (
          <button
            type="button"
            className="menu-item"
            disabled={off}
            onClick={() => {
              close();
              run();
            }}
          >
            {label}
          </button>
        );
        const there = made ? picture() : null;
        return (
          <>
            {made && item(t("export.png"), () => there && savePicture(there), !there)}
            {made && item(t("export.equation"), () => void saveDrawing(recipe(), "equation"))}
            {made && item(t("export.tree"), () => void saveDrawing(recipe(), "tree"))}
            {made && item(t("export.tree.svg"), () => void saveDrawing(recipe(), "tree", true))}
            {node && item(t("export.expression"), () => void copyText(readableOf(project(), node)))}
            {made && item(t("export.recipe"), () => saveRecipe(recipe()))}
            {made && item(t("export.python"), () => void copySnippet(recipe(), "python"))}
            {made && item(t("export.command"), () => void copySnippet(recipe(), "command"))}
            {item(t("export.pops"), () => void flush().then(saveProjectFile))}
          </>
        );
      }}
    </Menu>
  );
}
