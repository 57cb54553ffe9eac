import { imageUrl } from "../api/client";
import { type Made, set, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { Dialog } from "../ui/Dialog";
import { readable } from "./Pins";

/** Returns the rows of a recipe that people compare: its expression, its seed, and whatever else it says. */
function rowsOf(made: Made, words: { expression: string; seed: string }): Map<string, string> {
  const rows = new Map([
    [words.expression, readable(made.recipe.expression)],
    [words.seed, String(made.seed)],
  ]);
  for (const part of ["making", "rendering", "loading"]) {
    const inside = made.recipe[part];
    if (typeof inside !== "object" || inside === null) continue;
    for (const [name, value] of Object.entries(inside)) {
      if (value === null || value === "" || JSON.stringify(value) === "{}") continue;
      rows.set(name, typeof value === "string" ? value : JSON.stringify(value));
    }
  }
  return rows;
}

/** Two to four pictures side by side, and what differs in their recipes. */
export function Compare() {
  const t = useTexts();
  const compared = useStudio((state) => state.compared);
  if (!compared) return null;
  const all = compared.map((made) => rowsOf(made, { expression: t("compare.expression"), seed: t("compare.seed") }));
  const names = [...new Set(all.flatMap((rows) => [...rows.keys()]))];
  return (
    <Dialog title={t("compare.title")} onClose={() => set({ compared: null })} className="viewer">
      <div className="compare">
        {compared.map((made, i) => (
          <section key={made.image}>
            <div className="frame">
              <img src={imageUrl(made.image)} alt={readable(made.recipe.expression)} />
            </div>
            <dl>
              {names.map((name) => {
                const value = all[i]!.get(name) ?? "–";
                const differs = all.some((rows) => (rows.get(name) ?? "–") !== value);
                return (
                  <div key={name}>
                    <dt>{differs ? name : `${name} · ${t("compare.same")}`}</dt>
                    <dd className={differs ? "differs" : ""}>{value}</dd>
                  </div>
                );
              })}
            </dl>
          </section>
        ))}
      </div>
    </Dialog>
  );
}
