import { useEffect, useMemo, useState } from "react";
import type { Recipe } from "../api/types";
import { isMade, type NodeId } from "../model/types";
import { keyOf, type Shown, usePictures, WAITING, want } from "../state/pictures";
import { type Made, recipeOf, unreadyOf, useStudio } from "../state/store";

const PAUSE = 300; // milliseconds that an expression must stay the same before its picture is asked for

/** Returns the recipe of a node's picture; null while something is missing, or where it needs none. */
function useNodeRecipe(id: NodeId): Recipe | null {
  const key = useStudio(({ history: { now }, specs }) =>
    isMade(now.nodes[id]) && !unreadyOf(now, specs, id) ? keyOf(recipeOf(now, specs, id)) : null,
  );
  return useMemo(() => (key === null ? null : (JSON.parse(key) as Recipe)), [key]);
}

/** Has a node's picture made, as long as the node is on the screen; the last one stays until the next is there. */
export function usePicture(id: NodeId): { shown: Shown | null; made: Made | null; stale: boolean; key: string | null } {
  const recipe = useNodeRecipe(id);
  const key = recipe && keyOf(recipe);
  const shown = usePictures((state) => (key ? (state.byKey[key] ?? null) : null));
  const [last, setLast] = useState<string | null>(null);

  useEffect(() => {
    if (!recipe) return;
    let release: (() => void) | undefined;
    const known = usePictures.getState().byKey[keyOf(recipe)]?.status === "done";
    const timer = setTimeout(
      () => {
        release = want(recipe);
      },
      known ? 0 : PAUSE,
    );
    return () => {
      clearTimeout(timer);
      release?.();
    };
  }, [recipe]);

  const image = shown?.image ?? null;
  useEffect(() => {
    if (image) setLast(image);
  }, [image]);

  const made = useMemo<Made | null>(
    () => (image && shown?.job && recipe ? { image, job: shown.job, seed: recipe.seeds?.[0] ?? 0, recipe } : null),
    [image, shown?.job, recipe],
  );
  const stale = !image && last !== null && recipe !== null && shown?.status !== "failed";
  const kept: Shown | null = stale
    ? { ...(shown ?? WAITING), status: shown?.status ?? "waiting", image: shown?.preview ? null : last }
    : (shown ?? (recipe ? WAITING : null));
  return { shown: kept, made, stale, key };
}
