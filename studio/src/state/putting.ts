/** Puts expressions on the canvas: where their nodes stand, and with which settings. */

import type { Recipe } from "../api/types";
import { connected, copied, fresh, kept, patched, type Spot, withNode } from "../model/edits";
import { freePlace, tidied } from "../model/layout";
import { type Said, said, sameMore } from "../model/recipes";
import type { Specs } from "../model/specs";
import { photoNames } from "../model/text";
import { withTree } from "../model/tree";
import {
  inputsOf,
  isEnd,
  isMade,
  type More,
  type NodeId,
  type Project,
  type StudioNode,
  type Tree,
} from "../model/types";
import { edit, get, moreOf, select } from "./store";
import { view } from "./view";

export type Names = Readonly<Record<string, string>>;

/** Puts an expression on the canvas, tidied, below what is there; or in place of what `old` was made of.

What a recipe says beside (seed, steps, size, ...) becomes the canvas's own where nothing else is there, and that of its
nodes where something is; what it enlarges ends in an upscaler. */
export function put(recipe: Recipe, tree: Tree, old: NodeId | null, names: Names = {}): NodeId {
  const { specs } = get();
  let root = "";
  edit((now) => {
    const end = old && isEnd(now.nodes[old]) ? old : null;
    const body = end ? (inputsOf(now.nodes[end]!)[0] ?? null) : old;
    const bare = end ? patched(now, end, { inputs: [null] }) : now;
    const read = withTree(bare, tree, new Map([...Object.entries(names), ...photoNames(now)]), body);
    root = read.root;
    let next = end ? { ...connected(read.project, root, end, 0), active: end } : read.project;
    const parts = new Set(reached(next, root));
    const still = [root, old ?? "", ...parts].find((id) => now.nodes[id] && parts.has(id));
    if (read.made.length) next = placed(tidied(next, specs, parts, still), now, read.made, specs);
    if (!still) next = apart(next, now, parts);
    if (old) return kept(alike(next, read.made, body ? now.nodes[body] : undefined));
    if (!recipe.seeds) return kept(next); // a line that was typed
    const told = said(recipe);
    next = asSaid(next, now, parts, told);
    if (told.larger) {
      const node = {
        ...fresh("upscale", specs, { x: 0, y: 0 }),
        ...told.larger,
        ...besideOf(next, root),
      } as StudioNode;
      next = { ...connected(withNode(next, specs, node), root, node.id, 0), active: node.id };
      root = node.id;
    }
    return kept(next);
  });
  select([root]);
  requestAnimationFrame(() => view.focus(root, !old));
  return root;
}

const besideOf = (now: Project, id: NodeId): Spot => ({ x: now.nodes[id]!.x + 320, y: now.nodes[id]!.y });

function asSaid(next: Project, before: Project, parts: ReadonlySet<NodeId>, { seed, more }: Said): Project {
  const usual = get().models.find((one) => one.default)?.name;
  const { model = null, ...loading } = { ...more.loading } as { model?: string };
  const named = model === usual ? null : model;
  const own: More = { ...more, loading: named ? { ...loading, model: named } : loading };
  if (!Object.keys(before.nodes).length) {
    return { ...next, settings: { seed, model: named, enlarge: 1, more: { ...own, loading } } };
  }
  const nodes = { ...next.nodes };
  for (const id of parts) {
    const node = nodes[id];
    if (!node || before.nodes[id] || !isMade(node)) continue;
    const seeded = "seed" in node && node.seed === null && seed !== next.settings.seed ? { seed } : {};
    const settings = isEnd(node) || sameMore(moreOf(next, id), own) ? {} : { more: own };
    nodes[id] = { ...node, ...seeded, ...settings } as StudioNode;
  }
  return { ...next, nodes };
}

/** Gives nodes that a line has made the settings of the picture that was edited. */
function alike(next: Project, made: readonly NodeId[], old: StudioNode | undefined): Project {
  const more = old && "more" in old ? old.more : undefined;
  if (!more) return next;
  const nodes = { ...next.nodes };
  for (const id of made) if (isMade(nodes[id]) && !isEnd(nodes[id])) nodes[id] = { ...nodes[id], more } as StudioNode;
  return { ...next, nodes };
}

function reached(now: Project, root: NodeId): NodeId[] {
  return copied(now, new Set([root]), true).map((node) => node.id);
}

/** Returns a tidied project in which what was there stands where it stood, and what is new covers nothing. */
function placed(next: Project, before: Project, made: readonly NodeId[], specs: Specs): Project {
  const nodes = { ...next.nodes };
  for (const [id, node] of Object.entries(before.nodes))
    if (nodes[id]) nodes[id] = { ...nodes[id], x: node.x, y: node.y };
  for (const id of made) {
    const node = nodes[id];
    if (node) nodes[id] = { ...node, ...freePlace({ ...next, nodes }, specs, node) };
  }
  return { ...next, nodes };
}

/** Moves new parts below all that was there before. */
function apart(now: Project, before: Project, parts: ReadonlySet<NodeId>): Project {
  const old = Object.values(before.nodes);
  if (!old.length) return now;
  const own = [...parts].flatMap((id) => (before.nodes[id] ? [] : (now.nodes[id] ?? [])));
  if (!own.length) return now;
  const dy = Math.max(...old.map((n) => n.y)) + 400 - Math.min(...own.map((n) => n.y));
  const dx = Math.min(...old.map((n) => n.x)) - Math.min(...own.map((n) => n.x));
  const nodes = { ...now.nodes };
  for (const node of own) nodes[node.id] = { ...node, x: node.x + dx, y: node.y + dy };
  return { ...now, nodes };
}
