import { expect, test } from "vitest";
import { fresh } from "../src/model/edits";
import { rowsOf, said, sameMore, withoutRow } from "../src/model/recipes";
import { readSpecs } from "../src/model/specs";
import { EMPTY, type Project, type StudioNode } from "../src/model/types";
import { recipeOf } from "../src/state/store";

test("a recipe of several images says the seed of the one that it names", () => {
  expect(said({ expression: "a.png", seeds: [3, 7, 9], image: 1 }).seed).toBe(7);
  expect(said({ expression: "a.png", seeds: [3, 7], num_images: 4, image: 6 }).seed).toBe(9);
  expect(said({ expression: "a.png" }).seed).toBe(0);
  const drawn = said({ expression: "a.png", seeds: [1, 2], image: 1, rendering: { seeds: [5, 6] } });
  expect(drawn.more.rendering).toEqual({ seeds: [6] });
});

test("everything beside is kept, and what enlarges is told apart", () => {
  const { more, larger } = said({
    expression: "a.png",
    seeds: [0],
    making: { steps: 8, sampler: "ddim" },
    rendering: { negative: "dull", size: [64, 32], steps: 4, enlarge: 2, upscale: 1 },
    loading: { renderer: "swatch" },
  });
  expect(larger).toEqual({ enlarge: 2, upscale: 1 });
  expect(more).toEqual({
    making: { steps: 8, sampler: "ddim" },
    rendering: { negative: "dull", size: [64, 32], steps: 4 },
    loading: { renderer: "swatch" },
  });
  const rows = rowsOf(more);
  expect(rows.map(({ name, value }) => `${name}: ${value}`)).toEqual([
    "steps: 8",
    "sampler: ddim",
    "negative: dull",
    "size: 64 × 32",
    "render steps: 4",
    "renderer: swatch",
  ]);
  expect(withoutRow(more, rows[1]!).making).toEqual({ steps: 8 });
  expect(sameMore(more, { ...more, making: { sampler: "ddim", steps: 8 } })).toBe(true);
  expect(sameMore(more, {})).toBe(false);
  expect(sameMore({ making: {} }, {})).toBe(true);
});

test("settings of all pictures are said of those alone in which they change something", () => {
  const place = { x: 0, y: 0 };
  const specs = readSpecs({ texturing: { roles: [{ name: "object" }, { name: "texture" }] } });
  const more = { making: { steps: 4, fit: "pad" }, rendering: { steps: 6 } };
  const nodes: Record<string, StudioNode> = {
    a: { kind: "photo", id: "a", ...place, photo: "examples/a.png", name: "a.png" },
    sum: { kind: "sum", id: "sum", ...place, inputs: ["a"], weights: [1] },
    mix: { ...fresh("mix", specs, place), id: "mix", inputs: ["a", "a"] } as StudioNode,
    call: { ...fresh("texturing", specs, place), id: "call", inputs: ["sum", null] } as StudioNode,
    of: { ...fresh("mix", specs, place), id: "of", inputs: ["call", "a"] } as StudioNode,
  };
  const project: Project = { ...EMPTY, nodes, settings: { ...EMPTY.settings, enlarge: 2, more } };
  const told = (id: string) => {
    const { making, rendering } = recipeOf(project, specs, id);
    return { making, rendering };
  };
  expect(told("sum")).toEqual({ making: { fit: "pad" }, rendering: { steps: 6, enlarge: 2 } });
  expect(told("mix")).toEqual({ making: { fit: "pad" }, rendering: { enlarge: 2 } });
  expect(told("call")).toEqual({ making: { steps: 4, fit: "pad" }, rendering: { steps: 6, enlarge: 2 } });
  const own: Project = { ...project, nodes: { ...nodes, sum: { ...nodes.sum, more } as StudioNode } };
  expect(recipeOf(own, specs, "sum").making).toEqual({ fit: "pad" });
  expect(told("of")).toEqual({ making: { steps: 4, fit: "pad" }, rendering: { enlarge: 2 } });
});
