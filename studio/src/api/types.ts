/** The shapes of the server's answers (its OpenAPI schema is at /openapi.json). */

import type { Project, Tree } from "../model/types";

export type Status = "queued" | "running" | "done" | "failed" | "cancelled";

export interface Problem {
  readonly code: string;
  readonly message: string;
  readonly span?: readonly [number, number] | null;
  readonly suggestion?: string | null;
}

export interface Recipe {
  readonly expression: string;
  readonly seeds?: readonly number[];
  readonly shows?: "image" | "tree" | "equation" | "grid";
  readonly rendering?: Readonly<Record<string, unknown>>;
  readonly loading?: Readonly<Record<string, unknown>>;
  readonly [key: string]: unknown;
}

export interface Picture {
  readonly id: string;
  readonly number: number;
  readonly width: number;
  readonly height: number;
}

export interface Warning {
  readonly code: string;
  readonly operand: string;
  readonly message: string;
}

export interface Job {
  readonly place: number | null; // in the history; null of a quick one
  readonly names?: Readonly<Record<string, string>>; // photo:ID -> the name of its file
  readonly id: string;
  readonly status: Status;
  readonly recipe: Recipe;
  readonly images: readonly Picture[];
  readonly error: Problem | null;
  readonly created: number;
  readonly favourite?: boolean;
  readonly warnings?: readonly Warning[];
}

export interface Photo {
  readonly id: string;
  readonly width: number;
  readonly height: number;
  readonly name?: string | null;
}

export interface Model {
  readonly name: string;
  readonly version?: string;
  readonly default?: boolean;
  readonly upscale?: number; // times, by its own upscaler; 1: it has none
}

export interface Need {
  readonly name: string;
  readonly needs: string;
  readonly get: string;
  readonly here: boolean;
}

export interface Models {
  readonly models: readonly Model[];
  readonly needs?: readonly Need[];
}

export interface Example {
  readonly name: string;
  readonly title: string;
  readonly recipe: Recipe;
  readonly photos: readonly string[];
  readonly picture: string | null; // the version of the one that ships with pops
}

export interface Parsed {
  readonly text: string;
  readonly tree: Tree;
  readonly photos: readonly string[];
}

export interface Opened {
  readonly recipe: Recipe;
  readonly text: string;
  readonly tree: Tree;
  readonly missing: readonly string[];
  readonly notes: readonly string[]; // to be shown
}

export interface ProjectRow {
  readonly id: string;
  readonly name: string;
  readonly revision: number;
  readonly changed: number;
  readonly thumbnail: string | null;
}

export interface ProjectWhole extends ProjectRow {
  readonly document: Project;
}

export interface Match {
  readonly id: string;
  readonly name: string;
  readonly score: number;
}
