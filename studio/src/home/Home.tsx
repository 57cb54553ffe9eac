import { useEffect, useState } from "react";
import { api, imageUrl } from "../api/client";
import type { ProjectRow } from "../api/types";
import { EMPTY } from "../model/types";
import { attempt, create } from "../state/saving";
import { tell, useStudio } from "../state/store";
import { useLanguage, useTexts } from "../texts";
import { Appearance } from "../ui/Appearance";
import { Brand } from "../ui/Brand";
import { chooseFiles } from "../ui/files";
import { Icon } from "../ui/Icon";
import { IconButton } from "../ui/IconButton";
import { ExampleCard } from "./ExampleCard";

/** The first page. */
export function Home() {
  const t = useTexts();
  const examples = useStudio((state) => state.examples);
  return (
    <main className="home">
      <div className="home-inner">
        <div className="home-top">
          <span className="brand" style={{ flex: 1 }}>
            <Brand />
          </span>
          <Appearance />
        </div>
        <section className="hero">
          <div>
            <h1>{t("app.tagline")}</h1>
            <p>{t("home.lead")}</p>
            <div className="panel-acts">
              <button type="button" className="button strong" onClick={() => chooseFiles()}>
                <Icon name="photo" size={16} />
                {t("home.choose")}
              </button>
              <button
                type="button"
                className="button"
                onClick={() => void attempt(() => create(t("project.untitled"), EMPTY))}
              >
                {t("home.blank")}
              </button>
            </div>
          </div>
          {/* biome-ignore lint/a11y/useKeyWithClickEvents: the button beside it has the same for keys */}
          {/* biome-ignore lint/a11y/noStaticElementInteractions: the button beside it has the same for keys */}
          <div className="drop-zone" onClick={() => chooseFiles()}>
            <strong>{t("home.drop")}</strong>
            <span>{t("home.drop.or")}</span>
          </div>
        </section>
        <section>
          <h2>{t("home.examples")}</h2>
          {examples?.length === 0 && <p className="quiet">{t("home.examples.none")}</p>}
          <div className="examples">
            {examples === null
              ? Array.from({ length: 8 }, (_, i) => (
                  // biome-ignore lint/suspicious/noArrayIndexKey: places that wait
                  <div key={i} className="example">
                    <div className="frame busy" />
                    <span className="example-name">&nbsp;</span>
                  </div>
                ))
              : examples.map((example) => <ExampleCard key={example.name} example={example} />)}
          </div>
        </section>
        <Projects />
      </div>
    </main>
  );
}

function Projects() {
  const t = useTexts();
  const { language } = useLanguage();
  const [rows, setRows] = useState<readonly ProjectRow[] | null>(null);
  useEffect(() => {
    void attempt(api.projects).then((found) => setRows(found?.projects ?? []));
  }, []);
  const drop = async (row: ProjectRow): Promise<void> => {
    const whole = await attempt(() => api.project(row.id));
    const gone = await attempt(async () => {
      await api.dropProject(row.id);
      return true;
    });
    if (!gone) return;
    setRows((before) => before?.filter((one) => one.id !== row.id) ?? null);
    tell(t("home.deleted", { name: row.name }), "note", {
      label: t("menu.undo"),
      run: () => {
        if (!whole) return;
        void attempt(() => api.makeProject(whole.name, whole.document))
          .then(() => api.projects())
          .then((found) => setRows(found.projects));
      },
    });
  };
  return (
    <section>
      <div className="home-top">
        <h2 style={{ flex: 1 }}>{t("home.projects")}</h2>
        <button type="button" className="button plain" onClick={() => chooseFiles(".pops")}>
          {t("home.open")}
        </button>
      </div>
      {rows?.length === 0 && <p className="quiet">{t("home.projects.none")}</p>}
      <div className="projects">
        {rows?.map((row) => (
          <div key={row.id} className="project">
            <a href={`#/p/${row.id}`}>
              <span className="frame">
                {row.thumbnail ? <img src={imageUrl(row.thumbnail, 256)} alt="" /> : <Icon name="board" />}
              </span>
              <strong>{row.name}</strong>
              <small>{t("home.changed", { when: ago(row.changed, language) })}</small>
            </a>
            <IconButton
              icon="trash"
              small
              label={t("home.delete", { name: row.name })}
              onClick={() => void drop(row)}
            />
          </div>
        ))}
      </div>
    </section>
  );
}

/** Returns how long ago a time in seconds was, in words. */
function ago(when: number, language: string): string {
  const seconds = when - Date.now() / 1000;
  const format = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  const units: [Intl.RelativeTimeFormatUnit, number][] = [
    ["day", 86_400],
    ["hour", 3600],
    ["minute", 60],
  ];
  for (const [unit, size] of units) {
    if (Math.abs(seconds) >= size) return format.format(Math.round(seconds / size), unit);
  }
  return format.format(0, "minute");
}
