import { describe, expect, it } from "vitest";

import { CommandIDs, SIDEBAR_PLUGIN } from "../../src/lab/ids";
import manifest from "../../package.json";
import schema from "../../schema/sidebar.json";

describe("the settings' schema", () => {
  it("belongs to a plugin of this package", () => {
    expect(SIDEBAR_PLUGIN).toBe(`${manifest.name}:sidebar`);
  });

  it("puts only commands into menus that there are", () => {
    const known: string[] = Object.values(CommandIDs);
    const items = schema["jupyter.lab.menus"].main.flatMap((menu) => menu.items as Array<{ command?: string }>);
    const used = items.flatMap(({ command }) => (command === undefined ? [] : [command]));
    expect(used.length).toBeGreaterThan(2);
    expect(used.filter((command) => !known.includes(command))).toEqual([]);
  });
});
