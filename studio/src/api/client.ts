/** All that the page asks of its server. Nothing else is ever asked. */

import type { Project, Tree } from "../model/types";
import type {
  Example,
  Job,
  Match,
  Models,
  Opened,
  Parsed,
  Photo,
  Problem,
  ProjectRow,
  ProjectWhole,
  Recipe,
} from "./types";

const ROOT = "/api/v1";

/** A refusal, with what the server says of it. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly problem: Problem,
    readonly after: number, // seconds after which to ask again
  ) {
    super(problem.message);
  }
}

/** The server cannot be reached. */
export class Unreachable extends Error {}

async function ask<T>(path: string, init: RequestInit = {}): Promise<T> {
  let response: Response;
  try {
    response = await fetch(ROOT + path, { credentials: "same-origin", ...init });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Unreachable("the server cannot be reached");
  }
  if (response.status === 204) return undefined as T;
  const kind = response.headers.get("content-type") ?? "";
  if (kind.startsWith("image/")) return (await response.blob()) as T;
  const told = kind.includes("json") ? await response.json() : null;
  if (response.ok) return told as T;
  const problem = (told as { error?: Problem } | null)?.error ?? { code: "Error", message: response.statusText };
  throw new Refused(response.status, problem, Number(response.headers.get("retry-after") ?? 0));
}

function json(method: string, body: unknown): RequestInit {
  return { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

function form(file: Blob, name: string): RequestInit {
  const body = new FormData();
  body.append("file", file, name);
  return { method: "POST", body };
}

const query = (values: Record<string, string | number | boolean | null | undefined>): string => {
  const known = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return known.length ? `?${new URLSearchParams(known.map(([key, value]) => [key, String(value)]))}` : "";
};

export const api = {
  operators: (model: string | null) =>
    ask<{ model: string; operators: Record<string, Record<string, unknown>> }>(`/operators${query({ model })}`),
  models: () => ask<Models>("/models"),
  sources: () => ask<{ examples: string[]; libraries: string[] }>("/sources"),
  gallery: () => ask<{ examples: Example[] }>("/gallery"),
  login: (token: string) => ask<void>("/session", json("POST", { token })),

  upload: (file: Blob, name: string) => ask<Photo>("/photos", form(file, name)),
  open: (file: Blob, name: string) => ask<Opened>("/open", form(file, name)),
  parse: (asked: { text: string } | { tree: Tree }, model: string | null) =>
    ask<Parsed>("/parse", json("POST", { ...asked, ...(model ? { model } : {}) })),

  queue: (recipe: Recipe, how: { reuse?: boolean; quick?: boolean } = {}) =>
    ask<{ id: string; reused?: boolean }>(
      `/jobs${query({ reuse: how.reuse ? 1 : null, quick: how.quick ? 1 : null })}`,
      json("POST", recipe),
    ),
  job: (id: string) => ask<Job>(`/jobs/${id}`),
  cancel: (id: string) => ask<Job>(`/jobs/${id}`, { method: "DELETE" }),
  favourite: (id: string, favourite: boolean) => ask<unknown>(`/jobs/${id}/favourite`, json("POST", { favourite })),
  history: (asked: {
    text?: string;
    operator?: string;
    before?: number | undefined;
    limit?: number;
    favourite?: number | null;
  }) => ask<{ jobs: Job[] }>(`/history${query(asked)}`),
  search: ({ expression, seeds, making, loading }: Recipe, library: string, count: number) =>
    ask<{ matches: Match[] }>(
      "/search",
      json("POST", { expression, seed: seeds?.[0] ?? 0, making, loading, library, count }),
    ),
  export: (recipe: Recipe, as: "python" | "command", names: Record<string, string>) =>
    ask<{ text: string }>("/export", json("POST", { recipe, as, names })),

  sheet: (cells: readonly { image: string; label: string }[], title: string) =>
    ask<Blob>("/sheet", json("POST", { cells, title })),

  projects: () => ask<{ projects: ProjectRow[] }>("/projects"),
  project: (id: string) => ask<ProjectWhole>(`/projects/${id}`),
  makeProject: (name: string, document: Project) =>
    ask<{ id: string; revision: number }>("/projects", json("POST", { name, document })),
  saveProject: (id: string, name: string, document: Project, revision: number, keepalive = false) =>
    ask<{ id: string; revision: number }>(`/projects/${id}`, {
      ...json("PUT", { name, document, revision }),
      keepalive,
    }),
  dropProject: (id: string) => ask<unknown>(`/projects/${id}`, { method: "DELETE" }),
  projectFile: (id: string) => `${ROOT}/projects/${id}/file`,
  readProjectFile: (file: Blob, name: string) =>
    ask<{ id: string; revision: number }>("/projects/file", form(file, name)),
};

export const events = (job: string): string => `${ROOT}/jobs/${job}/events`;

const SIZES = [64, 128, 256, 512, 1024] as const;
export type Size = (typeof SIZES)[number];

/** Returns the address of a photo as recipes name it; null for one that the server shows no copy of. */
export function photoUrl(photo: string, size: Size = 512): string | null {
  return photo.startsWith("photo:") ? `${ROOT}/photos/${photo.slice(6)}?size=${size}` : null;
}

export function imageUrl(image: string, size?: Size): string {
  return `${ROOT}/images/${image}${size ? `?size=${size}` : ""}`;
}

/** Returns the address of the picture of a worked example that ships with pops; null where there is none. */
export const exampleUrl = ({ name, picture }: Example): string | null =>
  picture && `${ROOT}/gallery/${name}?v=${picture}`;

export const svgUrl = (image: string): string => `${ROOT}/images/${image}?format=svg`;
