import { expect, test } from "vitest";
import { differences } from "../src/model/differ";

const told = (...texts: string[]): string[][] =>
  differences(texts).map((pieces) => pieces.map(({ text, differs }) => (differs ? `[${text}]` : text)));

test("what differs between expressions is marked in each of them", () => {
  expect(told("texturing(a.png, b.png) @7", "texturing(a.png, b.png) @7")).toEqual([
    ["texturing(a.png, b.png) @7"],
    ["texturing(a.png, b.png) @7"],
  ]);
  expect(told("texturing(a.png, b.png, guidance=2)", "texturing(a.png, c.png, guidance=9)")).toEqual([
    ["texturing(a.png, ", "[b.png]", ", guidance=", "[2]", ")"],
    ["texturing(a.png, ", "[c.png]", ", guidance=", "[9]", ")"],
  ]);
});

test("a part that only some have is marked there alone; pieces put together are the text", () => {
  const texts = ["scene(texturing(a.png, b.png), c.png)", "texturing(a.png, b.png)", "texturing(a.png, _)"];
  const found = differences(texts);
  expect(found.map((pieces) => pieces.map(({ text }) => text).join(""))).toEqual(texts);
  const marked = found.map((pieces) => pieces.flatMap(({ text, differs }) => (differs ? [text] : [])));
  expect(marked[0]!.join("")).toContain("scene");
  expect(marked[1]).toEqual(["b.png"]);
  expect(marked[2]).toEqual(["_"]);
});
