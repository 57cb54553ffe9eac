/** Tidies the canvas: operands to the left of what is made of them. */

import { Graph, layout } from "@dagrejs/dagre";
import { heightOf, WIDTH } from "./size";
import type { Specs } from "./specs";
import { inputsOf, isEnd, type NodeId, type Project, type StudioNode } from "./types";

const GRID = 8;

/** Returns the project with the named nodes (all, unless given) in columns. The anchor stays where it is. */
export function tidied(project: Project, specs: Specs, only?: ReadonlySet<NodeId>, anchor?: NodeId): Project {
  const chosen = Object.values(project.nodes).filter((node) => !only || only.has(node.id));
  if (!chosen.length) return project;
  const graph = new Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 40, ranksep: 96, marginx: 0, marginy: 0 });
  graph.setDefaultEdgeLabel(() => ({}));
  const known = new Set(chosen.map((node) => node.id));
  const ordered = inOrder(project, known);
  for (const node of ordered) graph.setNode(node.id, { width: WIDTH, height: heightOf(node, specs) });
  for (const node of ordered) {
    for (const input of inputsOf(node)) if (input && graph.hasNode(input)) graph.setEdge(input, node.id);
  }
  layout(graph, { disableOptimalOrderHeuristic: isForest(chosen, known) });
  const spot = (node: StudioNode): { x: number; y: number } => {
    const at = graph.node(node.id) as { x: number; y: number; width: number; height: number };
    return { x: at.x - at.width / 2, y: at.y - at.height / 2 };
  };
  const fixed = anchor ? project.nodes[anchor] : undefined;
  const from = fixed && graph.hasNode(fixed.id) ? spot(fixed) : null;
  const shift = fixed && from ? { x: fixed.x - from.x, y: fixed.y - from.y } : corner(chosen, spot);
  const nodes = { ...project.nodes };
  for (const node of chosen) {
    const at = spot(node);
    const round = (value: number): number => Math.round(value / GRID) * GRID;
    nodes[node.id] = { ...node, x: round(at.x + shift.x), y: round(at.y + shift.y) };
  }
  return { ...project, nodes };
}

/** Returns nodes as their inputs stand, from top to bottom: operands before what is made of them. */
function inOrder(project: Project, chosen: ReadonlySet<NodeId>): StudioNode[] {
  const used = new Set([...chosen].flatMap((id) => [...inputsOf(project.nodes[id]!)]));
  const found = new Map<NodeId, StudioNode>();
  const visit = (id: NodeId): void => {
    const node = project.nodes[id];
    if (!node || !chosen.has(id) || found.has(id)) return;
    for (const input of inputsOf(node)) if (input) visit(input);
    found.set(id, node);
  };
  for (const id of chosen) if (!used.has(id)) visit(id);
  for (const id of chosen) visit(id);
  return [...found.values()];
}

/** Returns whether no node is used twice, but by ends: then the order of inputs has no wires that cross. */
function isForest(nodes: readonly StudioNode[], chosen: ReadonlySet<NodeId>): boolean {
  const used = nodes.flatMap((node) =>
    (isEnd(node) ? [] : inputsOf(node)).filter((input) => input !== null && chosen.has(input)),
  );
  return new Set(used).size === used.length;
}

/** Returns the way to where the nodes were before: their common corner stays. */
function corner(
  nodes: readonly StudioNode[],
  spot: (node: StudioNode) => { x: number; y: number },
): { x: number; y: number } {
  const least = (values: number[]): number => Math.min(...values);
  return {
    x: least(nodes.map((n) => n.x)) - least(nodes.map((n) => spot(n).x)),
    y: least(nodes.map((n) => n.y)) - least(nodes.map((n) => spot(n).y)),
  };
}

/** Returns a place near the wished one where a node covers no other. */
export function freePlace(project: Project, specs: Specs, node: StudioNode): { x: number; y: number } {
  const others = Object.values(project.nodes).filter((other) => other.id !== node.id);
  const tall = heightOf(node, specs);
  let { x, y } = node;
  for (let tries = 0; tries < 200; tries++) {
    const hit = others.find(
      (o) => x < o.x + WIDTH + 24 && o.x < x + WIDTH + 24 && y < o.y + heightOf(o, specs) + 24 && o.y < y + tall + 24,
    );
    if (!hit) break;
    y = hit.y + heightOf(hit, specs) + 32;
  }
  return { x, y };
}
