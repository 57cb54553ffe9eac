import type { ReactNode } from "react";
import { pin } from "../state/ideas";
import { type Shown, WAITING } from "../state/pictures";
import { type Made, set, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { Frame } from "../ui/Frame";
import { IconButton } from "../ui/IconButton";

interface Props {
  readonly shown: Shown | null;
  readonly made: Made | null;
  readonly label: string;
  readonly caption?: string;
  readonly chosen?: boolean | undefined;
  readonly onChoose?: () => void;
  readonly among?: readonly Made[]; // the pictures of the grid
  readonly use?: (() => void) | undefined;
  readonly children?: ReactNode; // more buttons
}

/** Returns an image that stands as tiles show it. */
export const shownOfMade = (made: Made): Shown => ({
  ...WAITING,
  status: "done",
  progress: 1,
  image: made.image,
  job: made.job,
});

/** A picture in a grid: a click looks closer, its corner pins, uses, chooses. */
export function Tile({ shown, made, label, caption, chosen, onChoose, among = [], use, children }: Props) {
  const t = useTexts();
  const pinned = useStudio((state) => made !== null && state.history.now.pinned.some((p) => p.image === made.image));
  return (
    <figure className={`tile ${chosen ? "chosen" : ""}`}>
      <button
        type="button"
        className="look"
        disabled={!made}
        aria-label={label}
        onClick={() => made && set({ viewed: made, among })}
      >
        <Frame shown={shown} alt={label} />
      </button>
      {onChoose && (
        <input type="checkbox" className="choose" checked={chosen ?? false} onChange={onChoose} aria-label={label} />
      )}
      {made && (
        <span className={`acts ${pinned ? "keep" : ""}`}>
          {use && <IconButton icon="plus" small label={t("vary.use")} onClick={use} />}
          <IconButton
            icon="pin"
            small
            fill={pinned}
            label={t(pinned ? "node.unpin" : "node.pin")}
            aria-pressed={pinned}
            onClick={() => pin(made)}
          />
          {children}
        </span>
      )}
      {caption && <figcaption title={caption}>{caption}</figcaption>}
    </figure>
  );
}
