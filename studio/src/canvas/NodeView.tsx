import { type NodeProps, NodeToolbar, Position } from "@xyflow/react";
import { memo } from "react";
import { hueOf } from "../model/specs";
import type { StudioNode } from "../model/types";
import { useStudio } from "../state/store";
import { titleOf } from "../state/view";
import { useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { useNarrow } from "../ui/narrow";
import { MadeBody } from "./MadeBody";
import { NodeTools } from "./NodeTools";
import { PhotoBody } from "./PhotoBody";
import { OutPort } from "./Port";
import { SearchBody } from "./SearchBody";
import { WordBody } from "./WordBody";

/** The class that gives a node its operator's colour. */
export function hueClass(node: StudioNode): string {
  if (node.kind === "call") return `hue-${hueOf(node.op)}`;
  return node.kind === "text" || node.kind === "sum" || node.kind === "board"
    ? `hue-${hueOf(node.kind === "text" ? "text" : "sum")}`
    : "";
}

function Body({ node }: { node: StudioNode }) {
  const t = useTexts();
  switch (node.kind) {
    case "photo":
      return <PhotoBody node={node} />;
    case "word":
      return <WordBody node={node} />;
    case "missing":
      return (
        <div className="node chance">
          <Icon name="dice" />
          {t("node.chance")}
          <OutPort name={t("node.missing.title")} />
        </div>
      );
    case "search":
      return <SearchBody node={node} />;
    default:
      return <MadeBody node={node} />;
  }
}

/** A node of the canvas: its picture, its name, and its inputs. */
export const NodeView = memo(function NodeView({ id, selected }: NodeProps) {
  const node = useStudio((state) => state.history.now.nodes[id]);
  const alone = useStudio((state) => state.selected.size === 1);
  const narrow = useNarrow();
  if (!node) return null;
  return (
    <div className={`${hueClass(node)} ${selected ? "selected" : ""}`}>
      {selected && alone && !narrow && (
        <NodeToolbar isVisible position={Position.Top} offset={10}>
          <NodeTools node={node} title={titleOf(node)} />
        </NodeToolbar>
      )}
      <Body node={node} />
    </div>
  );
});
