import { expect, test } from "vitest";
import { de } from "../src/texts/de";
import { en, type Key } from "../src/texts/en";

const gaps = (text: string): string[] => (text.match(/\{\w+\}/g) ?? []).sort();

test("both languages say the same things of the same values", () => {
  const keys = Object.keys(en) as Key[];
  expect(Object.keys(de).sort()).toEqual(keys.slice().sort());
  for (const key of keys) expect([key, ...gaps(de[key])]).toEqual([key, ...gaps(en[key])]);
});
