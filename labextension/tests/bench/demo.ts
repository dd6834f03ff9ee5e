/** A scripted session, to look at the panel by itself: bundled by build.mjs, opened by demo.html. */

import { mountPanel, Rest } from "../../src/panel";
import type { Snapshot } from "../../src/panel/contract";
import { ALL, FakeTransport } from "../panel/fake";

const now = Date.now() / 1000;

const session: Snapshot = {
  t: "snapshot", v: 1, rev: 1, now,
  set: {
    cluster: {
      state: "connected", words: "connected", kind: "shared", title: "alice/friends", board: "board.example.org:2222", me: "alice",
      key: "7f3c-91aa-0b2e-55d1", since: now - 4210, done: 41, failed: 2, cancelled: 1,
      reasons: { "3.12": "waiting for a worker with python 3.12 (here: 3.11)", "": "waiting for a free slot" }
    },
    means: { can: ALL, clusters: ["alice/friends", "lab/gpu-pool"], hosted: ["alice/friends"], machine: "desk", cores: 16, python: "3.12" }
  },
  put: {
    members: {
      m1: { name: "alice", roles: ["owner", "client"], own: true, me: true, here: true, machine: "desk, Linux x86_64", python: "3.12", since: now - 4210, trust: "yours", key: "7f3c-91aa-0b2e-55d1" },
      m2: { name: "attic", roles: ["worker"], own: true, here: true, state: "up", machine: "attic, Linux x86_64", python: "3.12", since: now - 86400 * 2, slots: 8, busy: 5, trust: "yours", link: "direct", rtt: 0.0009, lentTasks: 212, lentSeconds: 4120 },
      m3: { name: "bob", roles: ["client", "worker"], here: true, state: "up", machine: "bob-mbp, macOS arm64", python: "3.12", since: now - 900, slots: 4, busy: 4, trust: "plain data", key: "b0b0-1122-3344-5566", link: "direct", rtt: 0.018, lentTasks: 31, lentSeconds: 660, usedTasks: 4, usedSeconds: 12 },
      m4: { name: "carol-workstation", roles: ["worker"], here: true, state: "reconnecting (2nd try)", machine: "carol-ws, Linux x86_64", python: "3.11", since: now - 600, slots: 16, busy: 3, trust: "any type", key: "ca01-77aa-21f0-93b4", link: "relay", rtt: 0.094, lentTasks: 8, lentSeconds: 240 },
      m5: { name: "<img src=x onerror=alert(1)>", roles: ["worker"], here: true, state: "up", machine: "evil, Linux x86_64", python: "3.12", since: now - 60, slots: 1, trust: "plain data", key: "dead-beef-dead-beef", link: "direct", rtt: 0.045 },
      "key:da7e": { name: "dave", roles: ["client", "worker"], state: "away", trust: "plain data", key: "da7e-0001-0002-0003" }
    },
    tasks: {
      t1: { label: "tile_17", kind: "cell", state: "running", words: "running on attic", worker: "attic", attempt: 1, submitted: now - 84, sent: now - 83.9, started: now - 83.8, sizeIn: 18400, said: " 62%|██████▏   | 62/100 [00:51<00:31]", cell: "c1" },
      t2: { label: "train(depth=6)", kind: "call", state: "running", words: "running on carol-workstation", worker: "carol-workstation", attempt: 2, submitted: now - 320, sent: now - 300, started: now - 299, sizeIn: 3_400_000, said: "epoch 14: loss 0.0312", cell: "c2" },
      t3: { label: "tile_18", kind: "cell", state: "running", words: "running on bob", worker: "bob", attempt: 1, submitted: now - 22, sent: now - 21, started: now - 20.9, sizeIn: 18420 },
      t4: { label: "posterior", kind: "cell", state: "sent", words: "sent to bob", worker: "bob", attempt: 1, submitted: now - 6, sent: now - 0.4, sizeIn: 812_000 },
      t5: { label: "tile_19", kind: "cell", state: "waiting", words: "after losing dave: connection closed", needs: "", attempt: 1, submitted: now - 45, sizeIn: 18_400 },
      t6: { label: "render_frame", kind: "call", state: "waiting", needs: "3.12", submitted: now - 12, sizeIn: 55_000 },
      t7: { label: "<b onclick=alert(1)>bold</b>", kind: "cell", state: "waiting", needs: "3.12", submitted: now - 3, sizeIn: 900 },
      ...Object.fromEntries(Array.from({ length: 44 }, (_, i) => {
        const worker = ["attic", "bob", "carol-workstation"][i % 3] ?? "";
        const submitted = now - 400 + i * 8;
        const sent = submitted + (i % 5) * 0.9 + 0.2;
        const started = sent + 0.3 + (worker === "carol-workstation" ? 1.4 : 0);
        const ended = started + 4 + ((i * 7919) % 23);
        const failed = i === 20 || i === 37;
        return [`d${i}`, {
          label: `tile_${i - 20 < 0 ? i : i}`, kind: "cell", state: failed ? "failed" as const : i === 31 ? "cancelled" as const : "done" as const,
          worker, attempt: 1, submitted, sent, started, ended: Math.min(ended, now - 1), ran: Math.max(0.5, ended - started - (worker === "carol-workstation" ? 2.2 : 0.4)), sizeIn: 18_000, sizeOut: 240_000 + i * 9999, cell: "c1",
          error: failed ? "ValueError: operands could not be broadcast together with shapes (64,3) (128,3)" : ""
        }];
      }))
    },
    offers: {
      m2: { name: "attic", own: true, state: "up", slots: 8, free: 3, cores: 16, memory: 64 * 2 ** 30, python: "3.12", platform: "Linux x86_64", mine: true },
      m3: { name: "bob", state: "up", slots: 4, free: 0, cores: 10, memory: 16 * 2 ** 30, tags: ["metal"], until: now + 5400, python: "3.12", platform: "macOS arm64", mine: true },
      m4: { name: "carol-workstation", state: "reconnecting", slots: 16, free: 13, cores: 32, memory: 128 * 2 ** 30, tags: ["gpu", "big-memory"], until: now + 86400, python: "3.11", platform: "Linux x86_64", mine: true },
      m9: { name: "erin", state: "up", slots: 2, free: 2, cores: 4, memory: 8 * 2 ** 30, python: "3.12", platform: "Linux aarch64", only: "carol", paused: true }
    },
    visitors: { v1: { title: "alice/friends", name: "frank", called: "frank", key: "f4a2-6b11-90cd-7e3f", about: "“It's Frank from the lab”" } },
    lending: { l1: { title: "alice/friends", name: "desk", state: "lending", words: "lending", slots: 4, busy: 1, until: now + 7300, tasks: 12, seconds: 96 } }
  }
};

class Demo extends FakeTransport {
  override hello(): void {
    setTimeout(() => this.say(session), 5);
  }
}

const query = new URLSearchParams(location.search);
document.documentElement.style.colorScheme = query.get("theme") ?? "light";
document.body.setAttribute("data-jp-theme-light", String(query.get("theme") !== "dark"));
const transport = new Demo(() => undefined);
transport.answer = (action) => {
  switch (action) {
    case "show":
      return {
        data: {
          source: "%%p2p tile_17\nfrom scipy import ndimage\ntile = ndimage.zoom(raw[17], 4, order=3)\ntile.mean()",
          outputs: [{ kind: "stream", name: "stdout", text: "loading …\n" }, { kind: "stream", name: "stderr", text: " 62%|██████▏   | 62/100 [00:51<00:31]\n" }],
          error: ""
        }
      };
    case "invite":
      return { data: { code: "7-guitarist-revenge-orca", commands: ["p2p join 7-guitarist-revenge-orca"], until: Date.now() / 1000 + 600 } };
    case "trust":
      return { ok: false, say: "The key of bob isn't known here. Ask him for its fingerprint." };
    default:
      return { say: `${action}: done.` };
  }
};
if (query.has("none")) {
  session.set = { cluster: { state: "none" }, means: { ...session.set?.means, clusters: ["alice/friends", "lab/gpu-pool"] } };
  session.put = {};
}
if (query.has("empty")) {
  session.put = {};
}
if (query.has("closed")) {
  session.set = { ...session.set, cluster: { ...session.set?.cluster, state: "closed", words: "closed" }, means: { ...session.set?.means, can: ["connect", "show"] } };
  session.put = { tasks: session.put?.tasks ?? {} };
}
const element = document.getElementById("panel");
if (element !== null) {
  element.style.width = `${query.get("width") ?? "900"}px`;
  if (query.has("fill")) {
    element.style.height = "760px";
  }
  mountPanel(element, transport, { rest: new Rest(() => import("../../src/panel/more")), compact: query.has("fill") });
}
if (query.has("link")) {
  transport.become({ state: query.get("link") as "absent", busy: query.has("busy") });
}
