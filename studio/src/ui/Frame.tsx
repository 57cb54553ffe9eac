import type { CSSProperties, ReactNode } from "react";
import { imageUrl } from "../api/client";
import type { Shown } from "../state/pictures";
import { useTexts } from "../texts";
import { Icon } from "./Icon";

interface Props {
  readonly shown: Shown | null;
  readonly alt: string;
  readonly children?: ReactNode; // over the picture
  readonly style?: CSSProperties;
}

/** The square of a picture, from the wish for it to the picture itself. */
export function Frame({ shown, alt, children, style }: Props) {
  const t = useTexts();
  const busy = shown?.status === "waiting" || shown?.status === "running";
  const source = shown?.image ? imageUrl(shown.image, 512) : shown?.preview;
  return (
    <div className={`frame ${busy ? "busy" : ""}`} style={style} aria-busy={busy}>
      {source && <img src={source} alt={alt} draggable={false} className={shown?.image ? "arrives" : ""} />}
      {busy && !source && (
        <span className="says">{t(shown.status === "running" ? "state.running" : "state.waiting")}</span>
      )}
      {shown?.status === "running" && <progress value={shown.progress} max={1} aria-label={t("state.running")} />}
      {shown?.status === "failed" && (
        <span className="says bad" title={shown.error?.message}>
          <Icon name="warn" />
          {shown.error?.message ?? t("state.failed")}
        </span>
      )}
      {shown?.status === "stopped" && <span className="says">{t("state.stopped")}</span>}
      {children}
    </div>
  );
}
