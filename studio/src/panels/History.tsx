import { useCallback, useEffect, useState } from "react";
import { api } from "../api/client";
import type { Job } from "../api/types";
import { openRecipe } from "../state/adding";
import { attempt } from "../state/saving";
import { type Made, madeOf, useStudio } from "../state/store";
import { readable } from "../state/view";
import { useTexts } from "../texts";
import { IconButton } from "../ui/IconButton";
import { shownOfMade, Tile } from "./Tile";

const PAGE = 24;
const FEW = 4; // of a job's images, until somebody wants them all

/** All that anybody asked for, the newest first; searched by text and operator. */
export function History() {
  const t = useTexts();
  const specs = useStudio((state) => state.specs);
  const [text, setText] = useState("");
  const [operator, setOperator] = useState("");
  const [favourite, setFavourite] = useState(false);
  const [jobs, setJobs] = useState<readonly Job[] | null>(null);
  const [more, setMore] = useState(false);
  const [whole, setWhole] = useState<ReadonlySet<string>>(new Set()); // jobs of which all images are shown
  const asked = text || operator || favourite;

  const load = useCallback(
    async (before?: number): Promise<readonly Job[]> => {
      const found = await attempt(() =>
        api.history({ text, operator, limit: PAGE, before, favourite: favourite ? 1 : null }),
      );
      setMore(found?.jobs.length === PAGE);
      return found?.jobs ?? [];
    },
    [text, operator, favourite],
  );
  useEffect(() => {
    let over = false;
    const timer = setTimeout(() => void load().then((found) => over || setJobs(found)), 200);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [load]);

  const star = async (job: Job): Promise<void> => {
    const next = !job.favourite;
    const done = await attempt(() => api.favourite(job.id, next));
    if (done !== undefined)
      setJobs((before) => before?.map((j) => (j.id === job.id ? { ...j, favourite: next } : j)) ?? null);
  };
  const shown = (job: Job): readonly Made[] =>
    job.images
      .slice(0, whole.has(job.id) ? undefined : FEW)
      .map((image) => madeOf(image, job.id, job.recipe.seeds ?? [0], job.recipe));
  const all = (jobs ?? []).flatMap(shown);
  return (
    <>
      <div className="filters">
        <input
          className="field"
          type="search"
          value={text}
          placeholder={t("history.find")}
          aria-label={t("history.search")}
          onChange={(event) => setText(event.target.value)}
        />
        <select
          className="field"
          value={operator}
          aria-label={t("history.all")}
          onChange={(event) => setOperator(event.target.value)}
        >
          <option value="">{t("history.all")}</option>
          {Object.keys(specs).map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
        <IconButton
          icon="star"
          label={t("history.favourites")}
          aria-pressed={favourite}
          fill={favourite}
          onClick={() => setFavourite(!favourite)}
        />
      </div>
      {jobs?.length === 0 && <p className="empty">{t(asked ? "history.nothing" : "history.none")}</p>}
      <div className="grid">
        {jobs?.flatMap((job) => [
          ...shown(job).map((made) => {
            return (
              <Tile
                key={made.image}
                shown={shownOfMade(made)}
                made={made}
                among={all}
                label={readable(job.recipe.expression)}
                caption={`${t("node.seed", { seed: made.seed })} · ${readable(job.recipe.expression)}`}
              >
                <IconButton icon="board" small label={t("history.open")} onClick={() => void openRecipe(made.recipe)} />
                <IconButton
                  icon="star"
                  small
                  label={t("view.favourite")}
                  aria-pressed={job.favourite ?? false}
                  fill={job.favourite ?? false}
                  onClick={() => void star(job)}
                />
              </Tile>
            );
          }),
          job.images.length > FEW && !whole.has(job.id) && (
            <button
              key={job.id}
              type="button"
              className="button rest"
              onClick={() => setWhole(new Set(whole).add(job.id))}
            >
              {t("history.rest", { count: job.images.length - FEW })}
            </button>
          ),
        ])}
      </div>
      {more && jobs && (
        <button
          type="button"
          className="button"
          onClick={() => void load(jobs.at(-1)?.place ?? undefined).then((older) => setJobs([...jobs, ...older]))}
        >
          {t("history.more")}
        </button>
      )}
    </>
  );
}
