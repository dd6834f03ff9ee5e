/** A kernel that says what it is told to, and keeps what it is asked. */

import type { Action, ClusterFacts, Delta, Did, FromKernel, Means, MemberRow, OfferRow, Snapshot, TaskRow } from "../../src/panel/contract";
import type { Link, Transport } from "../../src/panel/transport";
import type { Model } from "../../src/widget/transport";

export const NOW = 1_800_000_000;

export const ALL: Action[] = [
  "cancel", "show", "halt", "again", "connect", "disconnect", "invite", "approve", "refuse", "revoke", "trust", "distrust", "lend", "pause", "resume", "stop", "answer", "log", "welcome"
];

export class FakeTransport implements Transport {
  link: Link = { state: "open", busy: false };
  hellos = 0;
  readonly acts: Array<{ action: Action; args: Record<string, unknown> }> = [];
  /** What actions are answered with; undefined for never. */
  answer: ((action: Action, args: Record<string, unknown>) => Partial<Did> | undefined) | undefined = () => ({});
  private readonly listeners = new Set<{ message: (message: FromKernel) => void; link: (link: Link) => void }>();

  constructor(readonly reveal?: (cell: string) => void) {}

  listen(onMessage: (message: FromKernel) => void, onLink: (link: Link) => void): () => void {
    const listener = { message: onMessage, link: onLink };
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  hello(): void {
    this.hellos += 1;
  }

  act(action: Action, args: Record<string, unknown>): Promise<Did> {
    this.acts.push({ action, args });
    const answer = this.answer?.(action, args);
    if (answer === undefined) {
      return new Promise(() => undefined);
    }
    return Promise.resolve({ t: "did", id: this.acts.length, ok: true, say: "", ...answer });
  }

  say(message: FromKernel): void {
    for (const listener of [...this.listeners]) {
      listener.message(message);
    }
  }

  become(link: Link): void {
    this.link = link;
    for (const listener of [...this.listeners]) {
      listener.link(link);
    }
  }

  get listening(): number {
    return this.listeners.size;
  }
}

interface World {
  cluster?: Partial<ClusterFacts>;
  means?: Partial<Means>;
  members?: Record<string, Partial<MemberRow>>;
  tasks?: Record<string, Partial<TaskRow>>;
  offers?: Record<string, Partial<OfferRow>>;
}

/** A snapshot of a cluster that is connected, unless it says something else. */
export function snapshot(world: World & { put?: Snapshot["put"] } = {}, rev = 1, now = NOW): Snapshot {
  const { cluster, means, members, tasks, offers, put } = world;
  return {
    t: "snapshot", v: 1, rev, now,
    set: {
      cluster: { state: "connected", words: "connected", kind: "personal", title: "personal, on this machine", me: "alice", since: now - 60, ...cluster },
      means: { can: ALL, clusters: ["alice/friends"], machine: "desk", cores: 8, python: "3.12", ...means }
    },
    put: { ...put, members: members ?? {}, tasks: tasks ?? {}, offers: offers ?? {} }
  };
}

export function delta(changes: Omit<Delta, "t" | "rev" | "base" | "now">, base = 1, now = NOW): Delta {
  return { t: "delta", rev: base + 1, base, now, ...changes };
}

/** So many tasks, all of them waiting. */
export function manyTasks(count: number, fields: (index: number) => Partial<TaskRow> = () => ({})): Record<string, Partial<TaskRow>> {
  const tasks: Record<string, Partial<TaskRow>> = {};
  for (let index = 0; index < count; index += 1) {
    tasks[`t${index}`] = { label: `task_${index}`, kind: "cell", submitted: NOW - 1000 + index / 100, ...fields(index) };
  }
  return tasks;
}

/** An anywidget's model, of which a test plays the kernel. */
export class FakeModel implements Model {
  readonly sent: Array<Record<string, unknown>> = [];
  /** Its comm has gone with its kernel. */
  dead = false;
  private readonly listeners = new Map<string, Set<(content: unknown) => void>>();

  send(content: unknown): void {
    if (this.dead) {
      throw new Error("Cannot send");
    }
    this.sent.push(content as Record<string, unknown>);
  }

  on(event: string, listener: (content: unknown) => void): void {
    this.listeners.set(event, (this.listeners.get(event) ?? new Set()).add(listener));
  }

  off(event: string, listener: (content: unknown) => void): void {
    this.listeners.get(event)?.delete(listener);
  }

  fire(event: "msg:custom" | "comm_live_update", content?: unknown): void {
    for (const listener of [...(this.listeners.get(event) ?? [])]) {
      listener(content);
    }
  }

  get listening(): number {
    return [...this.listeners.values()].reduce((sum, set) => sum + set.size, 0);
  }
}
