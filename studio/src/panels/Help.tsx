import { set } from "../state/store";
import { type Key, useTexts } from "../texts";
import { Dialog } from "../ui/Dialog";

const KEYS: readonly { keys: string; text: Key }[] = [
  { keys: "Ctrl K", text: "keys.palette" },
  { keys: "Tab", text: "keys.walk" },
  { keys: "C", text: "keys.connect" },
  { keys: "V", text: "keys.vary" },
  { keys: "P", text: "keys.pin" },
  { keys: "Space", text: "keys.view" },
  { keys: "E", text: "keys.line" },
  { keys: "L", text: "keys.tidy" },
  { keys: "1", text: "keys.fit" },
  { keys: "← ↑ ↓ →", text: "keys.move" },
  { keys: "Ctrl Z", text: "keys.undo" },
  { keys: "Ctrl C", text: "keys.copy" },
  { keys: "Ctrl D", text: "keys.duplicate" },
  { keys: "Ctrl A", text: "keys.all" },
  { keys: "Delete", text: "keys.delete" },
];

/** The keys of the canvas. */
export function Help() {
  const t = useTexts();
  return (
    <Dialog title={t("keys.title")} onClose={() => set({ help: false })}>
      <div className="dialog-body keys">
        {KEYS.map(({ keys, text }) => (
          <div key={text} style={{ display: "contents" }}>
            <span>
              {keys.split(" ").map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </span>
            <span>{t(text)}</span>
          </div>
        ))}
      </div>
    </Dialog>
  );
}
