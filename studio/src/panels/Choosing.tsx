import { useState } from "react";
import { api } from "../api/client";
import { meanOf } from "../state/adding";
import { attempt } from "../state/saving";
import { type Made, set } from "../state/store";
import { useTexts } from "../texts";

const MOST = 4; // pictures side by side

/** Returns which of the pictures of a grid are chosen, and what a tile needs to choose one. */
export function useChoosing(all: readonly Made[]) {
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const choice = (made: Made | null) =>
    made && {
      chosen: chosen.has(made.image),
      onChoose: () => {
        const next = new Set(chosen);
        if (!next.delete(made.image)) next.add(made.image);
        setChosen(next);
      },
    };
  return { picked: all.filter((made) => chosen.has(made.image)), choice };
}

/** Shows pictures side by side, each with the whole of its recipe. */
async function compare(picked: readonly Made[]): Promise<void> {
  const whole = await attempt(() =>
    Promise.all(
      picked.map(async (made) => {
        const job = await api.job(made.job);
        return { ...made, recipe: { ...job.recipe, seeds: [made.seed] } };
      }),
    ),
  );
  set({ compared: whole ?? picked });
}

/** What can be done with the chosen ones. */
export function ChosenActs({ picked }: { picked: readonly Made[] }) {
  const t = useTexts();
  const count = picked.length;
  const cells = picked.map((made) => ({ image: made.image, label: made.recipe.expression }));
  return (
    <>
      <button
        type="button"
        className="button"
        disabled={count < 2 || count > MOST}
        onClick={() => void compare(picked)}
      >
        {t("pins.compare", { count })}
      </button>
      <button type="button" className="button" disabled={count < 2} onClick={() => void meanOf(cells)}>
        {t("pins.mean", { count })}
      </button>
    </>
  );
}
