// Bundle the bench and the demo into a folder (the first argument, else build/panel-bench), to be opened as files
// are served: `node tests/bench/build.mjs DIR`, then bench.html there has `window.bench(tab)`.
import { copyFile, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "../../../build/panel-bench");

await mkdir(out, { recursive: true });
await build({
  absWorkingDir: join(here, "../.."),
  entryPoints: [
    { in: "tests/bench/bench.ts", out: "bench" },
    { in: "tests/bench/demo.ts", out: "demo" },
    { in: "style/panel.css", out: "panel" }
  ],
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  jsx: "automatic",
  jsxImportSource: "preact",
  outdir: out,
  logLevel: "warning"
});
await Promise.all(["bench.html", "demo.html"].map((name) => copyFile(join(here, name), join(out, name))));
