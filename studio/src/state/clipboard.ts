import { copied, pasted } from "../model/edits";
import type { NodeId, StudioNode } from "../model/types";
import { addFiles } from "./adding";
import { removeChosen } from "./nodes";
import { edit, get, project, readableOf, select } from "./store";
import { view } from "./view";

const MARK = "pops-nodes:";

export function copyChosen(event: ClipboardEvent, cut: boolean): void {
  const { selected } = get();
  if (!selected.size || !event.clipboardData) return;
  const nodes = copied(project(), selected, true);
  const only = selected.size === 1 ? [...selected][0]! : null;
  event.clipboardData.setData("text/plain", only ? readableOf(project(), only) : "");
  event.clipboardData.setData("application/json", MARK + JSON.stringify(nodes));
  event.preventDefault();
  if (cut) removeChosen();
}

export function pasteAny(event: ClipboardEvent): void {
  const data = event.clipboardData;
  if (!data) return;
  const files = [...data.files];
  if (files.length) {
    event.preventDefault();
    void addFiles(files, get().id ? view.middle() : undefined);
    return;
  }
  const json = data.getData("application/json");
  if (json.startsWith(MARK) && get().id) {
    event.preventDefault();
    pasteNodes(JSON.parse(json.slice(MARK.length)) as StudioNode[]);
  }
}

function pasteNodes(nodes: readonly StudioNode[]): void {
  let made: NodeId[] = [];
  edit((now) => {
    const { project: next, ids } = pasted(now, nodes, { x: 48, y: 48 });
    made = ids;
    return next;
  });
  select(made);
}
