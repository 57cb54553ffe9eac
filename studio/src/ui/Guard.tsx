import { Component, type ReactNode } from "react";
import { t } from "../texts";
import { Brand } from "./Brand";

/** What is shown where the page itself fails: in place of nothing, a way on. */
export class Guard extends Component<{ readonly children: ReactNode }, { readonly failed: string | null }> {
  override state = { failed: null };

  static getDerivedStateFromError(error: unknown): { failed: string } {
    return { failed: error instanceof Error ? error.message : String(error) };
  }

  override render(): ReactNode {
    if (this.state.failed === null) return this.props.children;
    return (
      <main className="middle" role="alert">
        <span className="brand">
          <Brand />
        </span>
        <h1>{t("fault.title")}</h1>
        <p className="quiet">{t("fault.text")}</p>
        <p className="code">{this.state.failed}</p>
        <button type="button" className="button strong" onClick={() => location.reload()}>
          {t("save.conflict.reload")}
        </button>
      </main>
    );
  }
}
