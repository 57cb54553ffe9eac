import { Handle, Position, useConnection } from "@xyflow/react";
import type { NodeId } from "../model/types";
import { refusal, roleOf } from "../model/wires";
import { type get, useStudio } from "../state/store";
import { t } from "../texts";
import { roleTitle } from "./words";

/** Returns whether the wire that is being drawn may end at an input; null while none is drawn. */
function useFits(node: NodeId, index: number): boolean | null {
  const source = useConnection((connection) =>
    connection.inProgress && connection.fromHandle?.type === "source" ? connection.fromNode.id : null,
  );
  return useStudio((state) =>
    source === null ? null : refusal(state.history.now, state.specs, source, node, index) === null,
  );
}

const roleAt = ({ history, specs }: ReturnType<typeof get>, node: NodeId, index: number) => {
  const found = history.now.nodes[node];
  return found ? roleOf(specs, found, index) : null;
};

export const inputId = (index: number): string => `in-${index}`;
export const indexOf = (handle: string | null | undefined): number => Number((handle ?? "in-0").slice(3));

/** An input of a node: a round handle for pictures, a square one for words. */
export function InPort({ node, index, full, name }: { node: NodeId; index: number; full: boolean; name: string }) {
  const fits = useFits(node, index);
  const kind = useStudio((state) => roleAt(state, node, index)?.kind);
  const role = useStudio((state) => roleAt(state, node, index)?.name ?? "");
  const state = fits === null ? "" : fits ? "yes" : "no";
  return (
    <Handle
      type="target"
      id={inputId(index)}
      position={Position.Left}
      className={`${full ? "full" : ""} ${kind === "text" ? "words" : ""} ${state}`}
      title={t("node.input", { role: roleTitle(role), name })}
    />
  );
}

export function OutPort({ name, words }: { name: string; words?: boolean }) {
  return (
    <Handle
      type="source"
      id="out"
      position={Position.Right}
      className={`out ${words ? "words" : ""}`}
      title={t("node.output", { name })}
    />
  );
}
