/** A card: shows a task's state, and cancels the task after a delay in which the user can undo that. */

import { duration, elapsed } from "../panel/words";

/** The part of an anywidget's model that a card uses. */
export interface Model {
  get(name: string): unknown;
  on(event: string, listener: () => void): void;
  send(message: object): void;
  /** JupyterLab's knows its kernel; others need not. */
  readonly widget_manager?: unknown;
}

/** Seconds in which a click can be taken back. */
export const GRACE = 3;

/** Strokes of each state's picture, 16 by 16; the panel has the same. */
const RING = "M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11";
const SHAPES: Record<string, string[]> = {
  waiting: [RING],
  sent: [RING, "M5.5 8h5M8.3 5.8 10.5 8l-2.2 2.2"],
  running: [RING, "M8 2.5A5.5 5.5 0 0 1 13.5 8", "M8 7a1 1 0 1 1 0 2a1 1 0 1 1 0-2"],
  stopping: [RING, "M6 6h4v4H6z"],
  done: ["m3 8.5 3.2 3.2L13 4.8"],
  failed: ["M3.5 2.5h9a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1h-9a1 1 0 0 1-1-1v-9a1 1 0 0 1 1-1", "m5.7 5.7 4.6 4.6m0-4.6-4.6 4.6"],
  cancelled: [RING, "m4.2 11.8 7.6-7.6"]
};

const ENDED = ["terminating", "restarting", "autorestarting", "dead"];
const OVER = ["done", "failed", "cancelled"];

function text(model: Model, name: string): string {
  const value = model.get(name);
  return typeof value === "string" ? value : "";
}

function number(model: Model, name: string): number {
  const value = model.get(name);
  return typeof value === "number" ? value : 0;
}

export function isOver(model: Model): boolean {
  return OVER.includes(text(model, "state"));
}

/** Whether the kernel has ended, as far as the front end lets a widget know. */
function ended(model: Model): boolean {
  const { kernel } = (model.widget_manager ?? {}) as { kernel?: { status?: string; isDisposed?: boolean } | null };
  return kernel === null || kernel?.isDisposed === true || ENDED.includes(kernel?.status ?? "");
}

/** The state that all views of a card share: whether its task is being cancelled, and whether there is still a kernel. */
export class Control {
  /** Seconds until it counts that somebody has pressed "Cancel"; 0: it was sent; undefined: nobody has. */
  left: number | undefined;
  /** The kernel has ended, perhaps to begin anew, and the task went with it. */
  lost = false;
  private timer: ReturnType<typeof setInterval> | undefined;
  private readonly listeners = new Set<() => void>();

  constructor(private readonly model: Model) {
    // ipywidgets says so with every restart, and at no other time once the model is there.
    model.on("comm_live_update", () => {
      this.lost = true;
      this.tell();
    });
  }

  /** Send a message, if there is still somebody to take it. */
  send(message: object): void {
    try {
      this.model.send(message);
    } catch {
      this.lost = true;
      this.tell();
    }
  }

  /** Have `listener` called when something has changed; the result stops that. */
  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  close(): void {
    clearInterval(this.timer);
    this.listeners.clear();
  }

  /** The button was pressed. */
  press(): void {
    if (this.left === undefined) {
      this.left = GRACE;
      this.timer = setInterval(() => this.count(), 1000);
    } else if (this.left > 0) {
      this.left = undefined;
      clearInterval(this.timer);
    }
    this.tell();
  }

  private count(): void {
    this.left = (this.left ?? 1) - 1;
    if (this.left === 0 || isOver(this.model)) {
      this.left = 0;
      clearInterval(this.timer);
      if (!isOver(this.model)) {
        this.send({ t: "cancel" });
      }
    }
    this.tell();
  }

  private tell(): void {
    this.listeners.forEach(listener => listener());
  }
}

function span(name: string): HTMLElement {
  const made = document.createElement("span");
  made.className = `p2p-card-${name}`;
  return made;
}

/** Set a text only if it is another one: a live region would be read again, a selection would be lost. */
function say(element: HTMLElement, words: string): void {
  if (element.textContent !== words) {
    element.textContent = words;
  }
}

/** One view of a card. */
export class Card {
  private readonly root = document.createElement("div");
  private readonly shape = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  private readonly label = span("label");
  private readonly words = span("words");
  private readonly bar = span("bar");
  private readonly done = document.createElement("span");
  private readonly time = span("time");
  private readonly error = span("error");
  private readonly button = document.createElement("button");
  private readonly soon = span("soon");
  private readonly live = span("live");
  private offset = 0;
  private shown = "";

  /** Stop timers and listeners; anywidget itself removes the model's listeners. */
  readonly close: () => void;

  constructor(private readonly model: Model, el: HTMLElement, private readonly control: Control) {
    this.root.className = "p2p-card";
    this.root.setAttribute("role", "group");
    this.shape.setAttribute("viewBox", "0 0 16 16");
    this.shape.setAttribute("aria-hidden", "true");
    this.live.setAttribute("role", "status");
    this.button.type = "button";
    this.button.addEventListener("click", () => control.press());
    this.bar.setAttribute("aria-hidden", "true"); // the words say it
    this.bar.append(this.done);
    this.root.append(this.shape, this.label, this.bar, this.words, this.time, this.error, this.button, this.soon, this.live);
    el.replaceChildren(this.root);
    this.synchronise();
    for (const name of ["label", "state", "words", "error", "started", "ended", "part"]) {
      model.on(`change:${name}`, () => this.draw());
    }
    model.on("change:now", () => this.synchronise());
    const deaf = control.listen(() => this.draw());
    const timer = setInterval(() => this.draw(), 1000);
    this.close = () => {
      clearInterval(timer);
      deaf();
    };
    this.draw();
    // Before that nobody should take the view away: ipywidgets stumbles over it.
    control.send({ t: "shown" });
  }

  /** The kernel's clock may go differently. */
  private synchronise(): void {
    this.offset = number(this.model, "now") - Date.now() / 1000;
  }

  private draw(): void {
    const { model } = this;
    const state = text(model, "state");
    const label = text(model, "label");
    const over = isOver(model);
    this.control.lost ||= ended(model);
    const lost = !over && this.control.lost;
    this.picture(lost ? "cancelled" : state);
    say(this.label, label);
    this.root.setAttribute("aria-label", `Task ${label}`);
    const stopping = state === "stopping"; // perhaps by another hand
    const left = over || lost || stopping ? undefined : this.control.left;
    const words = lost ? "the kernel has ended" : left === 0 ? "cancelling" : text(model, "words");
    const soon = left ? `cancelling in ${left} s` : "";
    say(this.words, words);
    say(this.soon, soon); // behind the button, which stays where it is
    const now = over ? number(model, "ended") : Date.now() / 1000 + this.offset;
    const submitted = number(model, "submitted");
    const started = number(model, "started");
    const took = `${state === "cancelled" ? "after" : "in"} ${duration(now - submitted)}`;
    say(this.time, lost ? "" : over ? took : elapsed(now - submitted));
    const hint = started ? `it began after ${duration(started - submitted)}` : "since it was submitted";
    this.time.setAttribute("title", hint);
    const part = number(model, "part");
    this.bar.hidden = over || lost || part < 0;
    this.done.style.inlineSize = `${(Math.min(1, Math.max(0, part)) * 100).toFixed(1)}%`;
    say(this.error, over ? text(model, "error") : "");
    this.button.hidden = over || lost || stopping || left === 0;
    say(this.button, left ? "Undo" : "Cancel");
    this.button.setAttribute("aria-label", left ? `Undo: don't cancel ${label}` : `Cancel ${label}`);
    // Screen readers hear each new state, not each second.
    // Of a bar's words, which change all the time, they hear the state alone.
    const phase = lost ? "lost" : left ? "asked" : left === 0 ? "sent" : state;
    if (phase !== this.shown) {
      if (this.shown) {
        say(this.live, `${label}: ${soon || words}`);
      }
      this.shown = phase;
    }
  }

  private picture(state: string): void {
    if (this.root.dataset.state === state) {
      return;
    }
    this.root.dataset.state = state;
    this.shape.replaceChildren(
      ...(SHAPES[state] ?? []).map(d => {
        const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
        path.setAttribute("d", d);
        return path;
      })
    );
  }
}
