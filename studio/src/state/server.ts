/** What the server has: asked for at the start, and again when it was away. */

import { api, Refused } from "../api/client";
import { readSpecs } from "../model/specs";
import { retryFailed } from "./pictures";
import { get, set } from "./store";

const PAUSE = 3000;

export async function loadSpecs(model: string | null): Promise<void> {
  const found = await api.operators(model);
  set({ specs: readSpecs(found.operators) });
}

/** The server is gone: says so, and asks until it is back. */
export function lost(): void {
  if (get().reached === false) return;
  set({ reached: false });
  setTimeout(() => void meet(), PAUSE);
}

/** Asks until the server answers. */
export async function meet(): Promise<void> {
  try {
    const asked = api.gallery();
    asked.catch(() => undefined); // it is told below
    const [models, sources] = await Promise.all([
      api.models(),
      api.sources(),
      loadSpecs(get().history.now.settings.model),
    ]);
    const back = get().reached === false;
    set({
      reached: true,
      locked: false,
      models: models.models,
      needs: models.needs ?? [],
      libraries: sources.libraries,
    });
    if (back) retryFailed();
    const { examples } = await asked;
    set({ examples });
  } catch (error) {
    if (error instanceof Refused && error.status === 401) set({ locked: true, reached: true });
    else if (error instanceof Refused && get().reached) set({ examples: [] });
    else {
      set({ reached: false });
      setTimeout(() => void meet(), PAUSE);
    }
  }
}
