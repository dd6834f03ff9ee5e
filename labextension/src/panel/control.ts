/**
 * The control of a mounted panel: takes the kernel's messages, keeps the store, asks for actions and waits for answers.
 *
 * All parts of the panel read from here; `subscribe` tells them when to draw again. No DOM.
 */

import { Announcer } from "./announcer";
import { Clock } from "./clock";
import type { Action, Arguments, Did, FromKernel } from "./contract";
import { Listeners } from "./listeners";
import type { Memory, Notice } from "./memory";
import { Overdue } from "./overdue";
import { Store, type Filters } from "./store";
import type { Link, Transport } from "./transport";
import { Undo } from "./undo";
import { join, standing, tasks, type Standing, type Translate } from "./words";

/** Seconds after which an answer is overdue, and after which it is if a board or people may be asked. */
const DUE = 5;
const SLOW_DUE = 60;
const QUICK: ReadonlySet<Action> = new Set<Action>(["cancel", "show", "halt", "again"]);

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
  /** The text for screen readers. */
  spoken = "";

  private readonly announcer: Announcer;
  private readonly listeners = new Listeners();
  private readonly stopListening: () => void;
  private readonly timers = new Set<ReturnType<typeof setTimeout>>();
  private readonly asked = new Overdue();
  private hello: object | undefined;
  private visible = true;
  private changedUnseen = false;
  private closed = false;
  private told = { done: 0, failed: 0, words: "", asked: 0 };

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
      this.spoken = text === this.spoken ? `${text}\u00a0` : text; // screen readers don't repeat an unchanged text
      this.count();
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

  /** Call `listener` after each change; the result stops that. */
  subscribe(listener: () => void): () => void {
    return this.listeners.add(listener);
  }

  /** Say whether the panel is visible: while it isn't, nothing is drawn. */
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

  /** Whether the panel waits for an answer, which can become overdue. */
  get waiting(): boolean {
    return this.asked.waiting;
  }

  /** For how many seconds an answer has been overdue; undefined if none is. */
  get stale(): number | undefined {
    return this.asked.since;
  }

  /** Ask for a snapshot. */
  askAgain(): void {
    if (this.hello !== undefined) {
      this.asked.answered(this.hello);
    }
    this.hello = this.asked.ask(DUE);
    this.transport.hello();
    this.changed();
  }

  /** Ask for an action and show the outcome; with `quietly`, only a failure. */
  async perform<A extends Action>(action: A, args: Arguments[A], quietly = false): Promise<Did> {
    const did = await this.request(action, args);
    if (did.ok && action === "connect") { // earlier failures no longer matter
      this.notices = this.notices.filter((notice) => notice.ok || notice.action !== action);
      this.memory.board = "";
    }
    if (did.say !== "" && !(did.ok && quietly)) {
      this.notify(did.ok, did.say, action);
    }
    return did;
  }

  /** Ask for an action, and show nothing. */
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

  /** Cancel a task in a moment, unless the user undoes that. */
  cancel(task: string): void {
    this.undo.start(task);
    const label = this.store.tasks.get(task)?.label ?? "";
    this.announcer.say("undo", this.t("Cancelling %1 in 4 seconds; undo is possible", label));
  }

  /** Cancel these tasks at once; some at a time, so that ten thousand don't block other requests. */
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
      return; // the transport delivers answers; other messages of a newer kernel aren't for this panel
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
      this.store = new Store(); // another kernel: nothing that was known applies to it
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
    const asked = this.store.questions.items.at(-1);
    if (asked !== undefined && asked.number !== this.told.asked) {
      this.told.asked = asked.number;
      this.announcer.say("asked", this.t("%1 asks to run %2", asked.name, asked.label));
    }
    if (first || cluster.done < this.told.done || cluster.failed < this.told.failed) {
      this.count();
      return;
    }
    const done = cluster.done - this.told.done;
    const failed = cluster.failed - this.told.failed;
    const news = join(", ", done > 0 && this.t("%1 done", tasks(done, this.t)), failed > 0 && this.t("%1 failed", tasks(failed, this.t)));
    if (news !== "") {
      this.announcer.say("tasks", news);
    }
  }

  /** Note the tasks that have ended so far: none of them is news. */
  private count(): void {
    const { done, failed } = this.store.cluster;
    Object.assign(this.told, { done, failed });
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
    this.listeners.call();
  }
}
