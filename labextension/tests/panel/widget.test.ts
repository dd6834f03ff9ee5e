import { afterEach, beforeEach, expect, test, vi } from "vitest";

import widget from "../../src/widget";
import { WidgetTransport } from "../../src/widget/transport";
import { FakeModel, manyTasks, snapshot } from "./fake";

let model: FakeModel;

beforeEach(() => {
  vi.useFakeTimers();
  model = new FakeModel();
});

afterEach(() => vi.useRealTimers());

test("an answer goes to the view that asked, also with several views of one model", async () => {
  const [one, other] = [new WidgetTransport(model), new WidgetTransport(model)];
  const answers = [one.act("cancel", { task: "a" }), other.act("cancel", { task: "b" })];
  const [first, second] = model.sent;
  expect(first?.id).not.toBe(second?.id);
  model.fire("msg:custom", { t: "did", id: second?.id, ok: true, say: "second" });
  model.fire("msg:custom", { t: "did", id: first?.id, ok: true, say: "first" });
  expect((await Promise.all(answers)).map((did) => did.say)).toEqual(["first", "second"]);
});

test("a comm that has gone is no kernel; open requests are answered with a failure", async () => {
  const transport = new WidgetTransport(model);
  const states: string[] = [];
  transport.listen(() => {}, (link) => states.push(link.state));
  const answer = transport.act("connect", { target: "" });
  model.fire("comm_live_update");
  expect((await answer).ok).toBe(false);
  expect(states).toEqual(["closed"]);
  model.fire("msg:custom", snapshot());
  expect(states).toEqual(["closed", "open"]);
});

test("a kernel that has ended is noticed by all views of a model, though nothing can be said to it", async () => {
  const states: string[] = [];
  const views = [new WidgetTransport(model), new WidgetTransport(model)];
  views.forEach((view) => view.listen(() => {}, (link) => states.push(link.state)));
  model.dead = true;
  expect(await views[0]!.act("cancel", { task: "a" })).toMatchObject({ ok: false });
  model.fire("comm_live_update");
  expect(states).toEqual(["closed", "closed"]);
});

test("what is asked of a kernel that has gone is answered at once: it won't", async () => {
  const transport = new WidgetTransport(model);
  model.fire("comm_live_update");
  expect(await transport.act("cancel", { task: "a" })).toMatchObject({ ok: false, say: "" });
});

test("no two panels of a page have the same name", () => {
  const places = [1, 2, 3].map(() => document.body.appendChild(document.createElement("div")));
  const removes = places.map((el) => widget().render({ model: new FakeModel(), el }));
  const names = (): Array<string | null | undefined> => places.map((el) => el.firstElementChild?.getAttribute("aria-label"));
  expect(names()).toEqual(["p2p cluster in a cell", "p2p cluster in a cell, 2", "p2p cluster in a cell, 3"]);
  removes[1]?.();
  removes[1] = widget().render({ model: new FakeModel(), el: places[1]! });
  expect(new Set(names()).size).toBe(3);
  removes.forEach((remove) => remove());
  places.forEach((el) => el.remove());
});

test("the panel asks when it is rendered, shows what comes, and leaves nothing behind", async () => {
  const view = widget();
  const el = document.createElement("div");
  document.body.append(el);
  const remove = view.render({ model, el });
  expect(model.sent).toEqual([{ t: "hello", v: 1, view: "widget" }]);
  model.fire("msg:custom", snapshot({ tasks: manyTasks(3) }));
  await vi.advanceTimersByTimeAsync(50);
  expect(el.querySelectorAll("tr[data-id]")).toHaveLength(3);
  el.querySelector<HTMLElement>("[data-tab=members]")?.click();
  remove();
  expect(model.listening).toBe(0);
  view.render({ model, el });
  await vi.advanceTimersByTimeAsync(50);
  expect(el.querySelector<HTMLElement>("[aria-selected=true]")?.dataset.tab).toBe("members");
  el.remove();
});
