import { useMemo, useRef, useState } from "react";
import { takers } from "../model/edits";
import { hueOf } from "../model/specs";
import { inputsOf, isEnd } from "../model/types";
import { refusal, roleOf } from "../model/wires";
import { show, vary } from "../state/ideas";
import { add, duplicate, join, selectAll, tidyAll } from "../state/nodes";
import { close as closeProject } from "../state/saving";
import { type PaletteAsk, project, redo, select, set, undo, useStudio } from "../state/store";
import { current, operatorTitle, titleOf, view } from "../state/view";
import { named, useTexts } from "../texts";
import { Dialog } from "../ui/Dialog";
import { chooseFiles } from "../ui/files";
import { Icon, type IconName } from "../ui/Icon";
import { switchTheme } from "../ui/theme";

interface Item {
  readonly id: string;
  readonly group: string;
  readonly title: string;
  readonly about?: string;
  readonly icon?: IconName;
  readonly hue?: number;
  readonly keys?: string;
  readonly run: () => void;
}

/** Everything, by typing: operators, operands, commands, and what is on the canvas. */
export function Palette({ ask }: { ask: PaletteAsk }) {
  const t = useTexts();
  const specs = useStudio((state) => state.specs);
  const libraries = useStudio((state) => state.libraries.length > 0);
  const [typed, setTyped] = useState("");
  const [at, setAt] = useState(0);
  const list = useRef<HTMLDivElement>(null);

  const items = useMemo<Item[]>(() => {
    const now = project();
    const from = ask.from ? now.nodes[ask.from] : undefined;
    if (ask.join && from) return targets();
    const wanted = ask.into ? roleOf(specs, now.nodes[ask.into.node]!, ask.into.index)?.kind : undefined;
    const fitting = from ? new Set(takers(specs, from).map(({ op }) => op)) : null;
    const operators: Item[] = Object.values(specs)
      .filter((spec) => (fitting ? fitting.has(spec.name) : wanted !== "text"))
      .map((spec) => ({
        id: spec.name,
        group: t("palette.operators"),
        title: spec.name,
        about: operatorTitle(spec.name),
        hue: hueOf(spec.name),
        run: () => add(spec.name, ask),
      }));
    if (wanted !== "text" && from?.kind !== "word" && !isEnd(from)) {
      operators.push({
        id: "sum",
        group: t("palette.operators"),
        title: t("add.sum"),
        about: t("op.sum"),
        hue: hueOf("sum"),
        run: () => add("sum", ask),
      });
    }
    const ends: Item[] = (["upscale", "search"] as const).map((what) => ({
      id: what,
      group: t("palette.ends"),
      title: t(`add.${what}`),
      about: t(`op.${what}`),
      icon: what,
      run: () => add(what, ask),
    }));
    const takes = from && from.kind !== "word" && from.kind !== "missing" && !isEnd(from);
    if (from) return takes ? [...operators, ...ends] : operators;
    const operands: Item[] = [
      {
        id: "photo",
        group: t("palette.operands"),
        title: t("add.photo"),
        about: t("op.photo"),
        icon: "photo",
        run: () => chooseFiles(),
      },
      {
        id: "word",
        group: t("palette.operands"),
        title: t("add.word"),
        about: t("op.word"),
        icon: "word",
        run: () => add("word", ask),
      },
      {
        id: "text",
        group: t("palette.operands"),
        title: t("add.text"),
        about: t("op.text"),
        icon: "text",
        run: () => add("text", ask),
      },
      {
        id: "missing",
        group: t("palette.operands"),
        title: t("add.missing"),
        about: t("op.missing"),
        icon: "dice",
        run: () => add("missing", ask),
      },
    ];
    if (ask.into) {
      const only =
        wanted === "text" ? ["word"] : wanted === "image" ? ["text", "missing"] : ["word", "text", "missing"];
      return [...operands.filter((one) => only.includes(one.id)), ...operators];
    }
    const command = (id: string, title: string, icon: IconName, run: () => void, keys?: string): Item => ({
      id,
      group: t("palette.commands"),
      title,
      icon,
      run,
      ...(keys ? { keys } : {}),
    });
    const commands: Item[] = [
      command("vary", t("node.vary"), "grid", () => vary(), "V"),
      command("sweep", t("sweep.title"), "tune", () => show("sweep")),
      command("pins", t("pins.title"), "pin", () => show("pins")),
      command("history", t("history.title"), "again", () => show("history")),
      ...(libraries ? [command("similar", t("search.title"), "search", () => show("search"))] : []),
      command("connect", t("keys.connect"), "plus", askJoin, "C"),
      command("tidy", t("menu.tidy"), "tidy", tidyAll, "L"),
      command("fit", t("canvas.fit"), "fit", () => view.fit(), "1"),
      command("undo", t("menu.undo"), "undo", undo, "Ctrl Z"),
      command("redo", t("menu.redo"), "redo", redo, "Ctrl Shift Z"),
      command("duplicate", t("node.copy"), "copy", () => duplicate(), "Ctrl D"),
      command("all", t("keys.all"), "board", selectAll, "Ctrl A"),
      command("line", t("keys.line"), "text", () => document.getElementById("expression")?.focus(), "E"),
      command("theme", t("menu.theme"), "moon", switchTheme),
      command("keys", t("keys.title"), "keys", () => set({ help: true }), "?"),
      command("close", t("project.all"), "back", () => void closeProject()),
    ];
    const pictures: Item[] = Object.values(now.nodes).map((node) => ({
      id: node.id,
      group: t("palette.pictures"),
      title: titleOf(node),
      icon: node.kind === "photo" ? "photo" : "board",
      run: () => {
        select([node.id]);
        view.fit([node.id]);
      },
    }));
    return [...operators, ...operands, ...ends, ...commands, ...pictures];

    function targets(): Item[] {
      return Object.values(now.nodes).flatMap((node) =>
        [...inputsOf(node), ...(node.kind === "sum" ? [null] : [])].flatMap((input, i) => {
          if (refusal(now, specs, from!.id, node.id, i)) return [];
          const role = named("role", roleOf(specs, node, i)?.name ?? "");
          const held = input ? now.nodes[input] : undefined;
          return [
            {
              id: `${node.id}:${i}`,
              group: titleOf(node),
              title: `${titleOf(node)} · ${role}`,
              ...(held ? { about: titleOf(held) } : {}),
              icon: "plus" as const,
              run: () => {
                join(from!.id, node.id, i);
                select([node.id]);
              },
            },
          ];
        }),
      );
    }
  }, [ask, specs, libraries, t]);

  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  const found = items.filter((item) =>
    words.every((word) => `${item.title} ${item.about ?? ""} ${item.id}`.toLowerCase().includes(word)),
  );
  const chosen = Math.min(at, found.length - 1);
  const close = (): void => set({ palette: null });
  const go = (item: Item | undefined): void => {
    if (!item) return;
    close();
    item.run();
  };
  const step = (by: number): void => {
    const next = (chosen + by + found.length) % Math.max(1, found.length);
    setAt(next);
    requestAnimationFrame(() =>
      list.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" }),
    );
  };
  const from = ask.from ? project().nodes[ask.from] : undefined;
  const title =
    ask.join && from ? t("connect.title", { name: titleOf(from) }) : from ? t("palette.from") : t("palette.label");
  return (
    <Dialog title={title} bare onClose={close} className="palette">
      <input
        className="palette-field"
        autoFocus
        value={typed}
        placeholder={from ? title : t("palette.placeholder")}
        role="combobox"
        aria-label={title}
        aria-expanded="true"
        aria-controls="palette-list"
        aria-activedescendant={found[chosen] ? `palette-${found[chosen].id}` : undefined}
        onChange={(event) => {
          setTyped(event.target.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          event.stopPropagation();
          if (event.key === "ArrowDown") step(1);
          else if (event.key === "ArrowUp") step(-1);
          else if (event.key === "Enter") go(found[chosen]);
          else return;
          event.preventDefault();
        }}
      />
      <div className="palette-list" id="palette-list" role="listbox" aria-label={title} ref={list}>
        {!found.length && <p className="empty">{t(ask.join ? "connect.none" : "palette.none")}</p>}
        {found.map((item, i) => (
          <div key={item.id} role="presentation">
            {item.group !== found[i - 1]?.group && !ask.join && <div className="group">{item.group}</div>}
            {/* biome-ignore lint/a11y/useKeyWithClickEvents: its keys are those of the field */}
            {/* biome-ignore lint/a11y/useFocusableInteractive: the field has the focus */}
            <div
              role="option"
              id={`palette-${item.id}`}
              aria-selected={i === chosen}
              className={`menu-item ${item.hue === undefined ? "" : `hue-${item.hue}`}`}
              onPointerMove={() => setAt(i)}
              onClick={() => go(item)}
            >
              {item.icon ? <Icon name={item.icon} size={16} /> : <span className="dot" style={{ margin: "0 3px" }} />}
              <span>
                {item.title}
                {item.about && <small>{item.about}</small>}
              </span>
              {item.keys && (
                <span className="end">
                  {item.keys.split(" ").map((key) => (
                    <kbd key={key}>{key}</kbd>
                  ))}
                </span>
              )}
            </div>
          </div>
        ))}
      </div>
    </Dialog>
  );
}

/** Asks what the chosen node is to be joined to. */
export function askJoin(): void {
  const from = current();
  if (from) set({ palette: { at: null, from, join: true } });
}
