import { useStudio } from "../state/store";
import { titleOf } from "../state/view";
import { useNarrow } from "../ui/narrow";
import { NodeTools } from "./NodeTools";

/** On a phone, the tools of the chosen node stand at the bottom. */
export function Dock() {
  const narrow = useNarrow();
  const node = useStudio((state) => {
    const [only] = state.selected;
    return state.selected.size === 1 && only ? state.history.now.nodes[only] : undefined;
  });
  if (!narrow || !node) return null;
  return (
    <div className="dock">
      <NodeTools node={node} title={titleOf(node)} />
    </div>
  );
}
