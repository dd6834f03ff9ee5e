import { describe, expect, test } from "vitest";

import type { Delta } from "../../src/panel/contract";
import { Ordered } from "../../src/panel/ordered";
import { Store } from "../../src/panel/store";
import { unfinished } from "../../src/panel/summary";
import { delta, manyTasks, NOW, snapshot } from "./fake";

const labels = (store: Store): string[] => store.pending.items.map((task) => task.label);

describe("messages", () => {
  test("a snapshot fills in what it leaves out", () => {
    const store = new Store();
    expect(store.apply(snapshot({ tasks: { a: { label: "tile", submitted: 5 } } }))).toBe(true);
    expect(store.tasks.get("a")).toMatchObject({ id: "a", label: "tile", state: "waiting", attempt: 0, said: "", error: "" });
    expect(store.cluster).toMatchObject({ state: "connected", done: 0, note: "" });
  });

  test("a delta changes, adds and removes, and leaves the rest as it is", () => {
    const store = new Store();
    store.apply(snapshot({ tasks: { a: { label: "a", submitted: 1 }, b: { label: "b", submitted: 2 } }, members: { m: { name: "bob", slots: 4 } } }));
    const b = store.tasks.get("b");
    expect(store.apply(delta({
      set: { cluster: { done: 1 } }, put: { tasks: { a: { state: "running", worker: "bob" }, c: { label: "c", submitted: 3 } } }, del: { members: ["m"] }
    }))).toBe(true);
    expect(labels(store)).toEqual(["a", "b", "c"]);
    expect(store.tasks.get("a")).toMatchObject({ state: "running", worker: "bob", submitted: 1 });
    expect(store.tasks.get("b")).toBe(b);
    expect(store.members.size).toBe(0);
    expect(store.cluster).toMatchObject({ done: 1, state: "connected" });
    expect(store.counts).toMatchObject({ waiting: 2, running: 1 });
  });

  test("tasks that wait without rows of their own are counted, too", () => {
    const store = new Store();
    store.apply(snapshot({ tasks: manyTasks(3) }));
    const listed = unfinished(store);
    store.apply(delta({ set: { cluster: { unlisted: 5000 } } }));
    expect(unfinished(store)).toBe(listed + 5000);
  });

  test("after a delta that was missed nothing is taken until a snapshot comes", () => {
    const store = new Store();
    store.apply(snapshot({ tasks: manyTasks(2) }, 1));
    expect(store.apply(delta({ del: { tasks: ["t0"] } }, 2))).toBe(false);
    expect(store.apply(delta({ del: { tasks: ["t1"] } }, 1))).toBe(false);
    expect(store.tasks.size).toBe(2);
    expect(store.apply(snapshot({ tasks: manyTasks(1) }, 7))).toBe(true);
    expect(store.tasks.size).toBe(1);
    expect(store.apply(delta({ del: { tasks: ["t0"] } }, 7))).toBe(true);
    expect(store.tasks.size).toBe(0);
  });

  test("what a kernel of another version says isn't taken, until one says it in this version", () => {
    const store = new Store();
    store.apply(snapshot({ cluster: { title: "before" } }));
    expect(store.apply({ ...snapshot({ cluster: { title: "other" } }), v: 2 })).toBe(true);
    expect(store.apply(delta({ set: { cluster: { title: "other" } } }))).toBe(true);
    expect([store.foreign, store.rev, store.cluster.title]).toEqual([true, -1, "before"]);
    store.apply(snapshot({ cluster: { title: "again" } }));
    expect([store.foreign, store.cluster.title]).toEqual([false, "again"]);
  });

  test("a delta before any snapshot isn't taken", () => {
    expect(new Store().apply(delta({}, -1))).toBe(false);
  });
});

describe("order", () => {
  test("tasks keep their places when their states change", () => {
    const store = new Store();
    store.apply(snapshot({ tasks: manyTasks(50) }));
    const before = labels(store);
    store.apply(delta({ put: { tasks: { t3: { state: "running" }, t40: { state: "sent" } } } }));
    expect(labels(store)).toEqual(before);
  });

  test("of those that are over the last to end comes last in the list, which is shown from its end", () => {
    const store = new Store();
    store.apply(snapshot({ tasks: manyTasks(3) }));
    store.apply(delta({ put: { tasks: { t1: { state: "done", ended: NOW + 2 }, t0: { state: "failed", ended: NOW + 5 } } } }));
    expect(store.over.items.map((task) => task.id)).toEqual(["t1", "t0"]);
    expect(labels(store)).toEqual(["task_2"]);
  });

  test("a busy worker stays where it is; the kernel itself comes first among one's own", () => {
    const store = new Store();
    store.apply(snapshot({
      members: {
        a: { name: "zoe", own: true, here: true, me: true }, b: { name: "attic", own: true, here: true, slots: 2 },
        c: { name: "bob", here: true }, d: { name: "ann", here: true }, e: { name: "dave" }
      }
    }));
    store.apply(delta({ put: { members: { b: { busy: 2 }, c: { state: "reconnecting" } } } }));
    expect(store.mine.items.map((row) => row.name)).toEqual(["zoe", "attic"]);
    expect(store.friends.items.map((row) => row.name)).toEqual(["ann", "bob"]);
    expect(store.away.items.map((row) => row.name)).toEqual(["dave"]);
  });

  test("deltas in any order leave what sorting would", () => {
    interface R { id: string; key: number }
    let seed = 42;
    const random = (below: number): number => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      return seed % below;
    };
    const rows = new Map<string, R>();
    const accept = (row: R): boolean => row.key % 5 !== 0;
    const ordered = new Ordered<R>((a, b) => a.key - b.key, accept);
    for (let round = 0; round < 3000; round += 1) {
      const id = `r${random(200)}`;
      const before = rows.get(id);
      const after = random(4) === 0 ? undefined : { id, key: random(50) };
      if (after === undefined) {
        rows.delete(id);
      } else {
        rows.set(id, after);
      }
      ordered.change(before, after);
    }
    const expected = [...rows.values()].filter(accept).sort((a, b) => a.key - b.key || (a.id < b.id ? -1 : 1));
    expect(ordered.items).toEqual(expected);
  });
});

describe("filters", () => {
  test("all of the words must occur, in any field, however they are written", () => {
    const store = new Store();
    store.apply(snapshot({ tasks: { a: { label: "Tile_1", worker: "bob" }, b: { label: "tile_2", worker: "eve" }, c: { label: "fit" } } }));
    store.filter({ pending: "TILE bob" });
    expect(labels(store)).toEqual(["Tile_1"]);
    store.filter({ pending: "" });
    expect(labels(store)).toHaveLength(3);
  });

  test("hold for what comes later", () => {
    const store = new Store();
    store.apply(snapshot({ tasks: manyTasks(20) }));
    store.filter({ pending: "new" });
    expect(labels(store)).toEqual([]);
    const put: Delta["put"] = { tasks: { n: { label: "new one", submitted: NOW } } };
    store.apply(delta({ put }));
    expect(labels(store)).toEqual(["new one"]);
  });

  test("only what failed", () => {
    const store = new Store();
    store.apply(snapshot({ tasks: { a: { state: "done", ended: 1 }, b: { state: "failed", ended: 2 }, c: { state: "cancelled", ended: 3 } } }));
    store.filter({ onlyFailed: true });
    expect(store.over.items.map((task) => task.id)).toEqual(["b"]);
  });
});
