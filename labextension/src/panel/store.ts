/**
 * The store of a panel: the kernel's snapshot with the deltas since, as tables and as ordered views of them.
 *
 * Pure: no clock, no DOM. A delta whose base is another revision isn't applied; `apply` says so, and ignores
 * deltas until a snapshot comes.
 */

import { VERSION, type ClusterFacts, type Delta, type Means, type Snapshot, type TableName, type Tables, type TaskState } from "./contract";
import { byText, Ordered } from "./ordered";
import {
  DEFAULTS, isOver, NO_CLUSTER, NO_MEANS, TABLE_NAMES, type Group, type Lending, type Member, type Offer, type Question, type Row, type Task, type Visitor
} from "./rows";

type Follower<R> = (before: R | undefined, after: R | undefined) => void;

/** A table's rows in a message; the kernel keeps to the contract. */
type Said = Record<string, object> | undefined;

/** One table's rows by id, with the views that follow it. */
class Table<N extends TableName> {
  readonly rows = new Map<string, Row<Tables[N]>>();

  constructor(
    private readonly usual: Readonly<Tables[N]>,
    private readonly follow: Follower<Row<Tables[N]>>
  ) {}

  put(rows: Said): void {
    for (const [id, fields] of Object.entries(rows ?? {})) {
      const before = this.rows.get(id);
      const after = this.row(before ?? this.usual, fields, id);
      this.rows.set(id, after);
      this.follow(before, after);
    }
  }

  drop(ids: readonly string[] | undefined): void {
    for (const id of ids ?? []) {
      const before = this.rows.get(id);
      if (before !== undefined) {
        this.rows.delete(id);
        this.follow(before, undefined);
      }
    }
  }

  /** Replace all rows, without notice to the views: they are filled afterwards. */
  load(rows: Said): void {
    this.rows.clear();
    for (const [id, fields] of Object.entries(rows ?? {})) {
      this.rows.set(id, this.row(this.usual, fields, id));
    }
  }

  private row(before: Readonly<Tables[N]>, fields: object, id: string): Row<Tables[N]> {
    return { ...before, ...fields, id };
  }
}

export interface Filters {
  members: string;
  pending: string;
  over: string;
  offers: string;
  /** Among finished tasks: only failed ones. */
  onlyFailed: boolean;
}

export const NO_FILTERS: Readonly<Filters> = { members: "", pending: "", over: "", offers: "", onlyFailed: false };

/** Tasks of each state that the kernel lists. */
export type Counts = Record<TaskState, number>;

const NO_TASKS: Readonly<Counts> = { waiting: 0, sent: 0, running: 0, stopping: 0, done: 0, failed: 0, cancelled: 0 };

export class Store {
  cluster: ClusterFacts = NO_CLUSTER;
  means: Means = NO_MEANS;
  /** The revision of the newest message that was applied; -1 before the first snapshot, or after a missed message. */
  rev = -1;
  /** The kernel uses another version of the contract: nothing is applied. */
  foreign = false;
  /** Rises with each change. */
  version = 0;
  counts: Counts = { ...NO_TASKS };
  filters: Filters = { ...NO_FILTERS };

  readonly mine = new Ordered<Member>(selfFirst);
  readonly friends = new Ordered<Member>(byName);
  readonly away = new Ordered<Member>(byName);
  readonly pending = new Ordered<Task>((a, b) => a.submitted - b.submitted);
  /** In the order in which they ended. */
  readonly over = new Ordered<Task>((a, b) => a.ended - b.ended);
  /** Those that run, or can run again; the newest first. */
  readonly groups = new Ordered<Group>((a, b) => b.began - a.began, (group) => group.ended === 0 || group.again > 0);
  readonly forMe = new Ordered<Offer>(byName);
  readonly forOthers = new Ordered<Offer>(byName);
  readonly visitors = new Ordered<Visitor>(byName);
  readonly lending = new Ordered<Lending>((a, b) => byText(a.title, b.title));
  /** In the order in which they were asked. */
  readonly questions = new Ordered<Question>((a, b) => a.number - b.number);
  /** Tasks that have begun, in the order in which they were sent; for the timeline. */
  readonly begun = new Ordered<Task>((a, b) => a.sent - b.sent, (task) => task.started > 0 || task.tried.length > 0);

  private readonly tables: { [N in TableName]: Table<N> };

  constructor() {
    const follow = <R extends { readonly id: string }>(...views: Array<Ordered<R>>): Follower<R> => (before, after) => {
      for (const view of views) {
        view.change(before, after);
      }
    };
    const moved = follow(this.pending, this.over, this.begun);
    this.tables = {
      members: new Table(DEFAULTS.members, follow(this.mine, this.friends, this.away)),
      tasks: new Table(DEFAULTS.tasks, (before, after) => {
        if (before !== undefined) {
          this.counts[before.state] -= 1;
        }
        if (after !== undefined) {
          this.counts[after.state] += 1;
        }
        moved(before, after);
      }),
      groups: new Table(DEFAULTS.groups, follow(this.groups)),
      offers: new Table(DEFAULTS.offers, follow(this.forMe, this.forOthers)),
      visitors: new Table(DEFAULTS.visitors, follow(this.visitors)),
      lending: new Table(DEFAULTS.lending, follow(this.lending)),
      questions: new Table(DEFAULTS.questions, follow(this.questions))
    };
    this.fill();
  }

  get members(): ReadonlyMap<string, Member> {
    return this.tables.members.rows;
  }

  get tasks(): ReadonlyMap<string, Task> {
    return this.tables.tasks.rows;
  }

  get offers(): ReadonlyMap<string, Offer> {
    return this.tables.offers.rows;
  }

  /** Apply a message. Returns false if one before it was missed, so that the panel must ask for a snapshot. */
  apply(message: Snapshot | Delta): boolean {
    const anew = message.t === "snapshot";
    if (anew) {
      this.foreign = message.v !== VERSION;
    }
    if (this.foreign) {
      this.rev = -1;
      return true;
    }
    if (!anew && (this.rev < 0 || message.base !== this.rev)) {
      this.rev = -1;
      return false;
    }
    const { set, put } = message;
    this.cluster = { ...(anew ? NO_CLUSTER : this.cluster), ...set?.cluster };
    this.means = { ...(anew ? NO_MEANS : this.means), ...set?.means };
    for (const name of TABLE_NAMES) {
      if (anew) {
        this.tables[name].load(put?.[name]);
      } else {
        this.tables[name].drop(message.del?.[name]);
        this.tables[name].put(put?.[name]);
      }
    }
    if (anew) {
      this.fill();
    }
    this.rev = message.rev;
    this.version += 1;
    return true;
  }

  /** Show only rows with these words in them. */
  filter(change: Partial<Filters>): void {
    this.filters = { ...this.filters, ...change };
    this.fillFiltered();
    this.version += 1;
  }

  private fill(): void {
    this.counts = { ...NO_TASKS };
    for (const task of this.tasks.values()) {
      this.counts[task.state] += 1;
    }
    this.begun.fill(this.tasks.values());
    this.groups.fill(this.tables.groups.rows.values());
    this.visitors.fill(this.tables.visitors.rows.values());
    this.lending.fill(this.tables.lending.rows.values());
    this.questions.fill(this.tables.questions.rows.values());
    this.fillFiltered();
  }

  private fillFiltered(): void {
    const { members, pending, over, offers, onlyFailed } = this.filters;
    const member = matcher(members, (row: Member) => [row.name, row.machine, row.state, row.python, ...row.roles]);
    this.mine.fill(this.members.values(), (row) => row.here && row.own && member(row));
    this.friends.fill(this.members.values(), (row) => row.here && !row.own && member(row));
    this.away.fill(this.members.values(), (row) => !row.here && member(row));
    const waits = matcher(pending, taskWords);
    this.pending.fill(this.tasks.values(), (row) => !isOver(row.state) && waits(row));
    const ended = matcher(over, taskWords);
    this.over.fill(
      this.tasks.values(),
      (row) => isOver(row.state) && (!onlyFailed || row.state === "failed") && ended(row)
    );
    const offer = matcher(offers, (row: Offer) => [row.name, row.state, row.platform, row.python, row.only, row.sandbox, row.cards, ...row.tags]);
    this.forMe.fill(this.offers.values(), (row) => row.mine && offer(row));
    this.forOthers.fill(this.offers.values(), (row) => !row.mine && offer(row));
  }
}

function selfFirst(a: Member, b: Member): number {
  return Number(b.me) - Number(a.me) || byName(a, b);
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return byText(a.name, b.name);
}

function taskWords(task: Task): string[] {
  return [task.label, task.state, task.worker, task.words, task.error];
}

/** Rows in which each of the words occurs somewhere. */
function matcher<R>(text: string, fields: (row: R) => string[]): (row: R) => boolean {
  const words = text.toLowerCase().split(/\s+/).filter((word) => word !== "");
  if (words.length === 0) {
    return () => true;
  }
  return (row) => {
    const all = fields(row).join("\n").toLowerCase();
    return words.every((word) => all.includes(word));
  };
}
