import {
  applyNodeChanges,
  Background,
  BackgroundVariant,
  type Connection,
  type Edge,
  type FinalConnectionState,
  type Node,
  type NodeChange,
  ReactFlow,
  SelectionMode,
  useStore as useFlow,
  useReactFlow,
  useUpdateNodeInternals,
} from "@xyflow/react";
import { type FocusEvent, useCallback, useEffect, useMemo, useState } from "react";
import { disconnected, freeInput, moved } from "../model/edits";
import { heightOf, WIDTH } from "../model/size";
import { inputsOf, type Project } from "../model/types";
import { refusal } from "../model/wires";
import { join } from "../state/nodes";
import { activate, edit, get, project, select, set, settle, tell, useProject, useStudio } from "../state/store";
import { titleOf } from "../state/view";
import { useTexts } from "../texts";
import { hueClass, NodeView } from "./NodeView";
import { indexOf, inputId } from "./Port";
import { Reason } from "./Reason";
import { useView } from "./useView";
import { refusalText } from "./words";

const TYPES = { studio: NodeView };

/** Returns the wires of a project, those of one target in its colour. */
function wiresOf(now: Project, chosen: ReadonlySet<string>): Edge[] {
  return Object.values(now.nodes).flatMap((node) =>
    inputsOf(node).flatMap((source, i) =>
      source && now.nodes[source]
        ? [
            {
              id: `${node.id}:${i}`,
              source,
              sourceHandle: "out",
              target: node.id,
              targetHandle: inputId(i),
              className: `of-op ${hueClass(node)}`,
              selected: chosen.has(`${node.id}:${i}`),
              interactionWidth: 24,
              focusable: false,
            },
          ]
        : [],
    ),
  );
}

export function Canvas() {
  const t = useTexts();
  const flow = useReactFlow();
  const id = useStudio((state) => state.id);
  const now = useProject((found) => found);
  const specs = useStudio((state) => state.specs);
  const selected = useStudio((state) => state.selected);
  const drawing = useFlow((state) => state.connection.inProgress);
  const [nodes, setNodes] = useState<Node[]>([]);
  const [wires, setWires] = useState<ReadonlySet<string>>(new Set());
  const onMoveEnd = useView(id);

  // What the project says, as the canvas takes it; nodes that did not change stay the same objects.
  useEffect(() => {
    setNodes((before) => {
      const known = new Map(before.map((node) => [node.id, node]));
      return Object.values(now.nodes).map((node) => {
        const old = known.get(node.id);
        const isSelected = selected.has(node.id);
        const height = heightOf(node, specs);
        const same = old?.position.x === node.x && old.position.y === node.y && old.selected === isSelected;
        if (old && same && old.height === height) return old;
        return {
          ...old,
          id: node.id,
          type: "studio",
          position: { x: node.x, y: node.y },
          data: {},
          width: WIDTH,
          height,
          selected: isSelected,
          ariaLabel: titleOf(node),
        };
      });
    });
  }, [now, specs, selected]);

  // A node that is given anew while it is measured loses the places of its handles, and its wires: they are looked for again.
  const measure = useUpdateNodeInternals();
  useEffect(() => {
    const lost = nodes.filter((node) => node.measured && !flow.getInternalNode(node.id)?.internals.handleBounds);
    if (lost.length) measure(lost.map((node) => node.id));
  }, [nodes, flow, measure]);

  const edges = useMemo(() => wiresOf(now, wires), [now, wires]);

  const onNodesChange = useCallback((changes: NodeChange[]) => {
    const chosen = new Set(get().selected);
    let news = false;
    const spots = new Map<string, { x: number; y: number }>();
    for (const change of changes) {
      if (change.type === "select" && chosen.has(change.id) !== change.selected) {
        news = true;
        if (change.selected) chosen.add(change.id);
        else chosen.delete(change.id);
      }
      if (change.type === "position" && change.position) spots.set(change.id, change.position);
    }
    // The measured size stays with a node: without it the canvas forgets where its inputs are, and its wires with them.
    const sizes = changes.filter((change) => change.type === "dimensions");
    if (sizes.length) setNodes((before) => applyNodeChanges(sizes, before));
    if (spots.size) {
      setNodes((before) =>
        before.map((node) => (spots.has(node.id) ? { ...node, position: spots.get(node.id)! } : node)),
      );
    }
    if (news) {
      select(chosen);
      const [only] = chosen;
      if (chosen.size === 1 && only) activate(only);
    }
  }, []);

  const onDragStop = useCallback((_: unknown, __: Node, dragged: Node[]) => {
    const spots = new Map(
      dragged.map((node) => [node.id, { x: Math.round(node.position.x), y: Math.round(node.position.y) }]),
    );
    settle();
    edit((found) => moved(found, spots));
  }, []);

  const valid = useCallback((wire: Edge | Connection) => {
    return refusal(project(), get().specs, wire.source, wire.target, indexOf(wire.targetHandle)) === null;
  }, []);

  const onConnect = useCallback((wire: Connection) => join(wire.source, wire.target, indexOf(wire.targetHandle)), []);

  /** A wire that ends on no input: on a node it takes the first that fits; on the canvas it asks what to add. */
  const onConnectEnd = useCallback(
    (event: MouseEvent | TouchEvent, state: FinalConnectionState) => {
      if (state.isValid || !state.fromHandle) return;
      const point = "changedTouches" in event ? event.changedTouches[0]! : event;
      const from = state.fromNode!.id;
      const out = state.fromHandle.type === "source";
      const over = document.elementFromPoint(point.clientX, point.clientY)?.closest<HTMLElement>(".react-flow__node");
      const target = state.toNode?.id ?? over?.dataset.id;
      if (target && target !== from && out) {
        const index = state.toHandle ? null : freeInput(project(), get().specs, from, target);
        if (index !== null) return join(from, target, index);
        const at = state.toHandle ? indexOf(state.toHandle.id) : 0;
        const why = refusal(project(), get().specs, from, target, at);
        return why ? tell(refusalText(why), "error") : undefined;
      }
      if (target || over) return;
      const at = flow.screenToFlowPosition({ x: point.clientX, y: point.clientY });
      if (out) set({ palette: { at: { x: at.x, y: at.y - 100 }, from } });
      else {
        const into = { node: from, index: indexOf(state.fromHandle.id) };
        set({ palette: { at: { x: at.x - WIDTH, y: at.y - 100 }, from: null, into } });
      }
    },
    [flow],
  );

  // A wire that is taken off its input and let go elsewhere is gone.
  const onReconnect = useCallback(
    (old: Edge, wire: Connection) => {
      const { specs: known } = get();
      if (old.target === wire.target && old.targetHandle === wire.targetHandle) return onConnect(wire);
      edit((found) => disconnected(found, known, old.target, indexOf(old.targetHandle)));
      if (!refusal(project(), known, wire.source, wire.target, indexOf(wire.targetHandle))) onConnect(wire);
    },
    [onConnect],
  );
  const onReconnectEnd = useCallback((_: unknown, old: Edge, __: unknown, state: FinalConnectionState) => {
    if (!state.isValid) edit((found) => disconnected(found, get().specs, old.target, indexOf(old.targetHandle)));
  }, []);

  /** Whoever goes from node to node by Tab chooses what has the focus. */
  const onFocus = (event: FocusEvent): void => {
    const own = (event.target as HTMLElement).matches(".react-flow__node:focus-visible");
    const one = own ? (event.target as HTMLElement).dataset.id : undefined;
    if (one && !(get().selected.size === 1 && get().selected.has(one))) {
      select([one]);
      activate(one);
    }
  };

  return (
    <>
      <ReactFlow
        aria-label={t("canvas.label")}
        className={drawing ? "connecting" : ""}
        nodes={nodes}
        edges={edges}
        nodeTypes={TYPES}
        onNodesChange={onNodesChange}
        onEdgesChange={(changes) => {
          const chosen = new Set(wires);
          for (const change of changes) {
            if (change.type !== "select") continue;
            if (change.selected) chosen.add(change.id);
            else chosen.delete(change.id);
          }
          setWires(chosen);
        }}
        onNodeClick={(event, node) => {
          if (event.ctrlKey || event.metaKey || event.shiftKey || get().selected.size < 2) return;
          select([node.id]); // of several that are chosen, the one that is clicked
          activate(node.id);
        }}
        onNodeDragStop={onDragStop}
        onSelectionDragStop={(event, dragged) => onDragStop(event, dragged[0]!, dragged)}
        isValidConnection={valid}
        onConnect={onConnect}
        onConnectEnd={onConnectEnd}
        onReconnect={onReconnect}
        onReconnectEnd={onReconnectEnd}
        onEdgeDoubleClick={(_, wire) =>
          edit((found) => disconnected(found, get().specs, wire.target, indexOf(wire.targetHandle)))
        }
        onDoubleClick={(event) => {
          if (!(event.target as HTMLElement).classList.contains("react-flow__pane")) return;
          set({ palette: { at: flow.screenToFlowPosition({ x: event.clientX, y: event.clientY }), from: null } });
        }}
        onFocus={onFocus}
        onMoveEnd={onMoveEnd}
        onlyRenderVisibleElements
        disableKeyboardA11y
        zoomOnDoubleClick={false}
        deleteKeyCode={null}
        selectionKeyCode="Shift"
        multiSelectionKeyCode={["Meta", "Control"]}
        selectionMode={SelectionMode.Partial}
        panOnScroll
        minZoom={0.15}
        maxZoom={2}
        connectionRadius={36}
        proOptions={{ hideAttribution: true }}
      >
        <Background variant={BackgroundVariant.Dots} gap={24} size={1.5} />
      </ReactFlow>
      {drawing && <Reason />}
      <DeleteWires wires={wires} clear={() => setWires(new Set())} />
    </>
  );
}

/** Delete takes chosen wires out, where no node is chosen. */
function DeleteWires({ wires, clear }: { wires: ReadonlySet<string>; clear: () => void }) {
  useEffect(() => {
    if (!wires.size) return;
    const onKey = (event: KeyboardEvent): void => {
      if ((event.key !== "Delete" && event.key !== "Backspace") || get().selected.size) return;
      if ((event.target as HTMLElement).matches("input, textarea")) return;
      const places = [...wires]
        .map((wire) => wire.split(":") as [string, string])
        .sort((a, b) => Number(b[1]) - Number(a[1]));
      edit((found) => places.reduce((next, [node, i]) => disconnected(next, get().specs, node, Number(i)), found));
      clear();
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [wires, clear]);
  return null;
}
