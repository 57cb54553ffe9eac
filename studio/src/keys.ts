/** Keys of the canvas, wherever the focus is; fields and dialogs keep theirs. */

import { isMade } from "./model/types";
import { askJoin } from "./panels/Palette";
import { copyChosen, pasteAny } from "./state/clipboard";
import { pin, vary } from "./state/ideas";
import { duplicate, nudge, removeChosen, selectAll, tidyAll } from "./state/nodes";
import { keyOf, usePictures } from "./state/pictures";
import { get, type Made, project, recipeOf, redo, select, set, undo } from "./state/store";
import { current, view } from "./state/view";

const ARROWS: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

function busyElsewhere(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.matches("input, textarea, select") || document.querySelector("dialog[open]") !== null)
  );
}

/** Returns the picture of the current node, where it is made. */
export function currentPicture(): Made | null {
  const id = current();
  if (!id) return null;
  const now = project();
  if (!isMade(now.nodes[id])) return null;
  const recipe = recipeOf(now, get().specs, id);
  const shown = usePictures.getState().byKey[keyOf(recipe)];
  return shown?.image && shown.job
    ? { image: shown.image, job: shown.job, seed: recipe.seeds?.[0] ?? 0, recipe }
    : null;
}

function onKey(event: KeyboardEvent): void {
  const control = event.ctrlKey || event.metaKey;
  if (control && event.key.toLowerCase() === "k") {
    event.preventDefault();
    if (get().id && !document.querySelector("dialog[open]")) set({ palette: { at: null, from: null } });
    return;
  }
  if (!get().id || busyElsewhere(event.target)) return;
  if (control ? withControl(event) : plain(event)) event.preventDefault();
}

function withControl(event: KeyboardEvent): boolean {
  switch (event.key.toLowerCase()) {
    case "z":
      if (event.shiftKey) redo();
      else undo();
      return true;
    case "y":
      redo();
      return true;
    case "d":
      duplicate();
      return true;
    case "a":
      selectAll();
      return true;
    default:
      return false;
  }
}

function plain(event: KeyboardEvent): boolean {
  const onButton = event.target instanceof HTMLElement && event.target.matches("button, a");
  const arrow = ARROWS[event.key];
  if (arrow && get().selected.size && !onButton) {
    const far = event.shiftKey ? 64 : 8;
    nudge(arrow[0] * far, arrow[1] * far);
    return true;
  }
  if (event.altKey) return false;
  switch (event.key) {
    case "Delete":
    case "Backspace":
      removeChosen();
      return get().selected.size > 0;
    case "Escape":
      if (get().panel && !get().selected.size) set({ panel: null });
      select([]);
      return true;
    case " ":
    case "Enter": {
      if (onButton) return false;
      const made = currentPicture();
      if (made) set({ viewed: made, among: [] });
      return made !== null;
    }
    case "p":
    case "P": {
      const made = currentPicture();
      if (made) pin(made);
      return true;
    }
    case "c":
      askJoin();
      return true;
    case "v":
      vary();
      return true;
    case "e":
      document.getElementById("expression")?.focus();
      return true;
    case "l":
      tidyAll();
      return true;
    case "1":
      view.fit();
      return true;
    case "/":
      set({ palette: { at: null, from: null } });
      return true;
    case "?":
      set({ help: true });
      return true;
    default:
      return false;
  }
}

/** Listens to keys and the clipboard. */
export function listen(): void {
  window.addEventListener("keydown", onKey);
  document.addEventListener("copy", (event) => !busyElsewhere(event.target) && get().id && copyChosen(event, false));
  document.addEventListener("cut", (event) => !busyElsewhere(event.target) && get().id && copyChosen(event, true));
  document.addEventListener("paste", (event) => !busyElsewhere(event.target) && pasteAny(event));
}
