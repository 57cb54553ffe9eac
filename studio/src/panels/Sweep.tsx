import { useState } from "react";
import { patched } from "../model/edits";
import type { NodeId, Project, StudioNode } from "../model/types";
import { keyOf } from "../state/pictures";
import { madeAt, run, shownOf, useRuns } from "../state/runs";
import { edit, readableOf, recipeOf, unreadyOf, useStudio } from "../state/store";
import { named, useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { saveSheet } from "./exporting";
import { Tile } from "./Tile";

const STEPS = 6;

interface Axis {
  readonly name: string;
  readonly label: string;
  readonly values: readonly number[];
  readonly at: (node: StudioNode, value: number) => Partial<StudioNode>;
}

const spread = (least: number, most: number, step: number): number[] => [
  ...new Set(
    Array.from({ length: STEPS }, (_, i) =>
      Number((Math.round((least + ((most - least) * i) / (STEPS - 1)) / step) * step).toFixed(4)),
    ),
  ),
];

/** A sheet of one picture over the values of one of its settings, each with its value below it. */
export function Sweep({ node }: { node: NodeId | null }) {
  const t = useTexts();
  const now = useStudio((state) => state.history.now);
  const specs = useStudio((state) => state.specs);
  const runs = useRuns((state) => state.byKey);
  const [chosen, setChosen] = useState<string | null>(null);
  const found = node ? now.nodes[node] : undefined;
  const axes: Axis[] = [];
  if (found?.kind === "call") {
    for (const option of specs[found.op]?.options ?? []) {
      axes.push({
        name: option.name,
        label: named("settings", option.name),
        values: spread(option.least, option.most, option.step),
        at: (one, value) =>
          ({ options: { ...("options" in one ? one.options : {}), [option.name]: value } }) as Partial<StudioNode>,
      });
    }
  }
  if (found?.kind === "sum") {
    found.inputs.forEach((_, i) => {
      axes.push({
        name: `weight-${i}`,
        label: t("sweep.weight", { n: i + 1 }),
        values: spread(0, 1, 0.05),
        at: (one) => one as Partial<StudioNode>,
      });
    });
  }
  const axis = axes.find((one) => one.name === chosen) ?? axes[0];
  if (!found || !axis || unreadyOf(now, specs, found.id)) return <p className="empty">{t("sweep.none")}</p>;

  const cell = (value: number): Project => {
    if (found.kind !== "sum") return patched(now, found.id, axis.at(found, value));
    const index = Number(axis.name.slice("weight-".length));
    return patched(now, found.id, {
      weights: found.inputs.map((_, i) => (i === index ? value : (found.weights[i] ?? 1))),
    });
  };
  const cells = axis.values.map((value) => {
    const recipe = recipeOf(cell(value), specs, found.id);
    return { value, recipe, key: keyOf(recipe) };
  });
  const made = cells.flatMap(({ value, key }) => {
    const one = madeAt(runs[key], 0);
    return one ? [{ made: one, label: `${axis.label} ${value}` }] : [];
  });
  return (
    <>
      <label className="panel-acts">
        {t("sweep.of")}
        <select
          className="field"
          style={{ width: "auto" }}
          value={axis.name}
          onChange={(event) => setChosen(event.target.value)}
        >
          {axes.map((one) => (
            <option key={one.name} value={one.name}>
              {one.label}
            </option>
          ))}
        </select>
      </label>
      <div className="panel-acts">
        <button
          type="button"
          className="button strong"
          onClick={() => {
            for (const { recipe } of cells) run(recipe);
          }}
        >
          {t("sweep.run")}
        </button>
        <button
          type="button"
          className="button"
          disabled={!made.length}
          onClick={() => void saveSheet(made, readableOf(now, found.id))}
        >
          <Icon name="export" size={16} />
          {t("sweep.save")}
        </button>
      </div>
      <div className="grid">
        {cells.map(({ value, key }) => (
          <Tile
            key={value}
            shown={shownOf(runs[key], 0)}
            made={madeAt(runs[key], 0)}
            among={made.map((one) => one.made)}
            label={`${axis.label} ${value}`}
            caption={`${axis.label} ${value}`}
            use={() => edit(() => cell(value))}
          />
        ))}
      </div>
    </>
  );
}
