import { useEffect } from "react";
import { photoUrl } from "../api/client";
import type { Match } from "../api/types";
import { patched, withNode } from "../model/edits";
import { WIDTH } from "../model/size";
import { newId, type SearchNode } from "../model/types";
import { type Asked, search, useSearches } from "../state/searches";
import { edit, get, recipeOf, select, unreadyOf, useStudio } from "../state/store";
import { useTexts } from "../texts";
import { Icon } from "../ui/Icon";
import { PictureRow } from "./InputRows";
import { unreadyText } from "./words";

const PAUSE = 500; // milliseconds that an expression must stay the same before it is looked for

/** Returns what a library has that is nearest to what a node is joined to. */
function useHits(node: SearchNode, library: string | undefined) {
  const key = useStudio(({ history: { now }, specs }) =>
    library === undefined || unreadyOf(now, specs, node.id)
      ? null
      : JSON.stringify({ recipe: recipeOf(now, specs, node.id), library } satisfies Asked),
  );
  useEffect(() => {
    if (key === null) return;
    let stop: (() => void) | undefined;
    const timer = setTimeout(() => {
      stop = search(JSON.parse(key));
    }, PAUSE);
    return () => {
      clearTimeout(timer);
      stop?.();
    };
  }, [key]);
  return useSearches((state) => (key === null ? null : (state.byKey[key] ?? null)));
}

/** Takes a hit out of the node: it becomes a photo beside it. */
function take(node: SearchNode, match: Match): void {
  const id = newId();
  const spot = { x: node.x + WIDTH + 48, y: node.y };
  edit((now) =>
    withNode(now, get().specs, { kind: "photo", id, ...spot, photo: `photo:${match.id}`, name: match.name }),
  );
  select([id]);
}

/** The photos of a library that are nearest to what a wire brings. */
export function SearchBody({ node }: { node: SearchNode }) {
  const t = useTexts();
  const libraries = useStudio((state) => state.libraries);
  const library = libraries.find((name) => name === node.library) ?? libraries[0];
  const unready = useStudio((state) => unreadyOf(state.history.now, state.specs, node.id));
  const found = useHits(node, library);
  const title = t("node.search.title");
  const says =
    library === undefined
      ? t("search.nolibrary")
      : unready
        ? unreadyText(unready, "")
        : (found?.error ?? (found?.matches?.length === 0 ? t("search.none") : null));
  const busy = !says && !found?.matches;
  return (
    <div className="node search">
      <div className={`frame ${busy ? "busy" : ""}`} aria-busy={busy}>
        {says && (
          <span className={`says ${found?.error ? "bad" : ""}`}>
            {says}
            {library === undefined && <code className="nodrag nopan">pops studio --library mine=my.library</code>}
          </span>
        )}
        {!says && (
          <span className="hits">
            {found?.matches?.map((match) => (
              <button
                key={match.id}
                type="button"
                className="nodrag"
                aria-label={t("search.add", { name: match.name })}
                title={`${match.name} · ${match.score.toFixed(2)}`}
                onClick={() => take(node, match)}
              >
                <img src={photoUrl(`photo:${match.id}`, 128) ?? undefined} alt="" draggable={false} />
              </button>
            ))}
          </span>
        )}
      </div>
      <div className="node-head">
        <Icon name="search" size={16} />
        <span className="title">{title}</span>
      </div>
      <div className="rows">
        <PictureRow node={node} title={title} />
        <div className="row">
          {library !== undefined && (
            <select
              className="field nodrag"
              disabled={libraries.length < 2}
              value={library}
              aria-label={t("search.library")}
              onChange={(event) => edit((now) => patched(now, node.id, { library: event.target.value }))}
            >
              {libraries.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          )}
        </div>
      </div>
    </div>
  );
}
