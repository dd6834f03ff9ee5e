/** What a delta costs with 1,000 members and 10,000 tasks: `await window.bench()`, milliseconds. */

import { mountPanel, Rest } from "../../src/panel";
import type { Delta, MemberRow, TaskRow } from "../../src/panel/contract";
import { FakeTransport, snapshot } from "../panel/fake";

const MEMBERS = 1000;
const TASKS = 10_000;
const ROWS = 100;
const ROUNDS = 60;

interface Figures {
  /** From the message to its pixels, without waiting for the frame to begin: median, and the slowest of 20. */
  delta: number;
  slow: number;
  /** Of that: the message taken and the document changed. */
  script: number;
  /** A snapshot of all of it. */
  snapshot: number;
  rows: number;
}

declare global {
  interface Window {
    bench: (tab?: string) => Promise<Figures>;
  }
}

/** From the beginning of a frame in which `act` is called to when it has been painted. */
function painted(act: () => void): Promise<{ all: number; script: number }> {
  return new Promise((resolve) => {
    requestAnimationFrame(() => {
      const begun = performance.now();
      act();
      // The panel draws in a microtask; frames are painted after the animation callbacks and their microtasks.
      setTimeout(() => undefined);
      void Promise.resolve().then(() => Promise.resolve()).then(() => Promise.resolve()).then(() => {
        const script = performance.now() - begun;
        const channel = new MessageChannel();
        channel.port1.onmessage = () => resolve({ all: performance.now() - begun, script });
        requestAnimationFrame(() => undefined);
        channel.port2.postMessage(undefined);
      });
    });
  });
}

function median(values: number[], share = 0.5): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

window.bench = async (tab = "tasks") => {
  const host = document.createElement("div");
  host.style.width = "900px";
  document.body.append(host);
  const transport = new FakeTransport();
  const unmount = mountPanel(host, transport, { rest: new Rest(() => import("../../src/panel/more")) });
  const now = Date.now() / 1000;
  const members: Record<string, Partial<MemberRow>> = {};
  for (let i = 0; i < MEMBERS; i += 1) {
    members[`m${i}`] = { name: `worker-${i}`, roles: ["worker"], here: true, state: "up", own: i % 2 === 0, slots: 8, busy: i % 8, python: "3.12", machine: "Linux x86_64", link: "direct", rtt: 0.01 };
  }
  const tasks: Record<string, Partial<TaskRow>> = {};
  for (let i = 0; i < TASKS; i += 1) {
    tasks[`t${i}`] = i < TASKS / 2
      ? { label: `task_${i}`, state: "waiting", submitted: now - 100 + i / 1000, sizeIn: 1000 + i }
      : { label: `task_${i}`, state: "done", worker: `worker-${i % 40}`, submitted: now - 900 + i / 100, sent: now - 800 + i / 100, started: now - 799 + i / 100, ended: now - 790 + i / 100 };
  }
  const whole = snapshot({ members, tasks }, 1, now);
  const first = await painted(() => transport.say(whole));
  host.querySelector<HTMLElement>(`[data-tab=${tab}]`)?.click();
  await painted(() => undefined);
  const all: number[] = [];
  const scripts: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    // As when many small tasks run: some begin, some end, some are new, workers are more or less busy.
    const put: NonNullable<Delta["put"]> = { tasks: {}, members: {} };
    for (let i = 0; i < ROWS; i += 1) {
      const at = round * 20 + (i % 20);
      const task = put.tasks!;
      const time = now + round / 10;
      if (i < 30) {
        task[`t${at}`] = { state: "done", worker: `worker-${i}`, sent: time - 2, started: time - 1, ended: time, sizeOut: 900 };
      } else if (i < 60) {
        task[`t${at + 20 + i}`] = { state: "running", worker: `worker-${i}`, words: `running on worker-${i}`, sent: time - 1, started: time };
      } else if (i < 80) {
        task[`n${round}-${i}`] = { label: `new_${round}_${i}`, state: "waiting", submitted: time };
      } else {
        (put.members!)[`m${(round * 20 + i) % MEMBERS}`] = { busy: round % 8 };
      }
    }
    const message: Delta = { t: "delta", rev: round + 2, base: round + 1, now: now + round / 10, put, set: { cluster: { done: round * 30 } } };
    const took = await painted(() => transport.say(message));
    all.push(took.all);
    scripts.push(took.script);
  }
  const rows = host.querySelectorAll("tr[data-id]").length;
  unmount();
  host.remove();
  return { delta: median(all), slow: median(all, 0.95), script: median(scripts), snapshot: first.all, rows };
};
