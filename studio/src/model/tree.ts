/** Trees of the server become nodes; what the canvas shows already stays where it is. */

import { textOf } from "./text";
import {
  type CallNode,
  calledOf,
  inputsOf,
  type NodeId,
  newId,
  type Options,
  type Project,
  type StudioNode,
  type Tree,
} from "./types";

const SEEDED = /^(.+)@(\d+)$/;
const FILE = /[/\\]|\.(png|jpe?g|webp|gif|bmp|tiff?|heic|heif|avif|safetensors|npy|ipadpt|pth)$/i;

export interface Read {
  readonly project: Project;
  readonly root: NodeId;
  readonly made: readonly NodeId[]; // nodes that are new, and have no place yet
}

/** Returns everything below a node, itself included. */
export function below(project: Project, root: NodeId): Set<NodeId> {
  const found = new Set<NodeId>();
  const stack = [root];
  while (stack.length) {
    const id = stack.pop()!;
    const node = project.nodes[id];
    if (!node || found.has(id)) continue;
    found.add(id);
    for (const input of inputsOf(node)) if (input) stack.push(input);
  }
  return found;
}

/** Reads trees into the nodes of a project. `old` is the node whose expression was edited, if there is one. */
class Reader {
  readonly nodes: Record<NodeId, StudioNode>;
  readonly made: NodeId[] = [];
  private readonly claimed = new Set<NodeId>();
  private readonly named = new Set<NodeId>(); // by this expression
  private readonly byText = new Map<string, NodeId>();
  private readonly mine: Set<NodeId>;

  constructor(
    private readonly project: Project,
    private readonly names: ReadonlyMap<string, string>,
    old: NodeId | null,
  ) {
    this.nodes = { ...project.nodes };
    this.mine = old ? below(project, old) : new Set();
    for (const [id, node] of Object.entries(project.nodes)) {
      if (this.mine.has(id) || node.kind === "photo") this.byText.set(textOf(project, id), id);
    }
  }

  read(tree: Tree, hint: NodeId | null, scope: ReadonlyMap<string, NodeId>): NodeId | null {
    if (tree === null || tree === "_") return null;
    if (typeof tree === "string") return this.leaf(tree, hint, scope);
    if ("let" in tree) {
      const own = new Map(scope);
      const lets = { ...(tree.let as Record<string, Tree>) };
      const left = new Set(Object.keys(lets));
      while (left.size) {
        // bindings see one another in any order
        const before = left.size;
        for (const name of left) {
          if ([...left].some((other) => other !== name && mentions(lets[name], other))) continue;
          const id = this.read(lets[name]!, null, own);
          if (id) own.set(name, id);
          if (id) this.call(id, name);
          left.delete(name);
        }
        if (left.size === before) break;
      }
      return this.read(tree.in as Tree, hint, own);
    }
    if (typeof tree.photo === "string") return this.photo(tree.photo, hint);
    if (typeof tree.word === "string") return this.keep({ kind: "word", text: tree.word }, hint, () => true);
    if (typeof tree.text === "string") {
      const { text, seed, ...options } = tree;
      return this.keep(
        { kind: "text", text: text as string, options: options as Options, seed: (seed as number | undefined) ?? null },
        hint,
        () => true,
      );
    }
    return this.made_of_parts(tree, hint, scope);
  }

  private made_of_parts(
    tree: Exclude<Tree, string | null>,
    hint: NodeId | null,
    scope: ReadonlyMap<string, NodeId>,
  ): NodeId {
    const old = hint ? this.project.nodes[hint] : undefined;
    const hints = old ? inputsOf(old) : [];
    if (Array.isArray(tree.sum)) {
      const rows = tree.sum as [number, Tree][];
      const { inputs, reseeds } = this.operands(
        rows.map(([, part]) => part),
        hints,
        scope,
      );
      return this.keep({ kind: "sum", inputs, reseeds, weights: rows.map(([weight]) => weight) }, hint, () => true);
    }
    const op = Object.keys(tree).find((key) => Array.isArray(tree[key])) ?? "";
    const { [op]: parts, seed, ...options } = tree;
    const call = {
      kind: "call" as const,
      op,
      ...this.operands((parts as Tree[] | undefined) ?? [], hints, scope),
      options: options as Options,
      seed: (seed as number | undefined) ?? null,
    };
    return this.keep(call, hint, (node) => node.kind === "call" && node.op === op);
  }

  /** Reads operands; a name with another seed (t@7) is a wire of the same node that has this seed. */
  private operands(parts: readonly Tree[], hints: readonly (NodeId | null)[], scope: ReadonlyMap<string, NodeId>) {
    const reseeds = parts.map((part) => {
      const match = typeof part === "string" && !scope.has(part) ? SEEDED.exec(part) : null;
      const node = match ? this.nodes[scope.get(match[1]!) ?? ""] : undefined;
      return match && node && "seed" in node ? Number(match[2]) : null;
    });
    const inputs = parts.map((part, i) =>
      reseeds[i] === null
        ? this.read(part, hints[i] ?? null, scope)
        : (scope.get(SEEDED.exec(part as string)![1]!) ?? null),
    );
    return { inputs, reseeds: reseeds.some((seed) => seed !== null) ? reseeds : undefined };
  }

  /** Gives a node the name that the expression has for it. */
  private call(id: NodeId, name: string): void {
    const node = this.nodes[id];
    if (node?.kind !== "call" && node?.kind !== "sum" && node?.kind !== "text") return;
    this.named.add(id);
    if (node.called !== name) this.nodes[id] = { ...node, called: name };
  }

  private leaf(text: string, hint: NodeId | null, scope: ReadonlyMap<string, NodeId>): NodeId {
    const seeded = SEEDED.exec(text);
    const named = scope.get(text);
    if (named) return named;
    const other = seeded ? scope.get(seeded[1]!) : undefined;
    if (other) {
      const { id: _, called: __, ...copy } = this.nodes[other]! as CallNode;
      return this.keep({ ...copy, seed: Number(seeded![2]) } as Loose, hint, () => false);
    }
    if (text.startsWith("photo:") || FILE.test(text)) return this.photo(text, hint);
    return this.keep({ kind: "word", text }, hint, () => true);
  }

  private photo(photo: string, hint: NodeId | null): NodeId {
    const name = this.names.get(photo) ?? photo.replace(/^.*[/\\]/, "").replace(/^photo:([0-9a-f]{6}).*/, "$1.png");
    return this.keep({ kind: "photo", photo, name }, hint, () => false);
  }

  /** Returns the node that is this already; else the hinted one, changed, where it is of the kind; else a new one. */
  private keep(wanted: Loose, hint: NodeId | null, like: (node: StudioNode) => boolean): NodeId {
    const draft = { ...wanted, id: "draft", x: 0, y: 0 } as StudioNode;
    const text = textOf({ ...this.project, nodes: { ...this.nodes, draft } }, "draft");
    const same = this.byText.get(text);
    if (same && this.nodes[same]?.kind === wanted.kind) {
      this.claimed.add(same);
      const inputs = "reseeds" in wanted ? { inputs: wanted.inputs, reseeds: wanted.reseeds } : {};
      const left =
        this.mine.has(same) && !this.named.has(same) && calledOf(this.nodes[same]) ? { called: undefined } : {};
      this.nodes[same] = { ...this.nodes[same]!, ...inputs, ...left } as StudioNode;
      return same;
    }
    const old = hint && this.mine.has(hint) && !this.claimed.has(hint) ? this.project.nodes[hint] : undefined;
    const id = old && old.kind === wanted.kind && like(old) ? old.id : newId();
    if (id === old?.id)
      this.nodes[id] = { ...old, ...(calledOf(old) ? { called: undefined } : {}), ...wanted } as StudioNode;
    else {
      this.nodes[id] = { ...draft, id } as StudioNode;
      this.made.push(id);
    }
    this.claimed.add(id);
    this.byText.set(text, id);
    return id;
  }
}

type Loose = StudioNode extends infer N ? (N extends StudioNode ? Omit<N, "id" | "x" | "y"> : never) : never;

function mentions(tree: unknown, name: string): boolean {
  if (typeof tree === "string") return tree === name || tree.startsWith(`${name}@`);
  if (Array.isArray(tree)) return tree.some((part) => mentions(part, name));
  return typeof tree === "object" && tree !== null && Object.values(tree).some((part) => mentions(part, name));
}

/** Returns the project with a tree in it: in place of what `old` was made of, or beside everything. */
export function withTree(project: Project, tree: Tree, names: ReadonlyMap<string, string>, old: NodeId | null): Read {
  const reader = new Reader(project, names, old);
  const read = reader.read(tree, old, new Map());
  const root = read ?? newId();
  if (!read) {
    reader.nodes[root] = { kind: "missing", id: root, x: 0, y: 0 };
    reader.made.push(root);
  }
  const nodes = reader.nodes;
  const next: Project = { ...project, nodes, active: root };
  if (!old) return { project: next, root, made: reader.made };
  // What the old expression had, and nothing uses any more, goes; photos stay, as on a table.
  const kept = below(next, root);
  const gone = [...below(project, old)].filter((id) => !kept.has(id) && project.nodes[id]?.kind !== "photo");
  const used = new Set(Object.values(nodes).flatMap((node) => (gone.includes(node.id) ? [] : [...inputsOf(node)])));
  const left = Object.fromEntries(Object.entries(nodes).filter(([id]) => !gone.includes(id) || used.has(id)));
  const moved = old !== root && !gone.includes(old) ? left : withPlace(left, root, project.nodes[old]);
  return { project: { ...next, nodes: moved }, root, made: reader.made.filter((id) => left[id]) };
}

function withPlace(
  nodes: Record<NodeId, StudioNode>,
  root: NodeId,
  place: StudioNode | undefined,
): Record<NodeId, StudioNode> {
  const node = nodes[root];
  return node && place ? { ...nodes, [root]: { ...node, x: place.x, y: place.y } } : nodes;
}
