/**
 * What a mounted panel does: takes the kernel's messages, keeps the store, asks for things and remembers what is due.
 *
 * Everything that is shown is read from here; `subscribe` tells when to look again. No DOM.
 */

import { Announcer } from "./announcer";
import { Clock } from "./clock";
import type { Action, Arguments, Did, FromKernel } from "./contract";
import type { Memory, Notice } from "./memory";
import { Overdue } from "./overdue";
import { Store, type Filters } from "./store";
import type { Link, Transport } from "./transport";
import { Undo } from "./undo";
import { join, standing, tasks, type Standing, type Translate } from "./words";

/** Seconds after which an answer is overdue, and after which it is if a board or people may be asked. */
const DUE = 5;
const SLOW_DUE = 60;
const QUICK: ReadonlySet<Action> = new Set<Action>(["cancel", "show"]);

const NOTICES = 3;

/** Tasks that are cancelled at a time. */
const TOGETHER = 50;

const NOTICE_STAYS = 8000;

let noticeIds = 0;

export class Control {
  store: Store;
  link: Link;
  notices: readonly Notice[];
  readonly clock = new Clock();
  readonly undo: Undo;
  /** Said by screen readers. */
  spoken = "";

  private readonly announcer: Announcer;
  private readonly listeners = new Set<() => void>();
  private readonly stopListening: () => void;
  private readonly timers = new Set<ReturnType<typeof setTimeout>>();
  private readonly asked = new Overdue();
  private hello: object | undefined;
  private visible = true;
  private changedUnseen = false;
  private closed = false;
  private told = { done: 0, failed: 0, words: "" };

  constructor(
    readonly transport: Transport,
    readonly memory: Memory,
    readonly t: Translate
  ) {
    this.store = memory.store ?? new Store();
    memory.store = undefined;
    this.notices = memory.notices;
    memory.notices = [];
    memory.control = this;
    this.link = transport.link;
    this.undo = new Undo((task) => void this.perform("cancel", { task }, true), () => this.changed());
    this.announcer = new Announcer((text) => {
      this.spoken = text === this.spoken ? `${text}\u00a0` : text; // what is the same as before isn't read again
      this.told.done = this.store.cluster.done;
      this.told.failed = this.store.cluster.failed;
      this.changed();
    });
    this.stopListening = transport.listen(
      (message) => this.take(message),
      (link) => this.linked(link)
    );
    if (this.link.state === "open") {
      this.askAgain();
    }
  }

  /** Be told that something has changed; the result stops that. */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Whether anybody can see the panel: while nobody can, nothing is drawn. */
  show(visible: boolean): void {
    this.visible = visible;
    this.clock.show(visible);
    if (visible && this.changedUnseen) {
      this.changed();
    }
  }

  /** Whether there is something to show of a cluster. */
  get known(): boolean {
    return this.store.version > 0 && !this.store.foreign;
  }

  can(action: Action): boolean {
    return this.link.state === "open" && this.store.rev >= 0 && this.store.means.can.includes(action);
  }

  get standing(): Standing {
    return standing(this.link, this.store.cluster, this.known, this.stale, this.t, this.store.foreign);
  }

  /** Whether an answer is being waited for, so that it can become overdue. */
  get waiting(): boolean {
    return this.asked.waiting;
  }

  /** Since how many seconds an answer has been missing that should have come; undefined while none is. */
  get stale(): number | undefined {
    return this.asked.since;
  }

  /** Ask for all there is. */
  askAgain(): void {
    if (this.hello !== undefined) {
      this.asked.answered(this.hello);
    }
    this.hello = this.asked.ask(DUE);
    this.transport.hello();
    this.changed();
  }

  /** Have something done and say what came of it; with `quietly`, only if it failed. */
  async perform<A extends Action>(action: A, args: Arguments[A], quietly = false): Promise<Did> {
    const did = await this.request(action, args);
    if (did.ok && action === "connect") { // why that failed before is no news any more
      this.notices = this.notices.filter((notice) => notice.ok || notice.action !== action);
      this.memory.board = "";
    }
    if (did.say !== "" && !(did.ok && quietly)) {
      this.notify(did.ok, did.say, action);
    }
    return did;
  }

  /** Have something done, quietly. */
  async request<A extends Action>(action: A, args: Arguments[A]): Promise<Did> {
    const waiting = this.asked.ask(QUICK.has(action) ? DUE : SLOW_DUE);
    this.changed();
    try {
      return await this.transport.act(action, args);
    } finally {
      this.asked.answered(waiting);
      this.changed();
    }
  }

  notify(ok: boolean, text: string, action?: Action): void {
    if (this.closed && this.memory.control !== undefined) {
      this.memory.control.notify(ok, text, action);
      return;
    }
    noticeIds += 1;
    const id = noticeIds;
    const others = (this.closed ? this.memory : this).notices.filter((notice) => notice.text !== text);
    const notices = [...others, { id, ok, text, action }].slice(-NOTICES);
    if (this.closed) {
      this.memory.notices = notices.filter((notice) => !notice.ok);
      return;
    }
    this.notices = notices;
    this.announcer.say(`notice ${id}`, text);
    if (ok) {
      this.later(() => this.dismiss(id), NOTICE_STAYS);
    }
    this.changed();
  }

  dismiss(id: number): void {
    this.notices = this.notices.filter((notice) => notice.id !== id);
    this.changed();
  }

  /** Cancel a task in a moment. */
  cancel(task: string): void {
    this.undo.start(task);
    const label = this.store.tasks.get(task)?.label ?? "";
    this.announcer.say("undo", this.t("Cancelling %1 in 4 seconds; undo is possible", label));
  }

  /** Cancel these at once. Some at a time, so that ten thousand don't stand in the way of other requests. */
  async cancelAll(tasks: readonly string[]): Promise<void> {
    for (let next = 0; next < tasks.length; next += TOGETHER) {
      await Promise.all(tasks.slice(next, next + TOGETHER).map((task) => this.perform("cancel", { task }, true)));
    }
  }

  filter(change: Partial<Filters>): void {
    this.store.filter(change);
    this.changed();
  }

  close(): void {
    this.undo.close();
    this.stopListening();
    this.announcer.close();
    this.clock.close();
    for (const timer of this.timers) {
      clearTimeout(timer);
    }
    this.listeners.clear();
    this.closed = true;
    this.memory.store = this.store;
    this.memory.notices = this.notices.filter((notice) => !notice.ok);
    if (this.memory.control === this) {
      this.memory.control = undefined;
    }
  }

  private take(message: FromKernel): void {
    this.asked.postpone(DUE);
    if (message.t !== "snapshot" && message.t !== "delta") {
      return; // the transport gives an answer to whoever asked; what else a newer kernel says isn't for this panel
    }
    const first = !this.known;
    if (message.t === "snapshot" && this.hello !== undefined) {
      this.asked.answered(this.hello);
      this.hello = undefined;
    }
    this.clock.set(message.now, message.t === "snapshot");
    if (!this.store.apply(message)) {
      if (this.hello === undefined) {
        this.askAgain();
      }
      return;
    }
    for (const id of this.undo.ids) {
      const state = this.store.tasks.get(id)?.state;
      if (state !== "waiting" && state !== "sent" && state !== "running") {
        this.undo.stop(id);
      }
    }
    this.announce(first);
    this.changed();
  }

  private linked(link: Link): void {
    const before = this.link.state;
    this.link = link;
    if (link.state !== "open") {
      this.asked.clear();
      this.hello = undefined;
    }
    if (link.state === "absent" || (link.state === "open" && before === "absent")) {
      this.announcer.forget();
      this.spoken = "";
      this.store = new Store(); // another kernel's life: what was known is no longer so
    }
    if (link.state === "open" && before !== "open") {
      this.askAgain();
    }
    this.announce(false);
    this.changed();
  }

  private announce(first: boolean): void {
    const { cluster } = this.store;
    const { words } = this.standing;
    if (words !== this.told.words) {
      this.told.words = words;
      this.announcer.say("state", join(": ", cluster.title, words));
    }
    if (first || cluster.done < this.told.done || cluster.failed < this.told.failed) {
      this.told.done = cluster.done;
      this.told.failed = cluster.failed;
      return;
    }
    const done = cluster.done - this.told.done;
    const failed = cluster.failed - this.told.failed;
    const news = join(", ", done > 0 && this.t("%1 done", tasks(done, this.t)), failed > 0 && this.t("%1 failed", tasks(failed, this.t)));
    if (news !== "") {
      this.announcer.say("tasks", news);
    }
  }

  private later(action: () => void, milliseconds: number): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      action();
    }, milliseconds);
    this.timers.add(timer);
  }

  private changed(): void {
    if (!this.visible) {
      this.changedUnseen = true;
      return;
    }
    this.changedUnseen = false;
    for (const listener of [...this.listeners]) {
      listener();
    }
  }
}
