import { imageUrl } from "../api/client";
import { differences } from "../model/differ";
import { rowsOf } from "../model/recipes";
import { pin } from "../state/ideas";
import { type Made, set, useProject, useStudio } from "../state/store";
import { readable } from "../state/view";
import { useTexts } from "../texts";
import { Dialog } from "../ui/Dialog";
import { Icon } from "../ui/Icon";
import { savePicture } from "./exporting";

/** Returns what a recipe says beside its expression and seed, by name. */
const settingsOf = ({ recipe }: Made): Map<string, string> =>
  new Map(rowsOf(recipe as Parameters<typeof rowsOf>[0]).map(({ name, value }) => [name, value]));

/** Two to four pictures side by side, and what differs in their recipes. */
export function Compare() {
  const t = useTexts();
  const compared = useStudio((state) => state.compared);
  const pinned = useProject((now) => now.pinned);
  if (!compared) return null;
  const settings = compared.map(settingsOf);
  const names = [...new Set(settings.flatMap((rows) => [...rows.keys()]))];
  const differing = names.filter((name) => new Set(settings.map((rows) => rows.get(name))).size > 1);
  const alike = names.filter((name) => !differing.includes(name));
  const expressions = differences(compared.map(({ recipe }) => readable(recipe.expression)));
  const oneSeed = new Set(compared.map(({ seed }) => seed)).size === 1;
  const oneExpression = expressions.every((pieces) => pieces.every(({ differs }) => !differs));
  const same = [
    ...(oneExpression ? [[t("compare.expression"), readable(compared[0]!.recipe.expression)]] : []),
    ...(oneSeed ? [[t("compare.seed"), String(compared[0]!.seed)]] : []),
    ...alike.map((name) => [name, settings[0]!.get(name) ?? ""]),
  ];
  return (
    <Dialog title={t("compare.title")} onClose={() => set({ compared: null })} className="viewer">
      <div className="compare">
        {compared.map((made, i) => (
          <section key={made.image}>
            <button
              type="button"
              className="look"
              aria-label={`${t("node.view")}: ${t("node.seed", { seed: made.seed })}`}
              onClick={() => set({ viewed: made, among: [] })}
            >
              <span className="frame">
                <img src={imageUrl(made.image)} alt={readable(made.recipe.expression)} />
              </span>
            </button>
            <div className="panel-acts">
              <button type="button" className="button" onClick={() => savePicture(made)}>
                <Icon name="export" size={16} />
                {t("export.png")}
              </button>
              <PinButton made={made} pinned={pinned.some((one) => one.image === made.image)} />
            </div>
            <dl>
              {!oneExpression && (
                <div>
                  <dt>{t("compare.expression")}</dt>
                  <dd>
                    {expressions[i]!.map(({ text, differs }, at) =>
                      // biome-ignore lint/suspicious/noArrayIndexKey: a piece is its place
                      differs ? <mark key={at}>{text}</mark> : <span key={at}>{text}</span>,
                    )}
                  </dd>
                </div>
              )}
              {!oneSeed && <Differs name={t("compare.seed")} value={String(made.seed)} />}
              {differing.map((name) => (
                <Differs key={name} name={name} value={settings[i]!.get(name) ?? t("settings.usual")} />
              ))}
            </dl>
          </section>
        ))}
      </div>
      {same.length > 0 && (
        <section className="compare-same">
          <h3 className="quiet">
            {t(same.length && !differing.length && oneSeed && oneExpression ? "compare.nothing" : "compare.same")}
          </h3>
          <dl>
            {same.map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </div>
            ))}
          </dl>
        </section>
      )}
    </Dialog>
  );
}

function Differs({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        <mark>{value}</mark>
      </dd>
    </div>
  );
}

function PinButton({ made, pinned }: { made: Made; pinned: boolean }) {
  const t = useTexts();
  return (
    <button type="button" className="button" aria-pressed={pinned} onClick={() => pin(made)}>
      <Icon name="pin" size={16} fill={pinned} />
      {t(pinned ? "node.unpin" : "node.pin")}
    </button>
  );
}
