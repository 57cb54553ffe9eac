import { useState } from "react";
import { photoUrl } from "../api/client";
import { patched } from "../model/edits";
import { rowsOf } from "../model/recipes";
import { type BoardNode, calledOf, isEnd, type MadeNode } from "../model/types";
import { again, stop } from "../state/pictures";
import { edit, set, settle, unreadyOf, useStudio } from "../state/store";
import { readable, titleOf } from "../state/view";
import { useTexts } from "../texts";
import { Frame } from "../ui/Frame";
import { Icon } from "../ui/Icon";
import { IconButton } from "../ui/IconButton";
import { InputRows } from "./InputRows";
import { OutPort } from "./Port";
import { UpscaleRows } from "./UpscaleRows";
import { usePicture } from "./usePicture";
import { unreadyText } from "./words";

/** A node whose picture is made: a call, a sum, a sentence, a board, a larger one. */
export function MadeBody({ node }: { node: MadeNode }) {
  const t = useTexts();
  const { shown, made, key } = usePicture(node.id);
  const unready = useStudio((state) => unreadyOf(state.history.now, state.specs, node.id));
  const model = useStudio(
    (state) => state.history.now.settings.model ?? state.models.find((m) => m.default)?.name ?? "",
  );
  const title = titleOf(node);
  const busy = shown?.status === "waiting" || shown?.status === "running";
  const warning = shown?.status === "done" ? shown.warnings[0] : undefined;
  const rows = "more" in node && node.more ? rowsOf(node.more) : [];
  const called = calledOf(node);
  const own = rows.map(({ name, value }) => `${name} ${value}`).join("\n");
  const seed = "seed" in node ? node.seed : null;
  return (
    <div className="node made">
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the toolbar has a button for it */}
      <div onDoubleClick={() => made && set({ viewed: made, among: [] })}>
        <Frame shown={shown} alt={title}>
          {node.kind === "board" && !shown?.image && <Board node={node} />}
          {unready && <span className="says">{unreadyText(unready, model)}</span>}
          {warning && <Deep operand={readable(warning.operand)} model={model} />}
          <span className="corner">
            {busy && key && <IconButton icon="stop" small label={t("node.cancel")} onClick={() => stop(key)} />}
            {(shown?.status === "stopped" || shown?.status === "failed") && key && (
              <IconButton icon="again" small label={t("node.again")} onClick={() => again(key)} />
            )}
          </span>
        </Frame>
      </div>
      <div className="node-head">
        {node.kind === "upscale" ? <Icon name="upscale" size={16} /> : <span className="dot" />}
        <span className="title">{title}</span>
        {called && <span className="chip">{called}</span>}
        {own && (
          <span className="chip" title={own}>
            <Icon name="tune" size={12} />
          </span>
        )}
        {seed !== null && <span className="chip">{t("node.seed", { seed })}</span>}
      </div>
      {node.kind === "text" && (
        <textarea
          className="nodrag nowheel"
          value={node.text}
          placeholder={t("node.sentence")}
          aria-label={t("node.sentence.label")}
          // biome-ignore lint/a11y/noAutofocus: a new sentence wants to be written
          autoFocus={!node.text}
          onChange={(event) => {
            const text = event.target.value;
            edit((now) => patched(now, node.id, { text }), `words-${node.id}`);
          }}
          onBlur={settle}
        />
      )}
      {(node.kind === "call" || node.kind === "sum") && <InputRows node={node} title={title} />}
      {node.kind === "upscale" && <UpscaleRows node={node} title={title} />}
      {!isEnd(node) && <OutPort name={title} />}
    </div>
  );
}

/** A picture of what the model does not know; a click says why it looks as it does. */
function Deep({ operand, model }: { operand: string; model: string }) {
  const t = useTexts();
  const [open, setOpen] = useState(false);
  return (
    <button type="button" className="deep nodrag" aria-expanded={open} onClick={() => setOpen(!open)}>
      <Icon name="warn" size={16} />
      <span>{t(open ? "state.deep.why" : "state.deep", { operand, model })}</span>
    </button>
  );
}

function Board({ node }: { node: BoardNode }) {
  return (
    <span className="board">
      {node.photos.slice(0, 4).map(({ photo, name }) => (
        <img key={photo} src={photoUrl(photo, 128) ?? undefined} alt={name} />
      ))}
    </span>
  );
}
