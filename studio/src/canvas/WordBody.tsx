import { patched } from "../model/edits";
import type { WordNode } from "../model/types";
import { edit, settle } from "../state/store";
import { useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { OutPort } from "./Port";

/** Words for an operator that takes some. */
export function WordBody({ node }: { node: WordNode }) {
  const t = useTexts();
  return (
    <div className="node word">
      <div className="node-head">
        <Icon name="word" size={16} />
        <span className="title">{t("node.word.title")}</span>
      </div>
      <input
        className="nodrag"
        value={node.text}
        placeholder={t("node.words")}
        aria-label={t("node.words.label")}
        // biome-ignore lint/a11y/noAutofocus: a new node of words wants words
        autoFocus={!node.text}
        onChange={(event) => {
          const text = event.target.value;
          edit((now) => patched(now, node.id, { text }), `words-${node.id}`);
        }}
        onBlur={settle}
      />
      <OutPort name={t("node.word.title")} words />
    </div>
  );
}
