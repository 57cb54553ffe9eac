/** Projects: made, opened, saved by themselves, and what happens when another window was faster. */

import { api, Refused, Unreachable } from "../api/client";
import { started } from "../model/history";
import { EMPTY, isMade, type Project } from "../model/types";
import { t } from "../texts";
import { keyOf, usePictures } from "./pictures";
import { lost } from "./server";
import { edit, get, project, recipeOf, set, tell, unreadyOf, useStudio } from "./store";

const PAUSE = 700; // milliseconds without a change before it is saved

let timer: ReturnType<typeof setTimeout> | undefined;
let saved: { project: Project; name: string } | null = null;
let cover: string | null = null; // the image by which the list of projects shows it, as it was saved
let running: Promise<void> | null = null;

/** Watches the project, and saves it when it has come to rest. */
export function watch(): void {
  useStudio.subscribe((state, before) => {
    const same = state.history.now === before.history.now && state.name === before.name;
    if (same || !state.id || state.id !== before.id) return;
    if (saved?.project === state.history.now && saved.name === state.name) return;
    if (state.saving === "conflict") return;
    soon();
  });
  usePictures.subscribe(() => {
    const { id, saving } = get();
    const now = coverOf(project());
    if (id && now && now !== cover && (saving === "saved" || saving === "waiting")) soon();
  });
  window.addEventListener("pagehide", () => void flush(true));
  document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && void flush(true));
}

function soon(): void {
  if (get().saving !== "waiting") set({ saving: "waiting" });
  clearTimeout(timer);
  timer = setTimeout(() => void save(), PAUSE);
}

/** Returns the picture of the node in the line, where it is made. */
function coverOf(now: Project): string | null {
  const node = now.active ? now.nodes[now.active] : undefined;
  if (!isMade(node)) return null;
  const { specs } = get();
  if (unreadyOf(now, specs, node.id)) return null;
  return usePictures.getState().byKey[keyOf(recipeOf(now, specs, node.id))]?.image ?? null;
}

/** Saves what waits, now. */
export async function flush(leaving = false): Promise<void> {
  clearTimeout(timer);
  if (get().saving === "waiting" || get().saving === "failed") await save(leaving);
}

async function save(leaving = false): Promise<void> {
  if (running) await running;
  running = write(leaving).finally(() => {
    running = null;
  });
  await running;
}

async function write(leaving: boolean): Promise<void> {
  const { id, name, revision, history } = get();
  if (!id || get().saving === "conflict") return;
  set({ saving: "saving" });
  try {
    const shown = coverOf(history.now) ?? cover;
    const pins = [...new Set([...(shown ? [shown] : []), ...history.now.pins])];
    const whole = { ...history.now, pins };
    const small = leaving && JSON.stringify(whole).length < 60_000; // what a page that is left may still send
    const done = await api.saveProject(id, name, whole, revision, small);
    cover = shown;
    if (get().id !== id) return;
    saved = { project: history.now, name };
    const still = get().history.now === history.now && get().name === name;
    set({ revision: done.revision, saving: still ? "saved" : "waiting" });
    if (!still) timer = setTimeout(() => void save(), PAUSE);
  } catch (error) {
    if (get().id !== id) return;
    if (error instanceof Refused && error.status === 409) {
      set({ saving: "conflict" });
      return;
    }
    set({ saving: "failed" });
    if (error instanceof Unreachable) lost();
    if (error instanceof Refused) tell(t("save.failed", { why: error.message }), "error");
    clearTimeout(timer);
    timer = setTimeout(() => void save(), 4000);
  }
}

function show(id: string, name: string, revision: number, document: Project): void {
  const now = { ...EMPTY, ...document };
  saved = { project: now, name };
  cover = now.pins[0] ?? null;
  set({
    id,
    name,
    revision,
    saving: "saved",
    history: started(now),
    selected: new Set(now.active ? [now.active] : []),
    panel: null,
    panelNode: null,
    viewed: null,
    compared: null,
    palette: null,
  });
  const address = `#/p/${id}`;
  if (location.hash !== address) location.hash = address;
}

export async function create(name: string, document: Project): Promise<void> {
  await flush();
  const made = await api.makeProject(name, document);
  show(made.id, name, made.revision, document);
}

export async function open(id: string): Promise<void> {
  await flush();
  const found = await api.project(id);
  show(found.id, found.name, found.revision, found.document);
}

/** Leaves the project for the list of all. */
export async function close(): Promise<void> {
  await flush();
  saved = null;
  set({ id: null, name: "", revision: 0, history: started(EMPTY), selected: new Set(), panel: null, saving: "saved" });
  if (location.hash) location.hash = "";
}

// --- another window has written ---------------------------------------------------------------------

export async function takeTheirs(): Promise<void> {
  const { id } = get();
  if (!id) return;
  set({ saving: "saved" });
  const found = await api.project(id);
  show(found.id, found.name, found.revision, found.document);
}

export async function keepMine(): Promise<void> {
  const { name } = get();
  set({ saving: "saved" });
  const own = t("project.copy", { name });
  const made = await api.makeProject(own, project());
  const { history } = get();
  saved = { project: history.now, name: own };
  set({ id: made.id, name: own, revision: made.revision });
  location.hash = `#/p/${made.id}`;
}

/** Does what may fail because of the server; says in one line why it did. */
export async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") return undefined;
    if (error instanceof Unreachable) {
      lost();
    } else if (error instanceof Refused && error.status === 401) set({ locked: true });
    else tell((error as Error).message, "error");
    return undefined;
  }
}

export const rename = (name: string): void => set({ name });
export { edit };
