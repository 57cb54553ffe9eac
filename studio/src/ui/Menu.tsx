import { type KeyboardEvent, type ReactNode, useEffect, useId, useRef, useState } from "react";

interface Props {
  readonly trigger: (props: { "aria-expanded": boolean; "aria-controls": string; onClick: () => void }) => ReactNode;
  readonly children: (close: () => void) => ReactNode;
  readonly place?: string; // "up", "left"
  readonly label: string;
}

const ROOM = 280; // pixels that a menu takes which opens upwards

/** A button with a panel that opens beside it; Escape and a click elsewhere close it, arrows go through it. */
export function Menu({ trigger, children, place = "", label }: Props) {
  const [open, setOpen] = useState(false);
  const [high, setHigh] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const id = useId();

  useEffect(() => {
    if (!open) return;
    const away = (event: Event): void => {
      if (!root.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", away, true);
    const top = root.current?.closest(".canvas")?.getBoundingClientRect().top ?? 0;
    setHigh((root.current?.getBoundingClientRect().top ?? 0) - top > ROOM);
    root.current?.querySelector<HTMLElement>(".menu button, .menu input")?.focus();
    return () => document.removeEventListener("pointerdown", away, true);
  }, [open]);

  const close = (): void => {
    setOpen(false);
    root.current?.querySelector<HTMLElement>("[aria-expanded]")?.focus();
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (!open) return;
    event.stopPropagation();
    if (event.key === "Escape") close();
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const items = [...(root.current?.querySelectorAll<HTMLElement>(".menu .menu-item") ?? [])];
    const at = items.indexOf(document.activeElement as HTMLElement);
    if (at < 0) return;
    event.preventDefault();
    items[(at + (event.key === "ArrowDown" ? 1 : items.length - 1)) % items.length]?.focus();
  };

  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: keys of what is inside
    <div className="menu-place nodrag" ref={root} onKeyDown={onKeyDown}>
      {trigger({ "aria-expanded": open, "aria-controls": id, onClick: () => setOpen(!open) })}
      {open && (
        <section className={`menu nowheel ${place === "up" && !high ? "" : place}`} id={id} aria-label={label}>
          {children(close)}
        </section>
      )}
    </div>
  );
}
