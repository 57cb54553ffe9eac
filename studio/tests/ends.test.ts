import { expect, test } from "vitest";
import { connected, disconnected, freeInput, fresh, takers, variation, withNode } from "../src/model/edits";
import { tidied } from "../src/model/layout";
import { readSpecs } from "../src/model/specs";
import { textOf, unready } from "../src/model/text";
import { EMPTY, inputsOf, type Project, type StudioNode } from "../src/model/types";
import { refusal } from "../src/model/wires";
import { recipeOf } from "../src/state/store";

const A = `photo:${"a".repeat(32)}`;
const SPECS = readSpecs({ texturing: { roles: [{ name: "object" }, { name: "texture" }] } });
const place = { x: 0, y: 0 };
const photo: StudioNode = { kind: "photo", id: "a", ...place, photo: A, name: "a.png" };
const call: StudioNode = { ...fresh("texturing", SPECS, place), id: "t", inputs: ["a", null] } as StudioNode;
const upscale = { ...fresh("upscale", SPECS, place), id: "u", inputs: ["t"] } as StudioNode;
const search = { ...fresh("search", SPECS, place), id: "s" } as StudioNode;
const all: Project = { ...EMPTY, nodes: { a: photo, t: call, u: upscale, s: search } };

test("an end has the expression of its input, and an upscaler ends in the recipe", () => {
  expect(textOf(all, "u")).toBe(`texturing(${A}, _)`);
  const named = { ...all, nodes: { ...all.nodes, t: { ...call, called: "pot" } as StudioNode } };
  expect(textOf(named, "u")).toBe(`texturing(${A}, _)`);
  expect(recipeOf(all, SPECS, "t")).toEqual({ expression: `texturing(${A}, _)`, seeds: [0] });
  expect(recipeOf(all, SPECS, "u")).toEqual({
    expression: `texturing(${A}, _)`,
    seeds: [0],
    rendering: { enlarge: 2 },
  });
  const sharp = { ...all, nodes: { ...all.nodes, u: { ...upscale, enlarge: 1, upscale: 4 } as StudioNode } };
  expect(recipeOf(sharp, SPECS, "u").rendering).toEqual({ upscale: 4 });
});

test("nothing comes out of an end, one picture goes in", () => {
  expect(refusal(all, SPECS, "u", "s", 0)).toEqual({ why: "end" });
  expect(takers(SPECS, upscale)).toEqual([]);
  expect(freeInput(all, SPECS, "t", "s")).toBe(0);
  expect(freeInput(all, SPECS, "t", "u")).toBeNull();
  expect(unready(all, SPECS, "s")).toEqual({ why: "no-input", node: "s" });
  const joined = connected(all, "t", "s", 0);
  expect(unready(joined, SPECS, "s")).toBeNull();
  expect(inputsOf(disconnected(joined, SPECS, "s", 0).nodes.s!)).toEqual([null]);
});

test("ends bring no wires across others", () => {
  const second: StudioNode = { ...photo, id: "b", photo: A.replace("a".repeat(32), "b".repeat(32)) };
  const full = { ...call, inputs: ["b", "a"] } as StudioNode;
  const { nodes } = tidied(
    { ...all, nodes: { a: photo, b: second, t: full, u: upscale, s: { ...search, inputs: ["t"] } as StudioNode } },
    SPECS,
  );
  expect(nodes.b!.y).toBeLessThan(nodes.a!.y);
  expect(nodes.u!.x).toBeGreaterThan(nodes.t!.x);
});

test("a variation of what is upscaled is upscaled", () => {
  const { project, root } = variation(all, SPECS, "u", 5);
  expect(project.nodes[root]).toMatchObject({ kind: "upscale", enlarge: 2 });
  expect(textOf(project, root)).toBe(`texturing(${A}, _) @5`);
  expect(withNode(project, SPECS, { ...search, id: "s2" } as StudioNode).nodes.s2).toBeDefined();
});
