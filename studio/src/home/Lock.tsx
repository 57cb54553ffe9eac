import { type FormEvent, useState } from "react";
import { api, Refused } from "../api/client";
import { meet } from "../state/server";
import { set } from "../state/store";
import { useTexts } from "../texts";
import { Brand } from "../ui/Brand";

/** The door of a server that wants its token. */
export function Lock() {
  const t = useTexts();
  const [token, setToken] = useState("");
  const [wrong, setWrong] = useState("");
  const enter = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    try {
      await api.login(token);
      set({ locked: false, reached: null });
      await meet();
    } catch (error) {
      setWrong(error instanceof Refused && error.status !== 401 ? error.message : t("lock.wrong"));
    }
  };
  return (
    <main className="middle">
      <span className="brand">
        <Brand />
      </span>
      <h1>{t("lock.title")}</h1>
      <p className="quiet">{t("lock.text")}</p>
      <form onSubmit={(event) => void enter(event)} className="panel-acts">
        <input
          className="field"
          style={{ width: 240 }}
          type="password"
          autoComplete="current-password"
          aria-label={t("lock.token")}
          placeholder={t("lock.token")}
          value={token}
          onChange={(event) => setToken(event.target.value)}
        />
        <button type="submit" className="button strong" disabled={!token}>
          {t("lock.open")}
        </button>
      </form>
      {wrong && (
        <p role="alert" style={{ color: "var(--bad)" }}>
          {wrong}
        </p>
      )}
    </main>
  );
}
