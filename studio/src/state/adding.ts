/** What comes from outside: photos, pictures with a recipe inside, projects, recipes of the history. */

import { api } from "../api/client";
import type { Recipe } from "../api/types";
import { patched, type Spot, withNode } from "../model/edits";
import { hasRecipe } from "../model/png";
import { EDGE, PICTURE } from "../model/size";
import { EMPTY, type NodeId, newId, type PhotoNode, type StudioNode } from "../model/types";
import { t } from "../texts";
import { type Names, put } from "./putting";
import { attempt, create, open } from "./saving";
import { edit, get, project, select, set, tell } from "./store";
import { view } from "./view";

const PHOTO = /\.(png|jpe?g|webp|gif|bmp|tiff?|heic|heif|avif)$/i;

/** Takes in what was dropped, pasted or chosen: photos, pictures with a recipe inside, projects. */
export async function addFiles(files: readonly File[], at?: Spot): Promise<void> {
  const packed = files.find((file) => file.name.toLowerCase().endsWith(".pops"));
  if (packed) {
    const made = await attempt(() => api.readProjectFile(packed, packed.name));
    if (made) await attempt(() => open(made.id));
    return;
  }
  const photos = files.filter((file) => file.type.startsWith("image/") || PHOTO.test(file.name));
  for (const file of files) if (!photos.includes(file)) tell(t("drop.notphoto", { name: file.name }), "error");
  if (!photos.length) return;
  if (!get().id && !(await ready(photos))) return;
  set((state) => ({ uploading: state.uploading + photos.length }));
  let spot = at ?? beside();
  const made: NodeId[] = [];
  for (const file of photos) {
    const id = await attempt(() => addOne(file, spot));
    if (id) made.push(id);
    spot = { x: spot.x, y: spot.y + PICTURE + 80 };
    set((state) => ({ uploading: state.uploading - 1 }));
  }
  select(made);
  if (!at) requestAnimationFrame(() => view.fit());
}

async function ready(photos: readonly File[]): Promise<boolean> {
  const name = photos[0]!.name.replace(/\.[^.]+$/, "").slice(0, 60) || t("project.untitled");
  await attempt(() => create(name, EMPTY));
  return get().id !== null;
}

/** Returns a place to the left of what is there: where operands stand. */
export function beside(): Spot {
  const nodes = Object.values(project().nodes);
  if (!nodes.length) return { x: 0, y: 0 };
  const photos = nodes.filter((node) => node.kind === "photo");
  const among = photos.length ? photos : nodes;
  return { x: Math.min(...among.map((node) => node.x)), y: Math.max(...among.map((node) => node.y)) + PICTURE + 80 };
}

async function addOne(file: File, at: Spot): Promise<NodeId> {
  const name = file.name || "photo.png";
  if (await hasRecipe(file)) {
    const opened = await api.open(file, name);
    const root = put(opened.recipe, opened.tree, null, opened.missing.length ? {} : await namesIn(opened.recipe));
    if (opened.missing.length) tell(t("drop.missing", { names: opened.missing.join(", ") }), "error");
    else tell(t("drop.recipe"));
    for (const note of opened.notes) tell(note);
    return root;
  }
  const photo = await api.upload(file, name);
  const lost = Object.values(project().nodes).find((node) => node.kind === "photo" && node.photo === name);
  if (lost) {
    edit((now) => patched(now, lost.id, { photo: `photo:${photo.id}`, name } as Partial<StudioNode>));
    return lost.id;
  }
  const node: PhotoNode = { kind: "photo", id: newId(), x: at.x - EDGE, y: at.y, photo: `photo:${photo.id}`, name };
  edit((now) => withNode(now, get().specs, node));
  return node.id;
}

/** Returns how the photos of a recipe are called: its job knows, which the canvas wants anyway. */
async function namesIn(recipe: Recipe): Promise<Names> {
  const names = await attempt(async () => {
    const { id } = await api.queue(recipe, { reuse: true, quick: true });
    return (await api.job(id)).names;
  });
  return names ?? {};
}

/** Opens what made an image on the canvas: its whole tree. */
export async function openRecipe(recipe: Recipe, title = t("project.untitled")): Promise<NodeId | undefined> {
  const parsed = await attempt(() => api.parse({ text: recipe.expression }, project().settings.model));
  if (!parsed) return undefined;
  const names = await namesIn(recipe);
  if (!get().id) await attempt(() => create(title, EMPTY));
  return put(recipe, parsed.tree, null, names);
}

/** Takes images of the server as photos, and makes them one node: their mean. */
export async function meanOf(images: readonly { image: string; label: string }[]): Promise<void> {
  const photos = await attempt(() =>
    Promise.all(
      images.map(async ({ image }, i) => {
        const blob = await (await fetch(`/api/v1/images/${image}?recipe=0`)).blob();
        const name = `pinned-${i + 1}.png`;
        const { id } = await api.upload(blob, name);
        return { photo: `photo:${id}`, name };
      }),
    ),
  );
  if (!photos) return;
  const node: StudioNode = { kind: "board", id: newId(), ...view.middle(), name: "", photos };
  edit((now) => ({ ...withNode(now, get().specs, node), active: node.id }));
  select([node.id]);
}
