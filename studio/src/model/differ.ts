/** What differs between texts that are alike: expressions that are compared. */

const PARTS = /[\p{L}\p{N}_.:/-]+|\s+|./gsu;

export interface Piece {
  readonly text: string;
  readonly differs: boolean;
}

/** Returns the longest row of parts that both have in this order. */
function common(one: readonly string[], other: readonly string[]): string[] {
  const best = Array.from({ length: one.length + 1 }, () => new Array<number>(other.length + 1).fill(0));
  for (let i = one.length - 1; i >= 0; i--)
    for (let j = other.length - 1; j >= 0; j--)
      best[i]![j] = one[i] === other[j] ? best[i + 1]![j + 1]! + 1 : Math.max(best[i + 1]![j]!, best[i]![j + 1]!);
  const found: string[] = [];
  for (let i = 0, j = 0; i < one.length && j < other.length; ) {
    if (one[i] === other[j]) {
      found.push(one[i]!);
      i++;
      j++;
    } else if (best[i + 1]![j]! >= best[i]![j + 1]!) i++;
    else j++;
  }
  return found;
}

/** Returns each text in pieces, those that not all of them have marked. */
export function differences(texts: readonly string[]): Piece[][] {
  const all = texts.map((text) => text.slice(0, 4000).match(PARTS) ?? []);
  const shared = all.slice(1).reduce<readonly string[]>((kept, parts) => common(kept, parts), all[0] ?? []);
  return all.map((parts) => {
    const pieces: { text: string; differs: boolean }[] = [];
    let at = 0;
    for (const part of parts) {
      const differs = part !== shared[at];
      if (!differs) at++;
      const last = pieces.at(-1);
      if (last && last.differs === differs) last.text += part;
      else pieces.push({ text: part, differs });
    }
    return pieces;
  });
}
