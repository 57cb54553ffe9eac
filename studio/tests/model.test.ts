import { describe, expect, test } from "vitest";
import {
  connected,
  copied,
  disconnected,
  freeInput,
  fresh,
  pasted,
  takers,
  variation,
  without,
} from "../src/model/edits";
import { changed, redone, settled, started, undone } from "../src/model/history";
import { tidied } from "../src/model/layout";
import { colourOf, readSpecs } from "../src/model/specs";
import { byName, photoNames, textOf, unready, withIds } from "../src/model/text";
import { withTree } from "../src/model/tree";
import { EMPTY, inputsOf, type Project, type StudioNode, type Tree } from "../src/model/types";
import { refusal } from "../src/model/wires";

const A = `photo:${"a".repeat(32)}`;
const B = `photo:${"b".repeat(32)}`;
const two = (kind: string) => [
  { name: "object", kind: "image" },
  { name: "other", kind },
];
const SPECS = readSpecs({
  texturing: { roles: two("image"), guidance: 8, steps: 25 },
  union: { roles: two("image"), repeat: true, most: 4 },
  instruct: { roles: two("text") },
});

const photo = (id: string, ref: string, name = `${id}.png`): StudioNode => ({
  kind: "photo",
  id,
  x: 0,
  y: 0,
  photo: ref,
  name,
});
const word = (id: string, text: string): StudioNode => ({ kind: "word", id, x: 0, y: 0, text });
function call(id: string, op: string, ...inputs: (string | null)[]): StudioNode {
  return { kind: "call", id, x: 0, y: 0, op, inputs, options: {}, seed: null };
}
function sum(id: string, ...terms: [number, string][]): StudioNode {
  return { kind: "sum", id, x: 0, y: 0, inputs: terms.map(([, n]) => n), weights: terms.map(([w]) => w) };
}
function of(...nodes: StudioNode[]): Project {
  return { ...EMPTY, nodes: Object.fromEntries(nodes.map((node) => [node.id, node])) };
}
const base = of(photo("a", A), photo("b", B), call("t", "texturing", "a", "b"));
const read = (tree: Tree, project: Project = EMPTY, old: string | null = null) =>
  withTree(project, tree, photoNames(project), old);

describe("text", () => {
  test("a call, with names for people and ids for the server", () => {
    expect(textOf(base, "t")).toBe(`texturing(${A}, ${B})`);
    expect(textOf(base, "t", byName(base))).toBe("texturing(a.png, b.png)");
  });
  test("an open input is a missing operand", () => {
    expect(textOf(of(photo("a", A), call("t", "texturing", "a", null)), "t")).toBe(`texturing(${A}, _)`);
  });
  test("options, seeds and words", () => {
    const node = {
      ...call("i", "instruct", "a", "w"),
      options: { guidance: 4, sampler: "ddim" },
      seed: 7,
    } as StudioNode;
    const project = of(photo("a", A), word("w", 'very "golden"'), node);
    expect(textOf(project, "i")).toBe(`instruct(${A}, "very \\"golden\\"", guidance=4, sampler=ddim) @7`);
  });
  test("words that look like a file are told from one", () => {
    expect(textOf(of(word("w", "tiger.png")), "w")).toBe('word("tiger.png")');
  });
  test("weights and signs of sums", () => {
    const project = of(photo("a", A), photo("b", B), sum("s", [0.5, "a"], [-1, "b"]));
    expect(textOf(project, "s")).toBe(`0.5*${A} - ${B}`);
  });
  test("a sum in a sum is in brackets", () => {
    const project = of(photo("a", A), photo("b", B), sum("s", [0.5, "a"], [0.5, "b"]), sum("u", [2, "s"], [1, "a"]));
    expect(textOf(project, "u")).toBe(`2*(0.5*${A} + 0.5*${B}) + ${A}`);
  });
  test("what is shared is named once", () => {
    const project = of(...Object.values(base.nodes), call("u", "union", "t", "t"));
    expect(textOf(project, "u")).toBe(`let a = texturing(${A}, ${B}); union(a, a)`);
  });
  test("a board is the mean of its photos", () => {
    const photos = [A, B, A, B].map((ref, i) => ({ photo: ref, name: `${i}.png` }));
    expect(textOf(of({ kind: "board", id: "m", x: 0, y: 0, name: "", photos }), "m")).toBe(
      `0.25*${A} + 0.25*${B} + 0.25*${A} + 0.25*${B}`,
    );
  });
  test("photos of one name have names of their own", () => {
    const project = of(
      photo("x", A, "cup.png"),
      photo("y", B, "cup.png"),
      photo("z", `photo:${"c".repeat(32)}`, "IMG 1"),
    );
    expect([...photoNames(project).values()]).toEqual(["cup.png", "cup-2.png", "IMG 1.png"]);
  });
});

describe("what is typed", () => {
  const names = new Map([
    [A, "a.png"],
    [B, "my cup.png"],
  ]);
  test("names become ids, and places lead back", () => {
    const typed = "texturng(a.png, 'my cup.png')";
    const wired = withIds(typed, names);
    expect(wired.text).toBe(`texturng(${A}, ${B})`);
    expect(wired.unknown).toBeNull();
    expect(wired.back([0, 8])).toEqual([0, 8]);
    const at = wired.text.indexOf(B);
    expect(wired.back([at, at + B.length])).toEqual([16, 28]);
  });
  test("a photo that is not there is found in its place", () => {
    expect(withIds("texturing(a.png, nope.jpg)", names).unknown).toEqual({ name: "nope.jpg", span: [17, 25] });
  });
  test("words in quotes and notes stay as they are", () => {
    expect(withIds('instruct(a.png, "golden") # a.png', names).text).toBe(`instruct(${A}, "golden") # a.png`);
  });
});

describe("trees", () => {
  test("a tree becomes nodes that write the same text", () => {
    const tree = { union: [{ texturing: [A, "_"], seed: 3, guidance: 4 }, { text: "a marble rabbit" }] };
    const { project, root, made } = read(tree);
    expect(textOf(project, root)).toBe(`union(texturing(${A}, _, guidance=4) @3, text("a marble rabbit"))`);
    expect(made.length).toBe(4);
  });
  test("let is a node that is shared, also with another seed", () => {
    const { project, root } = read({ let: { t: { texturing: [A, "_"] } }, in: { union: ["t", "t@7"] } });
    const [one, other] = inputsOf(project.nodes[root]!);
    expect(one).toBe(other);
    expect(project.nodes[root]).toMatchObject({ reseeds: [null, 7] });
    expect(textOf(project, root)).toBe(`let t = texturing(${A}, _); union(t, t@7)`);
    expect(textOf(project, one!)).toBe(`texturing(${A}, _)`);
    const bare = disconnected(project, SPECS, root, 0);
    expect(textOf(bare, root)).toBe(`let t = texturing(${A}, _); union(_, t@7)`);
    expect(textOf(connected(project, one!, root, 1), root)).toBe(`let t = texturing(${A}, _); union(t, t)`);
    const shared = read({ let: { t: { texturing: [A, "_"] } }, in: { union: ["t", "t"] } });
    expect(new Set(inputsOf(shared.project.nodes[shared.root]!)).size).toBe(1);
  });
  test("a name stays until it is taken away, and is given once", () => {
    const first = read({ let: { pot: { texturing: [A, B] } }, in: { union: ["pot", A] } });
    expect(textOf(first.project, first.root)).toBe(`let pot = texturing(${A}, ${B}); union(pot, ${A})`);
    const again = read({ let: { vase: { texturing: [A, B] } }, in: { union: ["vase", B] } }, first.project, first.root);
    expect(again.root).toBe(first.root);
    expect(again.made).toEqual([]);
    expect(textOf(again.project, again.root)).toBe(`let vase = texturing(${A}, ${B}); union(vase, ${B})`);
    const bare = read({ union: [{ texturing: [A, B] }, B] }, again.project, again.root);
    expect(bare.root).toBe(first.root);
    expect(textOf(bare.project, bare.root)).toBe(`union(texturing(${A}, ${B}), ${B})`);
    const t = { ...call("t", "texturing", "a", "b"), called: "a" } as StudioNode;
    const other = { ...call("s", "texturing", "b", "a"), called: "a" } as StudioNode;
    const both = of(photo("a", A), photo("b", B), t, other, call("u", "union", "t", "s"));
    expect(textOf(both, "u")).toBe(`let a = texturing(${A}, ${B}); let b = texturing(${B}, ${A}); union(a, b)`);
  });
  test("a wire with a seed of its own needs no name where its node is used once", () => {
    const u = { ...call("u", "union", "t", "b"), reseeds: [7, null] } as StudioNode;
    expect(textOf(of(...Object.values(base.nodes), u), "u")).toBe(`union(texturing(${A}, ${B}) @7, ${B})`);
    expect(
      textOf(
        of(photo("a", A), call("t", "texturing", "a", null), {
          ...sum("s", [1, "t"], [1, "t"]),
          reseeds: [null, 4],
        } as StudioNode),
        "s",
      ),
    ).toBe(`let a = texturing(${A}, _); a + a@4`);
  });
  test("bindings may come in any order", () => {
    const { project, root } = read({ let: { u: { union: ["t", A] }, t: { texturing: [A, B] } }, in: "u" });
    expect(textOf(project, root)).toBe(`let t = texturing(${A}, ${B}); union(t, ${A})`);
  });
  test("an edit keeps what it does not change", () => {
    const { project, root, made } = read({ texturing: [A, { text: "moss" }] }, base, "t");
    expect(root).toBe("t");
    expect(inputsOf(project.nodes.t!)[0]).toBe("a");
    expect(made.length).toBe(1);
    expect(project.nodes.b).toBeDefined(); // a photo stays
    expect(
      Object.keys(read(A, of(...Object.values(base.nodes), call("u", "union", "t", "b")), "u").project.nodes),
    ).toEqual(["a", "b"]);
  });
  test("what stands around the old expression stays itself", () => {
    const { project, root } = read({ union: [{ texturing: [A, B] }, A] }, base, "t");
    expect(inputsOf(project.nodes[root]!)).toEqual(["t", "a"]);
    expect(project.nodes.t).toEqual(base.nodes.t);
  });
  test("a part that something else uses is not lost", () => {
    const more = of(...Object.values(base.nodes), call("u", "union", "t", "b"));
    const { project } = read(A, more, "t");
    expect(project.nodes.t).toBeDefined();
    expect(inputsOf(project.nodes.u!)).toEqual(["t", "b"]);
  });
});

describe("wires", () => {
  const project = of(
    ...Object.values(base.nodes),
    word("w", "golden"),
    call("i", "instruct", null, null),
    call("u", "union", "t", null),
    { kind: "missing", id: "m", x: 0, y: 0 },
    call("x", "mix", null, null),
  );
  test("words fit where words belong", () => {
    expect(refusal(project, SPECS, "w", "i", 1)).toBeNull();
    expect(refusal(project, SPECS, "w", "i", 0)).toEqual({ why: "wants-image", role: "object" });
    expect(refusal(project, SPECS, "a", "i", 1)).toEqual({ why: "wants-word", role: "other" });
    expect(refusal(project, SPECS, "w", "x", 1)).toBeNull();
  });
  test("nothing is made of itself", () => {
    expect(refusal(project, SPECS, "u", "t", 0)).toEqual({ why: "circle" });
    expect(refusal(project, SPECS, "t", "t", 0)).toEqual({ why: "circle" });
  });
  test("a mix leaves nothing to chance", () => {
    expect(refusal(project, SPECS, "m", "x", 0)).toEqual({ why: "never-open", role: "layout" });
    expect(refusal(project, SPECS, "m", "t", 0)).toBeNull();
  });
  test("a node that is let go on another takes the first input that fits", () => {
    expect(freeInput(project, SPECS, "a", "i")).toBe(0);
    expect(freeInput(project, SPECS, "w", "i")).toBe(1);
    expect(freeInput(project, SPECS, "a", "t")).toBeNull();
  });
  test("the palette offers what takes a node", () => {
    expect(takers(SPECS, word("w", "x")).map(({ op }) => op)).toEqual(["instruct", "mix"]);
  });
});

describe("what can be computed", () => {
  test("something must be joined, and a mix needs both", () => {
    expect(unready(of(call("t", "texturing", null, null)), SPECS, "t")).toEqual({ why: "no-input", node: "t" });
    expect(unready(of(photo("a", A), call("x", "mix", "a", null)), SPECS, "x")).toEqual({
      why: "needs-all",
      node: "x",
    });
    expect(unready(base, SPECS, "t")).toBeNull();
  });
  test("what is missing below is missing above", () => {
    const project = of(photo("a", A), word("w", " "), call("i", "instruct", "a", "w"), call("u", "union", "i", "a"));
    expect(unready(project, SPECS, "u")).toEqual({ why: "no-words", node: "w" });
    expect(unready(of(call("q", "nothing", null)), SPECS, "q")).toEqual({ why: "unknown-operator", node: "q" });
  });
});

describe("edits", () => {
  test("a wire joins, and a repeated role loses its place", () => {
    const project = of(photo("a", A), photo("b", B), call("u", "union", "a", "b"));
    const three = connected(project, "a", "u", 2);
    expect(inputsOf(three.nodes.u!)).toEqual(["a", "b", "a"]);
    expect(inputsOf(disconnected(three, SPECS, "u", 1).nodes.u!)).toEqual(["a", "a"]);
    expect(inputsOf(disconnected(project, SPECS, "u", 1).nodes.u!)).toEqual(["a", null]);
  });
  test("what is deleted leaves open inputs", () => {
    expect(inputsOf(without(base, new Set(["b"])).nodes.t!)).toEqual(["a", null]);
  });
  test("a copy has its own nodes", () => {
    const { project, ids } = pasted(base, copied(base, new Set(["t"]), true), { x: 10, y: 10 });
    expect(Object.keys(project.nodes).length).toBe(6);
    expect(textOf(project, ids[0]!)).toBe(textOf(base, "t"));
    expect(inputsOf(project.nodes[ids[0]!]!)).not.toContain("a");
  });
  test("a variation fixes the seeds of its own copy and shares the photos", () => {
    const deep = of(...Object.values(base.nodes), call("u", "union", "t", "a"));
    const { project, root } = variation(deep, SPECS, "u", 5);
    expect(textOf(project, root)).toBe(`union(texturing(${A}, ${B}) @5, ${A}) @5`);
    expect(textOf(project, "u")).toBe(textOf(deep, "u"));
  });
  test("new nodes have the inputs of their operator", () => {
    expect(inputsOf(fresh("texturing", SPECS, { x: 0, y: 0 }))).toEqual([null, null]);
  });
  test("tidy puts operands to the left, in the order of inputs", () => {
    const { nodes } = tidied(base, SPECS);
    expect(nodes.t!.x).toBeGreaterThan(nodes.a!.x);
    expect(nodes.a!.y).toBeLessThan(nodes.b!.y);
    const turned = tidied(of(photo("a", A), photo("b", B), call("t", "texturing", "b", "a")), SPECS).nodes;
    expect(turned.b!.y).toBeLessThan(turned.a!.y);
  });
});

describe("history", () => {
  test("undo and redo go all the way", () => {
    let history = started(0);
    for (let i = 1; i <= 500; i++) history = changed(history, i);
    for (let i = 0; i < 500; i++) history = undone(history);
    expect(history.now).toBe(0);
    for (let i = 0; i < 500; i++) history = redone(history);
    expect(history.now).toBe(500);
    expect(redone(history)).toBe(history);
  });
  test("a row of changes with a tag is one step, until it is settled", () => {
    let history = changed(changed(started(0), 1, "slider"), 2, "slider");
    expect(undone(history).now).toBe(0);
    history = changed(settled(history), 3, "slider");
    expect(undone(history).now).toBe(2);
  });
  test("snapshots share what did not change", () => {
    const next = connected(base, "a", "t", 1);
    expect(next.nodes.a).toBe(base.nodes.a);
  });
});

test("operators have the colours of pops' drawings", () => {
  expect(["texturing", "union", "scene", "instruct", "mix"].map(colourOf)).toEqual([
    "#a8842c",
    "#b24c66",
    "#4b6cb0",
    "#5f8a3e",
    "#8a5ba0",
  ]);
});
