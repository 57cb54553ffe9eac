import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import "@xyflow/react/dist/base.css";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/canvas.css";
import "./styles/panels.css";
import "./styles/home.css";
import { App } from "./App";
import { listen } from "./keys";
import { watch } from "./state/saving";
import { speak, useLanguage } from "./texts";
import { Guard } from "./ui/Guard";
import { restoreTheme } from "./ui/theme";

restoreTheme();
speak(useLanguage.getState().language);
watch();
listen();
createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <Guard>
      <App />
    </Guard>
  </StrictMode>,
);
