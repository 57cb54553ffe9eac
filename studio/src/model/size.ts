/** How large nodes are drawn. Heights are known before anything is on the screen, so that nothing jumps. */

import { mayGrow, type Specs } from "./specs";
import type { StudioNode } from "./types";

export const WIDTH = 208;
export const PICTURE = 192;
export const HEAD = 36;
export const ROW = 28;
export const EDGE = 8;

/** Returns the number of rows below a node's picture, one an input. */
export function rowsOf(node: StudioNode, specs: Specs): number {
  if (node.kind === "call") return node.inputs.length + (mayGrow(specs[node.op], node) ? 1 : 0);
  if (node.kind === "sum") return node.inputs.length + 1;
  return node.kind === "upscale" || node.kind === "search" ? 2 : 0;
}

export function heightOf(node: StudioNode, specs: Specs): number {
  if (node.kind === "word") return 88;
  if (node.kind === "missing") return 112;
  const words = node.kind === "text" ? 64 : 0;
  const rows = rowsOf(node, specs);
  return EDGE + PICTURE + HEAD + words + (rows ? rows * ROW + EDGE : 0);
}
