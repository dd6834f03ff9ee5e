// Bundle what the anywidgets load, into the Python package: one file each, no imports left.
import { build } from "esbuild";

await build({
  entryPoints: { widget: "src/widget/index.ts", card: "src/card/index.ts" },
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
