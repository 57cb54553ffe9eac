/** Jobs that a person asked for: several images of one recipe, seen as they come. */

import { create } from "zustand";
import { api, Refused } from "../api/client";
import type { Problem, Recipe, Status } from "../api/types";
import { t } from "../texts";
import { follow } from "./jobs";
import type { Shown } from "./pictures";
import { keyOf } from "./pictures";
import { type Made, set as setStudio } from "./store";

export interface Run {
  readonly recipe: Recipe;
  readonly job: string | null;
  readonly status: Status;
  readonly images: Readonly<Record<number, string>>; // by number
  readonly previews: Readonly<Record<number, string>>;
  readonly progress: number;
  readonly error: Problem | null;
}

export const useRuns = create<{ byKey: Readonly<Record<string, Run>> }>(() => ({ byKey: {} }));
const stops = new Map<string, AbortController>();

function set(key: string, patch: (run: Run) => Partial<Run>): void {
  useRuns.setState(({ byKey }) => {
    const run = byKey[key];
    return run ? { byKey: { ...byKey, [key]: { ...run, ...patch(run) } } } : {};
  });
}

/** Runs a recipe unless it runs or is done; returns its key. */
export function run(recipe: Recipe): string {
  const key = keyOf(recipe);
  const known = useRuns.getState().byKey[key];
  if (known && known.status !== "failed" && known.status !== "cancelled") return key;
  const first: Run = { recipe, job: null, status: "queued", images: {}, previews: {}, progress: 0, error: null };
  useRuns.setState(({ byKey }) => ({ byKey: { ...byKey, [key]: first } }));
  void make(key, recipe);
  return key;
}

async function make(key: string, recipe: Recipe): Promise<void> {
  const stop = new AbortController();
  stops.set(key, stop);
  try {
    const { id } = await api.queue(recipe, { reuse: true });
    set(key, () => ({ job: id }));
    const job = await follow(
      id,
      (told) =>
        set(key, (now) => {
          const left = (recipe.seeds ?? [0]).map((_, i) => i).filter((i) => !now.images[i]);
          const previews = told.previews && Object.fromEntries(told.previews.map((url, i) => [left[i] ?? i, url]));
          return {
            ...(told.status ? { status: told.status } : {}),
            ...(told.progress === undefined ? {} : { progress: told.progress }),
            ...(previews ? { previews } : {}),
            ...(told.image ? { images: { ...now.images, [told.image.number]: told.image.id } } : {}),
          };
        }),
      stop.signal,
    );
    const images = Object.fromEntries(job.images.map((image) => [image.number, image.id]));
    set(key, () => ({ status: job.status, images, previews: {}, error: job.error }));
  } catch (error) {
    if (stop.signal.aborted) return;
    const problem = error instanceof Refused ? error.problem : { code: "Unreachable", message: t("server.gone") };
    if (error instanceof Refused && error.status === 401) setStudio({ locked: true });
    set(key, () => ({ status: "failed", error: problem }));
  } finally {
    stops.delete(key);
  }
}

export function cancelRun(key: string): void {
  const found = useRuns.getState().byKey[key];
  if (found?.job) void api.cancel(found.job).catch(() => undefined);
  set(key, () => ({ status: "cancelled", previews: {} }));
}

/** Returns one image of a run as frames show it. */
export function shownOf(found: Run | undefined, number: number): Shown | null {
  if (!found) return null;
  const image = found.images[number] ?? null;
  const ended = found.status === "failed" || found.status === "cancelled";
  const status = image
    ? "done"
    : ended
      ? found.status === "failed"
        ? "failed"
        : "stopped"
      : found.status === "running"
        ? "running"
        : "waiting";
  return {
    status,
    progress: found.progress,
    preview: found.previews[number] ?? null,
    image,
    job: found.job,
    error: found.error,
    warnings: [],
  };
}

export function madeAt(found: Run | undefined, number: number): Made | null {
  const image = found?.images[number];
  if (!found?.job || !image) return null;
  const seed = found.recipe.seeds?.[number] ?? 0;
  return { image, job: found.job, seed, recipe: { ...found.recipe, seeds: [seed] } };
}
