import { useState } from "react";
import { api } from "../api/client";
import { photoNames } from "../model/text";
import type { Pin } from "../model/types";
import { meanOf } from "../state/adding";
import { attempt } from "../state/saving";
import { type Made, project, set, useProject } from "../state/store";
import { useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { Tile } from "./Tile";

const most = 4;

/** Returns a pin as an image that stands. */
export const madeOfPin = (pin: Pin): Made => ({
  image: pin.image,
  job: pin.job,
  seed: pin.seed,
  recipe: { expression: pin.label, seeds: [pin.seed] },
});

/** Pictures that were pinned: to compare, or to go on with their mean. */
export function Pins() {
  const t = useTexts();
  const pinned = useProject((now) => now.pinned);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const picked = pinned.filter((pin) => chosen.has(pin.image));
  if (!pinned.length) {
    return (
      <div className="empty">
        <Icon name="pin" />
        <p>{t("pins.none")}</p>
      </div>
    );
  }
  const compare = async (): Promise<void> => {
    const whole = await attempt(() =>
      Promise.all(
        picked.map(async (pin) => {
          const job = await api.job(pin.job);
          return { ...madeOfPin(pin), recipe: { ...job.recipe, seeds: [pin.seed] } };
        }),
      ),
    );
    set({ compared: whole ?? picked.map(madeOfPin) });
  };
  return (
    <>
      <div className="panel-acts">
        <button
          type="button"
          className="button"
          disabled={picked.length < 2 || picked.length > most}
          onClick={() => void compare()}
        >
          {t("pins.compare", { count: picked.length })}
        </button>
        <button type="button" className="button" disabled={picked.length < 2} onClick={() => void meanOf(picked)}>
          {t("pins.mean", { count: picked.length })}
        </button>
      </div>
      {picked.length < 2 && <p className="note">{t("pins.choose")}</p>}
      <div className="grid">
        {pinned.map((pin) => (
          <Tile
            key={pin.image}
            shown={{
              status: "done",
              progress: 1,
              preview: null,
              image: pin.image,
              job: pin.job,
              error: null,
              warnings: [],
            }}
            made={madeOfPin(pin)}
            label={readable(pin.label)}
            caption={`${readable(pin.label)} · ${pin.seed}`}
            chosen={chosen.has(pin.image)}
            onChoose={() => {
              const next = new Set(chosen);
              if (!next.delete(pin.image)) next.add(pin.image);
              setChosen(next);
            }}
          />
        ))}
      </div>
    </>
  );
}

/** Returns an expression with the photos' names of this project. */
export function readable(expression: string): string {
  const names = photoNames(project());
  return expression.replace(/photo:[0-9a-f]{32}/g, (id) => names.get(id) ?? `${id.slice(6, 12)}…`);
}
