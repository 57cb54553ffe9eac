/** What a project is: plain JSON, never changed in place, so that undo's snapshots share all that stays the same. */

export type NodeId = string;
export type Options = Readonly<Record<string, number | string>>;

/** What a recipe says beside its expression and seeds: how it is made, rendered, and what with. */
export interface More {
  readonly making?: Readonly<Record<string, unknown>>;
  readonly rendering?: Readonly<Record<string, unknown>>;
  readonly loading?: Readonly<Record<string, unknown>>;
}

interface Placed {
  readonly id: NodeId;
  readonly x: number;
  readonly y: number;
}

/** A photo of the server (an id), or a name that the server knows (examples/...). */
export interface PhotoNode extends Placed {
  readonly kind: "photo";
  readonly photo: string; // photo:ID or examples/...
  readonly name: string;
}

export interface WordNode extends Placed {
  readonly kind: "word";
  readonly text: string;
}

/** Chance: what a missing operand (`_`) is on the canvas, where somebody wants to see it. */
export interface MissingNode extends Placed {
  readonly kind: "missing";
}

/** A node whose picture is made. */
interface Made extends Placed {
  readonly more?: More; // in place of the project's: of a picture that was dropped
}

/** A part that an expression may give a name. */
interface Named extends Made {
  readonly called?: string | undefined; // let CALLED = ...
}

interface Joined extends Named {
  readonly inputs: readonly (NodeId | null)[];
  readonly reseeds?: readonly (number | null)[] | undefined; // of inputs that are taken with another seed: t@7
}

/** An operator's call; an input that is null is a missing operand. */
export interface CallNode extends Joined {
  readonly kind: "call";
  readonly op: string;
  readonly options: Options;
  readonly seed: number | null;
}

export interface SumNode extends Joined {
  readonly kind: "sum";
  readonly weights: readonly number[];
}

/** A sentence that the base prior makes into a picture. */
export interface TextNode extends Named {
  readonly kind: "text";
  readonly text: string;
  readonly options: Options;
  readonly seed: number | null;
}

/** Photos that are pinned together; its value is their mean. */
export interface BoardNode extends Made {
  readonly kind: "board";
  readonly name: string;
  readonly photos: readonly { readonly photo: string; readonly name: string }[];
}

/** A picture, larger. No expression has such a thing: what it says ends in the recipe's rendering. */
export interface UpscaleNode extends Placed {
  readonly kind: "upscale";
  readonly inputs: readonly (NodeId | null)[];
  readonly enlarge: number; // times, by interpolation
  readonly upscale: number | null; // times, by the model's own upscaler
}

/** What a library has that is nearest to a picture. */
export interface SearchNode extends Placed {
  readonly kind: "search";
  readonly inputs: readonly (NodeId | null)[];
  readonly library: string | null; // the server's first, unless chosen
}

export type EndNode = UpscaleNode | SearchNode;
export type MadeNode = CallNode | SumNode | TextNode | BoardNode | UpscaleNode;
export type StudioNode = PhotoNode | WordNode | MissingNode | MadeNode | SearchNode;

/** Returns whether a node's picture is made. */
export function isMade(node: StudioNode | null | undefined): node is MadeNode {
  return !!node && !["photo", "word", "missing", "search"].includes(node.kind);
}

/** Returns whether an expression ends at a node: nothing comes out of it. */
export function isEnd(node: StudioNode | null | undefined): node is EndNode {
  return node?.kind === "upscale" || node?.kind === "search";
}

export interface Pin {
  readonly image: string; // id of an image of the server
  readonly job: string;
  readonly seed: number;
  readonly label: string;
}

export interface Settings {
  readonly model: string | null; // the server's default, unless named
  readonly seed: number; // of pictures whose calls have none
  readonly enlarge: number;
  readonly more?: More; // of all pictures, unless a node has its own
}

export interface Project {
  readonly format: 1;
  readonly nodes: Readonly<Record<NodeId, StudioNode>>;
  readonly active: NodeId | null; // the node whose expression stands in the line
  readonly pinned: readonly Pin[];
  readonly settings: Settings;
  readonly photos: readonly string[]; // ids that the server keeps for the project
  readonly pins: readonly string[]; // ids of images that it keeps
}

/** An expression as plain data, in the form of the server's /parse. */
export type Tree = string | null | { readonly [key: string]: unknown };

export const EMPTY: Project = {
  format: 1,
  nodes: {},
  active: null,
  pinned: [],
  settings: { model: null, seed: 0, enlarge: 1 },
  photos: [],
  pins: [],
};

export function inputsOf(node: StudioNode): readonly (NodeId | null)[] {
  return "inputs" in node ? node.inputs : [];
}

/** Returns the name of a node in expressions, where it has one. */
export function calledOf(node: StudioNode | undefined): string | undefined {
  return node && "called" in node ? node.called : undefined;
}

/** Returns the seeds with which a node takes its inputs, where these are not the inputs' own. */
export function reseedsOf(node: StudioNode): readonly (number | null)[] {
  return ("reseeds" in node ? node.reseeds : undefined) ?? [];
}

let counter = 0;

/** Returns an id that no node of any window has. */
export function newId(): NodeId {
  counter += 1;
  return `${Date.now().toString(36)}${counter.toString(36)}${Math.floor(Math.random() * 1296).toString(36)}`;
}
