/** Operators as the server tells them, and what is asked of them: their inputs, options and colours. */

import type { CallNode } from "./types";

export type Kind = "image" | "text" | "any";

export interface Role {
  readonly name: string;
  readonly kind: Kind;
}

export interface OptionSpec {
  readonly name: string;
  readonly least: number;
  readonly most: number;
  readonly step: number;
  readonly usual: number;
}

export interface OperatorSpec {
  readonly name: string;
  readonly roles: readonly Role[];
  readonly repeat: boolean;
  readonly most: number | null;
  readonly summary: string;
  readonly open: boolean; // whether an operand may be missing
  readonly options: readonly OptionSpec[];
}

export type Specs = Readonly<Record<string, OperatorSpec>>;

/** MagicMix, which the language has beside the operators of a model (docs/magicmix.md). */
export const MIX: OperatorSpec = {
  name: "mix",
  roles: [
    { name: "layout", kind: "any" },
    { name: "content", kind: "any" },
  ],
  repeat: false,
  most: null,
  summary: "the first one's shape with the second one's look",
  open: false,
  options: [
    { name: "nu", least: 0, most: 1, step: 0.05, usual: 0.9 },
    { name: "k_min", least: 0, most: 1, step: 0.05, usual: 0.3 },
    { name: "k_max", least: 0, most: 1, step: 0.05, usual: 0.6 },
    { name: "strength", least: -2, most: 2, step: 0.1, usual: 1 },
  ],
};

/** Reads what GET /operators says; what it does not say has the language's own defaults. */
export function readSpecs(told: Readonly<Record<string, Readonly<Record<string, unknown>>>>): Specs {
  const found: Record<string, OperatorSpec> = {};
  for (const [name, spec] of Object.entries(told)) {
    const roles = Array.isArray(spec.roles) ? (spec.roles as Role[]) : [];
    const guidance = typeof spec.guidance === "number" ? spec.guidance : 1;
    const steps = typeof spec.steps === "number" ? spec.steps : 25;
    const strength = typeof spec.strength === "number" ? spec.strength : 1;
    found[name] = {
      name,
      roles: roles.map((role) => ({ name: role.name, kind: role.kind ?? "image" })),
      repeat: spec.repeat === true,
      most: typeof spec.most === "number" ? spec.most : null,
      summary: typeof spec.summary === "string" ? spec.summary : "",
      open: true,
      options: [
        { name: "strength", least: 0, most: 2, step: 0.05, usual: strength },
        { name: "guidance", least: 1, most: 12, step: 0.5, usual: guidance },
        { name: "steps", least: 1, most: 50, step: 1, usual: steps },
      ],
    };
  }
  found.mix ??= MIX;
  return found;
}

/** Returns the role of every input of a call, one more than it has where the last role repeats. */
export function rolesOf(spec: OperatorSpec | undefined, count: number): Role[] {
  if (!spec) return Array.from({ length: count }, (_, i) => ({ name: `operand ${i + 1}`, kind: "any" as const }));
  const roles = [...spec.roles];
  const last = roles.at(-1);
  while (spec.repeat && last && roles.length < count) roles.push(last);
  return roles;
}

/** Returns whether a call may have one more input. */
export function mayGrow(spec: OperatorSpec | undefined, node: CallNode): boolean {
  return spec?.repeat === true && (spec.most === null || node.inputs.length < spec.most);
}

const COLOURS = ["#c0663f", "#3f7d74", "#4b6cb0", "#8a5ba0", "#a8842c", "#b24c66", "#5f8a3e"] as const;

function crc32(text: string): number {
  let crc = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** Returns the number of an operator's colour, as drawings choose it (pops.figures.canvas.colour_of). */
export function hueOf(name: string): number {
  return crc32(`${name}9`) % COLOURS.length;
}

export function colourOf(name: string): string {
  return COLOURS[hueOf(name)] ?? COLOURS[0];
}
