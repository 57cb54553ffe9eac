import { rowsOf, withoutRow } from "../model/recipes";
import type { More } from "../model/types";
import { useTexts } from "../texts";
import { IconButton } from "../ui/IconButton";

/** Settings that a recipe brought along; each can be left out. */
export function MoreRows({ more, change }: { more: More; change: (more: More) => void }) {
  const t = useTexts();
  const rows = rowsOf(more);
  if (!rows.length) return null;
  return (
    <div className="more-rows">
      <h3>{t("more.title")}</h3>
      {rows.map((row) => (
        <div key={`${row.part}.${row.field}`}>
          <span>{row.name}</span>
          <output title={row.value}>{row.value}</output>
          <IconButton
            icon="close"
            small
            label={t("more.drop", { name: row.name })}
            onClick={() => change(withoutRow(more, row))}
          />
        </div>
      ))}
    </div>
  );
}
