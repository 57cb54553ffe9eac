/** Whether a picture carries a recipe of pops: a text chunk of that name in a PNG. */

const HEAD = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const KEYWORD = "pops";

export async function hasRecipe(file: Blob): Promise<boolean> {
  let at = 8;
  const head = new Uint8Array(await file.slice(0, 8).arrayBuffer());
  if (HEAD.some((byte, i) => head[i] !== byte)) return false;
  for (let chunks = 0; chunks < 10_000 && at + 12 <= file.size; chunks++) {
    const bytes = new Uint8Array(await file.slice(at, at + 8 + KEYWORD.length + 1).arrayBuffer());
    const view = new DataView(bytes.buffer);
    const kind = String.fromCharCode(...bytes.subarray(4, 8));
    if (kind === "IEND") return false;
    const text = String.fromCharCode(...bytes.subarray(8));
    if (["tEXt", "zTXt", "iTXt"].includes(kind) && text === `${KEYWORD}\0`) return true;
    at += 12 + view.getUint32(0);
  }
  return false;
}
