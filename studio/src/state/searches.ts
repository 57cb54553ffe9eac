/** What libraries have that is nearest to an expression: asked for when a node is seen, and kept. */

import { create } from "zustand";
import { api, Refused } from "../api/client";
import type { Match, Recipe } from "../api/types";
import { t } from "../texts";

const COUNT = 9;
const AGAIN = 2000; // milliseconds after which a server that is at work is asked again
const MOST = 100; // searches that are remembered

interface Found {
  readonly matches: readonly Match[] | null; // null: not yet
  readonly error: string | null;
}

export const useSearches = create<{ byKey: Readonly<Record<string, Found>> }>(() => ({ byKey: {} }));

export interface Asked {
  readonly recipe: Recipe;
  readonly library: string;
}

function set(key: string, found: Found): void {
  useSearches.setState(({ byKey }) => {
    const kept = Object.entries(byKey).slice(-MOST);
    return { byKey: { ...Object.fromEntries(kept), [key]: found } };
  });
}

/** Searches, unless that is done or under way; returns what ends the asking. */
export function search(asked: Asked): () => void {
  const key = JSON.stringify(asked);
  let timer: ReturnType<typeof setTimeout> | undefined;
  let over = false;
  const ask = async (): Promise<void> => {
    try {
      const { matches } = await api.search(asked.recipe, asked.library, COUNT);
      set(key, { matches, error: null });
    } catch (error) {
      const busy = error instanceof Refused && (error.status === 503 || error.status === 429);
      if (busy && !over) timer = setTimeout(() => void ask(), AGAIN);
      else if (!busy) set(key, { matches: null, error: error instanceof Refused ? error.message : t("server.gone") });
    }
  };
  if (!useSearches.getState().byKey[key]?.matches) {
    set(key, { matches: null, error: null });
    void ask();
  }
  return () => {
    over = true;
    clearTimeout(timer);
  };
}
