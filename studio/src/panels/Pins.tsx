import type { Pin } from "../model/types";
import { type Made, useProject } from "../state/store";
import { readable } from "../state/view";
import { useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { ChosenActs, useChoosing } from "./Choosing";
import { shownOfMade, Tile } from "./Tile";

/** Returns a pin as an image that stands. */
const madeOfPin = (pin: Pin): Made => ({
  image: pin.image,
  job: pin.job,
  seed: pin.seed,
  recipe: { expression: pin.label, seeds: [pin.seed] },
});

/** Pictures that were pinned: to compare, or to go on with their mean. */
export function Pins() {
  const t = useTexts();
  const all = useProject((now) => now.pinned).map(madeOfPin);
  const { picked, choice } = useChoosing(all);
  if (!all.length) {
    return (
      <div className="empty">
        <Icon name="pin" />
        <p>{t("pins.none")}</p>
      </div>
    );
  }
  return (
    <>
      <div className="panel-acts">
        <ChosenActs picked={picked} />
      </div>
      <p className="note">{t("pins.choose")}</p>
      <div className="grid">
        {all.map((made) => (
          <Tile
            key={made.image}
            shown={shownOfMade(made)}
            made={made}
            among={all}
            label={readable(made.recipe.expression)}
            caption={`${t("node.seed", { seed: made.seed })} · ${readable(made.recipe.expression)}`}
            {...choice(made)}
          />
        ))}
      </div>
    </>
  );
}
