/** What people do, from wherever they do it: menus, keys, the palette, drops. */

import { api } from "../api/client";
import type { Recipe } from "../api/types";
import {
  connected,
  copied,
  freeInput,
  fresh,
  kept,
  pasted,
  patched,
  type Spot,
  variation,
  withNode,
  without,
  withPin,
} from "../model/edits";
import { freePlace, tidied } from "../model/layout";
import { hasRecipe } from "../model/png";
import { EDGE, PICTURE } from "../model/size";
import type { Specs } from "../model/specs";
import { photoNames } from "../model/text";
import { withTree } from "../model/tree";
import {
  EMPTY,
  inputsOf,
  isEnd,
  isMade,
  type NodeId,
  newId,
  type PhotoNode,
  type Project,
  type StudioNode,
  type Tree,
} from "../model/types";
import { named, t } from "../texts";
import { run } from "./runs";
import { attempt, create, open } from "./saving";
import {
  edit,
  expressionOf,
  get,
  type Made,
  type PaletteAsk,
  type Panel,
  project,
  readableOf,
  recipeOf,
  select,
  set,
  tell,
  unreadyOf,
} from "./store";

/** Where new nodes go unless somebody says it; the canvas keeps it at the middle of what is seen. */
export const view = {
  middle: (): Spot => ({ x: 0, y: 0 }),
  fit: (_ids?: readonly NodeId[]): void => undefined,
  focus: (_id: NodeId): void => undefined,
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

// --- files ---------------------------------------------------------------------------------------------

const PHOTO = /\.(png|jpe?g|webp|gif|bmp|tiff?|heic|heif|avif)$/i;

/** Takes in what was dropped, pasted or chosen: photos, pictures with a recipe inside, projects. */
export async function addFiles(files: readonly File[], at?: Spot): Promise<void> {
  const packed = files.find((file) => file.name.toLowerCase().endsWith(".pops"));
  if (packed) {
    const made = await attempt(() => api.readProjectFile(packed, packed.name));
    if (made) await attempt(() => open(made.id));
    return;
  }
  const photos = files.filter((file) => file.type.startsWith("image/") || PHOTO.test(file.name));
  for (const file of files) if (!photos.includes(file)) tell(t("drop.notphoto", { name: file.name }), "error");
  if (!photos.length) return;
  if (!get().id && !(await ready(photos))) return;
  set((state) => ({ uploading: state.uploading + photos.length }));
  let spot = at ?? beside();
  const made: NodeId[] = [];
  for (const file of photos) {
    const id = await attempt(() => addOne(file, spot));
    if (id) made.push(id);
    spot = { x: spot.x, y: spot.y + PICTURE + 80 };
    set((state) => ({ uploading: state.uploading - 1 }));
  }
  select(made);
  if (!at) requestAnimationFrame(() => view.fit());
}

async function ready(photos: readonly File[]): Promise<boolean> {
  const name = photos[0]!.name.replace(/\.[^.]+$/, "").slice(0, 60) || t("project.untitled");
  await attempt(() => create(name, EMPTY));
  return get().id !== null;
}

/** Returns a place to the left of what is there: where operands stand. */
function beside(): Spot {
  const nodes = Object.values(project().nodes);
  if (!nodes.length) return { x: 0, y: 0 };
  const photos = nodes.filter((node) => node.kind === "photo");
  const among = photos.length ? photos : nodes;
  return { x: Math.min(...among.map((node) => node.x)), y: Math.max(...among.map((node) => node.y)) + PICTURE + 80 };
}

async function addOne(file: File, at: Spot): Promise<NodeId> {
  const name = file.name || "photo.png";
  if (await hasRecipe(file)) {
    const opened = await api.open(file, name);
    const root = put(opened.recipe, opened.tree, null, opened.missing.length ? {} : await namesIn(opened.recipe));
    if (opened.missing.length) tell(t("drop.missing", { names: opened.missing.join(", ") }), "error");
    else tell(t("drop.recipe"));
    return root;
  }
  const photo = await api.upload(file, name);
  const lost = Object.values(project().nodes).find((node) => node.kind === "photo" && node.photo === name);
  if (lost) {
    edit((now) => patched(now, lost.id, { photo: `photo:${photo.id}`, name } as Partial<StudioNode>));
    return lost.id;
  }
  const node: PhotoNode = { kind: "photo", id: newId(), x: at.x - EDGE, y: at.y, photo: `photo:${photo.id}`, name };
  edit((now) => withNode(now, get().specs, node));
  return node.id;
}

type Names = Readonly<Record<string, string>>;

/** Puts an expression on the canvas, tidied, below what is there; or in place of what `old` was made of.

A recipe's seed becomes the canvas's own where nothing else is there, and is written to its calls where something is. */
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
    if (!old) next = atSeed(next, now, parts, recipe.seeds?.[0] ?? 0);
    return kept(next);
  });
  select([root]);
  requestAnimationFrame(() => (old ? view.focus(root) : view.fit()));
  return root;
}

/** Returns how the photos of a recipe are called: its job knows, which the canvas wants anyway. */
async function namesIn(recipe: Recipe): Promise<Names> {
  const names = await attempt(async () => {
    const { id } = await api.queue(recipe, { reuse: true, quick: true });
    return (await api.job(id)).names;
  });
  return names ?? {};
}

function atSeed(next: Project, before: Project, parts: ReadonlySet<NodeId>, seed: number): Project {
  if (!Object.keys(before.nodes).length) return { ...next, settings: { ...next.settings, seed } };
  if (seed === next.settings.seed) return next;
  const nodes = { ...next.nodes };
  for (const id of parts) {
    const node = nodes[id];
    if (node && !before.nodes[id] && "seed" in node && node.seed === null) nodes[id] = { ...node, seed };
  }
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

// --- nodes ---------------------------------------------------------------------------------------------

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
  const node = fresh(what, specs, at);
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

// --- clipboard: text that is an expression elsewhere, and whole nodes here -----------------------------------

const MARK = "pops-nodes:";

export function copyChosen(event: ClipboardEvent, cut: boolean): void {
  const { selected } = get();
  if (!selected.size || !event.clipboardData) return;
  const nodes = copied(project(), selected, true);
  const only = selected.size === 1 ? [...selected][0]! : null;
  event.clipboardData.setData("text/plain", only ? readableOf(project(), only) : "");
  event.clipboardData.setData("application/json", MARK + JSON.stringify(nodes));
  event.preventDefault();
  if (cut) removeChosen();
}

export function pasteAny(event: ClipboardEvent): void {
  const data = event.clipboardData;
  if (!data) return;
  const files = [...data.files];
  if (files.length) {
    event.preventDefault();
    void addFiles(files, get().id ? view.middle() : undefined);
    return;
  }
  const json = data.getData("application/json");
  if (json.startsWith(MARK) && get().id) {
    event.preventDefault();
    pasteNodes(JSON.parse(json.slice(MARK.length)) as StudioNode[]);
  }
}

function pasteNodes(nodes: readonly StudioNode[]): void {
  let made: NodeId[] = [];
  edit((now) => {
    const { project: next, ids } = pasted(now, nodes, { x: 48, y: 48 });
    made = ids;
    return next;
  });
  select(made);
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

// --- ideas ---------------------------------------------------------------------------------------------

/** Returns the node that commands without one of their own are about. */
export function current(): NodeId | null {
  const { selected, panelNode } = get();
  const [first] = selected;
  const now = project();
  return first && now.nodes[first] ? first : panelNode && now.nodes[panelNode] ? panelNode : now.active;
}

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

/** Opens what made an image on the canvas: its whole tree. */
export async function openRecipe(recipe: Recipe, title = t("project.untitled")): Promise<NodeId | undefined> {
  const parsed = await attempt(() => api.parse({ text: recipe.expression }, project().settings.model));
  if (!parsed) return undefined;
  const names = await namesIn(recipe);
  if (!get().id) await attempt(() => create(title, EMPTY));
  return put(recipe, parsed.tree, null, names);
}

/** Takes images of the server as photos, and makes them one node: their mean. */
export async function meanOf(images: readonly { image: string; label: string }[]): Promise<void> {
  const photos = await attempt(() =>
    Promise.all(
      images.map(async ({ image }, i) => {
        const blob = await (await fetch(`/api/v1/images/${image}?recipe=0`)).blob();
        const name = `pinned-${i + 1}.png`;
        const { id } = await api.upload(blob, name);
        return { photo: `photo:${id}`, name };
      }),
    ),
  );
  if (!photos) return;
  const node: StudioNode = { kind: "board", id: newId(), ...view.middle(), name: "", photos };
  edit((now) => ({ ...withNode(now, get().specs, node), active: node.id }));
  select([node.id]);
}

export function expressionHere(id: NodeId): string {
  return expressionOf(project(), get().specs, id);
}

export const operatorTitle = (op: string): string => named("op", op, get().specs[op]?.summary ?? op);
