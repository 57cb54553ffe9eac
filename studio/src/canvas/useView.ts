import { getViewportForBounds, type Rect, useReactFlow, type Viewport } from "@xyflow/react";
import { useCallback, useEffect, useMemo } from "react";
import { heightOf, WIDTH } from "../model/size";
import { inputsOf, isMade, type NodeId } from "../model/types";
import { get, project } from "../state/store";
import { view } from "../state/view";

const LEGIBLE = 0.6; // the zoom below which nobody reads what nodes are called
const LARGEST = 1.15;

/** Returns the edges that stay free for what stands over the canvas: the rail, the tools of a node, the zoom. */
function free(): { top: number; left: number; right: number; bottom: number } {
  if (window.innerWidth <= 720) return { top: 72, left: 88, right: 24, bottom: 128 };
  return { top: 72, left: window.innerWidth <= 900 ? 104 : 196, right: 40, bottom: 72 };
}

const boxOf = (): DOMRect | undefined => document.querySelector(".canvas")?.getBoundingClientRect();

/** Returns the rectangle around nodes; all of them, unless some are named. */
function around(ids: readonly NodeId[] = Object.keys(project().nodes)): Rect {
  const nodes = ids.flatMap((id) => project().nodes[id] ?? []);
  const x = Math.min(...nodes.map((node) => node.x));
  const y = Math.min(...nodes.map((node) => node.y));
  const right = Math.max(...nodes.map((node) => node.x + WIDTH));
  const bottom = Math.max(...nodes.map((node) => node.y + heightOf(node, get().specs)));
  return { x, y, width: right - x, height: bottom - y };
}

/** Returns where the canvas stands to show a rectangle. */
function over(rect: Rect, box: DOMRect, smallest: number, largest = LARGEST): Viewport {
  const { top, left, right, bottom } = free();
  const padding = { top: `${top}px`, left: `${left}px`, right: `${right}px`, bottom: `${bottom}px` } as const;
  return getViewportForBounds(rect, box.width, box.height, smallest, largest, padding);
}

/** Returns the node that matters: the one whose expression stands in the line, else the newest whose picture is made. */
function newest(): NodeId | undefined {
  const { nodes, active } = project();
  const all = Object.values(nodes);
  return active && nodes[active] ? active : (all.findLast((node) => isMade(node)) ?? all.at(-1))?.id;
}

/** Returns where the canvas stands to show all, where that can be read; else a node with its inputs; else that node. */
function legible(id: NodeId | undefined, box: DOMRect, largest = LARGEST): Viewport {
  const node = id === undefined ? undefined : project().nodes[id];
  const wholes = node ? [[node.id, ...inputsOf(node).flatMap((one) => one ?? [])]] : [];
  for (const ids of [undefined, ...wholes]) {
    const found = over(around(ids), box, 0.01, largest);
    if (!node || found.zoom >= LEGIBLE) return found;
  }
  const zoom = Math.max(LEGIBLE, Math.min(largest, 0.8));
  return over(around([node!.id]), box, zoom, zoom);
}

/** Where the canvas stands: told to the commands, and found again after a reload. Returns what keeps it. */
export function useView(id: string | null): () => void {
  const flow = useReactFlow();
  const duration = useMemo(() => (window.matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 240), []);
  useEffect(() => {
    view.middle = () => {
      const box = boxOf();
      const at = flow.screenToFlowPosition({
        x: (box?.left ?? 0) + (box?.width ?? 0) / 2,
        y: (box?.top ?? 0) + (box?.height ?? 0) / 2,
      });
      return { x: at.x - WIDTH / 2, y: at.y - 150 };
    };
    view.fit = (ids) => {
      const box = boxOf();
      if (box && Object.keys(project().nodes).length) void flow.setViewport(over(around(ids), box, 0.15), { duration });
    };
    view.focus = (one, always = false) => {
      const node = project().nodes[one];
      const box = boxOf();
      if (!node || !box) return;
      const { zoom } = flow.getViewport();
      const a = flow.flowToScreenPosition({ x: node.x, y: node.y });
      const b = flow.flowToScreenPosition({ x: node.x + WIDTH, y: node.y + heightOf(node, get().specs) });
      const inside = a.x > box.left + free().left / 1.2 && a.y > box.top + 16 && b.x < box.right && b.y < box.bottom;
      if (inside && zoom >= LEGIBLE && !always) return;
      const largest = always ? LARGEST : Math.min(LARGEST, Math.max(LEGIBLE, zoom));
      void flow.setViewport(legible(one, box, largest), { duration });
    };
  }, [flow, duration]);
  useEffect(() => {
    const stored = id && localStorage.getItem(`pops.view.${id}`);
    if (stored) void flow.setViewport(JSON.parse(stored) as Viewport);
    else
      setTimeout(() => {
        const box = boxOf();
        if (box && Object.keys(project().nodes).length) void flow.setViewport(legible(newest(), box));
      }, 60);
  }, [id, flow]);
  return useCallback(() => {
    const key = get().id;
    if (key) localStorage.setItem(`pops.view.${key}`, JSON.stringify(flow.getViewport()));
  }, [flow]);
}
