import { hueOf } from "../model/specs";
import { add } from "../state/nodes";
import { set, useStudio } from "../state/store";
import { operatorTitle } from "../state/view";
import { useTexts } from "../texts";
import { chooseFiles } from "../ui/files";
import { Icon, type IconName } from "../ui/Icon";

const OPERANDS: readonly { what: string; icon: IconName; key: "add.word" | "add.text.short" | "add.missing" }[] = [
  { what: "word", icon: "word", key: "add.word" },
  { what: "text", icon: "text", key: "add.text.short" },
  { what: "missing", icon: "dice", key: "add.missing" },
];

const ENDS = ["upscale", "search"] as const;

/** What can be put on the canvas: operands, and the operators of the model. */
export function Rail() {
  const t = useTexts();
  const specs = useStudio((state) => state.specs);
  return (
    <nav className="rail" aria-label={t("add.label")}>
      <button type="button" onClick={() => chooseFiles()} title={t("op.photo")}>
        <span className="mark">
          <Icon name="photo" />
        </span>
        <span className="label">{t("add.photo")}</span>
      </button>
      {OPERANDS.map(({ what, icon, key }) => (
        <button
          key={what}
          type="button"
          onClick={() => add(what)}
          title={t(`op.${what as "word" | "text" | "missing"}`)}
        >
          <span className="mark">
            <Icon name={icon} />
          </span>
          <span className="label">{t(key)}</span>
        </button>
      ))}
      <hr />
      {Object.values(specs).map((spec) => (
        <button
          key={spec.name}
          type="button"
          className={`hue-${hueOf(spec.name)}`}
          onClick={() => add(spec.name)}
          title={operatorTitle(spec.name)}
        >
          <span className="mark">
            <span className="dot" />
          </span>
          <span className="label">{spec.name}</span>
        </button>
      ))}
      <button type="button" className={`hue-${hueOf("sum")}`} onClick={() => add("sum")} title={t("op.sum")}>
        <span className="mark">
          <span className="dot" />
        </span>
        <span className="label">{t("add.sum.short")}</span>
      </button>
      <hr />
      {ENDS.map((what) => (
        <button key={what} type="button" onClick={() => add(what)} title={t(`op.${what}`)}>
          <span className="mark">
            <Icon name={what} />
          </span>
          <span className="label">{t(`add.${what}`)}</span>
        </button>
      ))}
      <button type="button" onClick={() => set({ palette: { at: null, from: null } })}>
        <span className="mark">
          <Icon name="command" />
        </span>
        <span className="label">{t("add.more")}</span>
      </button>
    </nav>
  );
}
