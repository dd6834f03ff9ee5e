// Bundle what the anywidgets load, into the Python package: one file each, no imports left.
import { build } from "esbuild";

await build({
  entryPoints: [
    { in: "src/widget/index.ts", out: "widget" },
    { in: "style/panel.css", out: "widget" },
    { in: "src/card/index.ts", out: "card" }
  ],
  bundle: true,
  format: "esm",
  target: "es2020",
  minify: true,
  legalComments: "none",
  jsx: "automatic",
  jsxImportSource: "preact",
  outdir: "../p2p_ipython/static",
  logLevel: "warning"
});
