import { patched } from "../model/edits";
import { rowsOf } from "../model/recipes";
import { isEnd, isMade, type StudioNode } from "../model/types";
import { pin, show, vary } from "../state/ideas";
import { duplicate, removeChosen } from "../state/nodes";
import { edit, set, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { IconButton } from "../ui/IconButton";
import { Menu } from "../ui/Menu";
import { MoreRows } from "./MoreRows";
import { SettingsForm } from "./SettingsForm";
import { usePicture } from "./usePicture";

/** What can be done with the chosen node, above it. */
export function NodeTools({ node, title }: { node: StudioNode; title: string }) {
  const t = useTexts();
  const { made } = usePicture(node.id);
  const pinned = useStudio((state) => made !== null && state.history.now.pinned.some((p) => p.image === made.image));
  const more = "more" in node && node.more && rowsOf(node.more).length ? node.more : null;
  const libraries = useStudio((state) => state.libraries.length > 0);
  return (
    <div className="node-tools" role="toolbar" aria-label={title}>
      {isMade(node) && (
        <button type="button" className="button" onClick={() => vary(node.id)} title={`${t("node.vary")}  (V)`}>
          <Icon name="grid" size={16} />
          {t("node.vary")}
        </button>
      )}
      {isMade(node) && (
        <>
          <IconButton
            icon="pin"
            label={t(pinned ? "node.unpin" : "node.pin")}
            keys="P"
            aria-pressed={pinned}
            fill={pinned}
            disabled={!made}
            onClick={() => made && pin(made)}
          />
          <IconButton
            icon="eye"
            label={t("node.view")}
            keys="Space"
            disabled={!made}
            onClick={() => made && set({ viewed: made, among: [] })}
          />
          {("options" in node || more) && (
            <Menu
              label={t("settings.title", { name: title })}
              trigger={(props) => <IconButton icon="tune" label={t("node.settings")} {...props} />}
              place="up"
            >
              {() => (
                <>
                  {"options" in node && <SettingsForm node={node} />}
                  {more && (
                    <MoreRows more={more} change={(next) => edit((now) => patched(now, node.id, { more: next }))} />
                  )}
                </>
              )}
            </Menu>
          )}
        </>
      )}
      {libraries && !isEnd(node) && node.kind !== "word" && (
        <IconButton icon="search" label={t("node.search")} onClick={() => show("search", node.id)} />
      )}
      <IconButton icon="copy" label={t("node.copy")} keys="Ctrl D" onClick={() => duplicate(node.id)} />
      <IconButton icon="trash" label={t("node.delete")} keys="Del" onClick={removeChosen} />
    </div>
  );
}
