/** Dark or light: as the system says, unless somebody chose. */

type Theme = "dark" | "light";

export function theme(): Theme {
  const chosen = document.documentElement.dataset.theme;
  if (chosen === "dark" || chosen === "light") return chosen;
  return window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

export function restoreTheme(): void {
  const chosen = localStorage.getItem("pops.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
}

export function switchTheme(): void {
  const next: Theme = theme() === "dark" ? "light" : "dark";
  const system: Theme = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  if (next === system) {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("pops.theme");
  } else {
    document.documentElement.dataset.theme = next;
    localStorage.setItem("pops.theme", next);
  }
}
