import { useEffect, useState } from "react";
import { exampleUrl, photoUrl } from "../api/client";
import type { Example, Recipe } from "../api/types";
import { hueOf } from "../model/specs";
import { openRecipe } from "../state/adding";
import { foresee, keyOf, type Shown, usePictures, WAITING, want } from "../state/pictures";
import { get, project, recipeOf } from "../state/store";
import { named, useLanguage } from "../texts";
import { Frame } from "../ui/Frame";

/** Returns the name of the outermost operator of an expression. */
function operatorOf(expression: string): string {
  const body = expression.split(";").at(-1)!.trim();
  return /^([\p{L}_][\p{L}\p{N}_]*)\(/u.exec(body)?.[1] ?? "sum";
}

/** Makes a project of an example, and opens it. */
async function openExample(example: Example, recipe: Recipe): Promise<void> {
  const root = await openRecipe(recipe, titleOf(example));
  const picture = exampleUrl(example);
  if (!root || !picture) return;
  foresee(recipeOf(project(), get().specs, root), picture);
}

function titleOf(example: Example): string {
  return named("example", example.name, example.title);
}

/** One worked example: what goes in, small, and what comes out, large. */
export function ExampleCard({ example }: { example: Example }) {
  useLanguage();
  const recipe = { ...example.recipe, seeds: example.recipe.seeds ?? [0] };
  const key = keyOf(recipe);
  const picture = exampleUrl(example);
  const made = usePictures((state) => state.byKey[key] ?? null);
  const shown: Shown | null = picture ? { ...WAITING, status: "done", preview: picture } : made;
  const [busy, setBusy] = useState(false);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the key stands for the recipe
  useEffect(() => (picture ? undefined : want(recipe)), [key, picture]);
  const words = [...example.recipe.expression.matchAll(/"([^"]+)"/g)].map((match) => match[1]!);
  return (
    <button
      type="button"
      className={`example hue-${hueOf(operatorOf(example.recipe.expression))}`}
      disabled={busy}
      onClick={() => {
        setBusy(true);
        void openExample(example, recipe).finally(() => setBusy(false));
      }}
    >
      <Frame shown={shown} alt="">
        <span className="operands">
          {example.photos.slice(0, 3).map((photo) => (
            <img key={photo} fetchPriority="low" src={photoUrl(`photo:${photo}`, 128) ?? undefined} alt="" />
          ))}
          {words.slice(0, 1).map((word) => (
            <span key={word}>{word}</span>
          ))}
        </span>
      </Frame>
      <span className="example-name">
        <span className="dot" />
        {titleOf(example)}
      </span>
    </button>
  );
}
