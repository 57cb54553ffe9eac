import { show } from "../state/ideas";
import { set, useStudio, type Panel as Which } from "../state/store";
import { pictureOf, view } from "../state/view";
import { type Key, useTexts } from "../texts";
import { IconButton } from "../ui/IconButton";
import { History } from "./History";
import { Pins } from "./Pins";
import { Search } from "./Search";
import { Sweep } from "./Sweep";
import { Vary } from "./Vary";

const TABS: readonly { which: Exclude<Which, null>; title: Key }[] = [
  { which: "vary", title: "vary.title" },
  { which: "sweep", title: "sweep.title" },
  { which: "pins", title: "pins.title" },
  { which: "history", title: "history.title" },
  { which: "search", title: "search.title" },
];

/** Ideas: what can be seen beside the canvas. */
export function Panel() {
  const t = useTexts();
  const panel = useStudio((state) => state.panel);
  const fixed = useStudio((state) => state.panelNode);
  const chosen = useStudio((state) => (state.selected.size === 1 ? pictureOf([...state.selected][0]!) : null));
  const branched = useStudio((state) => state.branched);
  const wide = useStudio((state) => state.wide);
  const libraries = useStudio((state) => state.libraries.length > 0);
  const node = chosen && chosen !== branched ? chosen : fixed;
  if (!panel) return null;
  return (
    <aside className={`panel ${wide ? "wider" : ""}`} aria-label={t("menu.ideas")}>
      <div className="panel-tabs">
        <div role="tablist" aria-label={t("menu.ideas")}>
          {TABS.filter(({ which }) => which !== "search" || libraries).map(({ which, title }) => (
            <button
              key={which}
              type="button"
              role="tab"
              id={`tab-${which}`}
              className="tab"
              aria-selected={panel === which}
              aria-controls="panel-body"
              onClick={() => show(which, node)}
            >
              {t(title)}
            </button>
          ))}
        </div>
        <IconButton
          icon="wide"
          className="widen"
          label={t("menu.widen")}
          aria-pressed={wide}
          onClick={() => {
            set({ wide: !wide });
            if (node) setTimeout(() => view.focus(node), 50);
          }}
        />
        <IconButton icon="close" label={t("menu.close")} onClick={() => set({ panel: null })} />
      </div>
      <div className="panel-body" id="panel-body" role="tabpanel" aria-labelledby={`tab-${panel}`}>
        {panel === "vary" && <Vary node={node} />}
        {panel === "sweep" && <Sweep node={node} />}
        {panel === "pins" && <Pins />}
        {panel === "history" && <History />}
        {panel === "search" && <Search node={node} />}
      </div>
    </aside>
  );
}
