// @vitest-environment happy-dom
import { nullTranslator } from "@jupyterlab/translation";
import { Signal } from "@lumino/signaling";
import { Widget } from "@lumino/widgets";
import { describe, expect, it } from "vitest";

import { KernelLinks, type Document, type Documents } from "../../src/lab/links";
import { ClusterStatus } from "../../src/lab/status";
import type { IKernelLinks, Work } from "../../src/lab/tokens";
import { ClusterWatch, whenConnected } from "../../src/lab/watch";
import type { ClusterFacts, Delta, FromKernel, Snapshot } from "../../src/panel/contract";
import type { Link, Transport } from "../../src/panel/transport";
import { FakeKernel, FakeSession, SNAPSHOT } from "./fakes";

class FakeTransport implements Transport {
  link: Link = { state: "opening", busy: false };
  hellos = 0;
  private readonly listeners = new Set<{ onMessage: (m: FromKernel) => void; onLink: (l: Link) => void }>();

  get listened(): number {
    return this.listeners.size;
  }

  listen(onMessage: (m: FromKernel) => void, onLink: (l: Link) => void): () => void {
    const listener = { onMessage, onLink };
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  hello(): void {
    this.hellos += 1;
  }

  act(): Promise<never> {
    return new Promise(() => {});
  }

  turn(state: Link["state"]): void {
    this.link = { state, busy: false };
    for (const { onLink } of this.listeners) {
      onLink(this.link);
    }
  }

  tell(message: FromKernel): void {
    for (const { onMessage } of this.listeners) {
      onMessage(message);
    }
  }
}

class FakeWork implements Work {
  readonly link = new FakeTransport();
  readonly title = new Widget().title;
  run(): Promise<void> {
    return Promise.resolve();
  }
}

class FakeLinks {
  current: FakeWork | null = new FakeWork();
  readonly currentChanged = new Signal<IKernelLinks, Work | null>(this as unknown as IKernelLinks);

  turn(work: FakeWork | null): void {
    this.current = work;
    this.currentChanged.emit(work);
  }
}

const CONNECTED: Partial<ClusterFacts> = { state: "connected", words: "connected", kind: "personal" };

function snapshot(cluster: Partial<ClusterFacts> = CONNECTED): Snapshot {
  return {
    t: "snapshot",
    v: 1,
    rev: 1,
    now: 1000,
    set: { cluster },
    put: {
      members: {
        me: { name: "me", me: true, here: true, roles: ["client"] },
        one: { name: "one", here: true, roles: ["worker"], slots: 2 },
        two: { name: "two", here: true, roles: ["worker"], slots: 1 }
      },
      tasks: { a: { state: "running" }, b: { state: "done" } }
    }
  };
}

function delta(base: number, cluster: Partial<ClusterFacts>): Delta {
  return { t: "delta", base, rev: base + 1, now: 1001, set: { cluster } };
}

function watching(): { links: FakeLinks; watch: ClusterWatch; link: FakeTransport } {
  const links = new FakeLinks();
  const watch = new ClusterWatch(links);
  return { links, watch, link: links.current!.link };
}

describe("the status item", () => {
  function item(): ReturnType<typeof watching> & { status: ClusterStatus; text: () => string } {
    const all = watching();
    const status = new ClusterStatus(all.watch, nullTranslator.load("p2p_ipython"), () => {});
    return { ...all, status, text: () => status.node.textContent };
  }

  it("isn't there before the kernel has answered, nor when the user doesn't want it", () => {
    const { status, link } = item();
    const turns: boolean[] = [];
    status.activeChanged.connect(() => turns.push(status.active));
    expect(status.active).toBe(false);
    link.turn("open");
    link.tell(snapshot());
    status.wanted = false;
    status.wanted = true;
    link.turn("absent");
    expect(turns).toEqual([true, false, true, false]);
  });

  it("counts the workers that are here and the tasks that are not over", () => {
    const { link, text } = item();
    link.turn("open");
    link.tell(snapshot());
    expect(text()).toBe("p2p: 2 workers, 1 task");
  });

  it("says what else is so of the cluster", () => {
    const { link, text } = item();
    link.turn("open");
    link.tell(snapshot({ state: "none" }));
    expect(text()).toBe("p2p: not connected");
    link.tell(delta(1, { state: "reconnecting", words: "reconnecting, 3rd try" }));
    expect(text()).toBe("p2p: reconnecting, 3rd try");
  });

  it("shows words of strangers as text", () => {
    const { link, status } = item();
    link.turn("open");
    link.tell(snapshot({ state: "waiting", words: "waiting for <img src=x onerror=alert(1)>" }));
    expect(status.node.querySelector("img")).toBeNull();
    expect(status.node.textContent).toContain("<img");
  });
});

describe("the view of the current cluster", () => {
  it("turns with the user to another notebook, and listens to that one only", () => {
    const { links, watch, link } = watching();
    link.turn("open");
    link.tell(snapshot());
    expect(watch.clustered).toBe(true);
    const other = new FakeWork();
    links.turn(other);
    expect(link.listened).toBe(0);
    expect(other.link.listened).toBe(1);
    expect(watch.clustered).toBe(false);
    watch.dispose();
    expect(other.link.listened).toBe(0);
  });

  it("asks at once for all where the link is open already", () => {
    const { links } = watching();
    const other = new FakeWork();
    other.link.turn("open");
    links.turn(other);
    expect(other.link.hellos).toBe(1);
  });

  it("asks once for all when it has missed a message", () => {
    const { link } = watching();
    link.turn("open");
    link.tell(snapshot());
    link.tell(delta(7, {}));
    link.tell(delta(8, {}));
    expect(link.hellos).toBe(1);
  });

  it("opens the panel for a cluster that comes, not for one that was there", () => {
    const { links, watch, link } = watching();
    let opened = 0;
    const following = whenConnected(watch, () => (opened += 1));
    link.turn("open");
    link.tell(snapshot());
    expect(opened).toBe(0);
    link.tell(delta(1, { state: "none" }));
    link.tell(delta(2, CONNECTED));
    link.tell(delta(3, { words: "connected still" }));
    expect(opened).toBe(1);
    const other = new FakeWork();
    links.turn(other);
    other.link.turn("open");
    other.link.tell(snapshot({ state: "none" }));
    links.turn(links.current);
    following.dispose();
    other.link.tell(delta(1, CONNECTED));
    expect(opened).toBe(1);
  });
});

describe("the current notebook", () => {
  class FakeDocument extends Widget {
    constructor(readonly sessionContext: FakeSession) {
      super();
    }
  }

  class FakeDocuments {
    currentWidget: Document | null = null;
    readonly widgetAdded = new Signal<this, Document>(this);
    private readonly all: Document[] = [];

    add(kernel: FakeKernel | null): Document {
      const document = new FakeDocument(new FakeSession(kernel)) as unknown as Document;
      this.all.push(document);
      this.widgetAdded.emit(document);
      return document;
    }

    forEach(visit: (document: Document) => void): void {
      this.all.forEach(visit);
    }
  }

  function lab() {
    const shell = { currentWidget: null as Widget | null, currentChanged: undefined as unknown };
    const turned = new Signal<typeof shell, unknown>(shell);
    shell.currentChanged = turned;
    const notebooks = new FakeDocuments();
    const links = new KernelLinks(shell as never, [notebooks as unknown as Documents], {
      unreachable: "",
      revealer: () => undefined
    });
    const look = (widget: Widget | null): void => {
      shell.currentWidget = widget;
      turned.emit({});
    };
    return { links, notebooks, look };
  }

  it("is the one that the user turned to last, also while they are elsewhere", () => {
    const { links, notebooks, look } = lab();
    const [first, second] = [notebooks.add(new FakeKernel("1")), notebooks.add(new FakeKernel("2"))];
    look(first);
    const works = [links.current];
    look(new Widget());
    works.push(links.current);
    look(second);
    expect(works[0]).not.toBeNull();
    expect(works[1]).toBe(works[0]);
    expect(links.current).not.toBe(works[0]);
    look(first);
    expect(links.current).toBe(works[0]);
  });

  it("is none when all are closed, and their links are", () => {
    const { links, notebooks, look } = lab();
    const kernel = new FakeKernel();
    const only = notebooks.add(kernel);
    look(only);
    const work = links.current!;
    only.dispose();
    expect(links.current).toBeNull();
    expect(work.link.link.state).toBe("closed");
    expect(kernel.targets.size).toBe(0);
  });

  it("speaks through the one connection that handles comms, when a console shares its kernel", async () => {
    const { links, notebooks, look } = lab();
    const [handling, other] = [new FakeKernel("same"), new FakeKernel("same")];
    other.handleComms = false;
    const both = [notebooks.add(handling), notebooks.add(other)].map((document) => {
      look(document);
      return links.current!.link;
    });
    const stops = both.map((link) => link.listen(() => {}, () => {}));
    await Promise.resolve();
    handling.load();
    await new Promise((resolve) => setTimeout(resolve));
    expect(handling.comms.map(({ opened }) => opened)).toEqual([true, true]);
    expect(other.comms).toEqual([]);
    stops.forEach((stop) => stop());
    handling.turn("dead");
    expect(both.map(({ link }) => link.state)).toEqual(["closed", "closed"]);
  });

  it("is live again in a console whose notebook, which handled the comms, was closed and is opened again", async () => {
    const { links, notebooks, look } = lab();
    const [first, other, again] = [new FakeKernel("same"), new FakeKernel("same"), new FakeKernel("same")];
    other.handleComms = false;
    const notebook = notebooks.add(first);
    look(notebooks.add(other));
    const { link } = links.current!;
    link.listen(() => {}, () => {});
    first.load();
    await new Promise((resolve) => setTimeout(resolve));
    first.comm.tell(SNAPSHOT);
    expect(link.link.state).toBe("open");
    notebook.dispose();
    first.dispose();
    expect(link.link.state).toBe("closed");
    const session = notebooks.add(null).sessionContext as unknown as FakeSession;
    expect(link.link.state).toBe("closed");
    again.loaded = true;
    session.change(again);
    await new Promise((resolve) => setTimeout(resolve));
    again.comm.tell(SNAPSHOT);
    expect(link.link.state).toBe("open");
    links.dispose();
    expect(again.targets.size).toBe(0);
  });

  it("opens nothing by a connection that handles no comms", async () => {
    const { links, notebooks, look } = lab();
    const kernel = new FakeKernel();
    kernel.handleComms = false;
    kernel.loaded = true;
    look(notebooks.add(kernel));
    links.current!.link.listen(() => {}, () => {});
    await new Promise((resolve) => setTimeout(resolve));
    expect(kernel.comms).toEqual([]);
    expect(links.current!.link.link.state).toBe("closed");
  });
});
