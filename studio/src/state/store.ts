/** The state of the page: the project with its history, what the server has, and what is open on the screen. */

import { create } from "zustand";
import type { Example, Model, Need, Picture, Recipe } from "../api/types";
import { changed, type History, redone, settled, started, undone } from "../model/history";
import { applying } from "../model/recipes";
import type { Specs } from "../model/specs";
import { byId, byName, textOf, type Unready, unready } from "../model/text";
import { EMPTY, isEnd, type More, type NodeId, type Project } from "../model/types";

export type Saving = "saved" | "waiting" | "saving" | "failed" | "conflict";
export type Panel = "vary" | "sweep" | "pins" | "history" | "search" | null;

/** An image that stands, and what made it. */
export interface Made {
  readonly image: string;
  readonly job: string;
  readonly seed: number;
  readonly recipe: Recipe;
}

export interface Toast {
  readonly id: number;
  readonly text: string;
  readonly kind: "note" | "error";
  readonly act?: { readonly label: string; readonly run: () => void };
}

export interface PaletteAsk {
  readonly at: { readonly x: number; readonly y: number } | null; // on the canvas
  readonly from: NodeId | null; // only what takes this node
  readonly into?: { readonly node: NodeId; readonly index: number } | undefined; // what is made goes in there
  readonly join?: boolean; // lists inputs on the canvas that take `from`, instead of what can be added
}

interface State {
  // the project
  readonly id: string | null;
  readonly name: string;
  readonly revision: number;
  readonly saving: Saving;
  readonly history: History<Project>;
  readonly selected: ReadonlySet<NodeId>;
  // the server
  readonly reached: boolean | null; // null: not yet known
  readonly locked: boolean; // wants its token
  readonly specs: Specs;
  readonly models: readonly Model[];
  readonly needs: readonly Need[];
  readonly libraries: readonly string[];
  readonly examples: readonly Example[] | null;
  // the screen
  readonly panel: Panel;
  readonly panelNode: NodeId | null;
  readonly wide: boolean; // the panel shows sixteen pictures at once
  readonly branched: NodeId | null; // made of a variation: the panel stays with what it was made from
  readonly palette: PaletteAsk | null;
  readonly viewed: Made | null;
  readonly among: readonly Made[]; // the pictures beside the viewed one, through which its arrows lead
  readonly compared: readonly Made[] | null;
  readonly help: boolean;
  readonly toasts: readonly Toast[];
  readonly uploading: number;
}

export const useStudio = create<State>(() => ({
  id: null,
  name: "",
  revision: 0,
  saving: "saved",
  history: started(EMPTY),
  selected: new Set(),
  reached: null,
  locked: false,
  specs: {},
  models: [],
  needs: [],
  libraries: [],
  examples: null,
  panel: null,
  panelNode: null,
  wide: false,
  branched: null,
  palette: null,
  viewed: null,
  among: [],
  compared: null,
  help: false,
  toasts: [],
  uploading: 0,
}));

export const set = useStudio.setState;
export const get = useStudio.getState;
export const project = (): Project => get().history.now;
export const useProject = <T>(pick: (project: Project) => T): T => useStudio((state) => pick(state.history.now));

/** Changes the project; changes in a row with the same tag are one step of undo. */
export function edit(change: (project: Project) => Project, tag: string | null = null): void {
  set(({ history }) => ({ history: changed(history, change(history.now), tag) }));
}

/** Makes a node the one whose expression stands in the line; that is no step of undo. */
export function activate(id: NodeId): void {
  set(({ history }) => {
    const kind = history.now.nodes[id]?.kind;
    if (!kind || kind === "word" || kind === "missing" || history.now.active === id) return {};
    return { history: { ...history, now: { ...history.now, active: id } } };
  });
}

export const settle = (): void => set(({ history }) => ({ history: settled(history) }));
export const undo = (): void => set(({ history }) => ({ history: undone(history) }));
export const redo = (): void => set(({ history }) => ({ history: redone(history) }));

export function select(ids: Iterable<NodeId>): void {
  set({ selected: new Set(ids) });
}

let toasts = 0;

export function tell(text: string, kind: Toast["kind"] = "note", act?: Toast["act"]): void {
  toasts += 1;
  const toast: Toast = { id: toasts, text, kind, ...(act ? { act } : {}) };
  set((state) => ({ toasts: [...state.toasts.slice(-2), toast] }));
  setTimeout(() => hush(toast.id), kind === "error" ? 9000 : 5000);
}

export const hush = (id: number): void => set((state) => ({ toasts: state.toasts.filter((toast) => toast.id !== id) }));

// --- expressions, worked out once for each state of the project ------------------------------------

interface Worked {
  readonly text: Map<NodeId, string>;
  readonly ready: Map<NodeId, Unready | null>;
}
const worked = new WeakMap<object, WeakMap<object, Worked>>();

function work(now: Project, specs: Specs): Worked {
  const bySpecs = worked.get(now.nodes) ?? new WeakMap<object, Worked>();
  worked.set(now.nodes, bySpecs);
  const found = bySpecs.get(specs) ?? { text: new Map(), ready: new Map() };
  bySpecs.set(specs, found);
  return found;
}

/** Returns what a map holds for a node, worked out the first time. */
function once<T>(map: Map<NodeId, T>, id: NodeId, make: () => T): T {
  if (!map.has(id)) map.set(id, make());
  return map.get(id) as T;
}

/** Returns the expression of a node as the server takes it. */
export function expressionOf(now: Project, specs: Specs, id: NodeId): string {
  return once(work(now, specs).text, id, () => textOf(now, id, byId));
}

export function unreadyOf(now: Project, specs: Specs, id: NodeId): Unready | null {
  return once(work(now, specs).ready, id, () => unready(now, specs, id));
}

export const readableOf = (now: Project, id: NodeId): string => textOf(now, id, byName(now));

/** Returns the seed of a node's picture: its own, else the project's. */
export function seedOf(now: Project, id: NodeId): number {
  const node = now.nodes[id];
  if (isEnd(node) && node.inputs[0]) return seedOf(now, node.inputs[0]);
  return (node && "seed" in node ? node.seed : null) ?? now.settings.seed;
}

/** Returns what a node's recipe says beside its expression: its own settings, else the project's. */
export function moreOf(now: Project, id: NodeId): More {
  const node = now.nodes[id];
  if (isEnd(node)) {
    const input = node.inputs[0];
    const below = input ? moreOf(now, input) : {};
    if (node.kind !== "upscale") return below;
    const { enlarge, upscale } = node;
    const sizes = { ...(enlarge > 1 ? { enlarge } : {}), ...(upscale === null ? {} : { upscale }) };
    const { enlarge: _, upscale: __, ...rendering } = below.rendering ?? {};
    return { ...below, rendering: { ...rendering, ...sizes } };
  }
  const { model, enlarge, more = {} } = now.settings;
  const own = node && "more" in node ? node.more : undefined;
  const rendering = { ...more.rendering, ...(enlarge > 1 ? { enlarge } : {}) };
  const all = { ...more, rendering, loading: { ...more.loading, ...(model ? { model } : {}) } };
  return applying(own ?? all, now, id);
}

/** Returns the recipe of a node's picture: of its own seed, unless others are given. */
export function recipeOf(now: Project, specs: Specs, id: NodeId, seeds: readonly number[] = [seedOf(now, id)]): Recipe {
  const filled = Object.entries(moreOf(now, id)).filter(([, part]) => part && Object.keys(part).length);
  return { expression: expressionOf(now, specs, id), seeds, ...Object.fromEntries(filled) };
}

export const madeOf = (picture: Picture, job: string, seeds: readonly number[], recipe: Recipe): Made => {
  const seed = seeds[picture.number] ?? seeds[0] ?? 0;
  return { image: picture.id, job, seed, recipe: { ...recipe, seeds: [seed] } };
};
