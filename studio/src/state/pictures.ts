/** Pictures of nodes: asked for when a node is seen, one at a time, and kept by what they are of. */

import { create } from "zustand";
import { api, Refused } from "../api/client";
import type { Problem, Recipe, Warning } from "../api/types";
import { follow, type Told } from "./jobs";

export interface Shown {
  readonly status: "waiting" | "running" | "done" | "failed" | "stopped";
  readonly progress: number;
  readonly preview: string | null;
  readonly image: string | null;
  readonly job: string | null;
  readonly error: Problem | null;
  readonly warnings: readonly Warning[];
}

export const WAITING: Shown = {
  status: "waiting",
  progress: 0,
  preview: null,
  image: null,
  job: null,
  error: null,
  warnings: [],
};
const AHEAD = 2; // jobs that are queued at a time: one is made, and the next one waits for it
const TRIES = 3; // times that a picture which another window cancelled is asked for again
const MOST = 600; // pictures that are remembered

export const usePictures = create<{ byKey: Readonly<Record<string, Shown>> }>(() => ({ byKey: {} }));

export const keyOf = (recipe: Recipe): string => JSON.stringify(recipe);

function set(key: string, patch: Partial<Shown>): void {
  usePictures.setState(({ byKey }) => ({ byKey: { ...byKey, [key]: { ...(byKey[key] ?? WAITING), ...patch } } }));
}

const foreseen = new Map<string, string>();

/** Has a picture shown that is known already, until the server has made it. */
export function foresee(recipe: Recipe, url: string): void {
  foreseen.set(keyOf(recipe), url);
}

interface Wish {
  readonly recipe: Recipe;
  readonly key: string;
  wanted: number; // nodes that show it
  tries: number; // how often somebody else has cancelled it
  stop: AbortController | null;
  job: string | null;
}

const wishes = new Map<string, Wish>();
let queue: Wish[] = [];
let busy = 0;

/** Asks for a picture; returns what takes the wish back. */
export function want(recipe: Recipe): () => void {
  const key = keyOf(recipe);
  let wish = wishes.get(key);
  if (!wish) {
    wish = { recipe, key, wanted: 0, tries: 0, stop: null, job: null };
    wishes.set(key, wish);
  }
  const own = wish;
  own.wanted += 1;
  const known = usePictures.getState().byKey[key]?.status;
  if (!known) {
    set(key, { preview: foreseen.get(key) ?? null });
    queue.push(own);
    next();
  } else if (known === "waiting" && !own.stop && !queue.includes(own)) {
    queue.push(own);
    next();
  }
  return () => {
    own.wanted -= 1;
    if (own.wanted <= 0) setTimeout(() => own.wanted <= 0 && forget(own), 300); // a node that is drawn anew keeps it
  };
}

/** Nobody looks at it any more: what waits is not made. */
function forget(wish: Wish): void {
  const state = usePictures.getState().byKey[wish.key];
  if (!state || state.status === "done" || state.status === "failed") return;
  queue = queue.filter((other) => other !== wish);
  if (wish.job) void api.cancel(wish.job).catch(() => undefined);
  wish.stop?.abort();
  drop(wish.key);
}

function drop(key: string): void {
  wishes.delete(key);
  usePictures.setState(({ byKey }) => {
    const { [key]: _, ...rest } = byKey;
    return { byKey: rest };
  });
}

/** Stops making a picture; it is made again when asked by `again`. */
export function stop(key: string): void {
  const wish = wishes.get(key); // none yet where the node has only just asked
  queue = queue.filter((other) => other !== wish);
  if (wish?.job) void api.cancel(wish.job).catch(() => undefined);
  wish?.stop?.abort();
  set(key, { status: "stopped", preview: null });
}

export function again(key: string): void {
  const wish = wishes.get(key);
  if (!wish) {
    drop(key); // the node is about to ask for it
    return;
  }
  set(key, WAITING);
  queue.push(wish);
  next();
}

/** Forgets all that failed because the server was not there, so that it is asked for again. */
export function retryFailed(): void {
  for (const [key, shown] of Object.entries(usePictures.getState().byKey)) if (shown.status === "failed") again(key);
}

function next(): void {
  while (busy < AHEAD && queue.length) {
    const wish = queue.shift()!;
    busy += 1;
    void make(wish).finally(() => {
      busy -= 1;
      next();
    });
  }
}

async function make(wish: Wish): Promise<void> {
  const { key, recipe } = wish;
  wish.stop = new AbortController();
  const { signal } = wish.stop;
  const tell = (told: Told): void => {
    if (signal.aborted) return;
    set(key, {
      ...(told.status === "running" ? { status: "running" as const } : {}),
      ...(told.progress === undefined ? {} : { progress: told.progress }),
      ...(told.previews?.[0] && !foreseen.has(key) ? { preview: told.previews[0] } : {}),
    });
  };
  try {
    const { id, reused } = await api.queue(recipe, { reuse: true, quick: true });
    if (!reused) wish.job = id; // what another window asked for is not ours to cancel
    if (signal.aborted) {
      if (!reused) await api.cancel(id);
      return;
    }
    const job = await follow(id, tell, signal);
    if (signal.aborted) return;
    const image = job.images[0]?.id ?? null;
    if (job.status === "done")
      set(key, { status: "done", image, job: id, preview: null, warnings: job.warnings ?? [] });
    else if (job.status === "cancelled" && wish.wanted > 0 && wish.tries < TRIES) {
      wish.tries += 1;
      queue.push(wish);
    } else if (job.status === "cancelled") set(key, { status: "stopped", preview: null });
    else set(key, { status: "failed", error: job.error, preview: null });
    tidy();
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Refused && error.status === 429) {
      setTimeout(() => again(key), Math.max(1, error.after) * 1000);
      return;
    }
    const problem =
      error instanceof Refused ? error.problem : { code: "Unreachable", message: String((error as Error).message) };
    set(key, { status: "failed", error: problem });
  } finally {
    wish.stop = null;
    wish.job = null;
  }
}

/** Forgets the oldest pictures that no node shows. */
function tidy(): void {
  const keys = Object.keys(usePictures.getState().byKey);
  for (const key of keys.slice(0, Math.max(0, keys.length - MOST))) if (!wishes.get(key)?.wanted) drop(key);
}
