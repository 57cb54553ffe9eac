import { useEffect, useRef, useState } from "react";
import { api, Refused } from "../api/client";
import type { Problem } from "../api/types";
import { photoNames, withIds } from "../model/text";
import { ExportMenu } from "../panels/ExportMenu";
import { put } from "../state/putting";
import { project, readableOf, useStudio } from "../state/store";
import { t, useTexts } from "../texts";

const PAUSE = 250;

/** The expression of the chosen node. Whoever edits it edits the canvas. */
export function Line() {
  useTexts();
  const active = useStudio((state) => state.history.now.active);
  const here = useStudio((state) => {
    const now = state.history.now;
    return now.active && now.nodes[now.active] ? readableOf(now, now.active) : "";
  });
  const [draft, setDraft] = useState<string | null>(null); // null: as the canvas has it
  const [problem, setProblem] = useState<Problem | null>(null);
  const [scrolled, setScrolled] = useState(0);
  const field = useRef<HTMLInputElement>(null);
  const applying = useRef<string | null>(null); // once: the field that is left in the end would apply it again
  const text = draft ?? here;

  // The parser looks at what is typed as soon as it rests.
  useEffect(() => {
    if (draft === null || !draft.trim()) {
      setProblem(null);
      return;
    }
    let over = false;
    const timer = setTimeout(() => void look(draft).then((found) => over || setProblem(found.problem)), PAUSE);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [draft]);

  const apply = async (typed: string): Promise<void> => {
    if (!typed.trim() || applying.current === typed) return;
    applying.current = typed;
    const { problem: found, tree } = await look(typed);
    if (found) {
      setProblem(found);
      setDraft(typed);
    } else if (tree !== undefined) {
      const now = project();
      put({ expression: typed }, tree, now.active && now.nodes[now.active] ? now.active : null);
      setDraft(null);
      setProblem(null);
      field.current?.blur();
    }
    applying.current = null;
  };

  const use = (): void => {
    const [from, to] = problem?.span ?? [0, 0];
    const next = text.slice(0, from) + (problem?.suggestion ?? "") + text.slice(to);
    setDraft(next);
    void apply(next);
  };

  const span = problem?.span;
  return (
    <div className="line">
      <div className={`line-field ${problem ? "bad" : ""}`}>
        <input
          ref={field}
          id="expression"
          value={text}
          spellCheck={false}
          autoComplete="off"
          autoCapitalize="off"
          placeholder={t("line.placeholder")}
          aria-label={t("line.label")}
          aria-invalid={problem !== null}
          aria-describedby={problem ? "expression-error" : undefined}
          title={t("line.apply")}
          onChange={(event) => setDraft(event.target.value)}
          onScroll={(event) => setScrolled(event.currentTarget.scrollLeft)}
          onKeyDown={(event) => {
            event.stopPropagation();
            if (event.key === "Enter") void apply(text);
            if (event.key === "Escape") {
              setDraft(null);
              setProblem(null);
              event.currentTarget.blur();
            }
          }}
          onBlur={() => draft !== null && !problem && draft !== here && void apply(draft)}
        />
        {span && (
          <div className="line-mirror" aria-hidden="true">
            <span style={{ position: "relative", left: -scrolled }}>
              {text.slice(0, span[0])}
              <mark>{text.slice(span[0], Math.max(span[1], span[0] + 1)) || " "}</mark>
            </span>
          </div>
        )}
        {problem && (
          <div className="line-error" id="expression-error" role="alert">
            <span>{problem.message}</span>
            {problem.suggestion && span && (
              <button type="button" className="button" onMouseDown={(event) => event.preventDefault()} onClick={use}>
                {t("line.use", { word: problem.suggestion })}
              </button>
            )}
          </div>
        )}
      </div>
      <ExportMenu node={active} />
    </div>
  );
}

/** Has the server parse what is typed. */
async function look(
  typed: string,
): Promise<{ problem: Problem | null; tree?: Awaited<ReturnType<typeof api.parse>>["tree"] }> {
  const wired = withIds(typed, photoNames(project()));
  if (wired.unknown) {
    const { name, span: at } = wired.unknown;
    return { problem: { code: "PhotoError", message: t("line.unknown", { name }), span: at } };
  }
  try {
    const { tree } = await api.parse({ text: wired.text }, project().settings.model);
    return { problem: null, tree };
  } catch (error) {
    if (!(error instanceof Refused)) return { problem: { code: "Unreachable", message: t("server.gone") } };
    const { span: at, ...rest } = error.problem;
    return { problem: { ...rest, message: readable(rest.message), span: at ? wired.back(at) : null } };
  }
}

/** Names of photos in a message are those that people see. */
function readable(message: string): string {
  for (const [photo, name] of photoNames(project())) message = message.replaceAll(photo, name);
  return message.split("\n")[0]!;
}
