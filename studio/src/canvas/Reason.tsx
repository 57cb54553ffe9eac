import { useConnection } from "@xyflow/react";
import { useEffect, useState } from "react";
import { refusal } from "../model/wires";
import { useStudio } from "../state/store";
import { indexOf } from "./Port";
import { refusalText } from "./words";

/** Says beside the pointer why a wire does not fit where it is. */
export function Reason() {
  const connection = useConnection();
  const now = useStudio((state) => state.history.now);
  const specs = useStudio((state) => state.specs);
  const [at, setAt] = useState({ x: 0, y: 0 });
  useEffect(() => {
    const move = (event: PointerEvent): void => setAt({ x: event.clientX, y: event.clientY });
    window.addEventListener("pointermove", move);
    return () => window.removeEventListener("pointermove", move);
  }, []);
  if (!connection.inProgress || !connection.toHandle || !connection.toNode || connection.isValid) return null;
  const out = connection.fromHandle.type === "source";
  const source = out ? connection.fromNode.id : connection.toNode.id;
  const target = out ? connection.toNode.id : connection.fromNode.id;
  const why = refusal(now, specs, source, target, indexOf((out ? connection.toHandle : connection.fromHandle).id));
  if (!why) return null;
  return (
    <div className="reason" role="alert" style={{ left: at.x + 16, top: at.y + 16 }}>
      {refusalText(why)}
    </div>
  );
}
