/** The words of the page in the reader's language. */

import { create } from "zustand";
import { de } from "./de";
import { en, type Key } from "./en";

export type Language = "en" | "de";
export const LANGUAGES: Readonly<Record<Language, string>> = { en: "English", de: "Deutsch" };
const TEXTS: Readonly<Record<Language, Readonly<Record<Key, string>>>> = { en, de };

function first(): Language {
  const chosen = localStorage.getItem("pops.language") ?? navigator.language.slice(0, 2);
  return chosen === "de" ? "de" : "en";
}

export const useLanguage = create<{ language: Language }>(() => ({ language: first() }));

export function speak(language: Language): void {
  localStorage.setItem("pops.language", language);
  document.documentElement.lang = language;
  useLanguage.setState({ language });
}

function filled(text: string, values: Readonly<Record<string, string | number>>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

export function t(key: Key, values: Readonly<Record<string, string | number>> = {}): string {
  return filled(TEXTS[useLanguage.getState().language][key], values);
}

/** Returns the words for something that the server names, such as an operator's role; its own name, if there are none. */
export function named(prefix: "op" | "role" | "settings" | "example", name: string, otherwise = name): string {
  const texts = TEXTS[useLanguage.getState().language] as Readonly<Record<string, string>>;
  return texts[`${prefix}.${name}`] ?? otherwise;
}

/** Has a component drawn anew when the language changes. */
export function useTexts(): typeof t {
  useLanguage();
  return t;
}

export type { Key };
