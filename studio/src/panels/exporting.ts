/** What leaves the studio: pictures, expressions, recipes, snippets, drawings, projects. */

import { api, imageUrl, svgUrl } from "../api/client";
import type { Recipe } from "../api/types";
import { photoNames } from "../model/text";
import { follow } from "../state/jobs";
import { attempt } from "../state/saving";
import { get, type Made, project, tell } from "../state/store";
import { t } from "../texts";
import { download } from "../ui/files";

export const fileName = (ending: string): string =>
  `${(get().name || "pops").replace(/[^\p{L}\p{N} _-]/gu, "").trim() || "pops"}${ending}`;

export async function copyText(text: string): Promise<void> {
  await navigator.clipboard.writeText(text);
  tell(t("export.copied"));
}

export function savePicture(made: Made): void {
  download(imageUrl(made.image), fileName(`-${made.seed}.png`));
}

export async function copySnippet(recipe: Recipe, as: "python" | "command"): Promise<void> {
  const names = Object.fromEntries(photoNames(project()));
  const found = await attempt(() => api.export(recipe, as, names));
  if (found) await copyText(found.text);
}

export function saveRecipe(recipe: Recipe): void {
  download(new Blob([`${JSON.stringify(recipe, null, 2)}\n`], { type: "application/json" }), fileName(".json"));
}

/** Has the server draw the tree or the equation of a recipe. */
export async function saveDrawing(recipe: Recipe, shows: "tree" | "equation", svg = false): Promise<void> {
  tell(t("export.drawing"));
  const job = await attempt(async () =>
    follow((await api.queue({ ...recipe, shows }, { reuse: true, quick: true })).id, () => undefined),
  );
  const image = job?.images[0];
  if (image) download(svg ? svgUrl(image.id) : imageUrl(image.id), fileName(`-${shows}.${svg ? "svg" : "png"}`));
  else if (job?.error) tell(job.error.message, "error");
}

/** Has the server draw pictures as one, each with its label; their recipes are inside. */
export async function saveSheet(cells: readonly { made: Made; label: string }[], title: string): Promise<void> {
  const sheet = await attempt(() =>
    api.sheet(
      cells.map(({ made, label }) => ({ image: made.image, label })),
      title,
    ),
  );
  if (sheet) download(sheet, fileName("-sheet.png"));
}

export function saveProjectFile(): void {
  const { id } = get();
  if (id) download(api.projectFile(id), fileName(".pops"));
}
