/** What a recipe says beside its expression, as the canvas keeps it. */

import type { Recipe } from "../api/types";
import { MIX } from "./specs";
import { below } from "./tree";
import type { More, NodeId, Project } from "./types";

export interface Said {
  readonly seed: number; // of the one image that the recipe is of
  readonly more: More;
  readonly larger: { readonly enlarge: number; readonly upscale: number | null } | null;
}

const whole = (value: unknown, otherwise: number): number => (typeof value === "number" ? value : otherwise);
const filled = (part: object): boolean => Object.keys(part).length > 0;

/** Returns the seed of a row: one seed stands for all. Image j of it has the seed + j. */
function seedAt(seeds: unknown, row: number, j: number): number {
  const all = Array.isArray(seeds) ? (seeds as number[]) : [0];
  return (all.length > 1 ? (all[row] ?? 0) : (all[0] ?? 0)) + j;
}

/** Returns what a recipe says of one of its images: the one that it names, else the first. */
export function said(recipe: Recipe): Said {
  const each = whole(recipe.num_images, 1);
  const image = whole(recipe.image, 0);
  const row = Math.floor(image / each);
  const { enlarge, upscale, seeds, ...rendering } = recipe.rendering ?? {};
  const ofRendering = seeds ? { ...rendering, seeds: [seedAt(seeds, row, image % each)] } : rendering;
  const parts = {
    making: (recipe.making ?? {}) as Record<string, unknown>,
    rendering: ofRendering,
    loading: recipe.loading ?? {},
  };
  const larger = whole(enlarge, 1) > 1 || typeof upscale === "number";
  return {
    seed: seedAt(recipe.seeds, row, image % each),
    more: Object.fromEntries(Object.entries(parts).filter(([, part]) => filled(part))),
    larger: larger ? { enlarge: whole(enlarge, 1), upscale: typeof upscale === "number" ? upscale : null } : null,
  };
}

const only = (part: Readonly<Record<string, unknown>> = {}, ...names: string[]): Record<string, unknown> =>
  Object.fromEntries(Object.entries(part).filter(([name]) => names.includes(name)));

/** Returns what settings say of a node's picture: the server refuses those that would change nothing there. */
export function applying(more: More, project: Project, root: NodeId): More {
  const top = project.nodes[root];
  const sampled =
    !more.making ||
    [...below(project, root)].some((id) => {
      const node = project.nodes[id];
      return node?.kind === "text" || (node?.kind === "call" && node.op !== MIX.name);
    });
  const isMix = top?.kind === "call" && top.op === MIX.name;
  return {
    ...more,
    ...(sampled ? {} : { making: only(more.making, "fit") }),
    ...(isMix ? { rendering: only(more.rendering, "enlarge", "upscale") } : {}),
  };
}

const PARTS = ["making", "rendering", "loading"] as const;

/** Returns whether two say the same. */
export function sameMore(one: More, other: More): boolean {
  const told = (more: More): string =>
    JSON.stringify(PARTS.map((part) => Object.entries(more[part] ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))));
  return told(one) === told(other);
}

export interface Row {
  readonly part: (typeof PARTS)[number];
  readonly field: string;
  readonly name: string; // as the command line has it
  readonly value: string;
}

/** Returns settings as rows to read. */
export function rowsOf(more: More): Row[] {
  return PARTS.flatMap((part) =>
    Object.entries(more[part] ?? {}).map(([field, value]) => {
      const own = part === "rendering" && ["steps", "guidance", "guidance_interval", "seeds"].includes(field);
      const name = own ? `render ${field}` : field.replaceAll("_", " ");
      const size = field === "size" && Array.isArray(value);
      const text = size ? value.join(" × ") : typeof value === "object" ? JSON.stringify(value) : String(value);
      return { part, field, name, value: text };
    }),
  );
}

/** Returns settings without one of them. */
export function withoutRow(more: More, { part, field }: Row): More {
  const { [field]: _, ...rest } = more[part] ?? {};
  return { ...more, [part]: rest };
}
