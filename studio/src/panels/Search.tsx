import { useState } from "react";
import { api, photoUrl } from "../api/client";
import type { Match } from "../api/types";
import { withNode } from "../model/edits";
import { type NodeId, newId } from "../model/types";
import { attempt } from "../state/saving";
import { edit, get, project, readableOf, recipeOf, select, unreadyOf, useStudio } from "../state/store";
import { view } from "../state/view";
import { useTexts } from "../texts";

/** Photos of a library that are nearest to a picture; a click puts one on the canvas. */
export function Search({ node }: { node: NodeId | null }) {
  const t = useTexts();
  const libraries = useStudio((state) => state.libraries);
  const ready = useStudio(
    (state) => node !== null && state.history.now.nodes[node] && !unreadyOf(state.history.now, state.specs, node),
  );
  const [library, setLibrary] = useState(libraries[0] ?? "");
  const [matches, setMatches] = useState<readonly Match[] | null>(null);
  if (!node || !ready) return <p className="empty">{t("vary.none")}</p>;
  const search = async (): Promise<void> => {
    const found = await attempt(() => api.search(recipeOf(project(), get().specs, node), library, 24));
    setMatches(found?.matches ?? []);
  };
  const put = (match: Match): void => {
    const id = newId();
    edit((now) =>
      withNode(now, get().specs, { kind: "photo", id, ...view.middle(), photo: `photo:${match.id}`, name: match.name }),
    );
    select([id]);
  };
  return (
    <>
      <p className="of">{readableOf(project(), node)}</p>
      <div className="filters">
        <select
          className="field"
          value={library}
          aria-label={t("search.library")}
          onChange={(event) => setLibrary(event.target.value)}
        >
          {libraries.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
        <button type="button" className="button strong" onClick={() => void search()}>
          {t("search.run")}
        </button>
      </div>
      {matches?.length === 0 && <p className="empty">{t("search.none")}</p>}
      <div className="grid">
        {matches?.map((match) => (
          <figure key={match.id} className="tile">
            <button
              type="button"
              className="look"
              aria-label={t("search.add", { name: match.name })}
              onClick={() => put(match)}
            >
              <span className="frame">
                <img src={photoUrl(`photo:${match.id}`, 256) ?? undefined} alt={match.name} />
              </span>
            </button>
            <figcaption>{`${match.score.toFixed(2)} · ${match.name}`}</figcaption>
          </figure>
        ))}
      </div>
    </>
  );
}
