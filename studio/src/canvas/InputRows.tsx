import { patched } from "../model/edits";
import { mayGrow } from "../model/specs";
import { type CallNode, type EndNode, reseedsOf, type SumNode } from "../model/types";
import { roleOf } from "../model/wires";
import { edit, settle, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { InPort } from "./Port";
import { roleTitle } from "./words";

/** The inputs of a node, one in a row; those of a sum have their weights. */
export function InputRows({ node, title }: { node: CallNode | SumNode; title: string }) {
  const t = useTexts();
  const specs = useStudio((state) => state.specs);
  const grows = node.kind === "sum" || mayGrow(specs[node.op], node);
  const open = node.kind === "call" && specs[node.op]?.open !== false && node.inputs.some((input) => input !== null);
  return (
    <div className="rows">
      {node.inputs.map((input, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: an input is its place
        <div key={i} className={`row ${input ? "full" : ""}`}>
          <InPort node={node.id} index={i} full={input !== null} name={title} />
          {node.kind === "sum" ? (
            <>
              <Weight node={node} index={i} />
              <Reseed node={node} index={i} />
            </>
          ) : (
            <>
              {roleTitle(roleOf(specs, node, i)?.name ?? "")}
              <Reseed node={node} index={i} />
              {input === null && open && <span className="open">{t("node.open")}</span>}
            </>
          )}
        </div>
      ))}
      {grows && (
        <div className="row">
          <InPort node={node.id} index={node.inputs.length} full={false} name={title} />
          {t("node.more")}
        </div>
      )}
    </div>
  );
}

/** The one input of an end: the picture that it is of. */
export function PictureRow({ node, title }: { node: EndNode; title: string }) {
  const full = Boolean(node.inputs[0]);
  return (
    <div className={`row ${full ? "full" : ""}`}>
      <InPort node={node.id} index={0} full={full} name={title} />
      {roleTitle("picture")}
    </div>
  );
}

/** The seed with which an input is taken, where it is not the input's own; a click takes the own one. */
function Reseed({ node, index }: { node: CallNode | SumNode; index: number }) {
  const t = useTexts();
  const seed = reseedsOf(node)[index] ?? null;
  if (seed === null) return null;
  const label = t("node.reseed", { seed });
  return (
    <button
      type="button"
      className="chip nodrag"
      aria-label={label}
      title={label}
      onClick={() => {
        const reseeds = reseedsOf(node).map((one, i) => (i === index ? null : one));
        edit((now) => patched(now, node.id, { reseeds }));
      }}
    >
      @{seed}
    </button>
  );
}

function Weight({ node, index }: { node: SumNode; index: number }) {
  const t = useTexts();
  const weight = node.weights[index] ?? 1;
  return (
    <>
      <input
        type="range"
        className="nodrag"
        min={-1}
        max={1.5}
        step={0.05}
        value={weight}
        aria-label={t("node.weight", { n: index + 1 })}
        onChange={(event) => {
          const weights = node.inputs.map((_, i) =>
            i === index ? Number(event.target.value) : (node.weights[i] ?? 1),
          );
          edit((now) => patched(now, node.id, { weights }), `weight-${node.id}-${index}`);
        }}
        onPointerUp={settle}
      />
      <output>{weight.toFixed(2)}</output>
    </>
  );
}
