import { show } from "../state/ideas";
import { tidyAll } from "../state/nodes";
import { close, rename } from "../state/saving";
import { redo, set, undo, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { Appearance } from "../ui/Appearance";
import { Brand } from "../ui/Brand";
import { Icon } from "../ui/Icon";
import { IconButton } from "../ui/IconButton";
import { ModelMenu } from "./ModelMenu";

/** The project's name, undo, and the doors to everything else. */
export function TopBar() {
  const t = useTexts();
  const name = useStudio((state) => state.name);
  const saving = useStudio((state) => state.saving);
  const past = useStudio((state) => state.history.past.length > 0);
  const future = useStudio((state) => state.history.future.length > 0);
  const panel = useStudio((state) => state.panel);
  const bad = saving === "failed" || saving === "conflict";
  const text =
    saving === "failed" ? "save.offline" : saving === "conflict" ? "save.offline" : (`save.${saving}` as const);
  return (
    <header className="top">
      <button
        type="button"
        className="brand"
        onClick={() => void close()}
        aria-label={t("project.all")}
        title={t("project.all")}
      >
        <Brand />
      </button>
      <input
        className="name"
        value={name}
        maxLength={120}
        aria-label={t("project.name")}
        onKeyDown={(event) => {
          event.stopPropagation();
          if (event.key === "Enter") event.currentTarget.blur();
        }}
        onChange={(event) => rename(event.target.value)}
        onBlur={() => !name.trim() && rename(t("project.untitled"))}
      />
      <span className={`saving ${bad ? "bad" : ""}`} role="status">
        {t(text)}
      </span>
      <span className="space" />
      <IconButton icon="undo" label={t("menu.undo")} keys="Ctrl Z" disabled={!past} onClick={undo} />
      <IconButton icon="redo" label={t("menu.redo")} keys="Ctrl Shift Z" disabled={!future} onClick={redo} />
      <span className="wide">
        <IconButton icon="tidy" label={t("menu.tidy")} keys="L" onClick={tidyAll} />
        <IconButton
          icon="command"
          label={t("menu.palette")}
          keys="Ctrl K"
          onClick={() => set({ palette: { at: null, from: null } })}
        />
      </span>
      <ModelMenu />
      <span className="wide">
        <IconButton icon="keys" label={t("menu.help")} keys="?" onClick={() => set({ help: true })} />
      </span>
      <span className="wide">
        <Appearance />
      </span>
      <button
        type="button"
        className="button"
        aria-pressed={panel !== null}
        onClick={() => (panel ? set({ panel: null }) : show("vary"))}
      >
        <Icon name="spark" size={16} />
        {t("menu.ideas")}
      </button>
    </header>
  );
}
