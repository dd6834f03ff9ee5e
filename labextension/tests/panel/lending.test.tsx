/** What a lender sees and says in the panel: questions, policy, news, the log. */

import { fireEvent } from "@testing-library/preact";
import axe from "axe-core";
import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";

import { mountPanel, Rest } from "../../src/panel";
import type { LogEntry, QuestionRow, Snapshot } from "../../src/panel/contract";
import * as more from "../../src/panel/more";
import { delta, FakeTransport, NOW, snapshot } from "./fake";

const rest = new Rest(() => Promise.resolve(more));
const HOSTILE = "<img src=x onerror=alert(1)>";
const ASKED: Partial<QuestionRow> = {
  number: 3, title: "alice/friends", worker: "desk", name: "carol", key: "SHA256:c", label: "fit", kind: "cell", source: "import os\nfit(x)",
  cut: "2 lines more", size: 12_000, options: "binds score", until: NOW + 90, same: true, walled: true
};
const ENTRY: LogEntry = {
  time: NOW, member: "carol", label: "fit", outcome: "done", why: "", seconds: 3.2, cpu: 2.1, memory: 50 * 2 ** 20, bytesIn: 2000, bytesOut: 300
};

let element: HTMLElement;
let transport: FakeTransport;
let unmount: (() => void) | undefined;

beforeAll(() => rest.want());

beforeEach(() => {
  vi.useFakeTimers({ now: NOW * 1000 });
  element = document.createElement("div");
  document.body.append(element);
  transport = new FakeTransport();
});

afterEach(() => {
  unmount?.();
  element.remove();
  vi.useRealTimers();
});

async function mount(message: Snapshot): Promise<void> {
  unmount = mountPanel(element, transport, { rest });
  transport.say(message);
  await settle();
}

async function settle(milliseconds = 20): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

const nameOf = (each: Element): string => each.getAttribute("aria-label") ?? each.textContent;
const names = (): string[] => [...element.querySelectorAll(".p2p-questions button")].map(nameOf);
const card = (): string => element.querySelector(".p2p-questions li")?.textContent ?? "";

async function click(name: string): Promise<void> {
  const found = [...element.querySelectorAll("button")].find((each) => nameOf(each) === name);
  expect(found, name).toBeDefined();
  fireEvent.click(found!);
  await settle();
}

async function lent(entries: LogEntry[], row: object = {}): Promise<void> {
  transport.answer = (action) => action === "log" ? { data: { entries } } : {};
  await mount(snapshot({
    cluster: { kind: "shared", title: "alice/friends" },
    put: { lending: { l: { title: "alice/friends", name: "desk", state: "lending", slots: 1, ...row } } }
  }));
  element.querySelector<HTMLElement>("[data-tab=offers]")?.click();
  await settle();
}

test("a question shows all that a lender can know, and how long there is to answer", async () => {
  await mount(snapshot({ put: { questions: { 3: ASKED } } }));
  for (const words of ["carol asks to run fit on desk, lent to alice/friends: a cell, 12 kB; binds score.", "Key: SHA256:c", "import os\nfit(x)",
    "Not shown: 2 lines more.", "Data can carry code: the sandbox is what holds it.", "no answer within 1 min 30 s is no"]) {
    expect(card()).toContain(words);
  }
  await settle(31_000);
  expect(card()).toContain("no answer within 59 s is no");
  expect(element.querySelector(".p2p-unseen")?.textContent).toContain("carol asks to run fit");
});

test("each answer goes to the kernel with the question's number", async () => {
  await mount(snapshot({ put: { questions: { 3: ASKED } } }));
  expect(names()).toEqual(["Run fit of carol once", "Always run tasks of carol", "Always run fit of carol, as it is now", "Don't run fit of carol"]);
  for (const name of names()) {
    await click(name);
  }
  expect(transport.acts).toEqual(["once", "member", "same", "no"].map((answer) => ({ action: "answer", args: { number: 3, answer } })));
});

test("while an answer is on its way there is no second one, and an answered question goes", async () => {
  await mount(snapshot({ put: { questions: { 3: ASKED } } }));
  transport.answer = () => undefined;
  await click("Don't run fit of carol");
  expect([...element.querySelectorAll<HTMLButtonElement>(".p2p-questions button")].every((each) => each.disabled)).toBe(true);
  transport.say(delta({ del: { questions: ["3"] } }));
  await settle();
  expect(element.querySelector(".p2p-questions")).toBeNull();
});

test("nothing is the same as a task that isn't here yet, and a kernel that can't be answered gets no buttons", async () => {
  await mount(snapshot({ put: { questions: { 3: { ...ASKED, same: false, walled: false, kind: "call", source: "" } } } }));
  expect(names()).toHaveLength(3);
  expect(card()).toContain("a call of a function, which travels as data");
  expect(element.querySelector(".p2p-questions pre")).toBeNull();
  expect(card()).toContain("No sandbox is around it: it runs as you");
  expect(card()).not.toContain("the sandbox is what holds it");
  transport.say(delta({ set: { means: { can: [] } } }));
  await settle();
  expect(names()).toEqual([]);
});

test("strangers' text is text in a question, in news, in the policy and in the log", async () => {
  await lent(
    [{ ...ENTRY, member: HOSTILE, label: HOSTILE, outcome: HOSTILE, why: HOSTILE }],
    { policy: HOSTILE, conditions: HOSTILE, news: [HOSTILE], words: HOSTILE }
  );
  await click("Policy and log of lending to alice/friends");
  const asked = { ...ASKED, name: HOSTILE, label: HOSTILE, source: HOSTILE, cut: HOSTILE, options: HOSTILE, key: HOSTILE, title: HOSTILE, worker: HOSTILE };
  transport.say(delta({ put: { questions: { 3: asked } } }));
  await settle();
  expect(element.querySelectorAll("img")).toHaveLength(0);
  expect(element.textContent.split(HOSTILE).length).toBeGreaterThan(14);
});

test("a worker that is lent says its policy and its news, and has a log that is kept up to date", async () => {
  const refused = { ...ENTRY, outcome: "refused", why: "its lender has said no", cpu: -1, memory: -1, seconds: 0, bytesIn: 0, bytesOut: 0 };
  await lent([refused, ENTRY], {
    policy: "after your yes", conditions: 'who = "known"\nask = true', news: ["erin (SHA256:e) is new in alice/friends; their tasks may run here"]
  });
  const row = element.querySelector(".p2p-lent")!;
  expect(row.textContent).toContain("lending · 0 of 1 slot busy · after your yes");
  expect([...row.querySelectorAll("li")].map((each) => each.textContent)).toEqual(["erin (SHA256:e) is new in alice/friends; their tasks may run here"]);
  await click("Policy and log of lending to alice/friends");
  const details = element.querySelector(".p2p-lent-more")!;
  expect(details.querySelector("pre")?.textContent).toBe('who = "known"\nask = true');
  const cells = [...details.querySelectorAll("tbody tr")].map((each) => [...each.querySelectorAll("td")].slice(1).map((cell) => cell.textContent));
  expect(cells).toEqual([
    ["carol", "fit", "refused: its lender has said no", "", "", "", ""],
    ["carol", "fit", "done", "3.2 s", "2.1 s", "50 MiB", "2.0 kB, 300 B"]
  ]);
  expect(transport.acts).toEqual([{ action: "log", args: { lending: "l" } }]);
  transport.say(delta({ put: { lending: { l: { logged: 1 } } } }));
  await settle();
  expect(transport.acts).toHaveLength(2);
  await click("Policy and log of lending to alice/friends");
  expect(element.querySelector(".p2p-lent-more")).toBeNull();
});

test("a member whom the lender doesn't know yet is welcomed by a button", async () => {
  await lent([], { unknown: { "SHA256:e": HOSTILE } });
  const row = element.querySelector(".p2p-lent")!;
  expect(row.textContent).toContain(`You don't know ${HOSTILE} yet: their tasks don't run here.`);
  expect(row.querySelector("code")?.textContent).toBe("SHA256:e");
  await click(`Know ${HOSTILE} in alice/friends from now on`);
  expect(transport.acts).toEqual([{ action: "welcome", args: { lending: "l", key: "SHA256:e" } }]);
  transport.say(delta({ put: { lending: { l: { unknown: {} } } } }));
  await settle();
  expect(row.textContent).not.toContain("You don't know");
});

test("an empty log and one that can't be read are said", async () => {
  await lent([]);
  await click("Policy and log of lending to alice/friends");
  expect(element.querySelector(".p2p-lent-more")?.textContent).toContain("# no condition");
  expect(element.querySelector(".p2p-lent-more")?.textContent).toContain("Nothing yet.");
  transport.answer = () => ({ ok: false, say: "that is lent no more" });
  transport.say(delta({ put: { lending: { l: { logged: 1 } } } }));
  await settle();
  expect(element.querySelector(".p2p-lent-more")?.textContent).toContain("that is lent no more");
});

test("the form asks for a yes to each task, of friends only", async () => {
  await mount(snapshot({ cluster: { kind: "shared", title: "alice/friends" }, means: { sandboxes: ["auto"] } }));
  element.querySelector<HTMLElement>("[data-tab=offers]")?.click();
  await settle();
  await click("Lend this machine …");
  const box = [...element.querySelectorAll("form label.p2p-check")].find((each) => each.textContent === "Ask me before each task")!;
  box.querySelector("input")?.click();
  await settle();
  fireEvent.submit(element.querySelector("form")!);
  await settle();
  expect(transport.acts.map(({ args }) => args.ask)).toEqual([true]);
  unmount?.();
  await mount(snapshot({ cluster: { kind: "own", title: "mine" }, means: { clusters: [], sandboxes: ["process"] } }));
  element.querySelector<HTMLElement>("[data-tab=offers]")?.click();
  await settle();
  await click("Lend this machine …");
  expect(element.textContent).not.toContain("Ask me before each task");
});

test("axe finds nothing in a question, nor in policy and log", async () => {
  await lent([ENTRY], { policy: "after your yes", news: ["erin is new"] });
  await click("Policy and log of lending to alice/friends");
  transport.say(delta({ put: { questions: { 3: ASKED } } }));
  await settle();
  vi.useRealTimers();
  const found = await axe.run(element, { rules: { "color-contrast": { enabled: false }, region: { enabled: false } } });
  expect(found.violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).join(" ")}`)).toEqual([]);
});
