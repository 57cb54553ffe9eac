import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

const here = dirname(fileURLToPath(import.meta.url));
const API = process.env.POPS_SERVER ?? "http://127.0.0.1:7860";

/** Writes the licences of all packages whose code is in the bundle beside it: LICENSES.txt. */
function licences(): Plugin {
  return {
    name: "licences",
    generateBundle(_, bundle) {
      const packages = new Set<string>();
      for (const chunk of Object.values(bundle)) {
        for (const module of chunk.type === "chunk" ? Object.keys(chunk.modules) : []) {
          const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(module);
          if (found?.[1]) packages.add(found[1]);
        }
      }
      packages.add("@xyflow/react"); // its style sheet, too
      const parts = [...packages].sort().map((name) => {
        const folder = join(here, "node_modules", name);
        const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Record<string, string>;
        const files = readdirSync(folder).filter((file) => /^(licen[cs]e|copying|notice)/i.test(file));
        const text = files.map((file) => readFileSync(join(folder, file), "utf8").trim()).join("\n\n");
        if (!text && !about.license) this.error(`${name} has no licence; it cannot be shipped`);
        return `${name} ${about.version} (${about.license})\n\n${text || `Licence: ${about.license}`}`;
      });
      const rule = `\n\n${"-".repeat(80)}\n\n`;
      const head = "The page of pops holds code of these packages:";
      this.emitFile({ type: "asset", fileName: "LICENSES.txt", source: [head, ...parts].join(rule) });
    },
  };
}

export default defineConfig({
  plugins: [react(), licences()],
  base: "/",
  build: {
    outDir: process.env.POPS_WEB ?? join(here, "../src/pops/server/web"),
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: { proxy: { "/api": { target: API, changeOrigin: false } } },
});
