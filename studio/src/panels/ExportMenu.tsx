import type { NodeId } from "../model/types";
import { expressionHere } from "../state/actions";
import { keyOf, usePictures } from "../state/pictures";
import { flush } from "../state/saving";
import { type Made, project, readableOf, recipeOf, seedOf, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { Menu } from "../ui/Menu";
import { copySnippet, copyText, saveDrawing, savePicture, saveProjectFile, saveRecipe } from "./exporting";

/** Exports of the node whose expression stands in the line. */
export function ExportMenu({ node }: { node: NodeId | null }) {
  const t = useTexts();
  const kind = useStudio((state) => (node ? state.history.now.nodes[node]?.kind : undefined));
  const isMade = kind !== undefined && kind !== "photo" && kind !== "word" && kind !== "missing";
  const recipe = (): ReturnType<typeof recipeOf> =>
    recipeOf(project(), expressionHere(node!), [seedOf(project(), node!)]);
  const made = (): Made | null => {
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
        const there = isMade ? made() : null;
        return (
          <>
            {isMade && item(t("export.png"), () => there && savePicture(there), !there)}
            {isMade && item(t("export.equation"), () => void saveDrawing(recipe(), "equation"))}
            {isMade && item(t("export.tree"), () => void saveDrawing(recipe(), "tree"))}
            {isMade && item(t("export.tree.svg"), () => void saveDrawing(recipe(), "tree", true))}
            {node && item(t("export.expression"), () => void copyText(readableOf(project(), node)))}
            {isMade && item(t("export.recipe"), () => saveRecipe(recipe()))}
            {isMade && item(t("export.python"), () => void copySnippet(recipe(), "python"))}
            {isMade && item(t("export.command"), () => void copySnippet(recipe(), "command"))}
            {item(t("export.pops"), () => void flush().then(saveProjectFile))}
          </>
        );
      }}
    </Menu>
  );
}
