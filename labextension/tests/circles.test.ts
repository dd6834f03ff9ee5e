/** Modules import one another in one direction only, types included. */

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { expect, test } from "vitest";

const IMPORT = /(?:\bfrom\s+|\bimport\s*\(?\s*)["'](\.[^"']*)["']/g;

const modules = readdirSync("src", { recursive: true, encoding: "utf-8" }).filter((name) => /\.tsx?$/.test(name));

function importsOf(name: string): string[] {
  const paths = [...readFileSync(join("src", name), "utf-8").matchAll(IMPORT)].map(([, path = ""]) => path);
  return paths.filter((path) => !path.endsWith(".css")).map((path) => {
    const wanted = join(dirname(name), path);
    const module = modules.find((each) => [wanted, join(wanted, "index")].includes(each.replace(/\.tsx?$/, "")));
    expect(module, `${path}, which ${name} imports`).toBeDefined();
    return module!;
  });
}

test("no module imports itself by way of others", () => {
  const rest = new Map(modules.map((name) => [name, importsOf(name)]));
  for (;;) {
    const free = [...rest.keys()].filter((name) => !rest.get(name)!.some((imported) => rest.has(imported)));
    if (free.length === 0) {
      break;
    }
    free.forEach((name) => rest.delete(name));
  }
  expect([...rest.keys()]).toEqual([]);
});
