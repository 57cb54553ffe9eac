import { variation, withPin } from "../model/edits";
import { isMade, type NodeId } from "../model/types";
import { t } from "../texts";
import { run } from "./runs";
import { edit, get, type Made, type Panel, project, recipeOf, select, set, tell, unreadyOf } from "./store";
import { current, view } from "./view";

export function show(panel: Panel, node: NodeId | null = current()): void {
  const opens = get().panel === null;
  set({ panel, panelNode: node });
  if (opens && node) setTimeout(() => view.focus(node), 50); // the canvas has become narrower
}

export const SHEET = 16; // takes on a picture

/** Shows a node's variations, and has the first ones made. */
export function vary(node: NodeId | null = current()): void {
  show("vary", node);
  const now = project();
  const { specs } = get();
  if (!node || !isMade(now.nodes[node]) || unreadyOf(now, specs, node)) return;
  const seeds = Array.from({ length: SHEET }, (_, i) => i);
  run(recipeOf(now, specs, node, seeds));
}

export function pin(made: Made): void {
  const label = made.recipe.expression;
  const there = project().pinned.some((other) => other.image === made.image);
  edit((now) => withPin(now, { image: made.image, job: made.job, seed: made.seed, label }));
  if (!there) tell(t("pin.done"));
}

/** Puts a variation of a node beside it, with its seed fixed. */
export function branch(root: NodeId, seed: number): void {
  let made = root;
  edit((now) => {
    const { project: next, root: copy } = variation(now, get().specs, root, seed);
    made = copy;
    return next;
  });
  set({ panelNode: root, branched: made });
  select([made]);
  requestAnimationFrame(() => view.focus(made));
}
