import { patched } from "../model/edits";
import type { UpscaleNode } from "../model/types";
import { edit, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { PictureRow } from "./InputRows";

const TIMES = [2, 3, 4];

/** The input of an upscaler, and how much larger it makes it. */
export function UpscaleRows({ node, title }: { node: UpscaleNode; title: string }) {
  const t = useTexts();
  const chosen = useStudio((state) => state.history.now.settings.model);
  const model = useStudio((state) => state.models.find((one) => (chosen ? one.name === chosen : one.default)));
  const own = Math.max(node.upscale ?? 1, model?.upscale ?? 1);
  const change = (value: string): void => {
    const times = Number(value.slice(1));
    const how = value.startsWith("u") ? { upscale: times, enlarge: 1 } : { upscale: null, enlarge: times };
    edit((now) => patched(now, node.id, how));
  };
  return (
    <div className="rows">
      <PictureRow node={node} title={title} />
      <div className="row">
        <select
          className="field nodrag"
          aria-label={t("upscale.times")}
          title={t(own > 1 ? "upscale.either" : "upscale.plain", { model: model?.name ?? "" })}
          value={node.upscale === null ? `e${node.enlarge}` : `u${node.upscale}`}
          onChange={(event) => change(event.target.value)}
        >
          {own > 1 && <option value={`u${own}`}>{t("upscale.model", { n: own })}</option>}
          {TIMES.map((n) => (
            <option key={n} value={`e${n}`}>
              {t("upscale.by", { n })}
            </option>
          ))}
        </select>
      </div>
    </div>
  );
}
