import { expect, test } from "vitest";

import { gantt, step } from "../../src/panel/gantt";
import type { Task } from "../../src/panel/rows";
import { Store } from "../../src/panel/store";
import { snapshot } from "./fake";
import fixture from "./timeline.json";

interface Case {
  now: number;
  slots: Record<string, number | undefined>;
  tasks: Array<{ id: string }>;
  bars: unknown[][];
  used: Record<string, number | undefined>;
}

function tasks(rows: Record<string, Partial<Task>>): Task[] {
  const store = new Store();
  store.apply(snapshot({ tasks: rows }));
  return store.begun.items;
}

test("tasks at the same time stand under each other, those after each other in a row", () => {
  const picture = gantt(tasks({
    a: { worker: "w", submitted: 0.5, sent: 1, started: 2, ended: 5, state: "done" },
    b: { worker: "w", submitted: 0.5, sent: 3, started: 3.5, ended: 6, state: "done" },
    c: { worker: "w", submitted: 0.5, sent: 5, started: 5, ended: 8, state: "done" }
  }), 100, () => 2);
  expect(picture.bars.map((bar) => [bar.task.id, bar.row])).toEqual([["a", 0], ["b", 1], ["c", 0]]);
  expect(picture.lanes).toMatchObject([{ worker: "w", row: 0, rows: 2, bars: 3 }]);
  expect([picture.from, picture.to]).toEqual([0.5, 8]);
});

test("a wait is drawn only where its place was free", () => {
  const { bars } = gantt(tasks({
    a: { worker: "w", submitted: 1, sent: 1, started: 1, ended: 5, state: "done" },
    b: { worker: "w", submitted: 1, sent: 7, started: 7, ended: 8, state: "done" }
  }), 100, () => 1);
  expect(bars[1]).toMatchObject({ row: 0, idle: 5, sent: 7 });
});

test("the way back is what is left of the time until its end, where the worker says how long it took", () => {
  const { bars, lanes } = gantt(tasks({
    a: { worker: "w", submitted: 1, sent: 1, started: 2, ran: 3, ended: 6, state: "done" },
    b: { worker: "w", submitted: 1, sent: 7, started: 8, ended: 10, state: "done" },
    c: { worker: "w", submitted: 1, sent: 11, started: 12, ran: 99, ended: 13, state: "failed" }
  }), 100, () => 1);
  expect(bars.map((bar) => bar.back)).toEqual([5, 10, 13]);
  expect(lanes[0]?.ran).toBeCloseTo((3 + 2 + 1) / 3);
  expect(lanes[0]?.returned).toBeCloseTo(1 / 3);
});

test("a running task lasts until now; one that hasn't begun isn't shown", () => {
  const { bars } = gantt(tasks({
    a: { worker: "w", submitted: 1, sent: 2, started: 3, state: "running" }, b: { worker: "w", submitted: 1, sent: 4, state: "sent" }, c: { submitted: 1 }
  }), 10, () => 0);
  expect(bars.map((bar) => [bar.task.id, bar.started, bar.ended])).toEqual([["a", 3, 10]]);
});

test("an attempt that was lost stands on the lane of its own worker, also while the task waits again", () => {
  const lost = { submitted: 1, tried: [["v", 2, 3, 5]] as Task["tried"] };
  const { bars, lanes, to } = gantt(tasks({
    a: { ...lost, worker: "w", sent: 6, started: 7, ended: 9, state: "done" }, b: { ...lost, state: "waiting" }
  }), 10, () => 1);
  expect(bars.map((bar) => [bar.task.id, bar.worker, bar.lost, bar.ready, bar.sent, bar.started, bar.ended])).toEqual([
    ["b", "v", true, 1, 2, 3, 5], ["a", "v", true, 1, 2, 3, 5], ["a", "w", false, 5, 6, 7, 9]
  ]);
  expect(lanes.map(({ worker, rows }) => [worker, rows])).toEqual([["v", 2], ["w", 1]]);
  expect(new Set(bars.map((bar) => bar.id)).size).toBe(3);
  expect(to).toBe(9);
});

test("use is the share of all slots' time in which something ran", () => {
  const [lane] = gantt(tasks({ a: { worker: "w", submitted: 1, sent: 1, started: 1, ended: 6, state: "done" }, b: { worker: "x", submitted: 1, sent: 1, started: 1, ended: 11, state: "done" } }), 11, () => 2).lanes;
  expect(lane?.used).toBeCloseTo(0.25);
});

test("times that contradict each other do no harm", () => {
  const { bars, lanes } = gantt(tasks({ a: { worker: "w", submitted: 9, sent: 5, started: 2, ended: 1, state: "failed" } }), 3, () => 1);
  for (const bar of bars) {
    expect(bar.idle).toBeLessThanOrEqual(bar.way);
    expect(bar.way).toBeLessThanOrEqual(bar.started);
    expect(bar.started).toBeLessThanOrEqual(bar.ended);
    expect(bar.sent).toBeLessThanOrEqual(bar.ended);
  }
  expect(lanes[0]?.used).toBeGreaterThanOrEqual(0);
});

test.each(fixture.steps.of as Array<[number, number]>)("an axis of %d seconds has steps as Cluster.timeline() has them: %d", (span, wanted) => {
  expect(step(span, fixture.steps.about)).toBe(wanted);
});

test.each(fixture.cases)("as in Cluster.timeline(): $name", ({ now, slots, tasks: given, bars, used }: Case) => {
  const rows = given.map(({ id, ...row }) => [id, { state: "ended" in row ? "done" : "running", ...row }]);
  const picture = gantt(tasks(Object.fromEntries(rows) as Record<string, Partial<Task>>), now, (worker) => slots[worker] ?? 0);
  const first = new Map(picture.lanes.map((lane) => [lane.worker, lane.row]));
  expect(picture.bars.map((bar) => [
    bar.worker, bar.row - first.get(bar.worker)!, bar.task.id, bar.lost, bar.idle, bar.way, bar.started, bar.back, bar.ended
  ])).toEqual(bars);
  for (const [worker, share] of Object.entries(used)) {
    expect(picture.lanes.find((lane) => lane.worker === worker)?.used).toBeCloseTo(share!);
  }
});
