import { useState } from "react";
import { photoUrl } from "../api/client";
import type { PhotoNode } from "../model/types";
import { useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { OutPort } from "./Port";

/** A photo as it is. */
export function PhotoBody({ node }: { node: PhotoNode }) {
  const t = useTexts();
  const [lost, setLost] = useState(false);
  const url = photoUrl(node.photo);
  return (
    <div className="node photo">
      <div className="frame">
        {url && !lost ? (
          <img src={url} alt={node.name} draggable={false} onError={() => setLost(true)} />
        ) : (
          <span className="says">
            <Icon name="photo" />
            {url || !node.photo.startsWith("examples/") ? t("node.nophoto") : node.name}
          </span>
        )}
      </div>
      <div className="node-head">
        <span className="title" title={node.name}>
          {node.name}
        </span>
      </div>
      <OutPort name={node.name} />
    </div>
  );
}
