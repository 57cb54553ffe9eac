/** Undo and redo without end: snapshots of plain values, which share all that did not change. */

export interface History<T> {
  readonly past: readonly T[];
  readonly now: T;
  readonly future: readonly T[];
  readonly tag: string | null; // changes in a row with the same tag are one step
}

export function started<T>(now: T): History<T> {
  return { past: [], now, future: [], tag: null };
}

/** Returns the history with one more change; with the tag of the last one, that one goes on. */
export function changed<T>(history: History<T>, now: T, tag: string | null = null): History<T> {
  if (now === history.now) return history;
  const same = tag !== null && tag === history.tag;
  return { past: same ? history.past : [...history.past, history.now], now, future: [], tag };
}

export function undone<T>(history: History<T>): History<T> {
  const before = history.past.at(-1);
  if (before === undefined) return history;
  return { past: history.past.slice(0, -1), now: before, future: [history.now, ...history.future], tag: null };
}

export function redone<T>(history: History<T>): History<T> {
  const [next, ...future] = history.future;
  if (next === undefined) return history;
  return { past: [...history.past, history.now], now: next, future, tag: null };
}

/** Ends a row of changes: the next one is a step of its own. */
export function settled<T>(history: History<T>): History<T> {
  return history.tag === null ? history : { ...history, tag: null };
}
