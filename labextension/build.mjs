// Bundle what the anywidgets load, into the Python package: one file each, no imports left.
import { build } from "esbuild";

const common = {
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
  outdir: "../p2p_ipython/static",
  logLevel: "warning"
};

await build({ ...common, entryPoints: [{ in: "src/card/index.ts", out: "card" }] });
await build({
  ...common,
  entryPoints: [
    { in: "src/widget/index.ts", out: "widget" },
    { in: "style/panel.css", out: "widget" }
  ],
  // Elements as calls of `h` are a tenth shorter than by the automatic runtime.
  tsconfigRaw: {},
  jsx: "transform",
  jsxFactory: "h",
  jsxFragment: "Fragment",
  inject: ["src/widget/jsx.ts"]
});
