import { fireEvent } from "@testing-library/preact";
import axe from "axe-core";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";

import { mountPanel, Rest, type PanelOptions } from "../../src/panel";
import * as more from "../../src/panel/more";
import type { Did, Snapshot } from "../../src/panel/contract";
import { delta, FakeTransport, manyTasks, NOW, snapshot } from "./fake";

const rest = new Rest(() => Promise.resolve(more));

const HOSTILE = "<img src=x onerror=alert(1)>";

let element: HTMLElement;
let transport: FakeTransport;
let unmount: (() => void) | undefined;

beforeAll(() => rest.want());

beforeEach(() => {
  vi.useFakeTimers({ now: NOW * 1000 });
  element = document.createElement("div");
  document.body.append(element);
  transport = new FakeTransport((cell) => revealed.push(cell));
});

const revealed: string[] = [];

afterEach(() => {
  unmount?.();
  unmount = undefined;
  element.remove();
  revealed.length = 0;
  vi.useRealTimers();
});

async function mount(message?: Snapshot, options: Partial<PanelOptions> = {}): Promise<void> {
  unmount = mountPanel(element, transport, { rest, ...options });
  if (message !== undefined) {
    transport.say(message);
  }
  await settle();
}

/** Let time pass; by itself as much as effects take, which wait for a frame. */
async function settle(milliseconds = 20): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

const text = (): string => element.textContent;

function button(name: string): HTMLButtonElement {
  const found = [...element.querySelectorAll("button")].find((each) => (each.getAttribute("aria-label") ?? each.textContent) === name);
  if (found === undefined) {
    throw new Error(`no button ${name} among ${[...element.querySelectorAll("button")].map((each) => each.getAttribute("aria-label") ?? each.textContent).join(" | ")}`);
  }
  return found;
}

const buttons = (): string[] => [...element.querySelectorAll("button")].map((each) => each.getAttribute("aria-label") ?? each.textContent);

async function click(name: string): Promise<void> {
  button(name).click();
  await settle();
}

async function tab(name: string): Promise<void> {
  element.querySelector<HTMLElement>(`[data-tab=${name}]`)?.click();
  await settle();
}

const rows = (): HTMLElement[] => [...element.querySelectorAll<HTMLElement>("tr[data-id]")];
const ids = (): Array<string | undefined> => rows().map((row) => row.dataset.id);

async function key(target: Element | null, name: string, more: KeyboardEventInit = {}): Promise<void> {
  if (target === null) {
    throw new Error("nothing has the focus");
  }
  fireEvent.keyDown(target, { key: name, bubbles: true, ...more });
  await settle();
}

describe("the link", () => {
  test("a panel asks once when it is mounted, and shows the answer", async () => {
    await mount();
    expect(transport.hellos).toBe(1);
    expect(text()).toContain("opening");
    transport.say(snapshot({ cluster: { title: "alice/friends", words: "connected" } }));
    await settle();
    expect(element.querySelector("h2")?.textContent).toBe("alice/friends");
    expect(text()).toContain("connected");
  });

  test("after a delta was missed it asks again, once, and what came in between isn't shown", async () => {
    await mount(snapshot({ tasks: manyTasks(1) }));
    transport.say(delta({ put: { tasks: { x: { label: "lost" } } } }, 5));
    transport.say(delta({ put: { tasks: { y: { label: "lost too" } } } }, 6));
    await settle();
    expect(transport.hellos).toBe(2);
    expect(text()).not.toContain("lost");
    transport.say(snapshot({ tasks: { x: { label: "found" } } }, 9));
    await settle();
    expect(text()).toContain("found");
  });

  test("a kernel without the extension: what to type; when it has been loaded, it is asked", async () => {
    transport.link = { state: "absent", busy: false };
    await mount();
    expect(transport.hellos).toBe(0);
    expect(text()).toContain("not loaded");
    expect(text()).toContain("%load_ext p2p_ipython");
    transport.become({ state: "open", busy: false });
    await settle();
    expect(transport.hellos).toBe(1);
  });

  test("a kernel of another version can't be understood: it says so, and asks no more", async () => {
    await mount({ ...snapshot({ tasks: manyTasks(2) }), v: 2 });
    expect(element.querySelector(".p2p-state")?.textContent).toContain("another version of p2p_ipython");
    transport.say(delta({ set: { cluster: { done: 1 } } }));
    await settle();
    expect(transport.hellos).toBe(1);
    expect(rows()).toHaveLength(0);
    transport.say(snapshot({ tasks: manyTasks(2) }));
    await settle();
    expect(rows()).toHaveLength(2);
  });

  test("states and messages of which only a newer kernel knows do no harm", async () => {
    await mount(snapshot({ cluster: { state: "moving" as "lost", words: "moving" }, tasks: { a: { label: "a", state: "held" as "sent" } } }));
    expect(element.querySelector(".p2p-state")?.textContent).toBe("moving");
    expect(element.querySelectorAll("[role=tab]")).toHaveLength(5);
    transport.say({ t: "hint" } as unknown as Did);
    await settle();
    expect(transport.hellos).toBe(1);
    expect(rows().map((row) => row.dataset.id)).toEqual(["a"]);
  });

  test("what can't be drawn takes nothing else with it, and is tried again when asked to", async () => {
    await mount(snapshot({ tasks: manyTasks(2), offers: { o: { name: "attic", mine: true, tags: null as unknown as string[] } } }));
    await tab("offers");
    expect(element.querySelector("[role=alert]")?.textContent).toContain("can't show what the kernel sends");
    transport.say(snapshot({ tasks: manyTasks(2), offers: { o: { name: "attic", mine: true } } }, 2));
    await settle();
    await click("Try again to show this");
    expect(rows().map((row) => row.dataset.id)).toEqual(["o"]);
    await tab("tasks");
    expect(rows()).toHaveLength(2);
  });

  test("a restarted kernel's old state is forgotten", async () => {
    await mount(snapshot({ tasks: { a: { label: "old task" } } }));
    transport.become({ state: "opening", busy: false });
    transport.become({ state: "absent", busy: false });
    await settle();
    expect(text()).not.toContain("old task");
  });

  test("without a kernel the last state stays, without its buttons", async () => {
    await mount(snapshot({ tasks: { a: { label: "old task" } } }));
    expect(buttons()).toContain("Cancel old task");
    transport.become({ state: "closed", busy: false });
    await settle();
    expect(text()).toContain("no kernel");
    expect(text()).toContain("old task");
    expect(buttons()).not.toContain("Cancel old task");
  });

  test("no answer for five seconds is called stale; a message ends that", async () => {
    await mount();
    await settle(12_000);
    expect(text()).toContain("stale since 12 s");
    transport.say(snapshot());
    await settle();
    expect(text()).not.toContain("stale");
  });

  test("an action that takes its time isn't called stale", async () => {
    await mount(snapshot({ cluster: { state: "none" } }));
    transport.answer = () => undefined;
    await click("On this machine");
    await settle(12_000);
    expect(text()).not.toContain("stale");
  });

  test("nothing continues after unmounting", async () => {
    await mount(snapshot({ tasks: manyTasks(3) }));
    unmount?.();
    unmount = undefined;
    expect(transport.listening).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
    expect(element.childNodes).toHaveLength(0);
  });
});

describe("tasks", () => {
  test("elapsed time ticks here, by the kernel's clock", async () => {
    await mount(snapshot({ tasks: { a: { label: "a", state: "running", started: NOW + 995 } } }, 1, NOW + 1000));
    expect(rows()[0]?.textContent).toContain("5 s");
    await settle(3000);
    expect(rows()[0]?.textContent).toContain("8 s");
  });

  test("only what is in sight of ten thousand is in the document", async () => {
    await mount(snapshot({ tasks: manyTasks(10_000) }));
    expect(rows().length).toBeLessThan(60);
    const table = element.querySelector("table");
    expect(table?.getAttribute("aria-rowcount")).toBe("10001");
    expect(rows()[0]?.getAttribute("aria-rowindex")).toBe("2");
    expect(element.querySelector("caption")?.textContent).toBe("Tasks on their way");
  });

  test("rows that haven't changed stay the same elements, in the same order", async () => {
    await mount(snapshot({ tasks: manyTasks(5) }));
    const before = rows();
    transport.say(delta({ put: { tasks: { t1: { state: "running", worker: "bob" }, t9: { label: "later", submitted: NOW } } } }));
    await settle();
    expect(rows().slice(0, 5)).toEqual(before);
    expect(ids()).toEqual(["t0", "t1", "t2", "t3", "t4", "t9"]);
  });

  test("what is in sight stays where it is when rows above it go", async () => {
    await mount(snapshot({ tasks: manyTasks(500) }));
    const scroller = element.querySelector<HTMLElement>(".p2p-scroller")!;
    scroller.scrollTop = 3200;
    fireEvent.scroll(scroller);
    await settle();
    transport.say(delta({ del: { tasks: ["t0", "t1", "t2"] } }));
    await settle();
    expect(scroller.scrollTop).toBe(3200 - 3 * 32);
  });

  test("cancelling waits for four seconds in which it can be undone", async () => {
    await mount(snapshot({ tasks: { a: { label: "tile" } } }));
    await click("Cancel tile");
    expect(text()).toContain("cancelling in 4 s");
    await settle(2000);
    await click("Undo: don't cancel tile");
    await settle(10_000);
    expect(transport.acts).toEqual([]);
    await click("Cancel tile");
    await settle(4000);
    expect(transport.acts).toEqual([{ action: "cancel", args: { task: "a" } }]);
  });

  test("leaving before the four seconds are over cancels at once", async () => {
    await mount(snapshot({ tasks: { a: { label: "tile" } } }));
    await click("Cancel tile");
    unmount?.();
    unmount = undefined;
    expect(transport.acts).toEqual([{ action: "cancel", args: { task: "a" } }]);
  });

  test("a task that ends meanwhile isn't cancelled", async () => {
    await mount(snapshot({ tasks: { a: { label: "tile" } } }));
    await click("Cancel tile");
    transport.say(delta({ put: { tasks: { a: { state: "done", ended: NOW } } } }));
    await settle(10_000);
    expect(transport.acts).toEqual([]);
  });

  test("a filter appears with more than ten rows", async () => {
    await mount(snapshot({ tasks: manyTasks(10) }));
    expect(element.querySelector("input[type=search]")).toBeNull();
    transport.say(delta({ put: { tasks: { x: { label: "special", submitted: NOW } } } }));
    await settle();
    const filter = element.querySelector<HTMLInputElement>("input[type=search]")!;
    fireEvent.input(filter, { target: { value: "spec" } });
    await settle();
    expect(ids()).toEqual(["x"]);
    fireEvent.input(filter, { target: { value: "nothing like it" } });
    await settle();
    expect(text()).toContain("Nothing matches the filter.");
    await key(filter, "Escape");
    expect(ids()).toHaveLength(11);
  });

  test("those that are over are behind a tab, with the first line of the error, the newest first", async () => {
    await mount(snapshot({ tasks: { a: { label: "old", state: "done", ended: 5, worker: "bob" }, b: { label: "new", state: "failed", ended: 9, error: "ValueError: no" } } }));
    expect(text()).toContain("No task is on its way.");
    await tab("finished");
    expect(ids()).toEqual(["b", "a"]);
    expect(rows()[0]?.textContent).toContain("ValueError: no");
  });

  test("a task's source and output are asked for when it is opened; its cell is gone to", async () => {
    await mount(snapshot({ tasks: { a: { label: "tile", cell: "c7" } } }));
    transport.answer = () => ({
      data: {
        source: "x = 1", error: "",
        outputs: [
          { kind: "stream", name: "stdout", text: HOSTILE }, { kind: "image", mime: "image/png", data: "aGk=" },
          { kind: "image", mime: "image/svg+xml", data: "PHN2Zy8+" }, { kind: "image", mime: "image/png", data: "\"onload=" }
        ]
      }
    });
    rows()[0]?.click();
    await settle();
    expect(transport.acts).toEqual([{ action: "show", args: { task: "a" } }]);
    expect(element.querySelector(".p2p-source")?.textContent).toBe("x = 1");
    expect(element.querySelector(".p2p-output")?.textContent).toBe(HOSTILE);
    expect([...element.querySelectorAll("img")].map((image) => image.getAttribute("src"))).toEqual(["data:image/png;base64,aGk="]);
    await click("Go to the cell of tile");
    expect(revealed).toEqual(["c7"]);
    await click("Close details of tile");
    expect(element.querySelector(".p2p-details")).toBeNull();
  });
});

describe("tasks that belong together", () => {
  const scores = { label: HOSTILE, state: "running" as const, words: "7 of 20 done, 2 failed, about 40 s", total: 20, over: 9, failed: 2, began: NOW - 30 };

  test("have a row with a bar, a count and a button that asks first", async () => {
    await mount(snapshot({ put: { groups: { g: scores } } }));
    expect(element.querySelector(".p2p-together")?.textContent).toContain(`${HOSTILE}7 of 20 done, 2 failed, about 40 s`);
    expect(element.querySelector("img")).toBeNull();
    expect(element.querySelector<HTMLElement>(".p2p-together .p2p-meter > span")?.style.inlineSize).toBe("45.0%");
    await click(`Cancel all of ${HOSTILE}`);
    expect(transport.acts).toEqual([]);
    await click("Cancel all: Cancel 11 tasks? This can't be undone.");
    expect(transport.acts).toEqual([{ action: "halt", args: { group: "g" } }]);
  });

  test("can run again where they have failed, and are gone once all is well", async () => {
    await mount(snapshot({ put: { groups: { g: { ...scores, state: "failed", over: 20, ended: NOW, again: 2 } } } }));
    await click(`Run 2 of ${HOSTILE} again, which failed or were cancelled`);
    expect(transport.acts).toEqual([{ action: "again", args: { group: "g" } }]);
    transport.say(delta({ put: { groups: { g: { state: "done", failed: 0, again: 0 } } } }));
    await settle();
    expect(element.querySelector(".p2p-together")).toBeNull();
  });

  test("a task that says how far it is has a bar, and its words in place of its last line", async () => {
    await mount(snapshot({ tasks: { x: { label: "slow", state: "running", said: "noise", part: 0.5, at: "steps: 4 of 8", started: NOW - 5 } } }));
    expect(text()).toContain("steps: 4 of 8");
    expect(text()).not.toContain("noise");
    expect(element.querySelector<HTMLElement>(".p2p-progress > span")?.style.inlineSize).toBe("50%");
  });
});

describe("a task that is open", () => {
  test("its output follows what it says, at most once a second, and is asked for once more at the end", async () => {
    let text_ = "one";
    transport.answer = () => ({ data: { source: "", error: "", outputs: [{ kind: "stream", name: "stdout", text: text_ }] } });
    await mount(snapshot({ tasks: { a: { label: "tile", state: "running", said: "one" } } }));
    rows()[0]?.click();
    await settle();
    for (let line = 1; line <= 20; line += 1) {
      text_ = `line ${line}`;
      transport.say(delta({ put: { tasks: { a: { said: text_ } } } }, line));
      await settle(100);
    }
    await settle(1000);
    expect(element.querySelector(".p2p-output")?.textContent).toBe("line 20");
    expect(transport.acts.length).toBeLessThanOrEqual(5);
    const before = transport.acts.length;
    transport.say(delta({ put: { tasks: { a: { state: "done", ended: NOW } } } }, 21));
    await settle(3000);
    expect(transport.acts).toHaveLength(before + 1);
  });

  test("its state, its worker and its ways have each their own fact", async () => {
    const why = "waiting for a worker with python 3.12";
    await mount(snapshot({ cluster: { reasons: { "3.12": why } }, tasks: { a: { label: "tile", needs: "3.12", sizeIn: 900 } } }));
    const facts = (): Record<string, string> =>
      Object.fromEntries([...element.querySelectorAll(".p2p-facts > div")].map((fact) => [fact.children[0]!.textContent, fact.children[1]!.textContent]));
    rows()[0]?.click();
    await settle();
    expect(facts()).toMatchObject({ State: "waiting", Why: why, Sent: "900 B" });
    transport.say(delta({ put: { tasks: { a: { state: "running", worker: "attic", words: "running on attic" } } } }));
    await settle();
    expect(facts()).toMatchObject({ State: "running", Worker: "attic" });
    expect(facts()).not.toHaveProperty("Why");
  });
});

describe("a cluster that was closed", () => {
  const world = { cluster: { state: "closed" as const, words: "closed", kind: "shared" as const, title: "alice/friends" }, means: { can: ["connect" as const, "show" as const, "lend" as const] } };

  test("what it did can be looked at, below the way to another one", async () => {
    await mount(snapshot({ ...world, tasks: { a: { label: "tile", state: "done", ended: NOW } }, offers: { o: { name: "bob" } } }));
    expect([...element.querySelectorAll<HTMLElement>("[role=tab]")].map((each) => each.dataset.tab)).toEqual(["finished", "offers", "timeline"]);
    expect(buttons()).toContain("On this machine");
    expect(element.querySelector("h3")?.textContent).toBe("alice/friends, closed");
    expect(ids()).toEqual(["a"]);
    await tab("offers");
    expect(buttons().filter((name) => name.startsWith("Lend this"))).toHaveLength(1);
    expect(buttons().filter((name) => name.startsWith("Cancel"))).toEqual([]);
  });

  test("where there was nothing there is nothing", async () => {
    await mount(snapshot(world));
    expect(element.querySelector("[role=tab]")).toBeNull();
  });
});

describe("the keyboard", () => {
  test("one row is in the order of tabbing; arrows, Home and End move it; Enter opens, Delete cancels", async () => {
    await mount(snapshot({ tasks: manyTasks(30) }));
    expect(rows().filter((row) => row.tabIndex === 0).map((row) => row.dataset.id)).toEqual(["t0"]);
    rows()[0]?.focus();
    await key(document.activeElement, "ArrowDown");
    await key(document.activeElement, "ArrowDown");
    expect((document.activeElement as HTMLElement).dataset.id).toBe("t2");
    await key(document.activeElement, "End");
    expect((document.activeElement as HTMLElement).dataset.id).toBe("t29");
    await key(document.activeElement, "Home");
    expect((document.activeElement as HTMLElement).dataset.id).toBe("t0");
    await key(document.activeElement, "ArrowRight");
    expect(document.activeElement?.getAttribute("aria-label")).toBe("Cancel task_0");
    await key(document.activeElement, "ArrowLeft");
    await key(document.activeElement, "Delete");
    expect(text()).toContain("cancelling in 4 s");
    await key(document.activeElement, "Enter");
    expect(element.querySelector(".p2p-details h3")?.textContent).toBe("task_0");
  });

  test("when the row with the focus goes, the one in its place has it", async () => {
    await mount(snapshot({ tasks: manyTasks(5) }));
    rows()[2]?.focus();
    await settle();
    transport.say(delta({ put: { tasks: { t2: { state: "done", ended: NOW } } } }));
    await settle();
    expect((document.activeElement as HTMLElement).dataset.id).toBe("t3");
  });

  test("the focus stays on its row when others come above it", async () => {
    await mount(snapshot({ tasks: manyTasks(5) }));
    rows()[2]?.focus();
    await settle();
    transport.say(delta({ put: { tasks: { early: { label: "early", submitted: 1 } } } }));
    await settle();
    expect((document.activeElement as HTMLElement).dataset.id).toBe("t2");
    expect(ids()[0]).toBe("early");
  });

  test("closing details gives the focus back to their row", async () => {
    await mount(snapshot({ tasks: manyTasks(5) }));
    rows()[2]?.focus();
    await key(document.activeElement, "Enter");
    expect(document.activeElement?.className).toBe("p2p-details");
    await key(document.activeElement, "Escape");
    expect((document.activeElement as HTMLElement).dataset.id).toBe("t2");
  });

  test("what takes the place of what had the focus has it: a form, its button, what comes after it, a list that is empty now", async () => {
    transport.answer = () => ({ ok: false, say: "no" });
    await mount(snapshot({ cluster: { kind: "shared", title: "alice/friends" }, tasks: manyTasks(1), members: { me: { name: "alice", me: true, roles: ["owner"], here: true, own: true } } }));
    const focused = (): string | null | undefined => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.tagName;
    const press = async (name: string): Promise<void> => {
      button(name).focus();
      await click(name);
    };
    await tab("members");
    await press("Invite …");
    expect(focused()).toBe("INPUT");
    await press("Don't invite anybody");
    expect(document.activeElement?.textContent).toBe("Invite …");
    await press("Disconnect");
    await press("Disconnect: Give up 1 task?");
    await press("Dismiss: no");
    expect(document.activeElement?.getAttribute("role")).toBe("tab");
    await tab("tasks");
    rows()[0]?.focus();
    transport.say(delta({ put: { tasks: { t0: { state: "done", ended: NOW } } } }));
    await settle();
    expect(element.contains(document.activeElement)).toBe(true);
  });

  test("a button that was disabled while its action took place has the focus again", async () => {
    let answer: ((did: Did) => void) | undefined;
    transport.act = () => new Promise((resolve) => (answer = resolve));
    await mount(snapshot({ cluster: { state: "none" } }));
    const connect = button("On this machine");
    connect.focus();
    connect.click();
    await settle();
    expect(connect.disabled).toBe(true);
    connect.blur(); // as browsers do then
    answer?.({ t: "did", id: 1, ok: false, say: "no" });
    await settle();
    expect(document.activeElement).toBe(connect);
  });

  test("a user who has gone elsewhere isn't called back", async () => {
    await mount(snapshot({ tasks: manyTasks(3) }));
    rows()[0]?.focus();
    rows()[0]?.blur();
    await settle();
    transport.say(delta({ del: { tasks: ["t0"] } }));
    await settle();
    expect(document.activeElement).toBe(document.body);
  });

  test("tabs follow the arrows, around the end", async () => {
    await mount(snapshot());
    const chosen = (): string | undefined => element.querySelector<HTMLElement>("[role=tab][aria-selected=true]")?.dataset.tab;
    await key(element.querySelector("[role=tab][aria-selected=true]"), "ArrowRight");
    expect(chosen()).toBe("finished");
    expect((document.activeElement as HTMLElement).dataset.tab).toBe("finished");
    await key(document.activeElement, "End");
    expect(chosen()).toBe("timeline");
    await key(document.activeElement, "ArrowRight");
    expect(chosen()).toBe("tasks");
  });
});

describe("strangers' text", () => {
  test.each(["tasks", "finished", "members", "offers", "timeline"])("is shown as text in %s", async (name) => {
    const world = snapshot({
      cluster: { title: HOSTILE, note: HOSTILE, me: HOSTILE, board: HOSTILE },
      members: { m: { name: HOSTILE, here: true, roles: [HOSTILE], machine: HOSTILE, state: HOSTILE, trust: HOSTILE } },
      tasks: {
        a: { label: HOSTILE, worker: HOSTILE, said: HOSTILE, words: HOSTILE, sent: NOW - 5, tried: [[HOSTILE, NOW - 8, NOW - 7, NOW - 6]] },
        b: { label: HOSTILE, worker: HOSTILE, state: "failed", error: HOSTILE, sent: NOW - 5, ended: NOW }
      },
      offers: { o: { name: HOSTILE, tags: [HOSTILE], only: HOSTILE, platform: HOSTILE, cards: HOSTILE } },
      put: { visitors: { v: { name: HOSTILE, called: HOSTILE, about: HOSTILE, note: HOSTILE, title: HOSTILE } }, lending: { l: { title: HOSTILE, name: HOSTILE, words: HOSTILE } } }
    });
    await mount({ ...world, put: { ...world.put, members: { m: { name: HOSTILE, here: true, roles: [HOSTILE], machine: HOSTILE } } } });
    await tab(name);
    rows()[0]?.click();
    await settle();
    expect(element.querySelectorAll("img")).toHaveLength(0);
    expect(text()).toContain(HOSTILE);
  });
});

describe("actions", () => {
  test("only those that work are there", async () => {
    const members = { m: { name: "bob", here: true, key: "k", trust: "plain data" } };
    await mount(snapshot({ means: { can: [] }, members, tasks: { a: { label: "tile" } }, put: { members, visitors: { v: { name: "eve" } }, lending: { l: { title: "x", state: "lending" } } } }));
    expect(buttons().filter((name) => !/^(Tasks|Finished|Members|Offers|Timeline)/.test(name))).toEqual([]);
    await tab("members");
    rows()[0]?.click();
    await settle();
    expect(buttons().filter((name) => /Trust|Take|Invite/.test(name))).toEqual([]);
    await tab("offers");
    expect(buttons().filter((name) => /Lend|Pause|Stop/.test(name))).toEqual([]);
  });

  test("what can't be undone is asked about first; no is the default", async () => {
    const members = { m: { name: "bob", here: true, key: "k", trust: "plain data" } };
    await mount(snapshot({
      cluster: { kind: "shared", title: "alice/friends" }, members: { ...members, a: { name: "alice", me: true, own: true, here: true, roles: ["owner", "client"] } }
    }));
    await tab("members");
    rows()[1]?.click();
    await settle();
    await click("Remove bob");
    expect(transport.acts).toEqual([]);
    expect(document.activeElement?.textContent).toBe("No");
    await key(document.activeElement, "Escape");
    expect(document.activeElement?.getAttribute("aria-label")).toBe("Remove bob");
    await click("Remove bob");
    await click("Remove: Remove bob from alice/friends? The others get a new key.");
    expect(transport.acts).toEqual([{ action: "revoke", args: { title: "alice/friends", member: "k" } }]);
  });

  test("disconnecting asks only where tasks would be given up", async () => {
    await mount(snapshot());
    await click("Disconnect");
    expect(transport.acts).toEqual([{ action: "disconnect", args: {} }]);
    transport.say(delta({ put: { tasks: { a: { label: "a" } } } }));
    await settle();
    await click("Disconnect");
    expect(text()).toContain("Give up 1 task?");
    expect(transport.acts).toHaveLength(1);
    transport.say(delta({ del: { tasks: ["a"] } }, 2));
    await settle();
    expect(text()).toContain("Disconnect?"); // it doesn't go from under the pointer
  });

  test("a failure stays until it is dismissed; a success goes by itself", async () => {
    await mount(snapshot());
    transport.answer = () => ({ ok: false, say: "The board doesn't answer." });
    await click("Disconnect");
    await settle(60_000);
    expect(text()).toContain("That failed. The board doesn't answer.");
    await click("Dismiss: The board doesn't answer.");
    expect(text()).not.toContain("That failed.");
    transport.answer = () => ({ say: "Disconnected." });
    await click("Disconnect");
    expect(text()).toContain("Disconnected.");
    await settle(60_000);
    expect(element.querySelector(".p2p-notice")).toBeNull();
  });

  test("a failure that comes again is shown once, and one that comes while nobody looks is there later", async () => {
    let answer: ((did: Did) => void) | undefined;
    transport.act = () => new Promise((resolve) => (answer = resolve));
    const fail = async (say: string): Promise<void> => {
      answer?.({ t: "did", id: 1, ok: false, say });
      await settle();
    };
    const none = snapshot({ cluster: { state: "none" } });
    await mount(none);
    for (let times = 0; times < 2; times += 1) {
      await click("On this machine");
      await fail("The board can't be reached.");
    }
    expect(element.querySelectorAll(".p2p-notice")).toHaveLength(1);
    await click("Dismiss: The board can't be reached.");
    await click("On this machine");
    unmount?.();
    await fail("Nobody is there.");
    await mount(none);
    expect(text()).toContain("Nobody is there.");
    await click("On this machine");
    unmount?.();
    await mount(none);
    await fail("Again nobody.");
    expect(text()).toContain("Again nobody.");
  });

  test("without a cluster one connects to one, known or not", async () => {
    await mount(snapshot({ cluster: { state: "none" } }));
    await click("On this machine");
    await click("Connect to alice/friends");
    fireEvent.input(element.querySelector("input")!, { target: { value: " board.example.org:2222 " } });
    await settle();
    fireEvent.submit(element.querySelector("form")!);
    await settle();
    expect(transport.acts.map((act) => act.args.target)).toEqual(["", "alice/friends", "board.example.org:2222"]);
  });

  test("a board that can't be connected to stays to be corrected; once connected, nothing is said of it any more", async () => {
    await mount(snapshot({ cluster: { state: "none" } }));
    transport.answer = (_action, args) => ({ ok: args.target === "", say: args.target === "" ? "Connected." : "there is no such host" });
    fireEvent.input(element.querySelector("input")!, { target: { value: "nowhere:1" } });
    await settle();
    fireEvent.submit(element.querySelector("form")!);
    await settle();
    transport.say(delta({ set: { cluster: { state: "connecting" } } }));
    await settle();
    transport.say(delta({ set: { cluster: { state: "none" } } }, 2));
    await settle();
    expect(text()).toContain("there is no such host");
    expect(element.querySelector("input")!.value).toBe("nowhere:1");
    await click("On this machine");
    expect(text()).toContain("Connected.");
    expect(text()).not.toContain("there is no such host");
  });

  test("only the button that was pressed says that it connects", async () => {
    await mount(snapshot({ cluster: { state: "none" } }));
    transport.answer = () => undefined;
    await click("On this machine");
    expect(text().split("Connecting …")).toHaveLength(2);
  });

  test("all that wait are cancelled at once, when that has been confirmed with their number", async () => {
    await mount(snapshot({ tasks: { ...manyTasks(60), x: { label: "over", state: "done", ended: NOW } } }));
    await click("Cancel all");
    expect(transport.acts).toEqual([]);
    await click("Cancel all: Cancel 60 tasks? This can't be undone.");
    expect(transport.acts.map((act) => act.args.task)).toEqual(Array.from({ length: 60 }, (_, index) => `t${index}`));
  });

  test("people are spoken of by their names, not by those of their machines", async () => {
    const members = { m: { name: "bob (vm)", here: true, key: "k", trust: "plain data" } };
    await mount(snapshot({ cluster: { kind: "shared", title: "alice/friends" }, members }));
    await tab("members");
    rows()[0]?.click();
    await settle();
    await click("Trust bob");
    expect(text()).toContain("Let results of bob be of any type?");
    await tab("offers");
    await click("Lend this machine …");
    expect([...element.querySelectorAll("fieldset label")].map((label) => label.textContent)).toEqual(["bob"]);
  });

  test("a cluster that this machine is lent to already isn't offered again", async () => {
    await mount(snapshot({
      cluster: { kind: "own", title: "default", board: "board:22" }, means: { clusters: ["alice/friends"] },
      put: { lending: { l: { title: "alice/friends", name: "desk", state: "lending", slots: 2 }, m: { title: "board:22", state: "paused", slots: 1 } } }
    }));
    await tab("offers");
    expect(buttons().filter((name) => name.startsWith("Lend "))).toEqual([]);
    expect(text()).toContain("Lent to alice/friends");
  });

  test("the form stays until the kernel has answered, and then goes for good", async () => {
    let answer: (did: Did) => void = () => {};
    await mount(snapshot({ cluster: { kind: "shared", title: "alice/friends" } }));
    await tab("offers");
    await click("Lend this machine …");
    transport.act = () => new Promise((resolve) => (answer = resolve));
    fireEvent.submit(element.querySelector("form")!);
    transport.say(delta({ put: { lending: { l: { title: "alice/friends", state: "starting", slots: 1 } } } }));
    await settle();
    expect(text()).toContain("Starting a worker …");
    answer({ t: "did", id: 1, ok: true, say: "" });
    await settle();
    transport.say(delta({ del: { lending: ["l"] } }, 2));
    await settle();
    expect(element.querySelector("form")).toBeNull();
    expect(buttons()).toContain("Lend this machine …");
  });

  test.each([
    ["shared", "", "p2p worker --cluster alice/friends"],
    ["own", "No worker is here yet. Start one: p2p worker --board b:22 --cluster x\nOnly workers that …", "p2p worker --board b:22 --cluster x"],
    ["own", "", undefined],
    ["personal", "", undefined]
  ] as const)("what to type for a worker fits the cluster: %s %s", async (kind, note, command) => {
    await mount(snapshot({ cluster: { kind, note, title: "alice/friends" } }));
    await tab("offers");
    expect(element.querySelector(".p2p-empty pre")?.textContent).toBe(command);
  });

  test("what an offer has free is said in words", async () => {
    await mount(snapshot({
      offers: { a: { name: "a", slots: 2, free: 1, mine: true }, b: { name: "b", slots: 2, mine: true }, c: { name: "c", slots: 2, free: 2, paused: true, mine: true } }
    }));
    await tab("offers");
    expect(rows().map((row) => row.lastElementChild?.textContent)).toEqual(["1 of 2 free", "none free", "paused"]);
  });

  test("a visitor is let in or refused", async () => {
    await mount(snapshot({ put: { visitors: { v: { title: "alice/friends", name: "frank", called: "franky", key: "f4" } } } }));
    await click("Let franky in to alice/friends");
    await click("Don't let franky in to alice/friends");
    expect(transport.acts).toEqual([
      { action: "approve", args: { key: "f4", title: "alice/friends", called: "franky" } },
      { action: "refuse", args: { key: "f4", title: "alice/friends" } }
    ]);
  });

  test("what is to be known of a visitor is said where one says yes", async () => {
    const note = "bob is in already, by another key: both will count as his.";
    await mount(snapshot({ put: { visitors: { v: { title: "alice/friends", name: "bob", called: "bob", key: "f4", note } } } }));
    expect(element.querySelector(".p2p-visitors li")!.textContent).toContain(note);
  });

  test("an invitation's code is shown once and dropped when it is dismissed", async () => {
    await mount(snapshot({ means: { hosted: ["alice/friends"] } }));
    transport.answer = () => ({ data: { code: "7-secret-code", commands: ["p2p join 7-secret-code"], until: NOW + 60 } });
    await tab("members");
    await click("Invite …");
    fireEvent.input(element.querySelector("form input")!, { target: { value: "frank" } });
    await settle();
    fireEvent.submit(element.querySelector("form")!);
    await settle();
    expect(transport.acts).toEqual([{ action: "invite", args: { title: "alice/friends", who: "frank" } }]);
    expect(text()).toContain("7-secret-code");
    await click("Done, hide it");
    expect(text()).not.toContain("7-secret-code");
    expect(document.body.textContent).not.toContain("7-secret-code");
  });

  test("this machine is lent as the form says, paused and stopped", async () => {
    const world = snapshot({
      cluster: { kind: "shared", title: "alice/friends" }, means: { sandboxes: ["auto", "bubblewrap", "process"] },
      members: { m: { name: "bob", here: true, key: "kb" }, n: { name: "me", own: true, key: "ka" } },
      put: { lending: { l: { title: "lab/pool", name: "desk", state: "lending", slots: 2 } } }
    });
    await mount({ ...world, put: { ...world.put, members: { m: { name: "bob", here: true, key: "kb" }, n: { name: "me", own: true, key: "ka" } } } });
    await tab("offers");
    await click("Lend it to another cluster …");
    fireEvent.input(element.querySelector("input[type=number]")!, { target: { value: "3" } });
    fireEvent.change(element.querySelectorAll("select")[1]!, { target: { value: "12" } });
    fireEvent.input(element.querySelectorAll("form input.p2p-input")[1]!, { target: { value: "GPU, big" } });
    fireEvent.input(element.querySelector("input[step]")!, { target: { value: "1.5" } });
    element.querySelector<HTMLElement>("form input[type=checkbox]")?.click();
    expect([...element.querySelectorAll("fieldset label")].map((label) => label.textContent)).toEqual(["bob"]);
    element.querySelector<HTMLElement>("fieldset input")?.click();
    await settle();
    fireEvent.submit(element.querySelector("form")!);
    await settle();
    await click("Pause lending to lab/pool");
    await click("Stop lending to lab/pool");
    expect(transport.acts).toEqual([
      { action: "lend", args: { title: "alice/friends", slots: 3, hours: 12, only: ["kb"], tags: ["gpu", "big"], sandbox: "auto", gpu: true, cpus: 1.5, ask: false } },
      { action: "pause", args: { lending: "l" } },
      { action: "stop", args: { lending: "l" } }
    ]);
  });
});

describe("the sandbox", () => {
  const SANDBOXES = ["auto", "bubblewrap", "landlock", "process"];
  const choice = () => element.querySelector<HTMLSelectElement>("form select[aria-describedby]")!;
  const about = () => element.querySelector(`#${CSS.escape(choice().getAttribute("aria-describedby")!)}`)!;
  const choose = async (name: string) => {
    fireEvent.change(choice(), { target: { value: name } });
    await settle();
  };

  async function form(kind: "shared" | "own"): Promise<void> {
    await mount(snapshot({ cluster: { kind, title: "alice/friends" }, means: { clusters: [], sandboxes: SANDBOXES } }));
    await tab("offers");
    await click("Lend this machine …");
  }

  test("friends' tasks run in the first that works, unless another one is chosen; process says what it means", async () => {
    await form("shared");
    expect([...choice().options].map(({ value }) => value)).toEqual(SANDBOXES);
    expect(choice().value).toBe("auto");
    expect(about().textContent).toContain("out of their reach");
    await choose("process");
    expect(about().textContent).toContain("as you, with your files within their reach");
    expect(about().className).toBe("p2p-note");
    await choose("landlock");
    expect(about().className).toBe("p2p-dim");
    fireEvent.submit(element.querySelector("form")!);
    await settle();
    expect(transport.acts.map(({ args }) => args.sandbox)).toEqual(["landlock"]);
  });

  test("one's own tasks run without one, unless one is chosen", async () => {
    await form("own");
    expect(choice().value).toBe("process");
    expect(about().textContent).toContain("Only your own tasks");
    await choose("auto");
    expect(about().textContent).toContain("out of their reach");
  });

  test("when none works the form stays, and says what to install", async () => {
    await form("shared");
    transport.answer = () => ({ ok: false, say: "no sandbox works on this system\nInstall it: sudo apt-get install bubblewrap" });
    fireEvent.submit(element.querySelector("form")!);
    await settle();
    expect(text()).toContain("sudo apt-get install bubblewrap");
    expect(choice().value).toBe("auto");
  });

  test("an offer says in which one its tasks run, and what that means", async () => {
    await mount(snapshot({ offers: { a: { name: "box", mine: true, sandbox: "bubblewrap" }, b: { name: "desk", mine: true } } }));
    await tab("offers");
    const [box, desk] = [...element.querySelectorAll<HTMLElement>("tr[data-id]")];
    expect(box!.textContent).toContain("bubblewrap sandbox");
    expect(desk!.textContent).toContain("no sandbox");
    fireEvent.click(box!);
    await settle();
    const said = () => element.querySelector<HTMLElement>(".p2p-details dd [title]")!;
    expect([said().textContent, said().title]).toEqual(["bubblewrap", expect.stringContaining("can't reach the lender's files")]);
    fireEvent.click(desk!);
    await settle();
    expect([said().textContent, said().title]).toEqual(["no sandbox", expect.stringContaining("can reach the lender's files")]);
  });
});

describe("what is remembered", () => {
  test("mounted again it shows the same at once: state, tab and place", async () => {
    await mount(snapshot({ tasks: manyTasks(300, (index) => ({ state: "done", ended: NOW - index })) }));
    await tab("finished");
    const scroller = element.querySelector<HTMLElement>(".p2p-scroller")!;
    scroller.scrollTop = 640;
    fireEvent.scroll(scroller);
    await settle();
    unmount?.();
    await mount();
    expect(element.querySelector<HTMLElement>("[aria-selected=true]")?.dataset.tab).toBe("finished");
    expect(element.querySelector<HTMLElement>(".p2p-scroller")?.scrollTop).toBe(640);
    expect(transport.hellos).toBe(2);
  });

  test("two panels of one transport don't disturb each other", async () => {
    await mount(snapshot({ tasks: manyTasks(2) }));
    const other = document.createElement("div");
    document.body.append(other);
    const away = mountPanel(other, transport, { rest });
    transport.say(snapshot({ tasks: manyTasks(2) }, 4));
    transport.say(delta({ put: { tasks: { x: { label: "both", submitted: NOW } } } }, 4));
    await settle();
    expect(text()).toContain("both");
    expect(other.textContent).toContain("both");
    expect(transport.hellos).toBe(2);
    away();
    other.remove();
  });
});

describe("what is said", () => {
  test("the translator has all words", async () => {
    const seen: string[] = [];
    await mount(snapshot({ tasks: { a: { label: "tile" } } }), {
      translate: (text_, ...args) => {
        seen.push(text_);
        return `«${args.reduce<string>((whole, arg, index) => whole.replace(`%${index + 1}`, String(arg)), text_)}»`;
      }
    });
    expect(text()).toContain("«Tasks»");
    expect(buttons()).toContain("«Cancel tile»");
    expect(seen).toContain("Cancel %1");
  });

  test("news are told politely, at most once in three seconds", async () => {
    await mount(snapshot({ cluster: { done: 5 } }));
    const live = element.querySelector("[role=status][aria-live=polite]")!;
    await settle(4000);
    const told: string[] = [];
    const watch = new MutationObserver(() => told.push(live.textContent));
    watch.observe(live, { childList: true, characterData: true, subtree: true });
    for (let step = 0; step < 12; step += 1) {
      transport.say(delta({ set: { cluster: { done: 6 + step } } }, step + 1));
      await settle(500);
    }
    await settle(4000);
    watch.disconnect();
    expect(new Set(told).size).toBeLessThanOrEqual(4);
    expect(told.join(" ")).toContain("tasks done");
  });

  test("a timeline in which something runs isn't told anew each second, but what is chosen in it is", async () => {
    const tasks = { a: { label: "tile", state: "running" as const, worker: "attic", submitted: NOW - 9, sent: NOW - 8, started: NOW - 7 } };
    await mount(snapshot({ tasks }));
    await tab("timeline");
    const told = (): Array<string | null> => [...element.querySelectorAll(".p2p-timeline [role=status]")].map((each) => each.textContent);
    await settle(5000);
    expect(told()).toEqual([""]);
    await key(element.querySelector(".p2p-chart"), "ArrowLeft");
    const [first] = told();
    expect(first).toContain("tile on attic, running: waited 1.0 s");
    await settle(5000);
    expect(told()).toEqual([first]);
  });

  test("the timeline has what was lost, too, and says on whom", async () => {
    const tasks = { a: { label: "tile", worker: "attic", submitted: NOW - 9, tried: [["bob", NOW - 8, NOW - 7, NOW - 5] as const], sent: NOW - 4, started: NOW - 3 } };
    await mount(snapshot({ tasks }));
    await tab("timeline");
    expect(element.querySelector(".p2p-legend")?.textContent).toContain("worker lost");
    expect(element.querySelectorAll("svg.p2p-bars rect.p2p-lost")).toHaveLength(1);
    expect([...element.querySelectorAll(".p2p-lanes .p2p-label")].map((each) => each.textContent)).toEqual(["attic", "bob"]);
    fireEvent.pointerOver(element.querySelector("svg.p2p-bars rect.p2p-lost")!);
    await settle();
    expect(element.querySelector(".p2p-hovered")?.textContent).toContain("tile on bob, lost: waited 1.0 s, way there 1.0 s, ran 2.0 s");
  });

  test("what is the same news again is told again", async () => {
    await mount(snapshot());
    await settle(4000);
    const told = (): string => element.querySelector("[aria-live]")?.textContent ?? "";
    transport.say(delta({ set: { cluster: { done: 1 } } }, 1));
    await settle(4000);
    const first = told();
    transport.say(delta({ set: { cluster: { done: 2 } } }, 2));
    await settle(4000);
    expect(told()).not.toBe(first); // a screen reader reads what has changed
    expect([first.trim(), told().trim()]).toEqual(["1 task done", "1 task done"]);
  });

  test("sentences end once, and what belonged to a kernel that is gone isn't told", async () => {
    const live = (): string | undefined => element.querySelector("[role=status][aria-live=polite]")?.textContent;
    await mount(snapshot());
    await settle(4000);
    transport.answer = () => ({ say: "Disconnected." });
    await click("Disconnect");
    await click("Disconnect"); // what comes so soon after is told together
    transport.say(delta({ set: { cluster: { done: 1 } } }));
    await settle(4000);
    expect(live()).toBe("Disconnected. 1 task done");
    transport.say(delta({ set: { cluster: { done: 2 } } }, 2));
    transport.become({ state: "absent", busy: false });
    await settle();
    expect(live()).toBe("");
    await settle(4000);
    expect(live()).toBe("not loaded");
  });

  test.each(["tasks", "finished", "members", "offers", "timeline"])("axe finds nothing in %s", async (name) => {
    vi.useRealTimers();
    await mountReal(name);
    const found = await axe.run(element, { rules: { "color-contrast": { enabled: false }, region: { enabled: false } } });
    expect(found.violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).join(" ")}`)).toEqual([]);
  });
});

async function mountReal(name: string): Promise<void> {
  const now = Date.now() / 1000;
  const members = { m: { name: "bob", here: true, roles: ["worker"], slots: 4, busy: 1, key: "k", trust: "plain data" }, n: { name: "eve" } };
  unmount = mountPanel(element, transport, { rest });
  transport.say(snapshot({
    means: { hosted: ["personal, on this machine"] }, members, tasks: {
      a: { label: "tile", state: "running", started: now - 3, sent: now - 4, submitted: now - 5, worker: "bob", said: "30%" },
      b: { label: "fit", state: "failed", ended: now, started: now - 3, sent: now - 4, worker: "bob", error: "ValueError: no" }
    },
    offers: { m: { name: "bob", slots: 4, free: 3, tags: ["gpu"], mine: true } },
    put: { members, visitors: { v: { title: "t", name: "frank", key: "f" } }, lending: { l: { title: "x", name: "desk", state: "lending" } } }
  }, 1, now));
  await tick();
  element.querySelector<HTMLElement>(`[data-tab=${name}]`)?.click();
  await tick();
  rows()[0]?.click();
  [...element.querySelectorAll("button")].find((each) => each.textContent.startsWith("Lend this"))?.click();
  await tick();
}

function tick(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 20));
}
