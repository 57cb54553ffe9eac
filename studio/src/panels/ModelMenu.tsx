import { MoreRows } from "../canvas/MoreRows";
import { loadSpecs } from "../state/server";
import { edit, useProject, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { Menu } from "../ui/Menu";

/** The model, what each one needs, and how pictures are made unless a node says otherwise. */
export function ModelMenu() {
  const t = useTexts();
  const models = useStudio((state) => state.models);
  const needs = useStudio((state) => state.needs);
  const settings = useProject((now) => now.settings);
  const chosen = settings.model ?? models.find((one) => one.default)?.name ?? "";
  const missing = needs.filter((need) => !models.some((model) => model.name === need.name));
  const change = (patch: Partial<typeof settings>, tag: string | null = null): void =>
    edit((now) => ({ ...now, settings: { ...now.settings, ...patch } }), tag);
  return (
    <Menu
      label={t("menu.model")}
      trigger={(props) => (
        <button type="button" className="button plain" aria-label={`${t("menu.model")}: ${chosen}`} {...props}>
          {chosen || t("menu.model")}
        </button>
      )}
    >
      {(close) => (
        <>
          <h3>{t("menu.model")}</h3>
          {models.map((model) => (
            <button
              key={model.name}
              type="button"
              className="menu-item"
              aria-current={model.name === chosen}
              onClick={() => {
                change({ model: model.default ? null : model.name });
                void loadSpecs(model.name);
                close();
              }}
            >
              {model.name === chosen ? <Icon name="check" size={16} /> : <span style={{ width: 16 }} />}
              {model.name}
              <span className="end">{t("menu.model.has")}</span>
            </button>
          ))}
          {missing.map((need) => (
            <div key={need.name} className="menu-item" style={{ cursor: "default" }}>
              <span style={{ width: 16 }} />
              <span style={{ userSelect: "text" }}>
                {need.name}
                <small>{need.needs}</small>
                <small>{need.get}</small>
              </span>
            </div>
          ))}
          <div style={{ padding: "4px 10px" }}>
            <label className="setting">
              {t("menu.seed")}
              <input
                type="number"
                className="field"
                min={0}
                value={settings.seed}
                onChange={(event) =>
                  change({ seed: Math.max(0, Math.floor(Number(event.target.value))) }, "canvas-seed")
                }
              />
            </label>
            <label className="setting">
              {t("menu.enlarge")}
              <select
                className="field"
                style={{ width: 152 }}
                value={settings.enlarge}
                onChange={(event) => change({ enlarge: Number(event.target.value) })}
              >
                {[1, 2, 4].map((n) => (
                  <option key={n} value={n}>
                    {n === 1 ? t("menu.enlarge.no") : t("menu.enlarge.by", { n })}
                  </option>
                ))}
              </select>
            </label>
          </div>
          {settings.more && <MoreRows more={settings.more} change={(more) => change({ more })} />}
        </>
      )}
    </Menu>
  );
}
