import { useSyncExternalStore } from "react";

const NARROW = window.matchMedia("(max-width: 720px)");

/** Returns whether the window is as narrow as a phone. */
export function useNarrow(): boolean {
  return useSyncExternalStore(
    (tell) => {
      NARROW.addEventListener("change", tell);
      return () => NARROW.removeEventListener("change", tell);
    },
    () => NARROW.matches,
  );
}
