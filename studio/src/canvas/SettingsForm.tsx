import { patched } from "../model/edits";
import type { OptionSpec } from "../model/specs";
import type { CallNode, Options, TextNode } from "../model/types";
import { edit, settle, useStudio } from "../state/store";
import { titleOf } from "../state/view";
import { named, useTexts } from "../texts";

const OF_TEXT: readonly OptionSpec[] = [
  { name: "guidance", least: 1, most: 12, step: 0.5, usual: 4 },
  { name: "steps", least: 1, most: 50, step: 1, usual: 25 },
];

/** Seed and options of one call. What is not set is the operator's own. */
export function SettingsForm({ node }: { node: CallNode | TextNode }) {
  const t = useTexts();
  const spec = useStudio((state) => (node.kind === "call" ? state.specs[node.op] : undefined));
  const change = (options: Options, tag: string): void =>
    edit((now) => patched(now, node.id, { options }), `${tag}-${node.id}`);
  return (
    <div style={{ width: 256, padding: "4px 10px 8px" }}>
      <h3 style={{ padding: 0 }}>{t("settings.title", { name: titleOf(node) })}</h3>
      <label className="setting">
        {t("settings.seed")}
        <input
          type="number"
          className="field"
          min={0}
          step={1}
          value={node.seed ?? ""}
          placeholder={t("settings.seed.auto")}
          onChange={(event) => {
            const seed = event.target.value === "" ? null : Math.max(0, Math.floor(Number(event.target.value)));
            edit((now) => patched(now, node.id, { seed }), `seed-${node.id}`);
          }}
          onBlur={settle}
        />
      </label>
      {(spec?.options ?? OF_TEXT).map((option) => {
        const given = node.options[option.name];
        const value = typeof given === "number" ? given : option.usual;
        return (
          <label key={option.name} className="setting">
            {named("settings", option.name)}
            <output>{given === undefined ? `${option.usual} · ${t("settings.usual")}` : String(given)}</output>
            <input
              type="range"
              min={option.least}
              max={option.most}
              step={option.step}
              value={value}
              onChange={(event) => change({ ...node.options, [option.name]: Number(event.target.value) }, option.name)}
              onPointerUp={settle}
            />
          </label>
        );
      })}
      <button
        type="button"
        className="menu-item"
        disabled={!Object.keys(node.options).length && node.seed === null}
        onClick={() => edit((now) => patched(now, node.id, { options: {}, seed: null }))}
      >
        {t("settings.reset")}
      </button>
    </div>
  );
}
