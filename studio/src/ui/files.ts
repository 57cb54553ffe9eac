import { addFiles } from "../state/adding";

/** Asks for photos (or a project's file), and takes them in. */
export function chooseFiles(accept = "image/*,.heic,.pops"): void {
  const input = document.createElement("input");
  input.type = "file";
  input.multiple = true;
  input.accept = accept;
  input.onchange = () => void addFiles([...(input.files ?? [])]);
  input.click();
}

/** Has the browser keep an address, or a text, as a file. */
export function download(content: string | Blob, name: string): void {
  const link = document.createElement("a");
  const blob = content instanceof Blob;
  link.href = blob ? URL.createObjectURL(content) : content;
  link.download = name;
  link.click();
  if (blob) setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
