/** The parts of the panel that come later: when, once, and what is shown when they don't. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { mountPanel, Rest, type More } from "../../src/panel";
import * as more from "../../src/panel/more";
import widget from "../../src/widget";
import { loadMore, PATIENCE, shared, type MoreModule } from "../../src/widget/loading";
import { FakeModel, FakeTransport, manyTasks, NOW, snapshot } from "./fake";

let element: HTMLElement;
const unmounts: Array<() => void> = [];

beforeEach(() => {
  vi.useFakeTimers({ now: NOW * 1000 });
  element = document.createElement("div");
  document.body.append(element);
});

afterEach(() => {
  for (const unmount of unmounts.splice(0)) {
    unmount();
  }
  element.remove();
  vi.useRealTimers();
});

async function settle(milliseconds = 50): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

function mounted(rest: Rest, into = element): HTMLElement {
  const transport = new FakeTransport();
  unmounts.push(mountPanel(into, transport, { rest }));
  transport.say(snapshot({ tasks: manyTasks(2, () => ({ state: "done", worker: "w", sent: NOW - 9, started: NOW - 8, ended: NOW - 7 })) }));
  return into;
}

function choose(within: HTMLElement, tab: string): void {
  within.querySelector<HTMLElement>(`[data-tab=${tab}]`)?.click();
}

test("they are loaded when one is wanted, and once for several views", async () => {
  let come: (parts: More) => void = () => {};
  const load = vi.fn(() => new Promise<More>((resolve) => (come = resolve)));
  const rest = new Rest(load);
  const other = document.createElement("div");
  element.append(other);
  const views = [mounted(rest, element.appendChild(document.createElement("div"))), mounted(rest, other)];
  await settle();
  expect(load).not.toHaveBeenCalled();
  for (const view of views) {
    choose(view, "timeline");
  }
  await settle();
  expect(load).toHaveBeenCalledTimes(1);
  expect(views.map((view) => view.querySelector(".p2p-later")?.textContent)).toEqual(["Loading …", "Loading …"]);
  come(more);
  await settle();
  expect(views.map((view) => view.querySelectorAll(".p2p-chart").length)).toEqual([1, 1]);
  expect(views.map((view) => view.querySelectorAll(".p2p-later").length)).toEqual([0, 0]);
  choose(other, "tasks");
  await settle();
  choose(other, "timeline");
  await settle();
  expect(load).toHaveBeenCalledTimes(1);
});

test("when they can't be loaded, the panel says what to do, and tries again when asked to", async () => {
  const load = vi.fn<() => Promise<More>>().mockRejectedValueOnce(new Error("no")).mockResolvedValue(more);
  mounted(new Rest(load));
  await settle();
  choose(element, "timeline");
  await settle();
  expect(element.querySelector(".p2p-later")?.textContent).toContain("could not be loaded. Try again, or reload the page");
  choose(element, "tasks");
  await settle();
  expect(element.textContent).not.toContain("could not be loaded");
  load.mockRejectedValueOnce(new Error("still no"));
  choose(element, "timeline");
  await settle();
  element.querySelector<HTMLElement>(".p2p-later button")?.click();
  await settle();
  expect(element.querySelectorAll(".p2p-chart")).toHaveLength(1);
});

test("a view that has gone while they were loaded stays gone", async () => {
  let come: (parts: More) => void = () => {};
  mounted(new Rest(() => new Promise<More>((resolve) => (come = resolve))));
  await settle();
  choose(element, "timeline");
  await settle();
  choose(element, "offers");
  await settle();
  come(more);
  await settle();
  expect(element.querySelectorAll(".p2p-chart, .p2p-later")).toHaveLength(0);
});

test("a widget asks its kernel for their text, once", async () => {
  const model = new FakeModel();
  const load = vi.fn<(code: string) => Promise<MoreModule>>().mockResolvedValue({ default: () => more });
  const parts = loadMore(model, load);
  expect(model.sent).toEqual([{ t: "more" }]);
  model.fire("msg:custom", { t: "did", id: 1, ok: true, say: "" });
  model.fire("msg:custom", { t: "more", code: "the text" });
  model.fire("msg:custom", { t: "more", code: "the same for another view" });
  expect(await parts).toBe(more);
  expect(load.mock.calls).toEqual([["the text"]]);
  expect(model.listening).toBe(0);
});

test("a kernel that doesn't answer, or has ended, gives none", async () => {
  for (const end of [async (model: FakeModel) => model.fire("comm_live_update"), () => settle(PATIENCE)]) {
    const model = new FakeModel();
    const parts = loadMore(model).then(() => "came", () => "didn't");
    await end(model);
    expect(await parts).toBe("didn't");
    expect(model.listening).toBe(0);
  }
});

test("a panel takes no notice of the text that another view of its model has asked for", async () => {
  const model = new FakeModel();
  unmounts.push(widget().render({ model, el: element }));
  model.fire("msg:custom", snapshot({ tasks: manyTasks(1) }));
  model.fire("msg:custom", { t: "more", code: "throw new Error()" });
  await settle();
  expect(element.querySelectorAll("tr[data-id]")).toHaveLength(1);
});

test("what more.js asks widget.js for is given to it, and it has no copy of its own", async () => {
  const { bundle } = await import("../../build.mjs");
  vi.useRealTimers();
  const text = (await bundle({ write: false, minify: false }))[2]?.outputFiles[0]?.text ?? "";
  const wanted = [...text.matchAll(/var (\w+) = require\("([^"]+)"\)/g)];
  expect(new Set(wanted.map(([, , name]) => name))).toEqual(
    new Set(["preact", "preact/hooks", "panel/environment", "panel/glyphs", "panel/parts", "panel/rows", "panel/summary", "panel/words"])
  );
  for (const [, variable = "", name = ""] of wanted) {
    for (const [, used = ""] of text.matchAll(new RegExp(`\\b${variable}\\.(\\w+)`, "g"))) {
      expect(shared(name), `${name} has no ${used}`).toHaveProperty(used);
    }
  }
  expect(() => shared("panel/control")).toThrow("panel/control");
  const module = (await import(/* @vite-ignore */ `data:text/javascript,${encodeURIComponent(text)}`)) as MoreModule;
  expect(Object.keys(module.default(shared)).sort()).toEqual(Object.keys(more).sort());
});
