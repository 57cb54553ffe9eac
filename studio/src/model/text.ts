/** A project's part as an expression: the text that the server computes, or, with names of photos, that people read. */

import type { Specs } from "./specs";
import {
  calledOf,
  inputsOf,
  isEnd,
  type NodeId,
  type Options,
  type Project,
  reseedsOf,
  type StudioNode,
} from "./types";

const SUFFIX = /\.(png|jpe?g|webp|gif|bmp|tiff?|heic|heif|avif)$/i;
export const BARE = /[\p{L}\p{N}_./~\\:][\p{L}\p{N}_./~\\:-]*/u;
const WHOLE_BARE = new RegExp(`^(?:${BARE.source})$`, "u");
const NUMBER = /^(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$/;
const RESERVED = new Set(["_", "let", "text", "photo", "word", "saved"]);

export type Unready =
  | { readonly why: "unknown-operator"; readonly node: NodeId }
  | { readonly why: "no-input"; readonly node: NodeId }
  | { readonly why: "needs-all"; readonly node: NodeId }
  | { readonly why: "no-words"; readonly node: NodeId };

export function quoted(text: string, mark = '"'): string {
  return mark + text.replaceAll("\\", "\\\\").replaceAll(mark, `\\${mark}`) + mark;
}

export function isBare(text: string): boolean {
  return WHOLE_BARE.test(text) && !NUMBER.test(text) && !RESERVED.has(text);
}

export function numberText(value: number): string {
  return String(Number(value.toFixed(6)));
}

function wordText(text: string): string {
  const pathLike =
    SUFFIX.test(text) ||
    /\.(safetensors|npy|ipadpt|pth)$/i.test(text) ||
    /^(\.{0,2}[/\\]|~[/\\]|[A-Za-z]:[/\\])/.test(text);
  return pathLike ? `word(${quoted(text)})` : quoted(text);
}

function settings(options: Options, seed: number | null, first: boolean): string {
  const written = Object.entries(options).map(
    ([key, value]) => `${key}=${typeof value === "number" ? numberText(value) : isBare(value) ? value : quoted(value)}`,
  );
  return `${first || !written.length ? "" : ", "}${written.join(", ")})${seed === null ? "" : ` @${seed}`}`;
}

function sumText(terms: readonly (readonly [number, string, boolean])[]): string {
  return terms
    .map(([weight, part, wrap], i) => {
      const plain = Math.abs(weight) === 1 && terms.length > 1 && (i > 0 || weight > 0);
      const sign = i ? (weight < 0 ? " - " : " + ") : weight < 0 ? "-" : "";
      return `${sign}${plain ? "" : `${numberText(Math.abs(weight))}*`}${wrap ? `(${part})` : part}`;
    })
    .join("");
}

export type PhotoToken = (photo: string, name: string) => string;
export const byId: PhotoToken = (photo) => (isBare(photo) ? photo : quoted(photo, "'"));

/** Returns why a node cannot be computed yet: the first thing that is missing below it; null where it can. */
export function unready(project: Project, specs: Specs, id: NodeId, seen = new Set<NodeId>()): Unready | null {
  const node = project.nodes[id];
  if (!node || seen.has(id)) return null;
  seen.add(id);
  const inputs = inputsOf(node);
  for (const input of inputs) {
    const below = input ? unready(project, specs, input, seen) : null;
    if (below) return below;
  }
  const connected = inputs.filter((input) => input !== null && project.nodes[input]);
  switch (node.kind) {
    case "call": {
      const spec = specs[node.op];
      if (!spec) return { why: "unknown-operator", node: id };
      if (!spec.open && connected.length < inputs.length) return { why: "needs-all", node: id };
      return connected.length ? null : { why: "no-input", node: id };
    }
    case "sum":
    case "upscale":
    case "search":
      return connected.length ? null : { why: "no-input", node: id };
    case "board":
      return node.photos.length ? null : { why: "no-input", node: id };
    case "word":
    case "text":
      return node.text.trim() ? null : { why: "no-words", node: id };
    default:
      return null;
  }
}

/** Returns how often each node is used in the expression of `root`. */
function uses(project: Project, root: NodeId): Map<NodeId, number> {
  const counts = new Map<NodeId, number>([[root, 1]]);
  const stack = [root];
  while (stack.length) {
    const node = project.nodes[stack.pop()!];
    for (const input of node ? inputsOf(node) : []) {
      if (!input) continue;
      const count = counts.get(input);
      counts.set(input, (count ?? 0) + 1);
      if (count === undefined) stack.push(input);
    }
  }
  return counts;
}

const LEAVES = new Set<StudioNode["kind"]>(["photo", "word", "missing"]);

/** Returns the expression of a node. Parts that have a name or are used several times are named with let. */
export function textOf(project: Project, root: NodeId, token: PhotoToken = byId): string {
  const end = project.nodes[root];
  if (isEnd(end)) return end.inputs[0] ? textOf(project, end.inputs[0], token) : "_";
  const names = new Map<NodeId, string>();
  const lets: string[] = [];
  const counts = uses(project, root);
  const own = new Set([...counts.keys()].flatMap((id) => calledOf(project.nodes[id]) ?? []));
  const nameOf = (node: StudioNode): string => {
    const given = calledOf(node);
    const taken = new Set(names.values());
    if (given && !taken.has(given)) return given;
    for (let i = names.size; ; i++) if (!own.has(letName(i)) && !taken.has(letName(i))) return letName(i);
  };
  const inner = (id: NodeId | null, reseed: number | null = null): string => {
    const node = id ? project.nodes[id] : undefined;
    if (!id || !node) return "_";
    const seed = reseed === null || !("seed" in node) ? "" : `@${reseed}`;
    const known = names.get(id);
    if (known) return known + seed;
    const named = (counts.get(id) ?? 0) > 1 || calledOf(node) !== undefined;
    if (LEAVES.has(node.kind) || !named || id === root)
      return write(seed ? ({ ...node, seed: reseed } as StudioNode) : node);
    const written = write(node);
    const name = nameOf(node);
    names.set(id, name);
    lets.push(`let ${name} = ${written}; `);
    return name + seed;
  };
  const write = (node: StudioNode): string => {
    switch (node.kind) {
      case "photo":
        return token(node.photo, node.name);
      case "word":
        return wordText(node.text);
      case "missing":
        return "_";
      case "text":
        return `text(${quoted(node.text)}${settings(node.options, node.seed, false)}`;
      case "call":
        return `${node.op}(${node.inputs.map((input, i) => inner(input, reseedsOf(node)[i] ?? null)).join(", ")}${settings(node.options, node.seed, !node.inputs.length)}`;
      case "upscale":
      case "search":
        return "_"; // nothing comes out of it
      case "board": {
        const share = 1 / node.photos.length;
        const parts = node.photos.map(({ photo, name }) => token(photo, name));
        return parts.length === 1 ? parts[0]! : sumText(parts.map((part) => [share, part, false]));
      }
      case "sum": {
        const terms = node.inputs.flatMap((input, i) => {
          const part = input ? project.nodes[input] : undefined;
          if (!input || !part) return [];
          const written = inner(input, reseedsOf(node)[i] ?? null);
          const isSum = part.kind === "sum" || (part.kind === "board" && part.photos.length > 1);
          return [[node.weights[i] ?? 1, written, isSum && !names.has(input)] as const];
        });
        return terms.length === 1 && terms[0]![0] === 1 ? terms[0]![1] : sumText(terms);
      }
    }
  };
  const body = inner(root);
  return lets.join("") + body;
}

function letName(index: number): string {
  return index < 26 ? String.fromCharCode(97 + index) : `part${index}`;
}

// --- names of photos in the line that people read ---------------------------------------------------------

/** Returns a name that every photo of the project has for itself, as a path that the language reads as a photo. */
export function photoNames(project: Project): Map<string, string> {
  const names = new Map<string, string>();
  const taken = new Set<string>();
  const add = (photo: string, name: string): void => {
    if (names.has(photo) || !photo.startsWith("photo:")) return;
    const clean = name.replace(/^.*[/\\]/, "").trim() || "photo.png";
    const whole = SUFFIX.test(clean) ? clean : `${clean}.png`;
    let free = whole;
    for (let i = 2; taken.has(free); i++) free = whole.replace(/(\.[^.]+)$/, `-${i}$1`);
    taken.add(free);
    names.set(photo, free);
  };
  for (const node of Object.values(project.nodes)) {
    if (node.kind === "photo") add(node.photo, node.name);
    if (node.kind === "board") for (const { photo, name } of node.photos) add(photo, name);
  }
  return names;
}

/** Writes photos by their names. */
export function byName(project: Project): PhotoToken {
  const names = photoNames(project);
  return (photo) => {
    const name = names.get(photo) ?? photo;
    return isBare(name) ? name : quoted(name, "'");
  };
}

const TOKENS = new RegExp(
  `(?<skip>\\s+|#[^\\n]*)|(?<string>'(?:\\\\.|[^'\\\\])*'|"(?:\\\\.|[^"\\\\])*")|(?<bare>${BARE.source})|(?<mark>.)`,
  "gsu",
);

export interface Wired {
  readonly text: string;
  readonly unknown: { readonly name: string; readonly span: readonly [number, number] } | null;
  /** Returns the place in what was typed of a place in `text`. */
  readonly back: (span: readonly [number, number]) => [number, number];
}

/** Returns a typed expression with ids for the names of photos. */
export function withIds(typed: string, names: ReadonlyMap<string, string>): Wired {
  const ids = new Map([...names].map(([photo, name]) => [name, photo]));
  const known = new Set(names.keys());
  const pieces: { from: number; to: number; at: number; text: string }[] = [];
  let text = "";
  let unknown: Wired["unknown"] = null;
  for (const match of typed.matchAll(TOKENS)) {
    const from = match.index;
    const raw = match[0];
    const { string, bare } = match.groups ?? {};
    const value = bare ?? (string ? string.slice(1, -1).replace(/\\([\\'"])/g, "$1") : null);
    const id = value === null ? undefined : ids.get(value);
    const piece = id ?? raw;
    const isFile = value !== null && SUFFIX.test(value) && !value.startsWith("examples/");
    if (!id && isFile && !known.has(value) && !unknown) unknown = { name: value, span: [from, from + raw.length] };
    pieces.push({ from, to: from + raw.length, at: text.length, text: piece });
    text += piece;
  }
  const place = (at: number, end: boolean): number => {
    const piece = pieces.find((p) =>
      end ? at > p.at && at <= p.at + p.text.length : at >= p.at && at < p.at + p.text.length,
    );
    if (!piece) return Math.min(typed.length, at);
    if (piece.to - piece.from === piece.text.length) return piece.from + (at - piece.at);
    return end ? piece.to : piece.from;
  };
  return { text, unknown, back: ([from, to]) => [place(from, false), place(to, true)] };
}
