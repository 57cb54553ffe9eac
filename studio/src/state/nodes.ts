/** What people do to nodes, from wherever they do it: menus, keys, the palette, drops. */

import { connected, copied, freeInput, fresh, pasted, withNode, without } from "../model/edits";
import { freePlace, tidied } from "../model/layout";
import { type CallNode, isEnd, isMade, type NodeId, type StudioNode } from "../model/types";
import { edit, get, type PaletteAsk, project, select } from "./store";
import { view } from "./view";

/** Adds a node of this kind; joined to what was asked for, else to what is chosen, where that fits. */
export function add(what: string, ask: PaletteAsk | null = null): void {
  const { specs, selected } = get();
  const chosen = ask?.from ?? (selected.size ? [...selected] : null);
  const sources = (typeof chosen === "string" ? [chosen] : (chosen ?? [])).filter((id) => project().nodes[id]);
  const right = sources.map((id) => project().nodes[id]!);
  const at =
    ask?.at ??
    (right.length
      ? { x: Math.max(...right.map((n) => n.x)) + 320, y: right.reduce((sum, n) => sum + n.y, 0) / right.length }
      : view.middle());
  const like = right.find((one) => "more" in one && one.more);
  const bare = fresh(what, specs, at);
  const node = like && isMade(bare) && !isEnd(bare) ? ({ ...bare, more: (like as CallNode).more } as StudioNode) : bare;
  edit((now) => {
    let next = withNode(now, specs, node);
    for (const id of sources) {
      const index = freeInput(next, specs, id, node.id);
      if (index !== null) next = connected(next, id, node.id, index);
    }
    const into = ask?.into;
    if (into) next = connected(next, node.id, into.node, into.index);
    const told = into || node.kind === "word" || node.kind === "missing";
    return { ...next, active: told ? next.active : node.id };
  });
  select([node.id]);
  requestAnimationFrame(() => view.focus(node.id));
}

export function join(source: NodeId, target: NodeId, index: number): void {
  edit((now) => ({ ...connected(now, source, target, index), active: target }));
}

export function removeChosen(): void {
  const { selected } = get();
  if (!selected.size) return;
  edit((now) => without(now, selected));
  select([]);
}

export function tidyAll(): void {
  edit((now) => tidied(now, get().specs));
  requestAnimationFrame(() => view.fit());
}

export function selectAll(): void {
  select(Object.keys(project().nodes));
}

export function nudge(dx: number, dy: number): void {
  const { selected } = get();
  edit((now) => {
    const nodes = { ...now.nodes };
    for (const id of selected) {
      const node = nodes[id];
      if (node) nodes[id] = { ...node, x: node.x + dx, y: node.y + dy };
    }
    return { ...now, nodes };
  }, "nudge");
}

export function duplicate(id?: NodeId): void {
  const { selected, specs } = get();
  const chosen = id ? new Set([id]) : selected;
  if (!chosen.size) return;
  let made: NodeId[] = [];
  edit((now) => {
    const { project: next, ids } = pasted(now, copied(now, chosen, false), { x: 40, y: 40 });
    made = ids;
    const nodes = { ...next.nodes };
    for (const one of ids) nodes[one] = { ...nodes[one]!, ...freePlace({ ...next, nodes }, specs, nodes[one]!) };
    return { ...next, nodes };
  });
  select(made);
}
