import { useEffect, useState } from "react";
import { addFiles } from "../state/adding";
import { useTexts } from "../texts";

/** Takes what is dropped anywhere on the page. `toCanvas` says where on the canvas a point of the screen is. */
export function DropVeil({ toCanvas }: { toCanvas: ((x: number, y: number) => { x: number; y: number }) | null }) {
  const t = useTexts();
  const [over, setOver] = useState(false);
  useEffect(() => {
    const holds = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
    const onOver = (event: DragEvent): void => {
      if (!holds(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const onLeave = (event: DragEvent): void => {
      if (!event.relatedTarget) setOver(false);
    };
    const onDrop = (event: DragEvent): void => {
      if (!holds(event)) return;
      event.preventDefault();
      setOver(false);
      void addFiles([...(event.dataTransfer?.files ?? [])], toCanvas?.(event.clientX - 100, event.clientY - 100));
    };
    window.addEventListener("dragover", onOver);
    window.addEventListener("dragleave", onLeave);
    window.addEventListener("drop", onDrop);
    return () => {
      window.removeEventListener("dragover", onOver);
      window.removeEventListener("dragleave", onLeave);
      window.removeEventListener("drop", onDrop);
    };
  }, [toCanvas]);
  return over ? <div className="drop-veil">{t("canvas.drop")}</div> : null;
}
