import { useMemo, useState } from "react";
import type { Recipe } from "../api/types";
import { isMade, type NodeId } from "../model/types";
import { branch, SHEET } from "../state/ideas";
import { keyOf } from "../state/pictures";
import { cancelRun, madeAt, run, shownOf, useRuns } from "../state/runs";
import { readableOf, recipeOf, unreadyOf, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { ChosenActs, useChoosing } from "./Choosing";
import { saveSheet } from "./exporting";
import { Tile } from "./Tile";

/** Sixteen takes on a picture, and sixteen more. */
export function Vary({ node }: { node: NodeId | null }) {
  const t = useTexts();
  const now = useStudio((state) => state.history.now);
  const specs = useStudio((state) => state.specs);
  const known = node && now.nodes[node] ? now.nodes[node] : null;
  if (!isMade(known) || unreadyOf(now, specs, known.id)) return <p className="empty">{t("vary.none")}</p>;
  const recipe = recipeOf(now, specs, known.id, []);
  return <Sheets key={keyOf(recipe)} node={known.id} of={recipe} />;
}

const sheetOf = (recipe: Recipe, sheet: number): Recipe => ({
  ...recipe,
  seeds: Array.from({ length: SHEET }, (_, i) => sheet * SHEET + i),
});

function Sheets({ node, of }: { node: NodeId; of: Recipe }) {
  const t = useTexts();
  const readable = useStudio((state) => (state.history.now.nodes[node] ? readableOf(state.history.now, node) : ""));
  const runs = useRuns((state) => state.byKey);
  const [count, setCount] = useState(1);
  const recipes = useMemo(() => Array.from({ length: count }, (_, sheet) => sheetOf(of, sheet)), [of, count]);
  const keys = recipes.map(keyOf);
  const busy = keys.filter((key) => runs[key]?.status === "queued" || runs[key]?.status === "running");
  const made = recipes.flatMap((recipe, sheet) =>
    (recipe.seeds ?? []).flatMap((seed, i) => {
      const one = madeAt(runs[keys[sheet]!], i);
      return one ? [{ made: one, label: t("node.seed", { seed }) }] : [];
    }),
  );
  const { picked, choice } = useChoosing(made.map((one) => one.made));
  const begun = runs[keys[0]!] !== undefined;
  return (
    <>
      <p className="of" title={readable}>
        {readable}
      </p>
      <div className="panel-acts">
        {busy.length ? (
          <button type="button" className="button" onClick={() => busy.map(cancelRun)}>
            {t("vary.stop")}
          </button>
        ) : (
          <button
            type="button"
            className="button strong"
            onClick={() => {
              const stopped = recipes.find((_, i) => runs[keys[i]!]?.status !== "done");
              if (stopped) run(stopped);
              else {
                setCount(count + 1);
                run(sheetOf(of, count));
              }
            }}
          >
            {t(begun && keys.every((key) => runs[key]?.status === "done") ? "vary.more" : "vary.run")}
          </button>
        )}
        <button type="button" className="button" disabled={!made.length} onClick={() => void saveSheet(made, readable)}>
          <Icon name="export" size={16} />
          {t("vary.save")}
        </button>
        <ChosenActs picked={picked} />
      </div>
      <p className="note">{t("vary.choose")}</p>
      <div className="grid">
        {recipes.flatMap((recipe, sheet) =>
          (recipe.seeds ?? []).map((seed, i) => {
            const found = runs[keys[sheet]!];
            return (
              <Tile
                key={seed}
                shown={shownOf(found, i)}
                made={madeAt(found, i)}
                among={made.map((one) => one.made)}
                {...choice(madeAt(found, i))}
                label={t("vary.one", { seed })}
                use={() => branch(node, seed)}
              />
            );
          }),
        )}
      </div>
    </>
  );
}
