import { ReactFlowProvider, useReactFlow } from "@xyflow/react";
import { useCallback } from "react";
import { Canvas } from "./canvas/Canvas";
import { Dock } from "./canvas/Dock";
import { Line } from "./canvas/Line";
import { Rail } from "./canvas/Rail";
import { inputsOf, type Project } from "./model/types";
import { Compare } from "./panels/Compare";
import { Conflict } from "./panels/Conflict";
import { Help } from "./panels/Help";
import { Palette } from "./panels/Palette";
import { Panel } from "./panels/Panel";
import { TopBar } from "./panels/TopBar";
import { Viewer } from "./panels/Viewer";
import { useStudio } from "./state/store";
import { view } from "./state/view";
import { useTexts } from "./texts";
import { DropVeil } from "./ui/DropVeil";
import { IconButton } from "./ui/IconButton";

/** Returns whether a first operator has an open input, and a photo that nothing uses might go there. */
function isLoose({ nodes }: Project): boolean {
  const all = Object.values(nodes);
  const used = new Set(all.flatMap((node) => inputsOf(node)));
  const calls = all.filter((node) => node.kind === "call");
  const open = calls.some((node) => inputsOf(node).includes(null));
  return open && calls.length < 3 && all.some((node) => node.kind === "photo" && !used.has(node.id));
}

/** One open project. */
export function Studio() {
  return (
    <ReactFlowProvider>
      <Room />
    </ReactFlowProvider>
  );
}

function Room() {
  const t = useTexts();
  const flow = useReactFlow();
  const empty = useStudio((state) => Object.keys(state.history.now.nodes).length === 0);
  const bare = useStudio((state) => {
    const nodes = Object.values(state.history.now.nodes);
    return nodes.length > 0 && nodes.every((node) => node.kind === "photo");
  });
  const loose = useStudio((state) => isLoose(state.history.now));
  const palette = useStudio((state) => state.palette);
  const viewed = useStudio((state) => state.viewed);
  const compared = useStudio((state) => state.compared);
  const reached = useStudio((state) => state.reached);
  const help = useStudio((state) => state.help);
  const conflict = useStudio((state) => state.saving === "conflict");
  const uploading = useStudio((state) => state.uploading);
  const toCanvas = useCallback((x: number, y: number) => flow.screenToFlowPosition({ x, y }), [flow]);
  return (
    <div className="studio">
      <TopBar />
      <main className="canvas">
        <Canvas />
        <Rail />
        {empty && (
          <div className="hint">
            <strong>{t("canvas.empty")}</strong>
            <span>{t("canvas.empty.more", { key: "Ctrl K" })}</span>
          </div>
        )}
        {(bare || loose) && !uploading && <p className="tip">{t(bare ? "canvas.bare" : "canvas.loose")}</p>}
        {uploading > 0 && (
          <div className="uploading" role="status">
            {t("canvas.upload", { count: uploading })}
          </div>
        )}
        {reached === false && (
          <p className="uploading bad" role="alert">
            {t("server.gone")}
          </p>
        )}
        <Dock />
        <div className="zoom">
          <IconButton icon="minus" label={t("canvas.out")} onClick={() => void flow.zoomOut()} />
          <IconButton icon="plus" label={t("canvas.in")} onClick={() => void flow.zoomIn()} />
          <IconButton icon="fit" label={t("canvas.fit")} keys="1" onClick={() => view.fit()} />
        </div>
      </main>
      <Panel />
      <Line />
      {palette && <Palette ask={palette} />}
      {viewed && <Viewer />}
      {compared && <Compare />}
      {help && <Help />}
      {conflict && <Conflict />}
      <DropVeil toCanvas={toCanvas} />
    </div>
  );
}
