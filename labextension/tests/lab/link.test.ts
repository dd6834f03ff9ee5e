import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { KernelLink } from "../../src/lab/link";
import { HERE_TARGET, PANEL_TARGET, type Did, type FromKernel } from "../../src/panel/contract";
import type { Link } from "../../src/panel/transport";
import { FakeKernel, FakeSession, SNAPSHOT } from "./fakes";

let open: KernelLink[] = [];

/** A link that somebody listens to. */
function listening(session: FakeSession): { link: KernelLink; states: string[]; heard: FromKernel[]; stop: () => void } {
  const link = linkOf(session);
  const states: string[] = [];
  const heard: FromKernel[] = [];
  const stop = link.listen(
    (message) => heard.push(message),
    ({ state, busy }: Link) => states.push(busy ? `${state}, busy` : state)
  );
  return { link, states, heard, stop };
}

function linkOf(session: FakeSession): KernelLink {
  const link = new KernelLink(session.it, { unreachable: "Nobody is there." });
  open.push(link);
  return link;
}

/** A link to a kernel with the extension loaded, that has been answered. */
async function talking(kernel = new FakeKernel()) {
  kernel.loaded = true;
  const session = new FakeSession(kernel);
  const all = listening(session);
  await vi.advanceTimersByTimeAsync(0);
  kernel.comm.tell(SNAPSHOT);
  return { kernel, session, ...all };
}

beforeEach(() => {
  vi.useFakeTimers();
  open = [];
});

afterEach(() => {
  for (const link of open) {
    link.dispose();
  }
  vi.useRealTimers();
});

describe("finding the extension", () => {
  it("says that there is no kernel where there is none", () => {
    expect(linkOf(new FakeSession()).link).toEqual({ state: "closed", busy: false });
  });

  it("opens nothing in a kernel that hasn't loaded the extension: that would print an error there", async () => {
    const kernel = new FakeKernel();
    const { link } = listening(new FakeSession(kernel));
    await vi.advanceTimersByTimeAsync(0);
    expect(link.link.state).toBe("absent");
    expect(kernel.comms).toEqual([]);
  });

  it("opens a comm, says hello and is open once it is answered", async () => {
    const kernel = new FakeKernel();
    kernel.loaded = true;
    const { link, states, heard } = listening(new FakeSession(kernel));
    await vi.advanceTimersByTimeAsync(0);
    expect(kernel.comm.targetName).toBe(PANEL_TARGET);
    expect(kernel.comm.sent).toEqual([{ t: "hello", v: 1, view: "sidebar" }]);
    expect(link.link.state).toBe("opening");
    kernel.comm.tell(SNAPSHOT);
    expect(states).toEqual(["open"]);
    expect(heard).toEqual([SNAPSHOT]);
  });

  it("hears of the extension when it is loaded later", async () => {
    const kernel = new FakeKernel();
    const { link } = listening(new FakeSession(kernel));
    await vi.advanceTimersByTimeAsync(0);
    kernel.load();
    await vi.advanceTimersByTimeAsync(0);
    kernel.comm.tell(SNAPSHOT);
    expect(link.link.state).toBe("open");
    expect(kernel.comms).toHaveLength(1);
  });

  it("lets the kernel make itself known while nobody listens, and opens nothing then", async () => {
    const kernel = new FakeKernel();
    linkOf(new FakeSession(kernel));
    expect(kernel.targets.has(HERE_TARGET)).toBe(true);
    kernel.load();
    await vi.advanceTimersByTimeAsync(5000);
    expect(kernel.comms).toEqual([]);
  });

  it("asks on a subshell while the main one computes", async () => {
    const kernel = new FakeKernel();
    kernel.loaded = true;
    kernel.answers = false;
    kernel.supportsSubshells = true;
    listening(new FakeSession(kernel));
    await vi.advanceTimersByTimeAsync(1100);
    kernel.comm.haveSubshell();
    await vi.advanceTimersByTimeAsync(0);
    expect(kernel.comm.sent).toHaveLength(1);
    expect(kernel.subshells).toBe(0);
  });

  it("waits for an old kernel that computes", async () => {
    const kernel = new FakeKernel();
    kernel.loaded = true;
    kernel.answers = false;
    const { link } = listening(new FakeSession(kernel));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(link.link.state).toBe("opening");
  });

  it("opens its comm on a subshell where there are such", async () => {
    const kernel = new FakeKernel();
    kernel.loaded = true;
    kernel.supportsSubshells = true;
    listening(new FakeSession(kernel));
    await vi.advanceTimersByTimeAsync(100);
    expect(kernel.comm.opened).toBe(false);
    kernel.comm.haveSubshell();
    await vi.advanceTimersByTimeAsync(0);
    expect(kernel.comm.opened).toBe(true);
  });

  it("does without a subshell that doesn't come", async () => {
    const kernel = new FakeKernel();
    kernel.loaded = true;
    kernel.supportsSubshells = true;
    listening(new FakeSession(kernel));
    await vi.advanceTimersByTimeAsync(2100);
    expect(kernel.comm.opened).toBe(true);
  });
});

describe("a kernel's life", () => {
  it("says so when the extension is unloaded, and comes back when it is loaded again", async () => {
    const { kernel, link } = await talking();
    kernel.comm.end();
    expect(link.link.state).toBe("absent");
    kernel.load();
    await vi.advanceTimersByTimeAsync(0);
    kernel.comm.tell(SNAPSHOT);
    expect(link.link.state).toBe("open");
    expect(kernel.comms).toHaveLength(2);
  });

  it("survives a restart: not loaded, then loaded", async () => {
    const { kernel, link } = await talking();
    kernel.restart();
    expect(link.link.state).toBe("opening");
    kernel.turn("starting");
    kernel.turn("idle");
    await vi.advanceTimersByTimeAsync(0);
    expect(link.link.state).toBe("absent");
    kernel.load();
    await vi.advanceTimersByTimeAsync(0);
    kernel.comm.tell(SNAPSHOT);
    expect(link.link.state).toBe("open");
  });

  it("finds itself anew after the connection was lost, since what was said meanwhile has been missed", async () => {
    const { kernel, link, states } = await talking();
    const before = kernel.comm;
    kernel.connect("connecting");
    expect(link.link.state).toBe("opening");
    kernel.connect("connected");
    await vi.advanceTimersByTimeAsync(0);
    expect(before.closed).toBe(true);
    kernel.comm.tell(SNAPSHOT);
    expect(states).toEqual(["open", "opening", "open"]);
  });

  it("goes with a session to another kernel and leaves the first in peace", async () => {
    const { kernel, session, link } = await talking();
    const other = new FakeKernel("other");
    session.change(other);
    await vi.advanceTimersByTimeAsync(0);
    expect(kernel.comm.closed).toBe(true);
    expect(kernel.targets.size).toBe(0);
    expect(link.link.state).toBe("absent");
    kernel.turn("busy");
    kernel.load();
    expect(link.link).toEqual({ state: "absent", busy: false });
  });

  it("is closed when the kernel dies or is shut down", async () => {
    const { kernel, session, link } = await talking();
    kernel.turn("dead");
    expect(link.link.state).toBe("closed");
    kernel.dispose();
    session.change(null);
    expect(link.link.state).toBe("closed");
  });

  it("takes no message of a comm that it has left", async () => {
    const { kernel, session, heard } = await talking();
    const { comm } = kernel;
    const onMsg = comm.onMsg;
    session.change(null);
    onMsg({ content: { data: SNAPSHOT } });
    expect(heard).toHaveLength(1);
  });

  it("calls a kernel busy that has been so for a while, not for a moment", async () => {
    const { kernel, states } = await talking();
    kernel.turn("busy");
    await vi.advanceTimersByTimeAsync(100);
    kernel.turn("idle");
    await vi.advanceTimersByTimeAsync(1000);
    expect(states).toEqual(["open"]);
    kernel.turn("busy");
    await vi.advanceTimersByTimeAsync(600);
    kernel.turn("idle");
    expect(states).toEqual(["open", "open, busy", "open"]);
  });

  it("takes a kernel for busy that is silent from the start, as after a reload of the page", async () => {
    const kernel = new FakeKernel();
    kernel.status = "unknown";
    kernel.answers = false;
    const { link } = listening(new FakeSession(kernel));
    await vi.advanceTimersByTimeAsync(3000);
    expect(link.link).toEqual({ state: "opening", busy: true });
    kernel.turn("idle");
    expect(link.link.busy).toBe(false);
  });

  it("leaves nothing connected when it is disposed of", async () => {
    const { kernel, link, states } = await talking();
    link.dispose();
    expect(kernel.comm.closed).toBe(true);
    expect(kernel.targets.size).toBe(0);
    expect(states.at(-1)).toBe("closed");
    kernel.turn("busy");
    kernel.connect("connecting");
    await vi.advanceTimersByTimeAsync(10_000);
    expect(states.at(-1)).toBe("closed");
  });
});

describe("listening", () => {
  it("hangs up a while after the last one has stopped, and rings again for the next", async () => {
    const { kernel, link, stop } = await talking();
    stop();
    await vi.advanceTimersByTimeAsync(1000);
    expect(kernel.comm.closed).toBe(false);
    const again = link.listen(() => {}, () => {});
    await vi.advanceTimersByTimeAsync(5000);
    expect(kernel.comm.closed).toBe(false);
    again();
    await vi.advanceTimersByTimeAsync(5000);
    expect(kernel.comm.closed).toBe(true);
    expect(link.link.state).toBe("opening");
    link.listen(() => {}, () => {});
    await vi.advanceTimersByTimeAsync(0);
    expect(kernel.comms).toHaveLength(2);
  });

  it("keeps a comm until the kernel has heard that it is closed, since its subshell ends with it", async () => {
    const { kernel, stop } = await talking();
    stop();
    await vi.advanceTimersByTimeAsync(2500);
    expect([kernel.comm.closed, kernel.comm.isDisposed]).toEqual([true, false]);
    kernel.hear();
    await vi.advanceTimersByTimeAsync(0);
    expect(kernel.comm.isDisposed).toBe(true);
  });

  it("asks once when a panel says hello because the link has opened: the answer is on its way", async () => {
    const kernel = new FakeKernel();
    kernel.loaded = true;
    const link = linkOf(new FakeSession(kernel));
    link.listen(
      () => {},
      ({ state }) => {
        if (state === "open") {
          link.hello();
        }
      }
    );
    await vi.advanceTimersByTimeAsync(0);
    kernel.comm.tell(SNAPSHOT);
    expect(kernel.comm.sent).toHaveLength(1);
    link.hello();
    expect(kernel.comm.sent).toHaveLength(2);
  });
});

describe("actions", () => {
  it("are answered each by its own answer", async () => {
    const { kernel, link } = await talking();
    const first = link.act("cancel", { task: "a" });
    const second = link.act("cancel", { task: "b" });
    const asked = kernel.comm.sent.filter((message) => message.t === "do");
    expect(asked.map(({ args }) => args.task)).toEqual(["a", "b"]);
    kernel.comm.tell({ t: "did", id: asked[1]!.id, ok: true, say: "b" });
    kernel.comm.tell({ t: "did", id: asked[0]!.id, ok: false, say: "a" });
    expect((await first).say).toBe("a");
    expect((await second).say).toBe("b");
  });

  it("fail in words when there is no kernel, or it goes before it answers", async () => {
    const nobody: Partial<Did> = { ok: false, say: "Nobody is there." };
    expect(await linkOf(new FakeSession()).act("disconnect", {})).toMatchObject(nobody);
    for (const going of [
      (kernel: FakeKernel) => kernel.restart(),
      (kernel: FakeKernel) => kernel.comm.end(),
      (kernel: FakeKernel) => kernel.turn("dead"),
      (kernel: FakeKernel) => kernel.connect("disconnected")
    ]) {
      const { kernel, link } = await talking();
      const answer = link.act("disconnect", {});
      going(kernel);
      expect(await answer).toMatchObject(nobody);
    }
  });
});
