/** What people do to a project, as functions from one project to the next. */

import { freePlace } from "./layout";
import { rolesOf, type Specs } from "./specs";
import { below } from "./tree";
import {
  inputsOf,
  isEnd,
  isMade,
  type More,
  type NodeId,
  newId,
  type Pin,
  type Project,
  reseedsOf,
  type StudioNode,
} from "./types";
import { fits, refusal } from "./wires";

export interface Spot {
  readonly x: number;
  readonly y: number;
}

export function withNode(project: Project, specs: Specs, node: StudioNode): Project {
  const placed = { ...node, ...freePlace(project, specs, node) };
  return kept({ ...project, nodes: { ...project.nodes, [node.id]: placed } });
}

export function patched(project: Project, id: NodeId, patch: Partial<StudioNode>): Project {
  const node = project.nodes[id];
  return node ? { ...project, nodes: { ...project.nodes, [id]: { ...node, ...patch } as StudioNode } } : project;
}

/** Makes a node of a name in the palette: an operator, or one of the others. */
export function fresh(what: string, specs: Specs, at: Spot): StudioNode {
  const base = { id: newId(), x: Math.round(at.x), y: Math.round(at.y) };
  if (what === "word") return { ...base, kind: "word", text: "" };
  if (what === "text") return { ...base, kind: "text", text: "", options: {}, seed: null };
  if (what === "missing") return { ...base, kind: "missing" };
  if (what === "upscale") return { ...base, kind: "upscale", inputs: [null], enlarge: 2, upscale: null };
  if (what === "search") return { ...base, kind: "search", inputs: [null], library: null };
  if (what === "sum") return { ...base, kind: "sum", inputs: [null, null], weights: [0.5, 0.5] };
  const count = specs[what]?.roles.length ?? 2;
  return {
    ...base,
    kind: "call",
    op: what,
    inputs: Array.from({ length: count }, () => null),
    options: {},
    seed: null,
  };
}

/** Returns the first free input of a node that takes another; null where none does. */
export function freeInput(project: Project, specs: Specs, source: NodeId, target: NodeId): number | null {
  const node = project.nodes[target];
  if (!node) return null;
  const inputs = [...inputsOf(node), null];
  for (const [i, input] of inputs.entries()) {
    if (input === null && !refusal(project, specs, source, target, i)) return i;
  }
  return null;
}

/** Returns the names of operators that a node can be an operand of, and the first input it fits. */
export function takers(specs: Specs, source: StudioNode): { op: string; index: number }[] {
  return Object.values(specs).flatMap((spec) => {
    const index = rolesOf(spec, 0).findIndex((role) => !fits(spec, role, source));
    return index < 0 ? [] : [{ op: spec.name, index }];
  });
}

export function connected(project: Project, source: NodeId, target: NodeId, index: number): Project {
  const node = project.nodes[target];
  if (!node || !("inputs" in node)) return project;
  const inputs = [...node.inputs];
  while (inputs.length <= index) inputs.push(null);
  inputs[index] = source;
  const reseeds = reseedsOf(node).map((seed, i) => (i === index ? null : seed));
  const own = reseeds.length ? { reseeds } : {};
  const more = node.kind === "sum" ? { weights: inputs.map((_, i) => node.weights[i] ?? 0.5) } : {};
  return patched(project, target, { inputs, ...own, ...more } as Partial<StudioNode>);
}

/** Takes a wire out. A sum, and a repeated role, lose the input itself where enough are left. */
export function disconnected(project: Project, specs: Specs, target: NodeId, index: number): Project {
  const node = project.nodes[target];
  if (!node || !("inputs" in node)) return project;
  const fewest = isEnd(node) ? 1 : node.kind === "sum" ? 2 : (specs[node.op]?.roles.length ?? 0);
  const drop = node.inputs.length > fewest;
  const inputs = drop
    ? node.inputs.filter((_, i) => i !== index)
    : node.inputs.map((id, i) => (i === index ? null : id));
  const weights = node.kind === "sum" && drop ? { weights: node.weights.filter((_, i) => i !== index) } : {};
  const seeds = reseedsOf(node);
  const left = drop ? seeds.filter((_, i) => i !== index) : seeds.map((seed, i) => (i === index ? null : seed));
  const own = seeds.length ? { reseeds: left } : {};
  return patched(project, target, { inputs, ...own, ...weights } as Partial<StudioNode>);
}

export function without(project: Project, ids: ReadonlySet<NodeId>): Project {
  const nodes: Record<NodeId, StudioNode> = {};
  for (const [id, node] of Object.entries(project.nodes)) {
    if (ids.has(id)) continue;
    const inputs = inputsOf(node);
    const lost = inputs.some((input) => input !== null && ids.has(input));
    nodes[id] = lost ? ({ ...node, inputs: inputs.map((i) => (i && ids.has(i) ? null : i)) } as StudioNode) : node;
  }
  return kept({ ...project, nodes, active: project.active && ids.has(project.active) ? null : project.active });
}

export function moved(project: Project, spots: ReadonlyMap<NodeId, Spot>): Project {
  const nodes = { ...project.nodes };
  for (const [id, { x, y }] of spots) {
    const node = nodes[id];
    if (node && (node.x !== x || node.y !== y)) nodes[id] = { ...node, x, y };
  }
  return { ...project, nodes };
}

/** Returns nodes as the clipboard holds them: those chosen, and with `whole` all that they are made of. */
export function copied(project: Project, ids: ReadonlySet<NodeId>, whole: boolean): StudioNode[] {
  const all = new Set<NodeId>();
  for (const id of ids) for (const part of whole ? below(project, id) : [id]) all.add(part);
  return [...all].flatMap((id) => project.nodes[id] ?? []);
}

/** Adds copies under new ids; wires to nodes that were not copied stay where these are in the project. */
export function pasted(
  project: Project,
  nodes: readonly StudioNode[],
  shift: Spot,
): { project: Project; ids: NodeId[] } {
  const ids = new Map(nodes.map((node) => [node.id, newId()]));
  const next: Record<NodeId, StudioNode> = { ...project.nodes };
  for (const node of nodes) {
    const id = ids.get(node.id)!;
    const inputs = inputsOf(node).map((i) => (i ? (ids.get(i) ?? (project.nodes[i] ? i : null)) : null));
    const own = "inputs" in node ? { inputs } : {};
    next[id] = { ...node, ...own, id, x: node.x + shift.x, y: node.y + shift.y } as StudioNode;
  }
  return { project: kept({ ...project, nodes: next }), ids: [...ids.values()] };
}

/** Copies what a node is made of, with every call that has no seed at this one: a variation to go on with. */
export function variation(
  project: Project,
  specs: Specs,
  root: NodeId,
  seed: number,
): { project: Project; root: NodeId } {
  const parts = copied(project, new Set([root]), true).filter((node) => isMade(node) && node.kind !== "board");
  if (!parts.length) return { project, root };
  const seeded = parts.map((node) => ("seed" in node && node.seed === null ? { ...node, seed } : node));
  const tops = seeded.map((node) => node.y);
  const shift = { x: 0, y: Math.max(...tops) - Math.min(...tops) + 360 };
  const { project: next, ids } = pasted(project, seeded, shift);
  const copy = ids[seeded.findIndex((node) => node.id === root)]!;
  const node = next.nodes[copy]!;
  const placed = parts.length === 1 ? { ...node, ...freePlace(next, specs, node) } : node;
  return { project: { ...next, nodes: { ...next.nodes, [copy]: placed }, active: copy }, root: copy };
}

/** Sets every call below a node that has no seed to this one. */
export function seeded(project: Project, root: NodeId, seed: number): Project {
  const nodes = { ...project.nodes };
  for (const id of below(project, root)) {
    const node = nodes[id];
    if (node && "seed" in node && (node.seed === null || id === root)) nodes[id] = { ...node, seed };
  }
  return { ...project, nodes };
}

export function withPin(project: Project, pin: Pin): Project {
  const there = project.pinned.some((other) => other.image === pin.image);
  const pinned = there ? project.pinned.filter((other) => other.image !== pin.image) : [...project.pinned, pin];
  return kept({ ...project, pinned });
}

/** Returns the photos that control a rendering (photo:ID, or map:photo:ID). */
function controlsOf(more: More | undefined): string[] {
  const control = more?.rendering?.control;
  return typeof control === "object" && control
    ? Object.values(control).map((one) => String(one).replace(/^map:/, ""))
    : [];
}

/** Returns the project with its lists of what the server is to keep. */
export function kept(project: Project): Project {
  const photos = new Set<string>();
  const add = (photo: string): void => {
    if (photo.startsWith("photo:")) photos.add(photo.slice(6));
  };
  for (const node of Object.values(project.nodes)) {
    if (node.kind === "photo") add(node.photo);
    if (node.kind === "board") for (const { photo } of node.photos) add(photo);
    if ("more" in node) for (const photo of controlsOf(node.more)) add(photo);
  }
  for (const photo of controlsOf(project.settings.more)) add(photo);
  return { ...project, photos: [...photos], pins: project.pinned.map((pin) => pin.image) };
}
