// Bundle what the anywidgets load, into the Python package: one file each, no imports left.
//
// The panel comes in two: widget.js draws its first picture, more.js has the rest of its parts, and shares the modules of
// widget.js. What more.js exports is a function, which gets a function that gives those modules by name; see
// src/widget/loading.ts.
import { dirname, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));

const common = {
  absWorkingDir: here,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
  charset: "utf8", // an ellipsis is three bytes, and six if it is escaped
  outdir: "../p2p_ipython/static",
  logLevel: "warning"
};

// Elements as calls of `h` are a tenth shorter than by the automatic runtime.
const elements = { tsconfigRaw: {}, jsx: "transform", jsxFactory: "h", jsxFragment: "Fragment", inject: ["src/widget/jsx.ts"] };

/** Leave out what widget.js has already, and ask for it: "preact", "panel/parts". */
function sharing(bundled) {
  return {
    name: "sharing",
    setup({ onResolve, resolve: find }) {
      onResolve({ filter: /./ }, async ({ path, resolveDir, kind, pluginData }) => {
        if (kind === "entry-point" || pluginData === "found") {
          return undefined;
        }
        const found = await find(path, { resolveDir, kind, pluginData: "found" });
        if (found.errors.length > 0 || !bundled.has(relative(here, found.path))) {
          return found;
        }
        const name = path.startsWith(".") ? relative(`${here}/src`, resolve(resolveDir, path)) : path;
        return { path: name, external: true };
      });
    }
  };
}

/** All bundles; with `write: false`, as esbuild gives them. */
export async function bundle(options = {}) {
  const card = await build({ ...common, ...options, entryPoints: [{ in: "src/card/index.ts", out: "card" }] });
  const widget = await build({
    ...common,
    ...elements,
    ...options,
    metafile: true,
    entryPoints: [
      { in: "src/widget/index.ts", out: "widget" },
      { in: "style/panel.css", out: "widget" }
    ]
  });
  const bundled = new Set(Object.values(widget.metafile.outputs).flatMap((output) => Object.keys(output.inputs)));
  bundled.delete("src/widget/jsx.ts");
  const more = await build({
    ...common,
    ...elements,
    ...options,
    format: "cjs",
    banner: { js: "export default require=>{const module={};" },
    footer: { js: "return module.exports};" },
    plugins: [sharing(bundled)],
    entryPoints: [{ in: "src/panel/more.ts", out: "more" }]
  });
  return [card, widget, more];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await bundle();
}
