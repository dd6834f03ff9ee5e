// @vitest-environment happy-dom
/** The card, with a kernel's side that the test plays. */

import axe from "axe-core";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { Card, Control, GRACE } from "../../src/card/card";
import type { Model } from "../../src/card/card";
import widget from "../../src/card/index";

const NOW = 1_800_000_000;

const LABEL = "tile";

class FakeModel implements Model {
  readonly sent: Array<Record<string, unknown>> = [];
  closed = false;
  widget_manager: unknown;
  private readonly listeners = new Map<string, Array<() => void>>();

  constructor(readonly fields: Record<string, unknown> = {}) {
    this.fields = {
      label: LABEL, state: "running", words: "on worker-1", worker: "worker-1", error: "",
      submitted: NOW - 5, started: NOW - 4, ended: 0, now: NOW, ...fields
    };
  }

  get(name: string): unknown {
    return this.fields[name];
  }

  on(event: string, listener: () => void): void {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  send(message: object): void {
    if (this.closed) {
      throw new Error("Cannot send");
    }
    this.sent.push(message as Record<string, unknown>);
  }

  emit(event: string): void {
    this.listeners.get(event)?.forEach(listener => listener());
  }

  /** The kernel tells something new. */
  tell(fields: Record<string, unknown>): void {
    Object.assign(this.fields, fields);
    Object.keys(fields).forEach(name => this.emit(`change:${name}`));
  }

  kinds(): unknown[] {
    return this.sent.map(message => message.t);
  }
}

interface Shown {
  model: FakeModel;
  control: Control;
  card: Card;
  el: HTMLElement;
  part: (name: string) => string;
  button: HTMLButtonElement;
}

function show(fields: Record<string, unknown> = {}): Shown {
  const model = new FakeModel(fields);
  const control = new Control(model);
  const el = document.createElement("div");
  document.body.replaceChildren(el);
  const card = new Card(model, el, control);
  return {
    model, control, card, el,
    part: name => el.querySelector(`.p2p-card-${name}`)!.textContent,
    button: el.querySelector("button")!
  };
}

beforeEach(() => {
  vi.useFakeTimers({ now: NOW * 1000 });
});

afterEach(() => {
  vi.useRealTimers();
});

describe("a card", () => {
  it("says which task is where, and for how long", () => {
    const { part, el } = show();
    expect([part("label"), part("words"), part("time")]).toEqual(["tile", "on worker-1", "5 s"]);
    expect(el.querySelector("[role=group]")!.getAttribute("aria-label")).toBe("Task tile");
  });

  it("shows how far its task is by a bar, unless that isn't known or it is over", () => {
    const { model, el } = show({ part: 0.25, words: "on worker-1; steps: 2 of 8" });
    const bar = el.querySelector<HTMLElement>(".p2p-card-bar");
    expect(bar?.hidden).toBe(false);
    expect((bar?.firstElementChild as HTMLElement).style.inlineSize).toBe("25.0%");
    model.tell({ part: 7 });
    expect((bar?.firstElementChild as HTMLElement).style.inlineSize).toBe("100.0%");
    model.tell({ part: -1 });
    expect(bar?.hidden).toBe(true);
    model.tell({ part: 0.5, state: "done" });
    expect(bar?.hidden).toBe(true);
  });

  it("lets the time tick by itself, by the kernel's clock", () => {
    const { part } = show({ now: NOW + 3600, submitted: NOW + 3600 - 58 });
    expect(part("time")).toBe("58 s");
    vi.advanceTimersByTime(3000);
    expect(part("time")).toBe("1 min 01 s");
  });

  it("shows text of strangers as text", () => {
    const hostile = "<img src=x onerror=alert(1)>";
    const { el, model } = show({ label: hostile, words: hostile });
    model.tell({ state: "failed", error: hostile });
    expect(el.querySelector("img")).toBeNull();
    expect(el.textContent).toContain(hostile);
  });

  it("has another shape for each state", () => {
    const { el, model } = show();
    const shapes = ["waiting", "sent", "running", "stopping", "done", "failed", "cancelled"].map(state => {
      model.tell({ state });
      const strokes = [...el.querySelectorAll("path")].map(path => path.getAttribute("d"));
      return `${state === "waiting" ? "dashed" : ""} ${strokes.join()}`;
    });
    expect(new Set(shapes).size).toBe(shapes.length);
  });

  it("announces states, and not each second nor what the words are in between", () => {
    const { part, model } = show({ state: "waiting", words: "waiting for a free slot of 2" });
    vi.advanceTimersByTime(5000);
    model.tell({ words: "waiting for a worker" });
    expect(part("live")).toBe("");
    model.tell({ words: "on worker-1", state: "sent" });
    expect(part("live")).toBe("tile: on worker-1");
  });

  it("of a task that is being stopped says on which worker, and has no button, whoever has cancelled it", () => {
    const { part, model, button } = show();
    model.tell({ state: "stopping", words: "stopping on worker-1" });
    expect([part("words"), button.hidden]).toEqual(["stopping on worker-1", true]);
    expect(part("live")).toBe("tile: stopping on worker-1");
  });

  it("that is over has no button, and says how it ended", () => {
    const { part, model, button } = show();
    model.tell({ state: "failed", words: "failed on worker-1", error: "ValueError: no", ended: NOW - 1.8 });
    expect([part("words"), part("time"), part("error")]).toEqual(["failed on worker-1", "in 3.2 s", "ValueError: no"]);
    expect(button.hidden).toBe(true);
    vi.advanceTimersByTime(10_000);
    expect(part("time")).toBe("in 3.2 s");
  });

  it("of which the kernel was restarted says so", () => {
    const { part, model, button } = show();
    model.emit("comm_live_update");
    expect([part("words"), part("time"), button.hidden]).toEqual(["the kernel has ended", "", true]);
  });

  it("of which the kernel is known to have ended says so when it looks next", () => {
    const { part, model } = show();
    for (const kernel of [undefined, { status: "busy" }, { status: "unknown" }, { status: "idle", isDisposed: false }]) {
      model.widget_manager = { kernel };
      vi.advanceTimersByTime(1000);
      expect(part("words")).toBe("on worker-1");
    }
    model.widget_manager = { kernel: null };
    vi.advanceTimersByTime(1000);
    expect(part("words")).toBe("the kernel has ended");
    for (const kernel of [{ status: "dead" }, { status: "autorestarting" }, { isDisposed: true }]) {
      const other = show();
      other.model.widget_manager = { kernel };
      vi.advanceTimersByTime(1000);
      expect(other.button.hidden).toBe(true);
    }
  });

  it("has nothing that axe-core finds fault with", async () => {
    vi.useRealTimers();
    const { el, button } = show();
    for (const press of [false, true]) {
      if (press) {
        button.click();
      }
      // happy-dom has no layout to see colours by.
      const { violations } = await axe.run(el, { rules: { "color-contrast": { enabled: false }, region: { enabled: false } } });
      expect(violations).toEqual([]);
    }
  });

  it("does nothing more when its view is closed", () => {
    const { card, part } = show();
    card.close();
    vi.advanceTimersByTime(5000);
    expect(part("time")).toBe("5 s");
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("the button", () => {
  it("has a name with the task's label", () => {
    const { button } = show();
    expect([button.textContent, button.getAttribute("aria-label")]).toEqual(["Cancel", "Cancel tile"]);
    button.click();
    expect([button.textContent, button.getAttribute("aria-label")]).toEqual(["Undo", "Undo: don't cancel tile"]);
  });

  it("cancels once three seconds have gone by, counted aloud for the eyes", () => {
    const { model, button, part } = show();
    button.click();
    expect(part("soon")).toBe("cancelling in 3 s");
    vi.advanceTimersByTime(GRACE * 1000 - 1);
    expect(model.kinds()).not.toContain("cancel");
    expect(part("soon")).toBe("cancelling in 1 s");
    vi.advanceTimersByTime(1);
    expect(model.sent.filter(message => message.t === "cancel")).toHaveLength(1);
    expect([part("words"), part("soon"), button.hidden]).toEqual(["cancelling", "", true]);
    vi.advanceTimersByTime(60_000);
    expect(model.sent.filter(message => message.t === "cancel")).toHaveLength(1);
  });

  it("takes it back", () => {
    const { model, button, part } = show();
    button.click();
    vi.advanceTimersByTime(2500);
    button.click();
    vi.advanceTimersByTime(60_000);
    expect(model.kinds()).not.toContain("cancel");
    expect([part("soon"), button.textContent]).toEqual(["", "Cancel"]);
  });

  it("cancels nothing that is over meanwhile", () => {
    const { model, button } = show();
    button.click();
    model.tell({ state: "done", words: "done on worker-1", ended: NOW });
    vi.advanceTimersByTime(60_000);
    expect(model.kinds()).not.toContain("cancel");
  });

  it("keeps the focus and its place while it counts", () => {
    const { el, button, model } = show();
    button.focus();
    button.click();
    vi.advanceTimersByTime(1000);
    model.tell({ words: "on worker-2" });
    expect(document.activeElement).toBe(button);
    expect(el.querySelector(".p2p-card-soon")!.compareDocumentPosition(button)).toBe(Node.DOCUMENT_POSITION_PRECEDING);
  });

  it("counts on for all views of a card", () => {
    const { model, control, button, card } = show();
    button.click();
    card.close();
    const other = document.createElement("div");
    new Card(model, other, control);
    expect(other.textContent).toContain("cancelling in 3 s");
    vi.advanceTimersByTime(3000);
    expect(model.kinds()).toContain("cancel");
  });
});

describe("the widget", () => {
  interface Widget {
    initialize: (context: { model: Model }) => () => void;
    render: (context: { model: Model; el: HTMLElement }) => () => void;
  }

  it("says that it is ready more than once, with the same page, and then that it is shown", () => {
    const model = new FakeModel();
    const made = widget() as Widget;
    const end = made.initialize({ model });
    vi.advanceTimersByTime(10_000);
    expect(model.kinds()).toEqual(["ready", "ready", "ready"]);
    expect(new Set(model.sent.map(message => message.page)).size).toBe(1);
    const close = made.render({ model, el: document.createElement("div") });
    expect(model.kinds()).toEqual(["ready", "ready", "ready", "shown"]);
    close();
    end();
    expect(vi.getTimerCount()).toBe(0);
  });

  it("has another page after a reload", () => {
    const pages = [0, 1].map(() => {
      const model = new FakeModel();
      (widget() as Widget).initialize({ model });
      vi.advanceTimersByTime(1);
      return model.sent[0]!.page;
    });
    expect(pages[0]).not.toBe(pages[1]);
  });

  it("whose comm is gone does not stumble", () => {
    const model = new FakeModel();
    model.closed = true;
    const made = widget() as Widget;
    made.initialize({ model });
    const el = document.createElement("div");
    made.render({ model, el });
    vi.advanceTimersByTime(10_000);
    expect(el.textContent).toContain("the kernel has ended");
  });
});
