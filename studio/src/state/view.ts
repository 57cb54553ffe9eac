/** What is seen, and what it is called. */

import type { Spot } from "../model/edits";
import { photoNames } from "../model/text";
import type { NodeId, StudioNode } from "../model/types";
import { named, t } from "../texts";
import { get, project } from "./store";

/** Where new nodes go unless somebody says it; the canvas keeps it at the middle of what is seen. */
export const view = {
  middle: (): Spot => ({ x: 0, y: 0 }),
  fit: (_ids?: readonly NodeId[]): void => undefined,
  focus: (_id: NodeId, _always?: boolean): void => undefined,
};

export function titleOf(node: StudioNode): string {
  switch (node.kind) {
    case "photo":
      return node.name;
    case "call":
      return node.op;
    case "board":
      return node.name || t("node.board", { count: node.photos.length });
    default:
      return t(`node.${node.kind}.title`);
  }
}

export const operatorTitle = (op: string): string => named("op", op, get().specs[op]?.summary ?? op);

/** Returns the node whose picture is meant: of a search, what it looks for. */
export function pictureOf(id: NodeId): NodeId {
  const node = project().nodes[id];
  return (node?.kind === "search" && node.inputs[0]) || id;
}

/** Returns the node that commands without one of their own are about. */
export function current(): NodeId | null {
  const { selected, panelNode } = get();
  const [one] = selected;
  const first = one ? pictureOf(one) : null;
  const now = project();
  return first && now.nodes[first] ? first : panelNode && now.nodes[panelNode] ? panelNode : now.active;
}

/** Returns an expression with the photos' names of this project. */
export function readable(expression: string): string {
  const names = photoNames(project());
  return expression.replace(/photo:[0-9a-f]{32}/g, (id) => names.get(id) ?? `${id.slice(6, 12)}…`);
}
