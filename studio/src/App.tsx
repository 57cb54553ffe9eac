import { useEffect } from "react";
import { Home } from "./home/Home";
import { Lock } from "./home/Lock";
import { Studio } from "./Studio";
import { attempt, close, open } from "./state/saving";
import { meet } from "./state/server";
import { get, useStudio } from "./state/store";
import { useTexts } from "./texts";
import { Brand } from "./ui/Brand";
import { DropVeil } from "./ui/DropVeil";
import { Toasts } from "./ui/Toasts";

/** Opens the project of the address, or the first page. */
async function follow(): Promise<void> {
  const wanted = /^#\/p\/([\w-]+)$/.exec(location.hash)?.[1] ?? null;
  if (wanted === get().id) return;
  if (wanted) await attempt(() => open(wanted));
  if (get().id !== wanted) await attempt(close);
}

export function App() {
  const t = useTexts();
  const reached = useStudio((state) => state.reached);
  const locked = useStudio((state) => state.locked);
  const known = useStudio((state) => Object.keys(state.specs).length > 0);
  const id = useStudio((state) => state.id);
  useEffect(() => void meet(), []);
  useEffect(() => {
    if (!known || locked) return;
    void follow();
    const again = (): void => void follow();
    window.addEventListener("hashchange", again);
    return () => window.removeEventListener("hashchange", again);
  }, [known, locked]);

  if (locked) return <Lock />;
  if (!known) {
    return (
      <main className="middle" aria-busy="true">
        <span className="brand">
          <Brand />
        </span>
        <p className="quiet">{t(reached === false ? "server.gone" : "server.wait")}</p>
      </main>
    );
  }
  return (
    <>
      {id ? <Studio /> : <Home />}
      {!id && <DropVeil toCanvas={null} />}
      <Toasts />
    </>
  );
}
