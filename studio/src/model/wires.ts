/** What may be joined to what, and why not. */

import { type OperatorSpec, type Role, rolesOf, type Specs } from "./specs";
import { inputsOf, isEnd, type NodeId, type Project, type StudioNode } from "./types";

export type Value = "image" | "text" | "any";

export type Refusal =
  | { readonly why: "wants-image"; readonly role: string }
  | { readonly why: "wants-word"; readonly role: string }
  | { readonly why: "never-open"; readonly role: string }
  | { readonly why: "end" }
  | { readonly why: "circle" };

/** Returns what comes out of a node: a picture, words, or chance, which fits everywhere an operand may be missing. */
export function kindOf(node: StudioNode): Value {
  if (node.kind === "word") return "text";
  return node.kind === "missing" ? "any" : "image";
}

/** Returns the role of a node's input. A sum's parts are pictures; a sum that is a mix's content may hold words. */
export function roleOf(specs: Specs, node: StudioNode, index: number): Role | null {
  if (node.kind === "sum") return { name: "part", kind: "any" };
  if (isEnd(node)) return index === 0 ? { name: "picture", kind: "image" } : null;
  if (node.kind !== "call") return null;
  return rolesOf(specs[node.op], node.inputs.length)[index] ?? null;
}

export function fits(spec: OperatorSpec | undefined, role: Role, source: StudioNode): Refusal | null {
  if (isEnd(source)) return { why: "end" };
  const value = kindOf(source);
  if (source.kind === "missing") return spec?.open === false ? { why: "never-open", role: role.name } : null;
  if (role.kind === "any" || role.kind === value) return null;
  return { why: role.kind === "image" ? "wants-image" : "wants-word", role: role.name };
}

/** Returns whether `from` stands in what `node` is made of (or is it). */
export function reaches(project: Project, node: NodeId, from: NodeId): boolean {
  const seen = new Set<NodeId>();
  const stack = [node];
  while (stack.length) {
    const id = stack.pop()!;
    if (id === from) return true;
    if (seen.has(id)) continue;
    seen.add(id);
    const found = project.nodes[id];
    if (found) for (const input of inputsOf(found)) if (input) stack.push(input);
  }
  return false;
}

/** Returns why a wire from `source` to an input of `target` cannot be; null where it can. */
export function refusal(project: Project, specs: Specs, source: NodeId, target: NodeId, index: number): Refusal | null {
  const from = project.nodes[source];
  const to = project.nodes[target];
  if (!from || !to) return { why: "circle" };
  if (reaches(project, source, target)) return { why: "circle" };
  const role = roleOf(specs, to, index);
  if (!role) return { why: "circle" };
  if (isEnd(from)) return { why: "end" };
  if (isEnd(to) && from.kind === "missing") return { why: "never-open", role: role.name };
  if (to.kind === "sum") return from.kind === "missing" ? { why: "never-open", role: role.name } : null;
  return fits(to.kind === "call" ? specs[to.op] : undefined, role, from);
}
