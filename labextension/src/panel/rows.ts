/** Rows as a panel has them: with an id, and with the defaults that the kernel leaves out. */

import type { ClusterFacts, GroupRow, LendingRow, MemberRow, Means, OfferRow, QuestionRow, TableName, Tables, TaskRow, TaskState, VisitorRow } from "./contract";

export type Row<T> = Readonly<T> & { readonly id: string };
export type Member = Row<MemberRow>;
export type Task = Row<TaskRow>;
export type Group = Row<GroupRow>;
export type Offer = Row<OfferRow>;
export type Visitor = Row<VisitorRow>;
export type Lending = Row<LendingRow>;
export type Question = Row<QuestionRow>;

export const NO_CLUSTER: ClusterFacts = {
  state: "none", words: "", kind: "none", title: "", board: "", me: "", key: "", note: "", since: 0, reasons: {},
  done: 0, failed: 0, cancelled: 0, unlisted: 0
};

export const NO_MEANS: Means = { can: [], clusters: [], hosted: [], machine: "", cores: 0, python: "", sandboxes: [] };

export const DEFAULTS: Readonly<Tables> = {
  members: {
    name: "", roles: [], own: false, me: false, here: false, state: "", machine: "", python: "", since: 0, slots: 0,
    busy: 0, trust: "", key: "", link: "", rtt: 0, lentTasks: 0, lentSeconds: 0, usedTasks: 0, usedSeconds: 0
  },
  tasks: {
    label: "", kind: "", state: "waiting", words: "", needs: "", worker: "", attempt: 0, tried: [], submitted: 0, sent: 0,
    started: 0, ended: 0, ran: 0, sizeIn: 0, sizeOut: 0, said: "", error: "", cell: "", part: 0, at: ""
  },
  groups: { label: "", state: "running", words: "", total: 0, over: 0, failed: 0, began: 0, ended: 0, again: 0 },
  offers: {
    name: "", own: false, state: "", slots: 0, free: 0, cores: 0, memory: 0, tags: [], until: 0, python: "",
    platform: "", only: "", paused: false, mine: false, sandbox: "", cards: ""
  },
  visitors: { title: "", name: "", called: "", key: "", invited: false, about: "", note: "" },
  lending: {
    title: "", name: "", state: "starting", words: "", slots: 0, busy: 0, until: 0, only: "", tasks: 0, seconds: 0,
    policy: "", conditions: "", news: [], logged: 0, unknown: {}
  },
  questions: {
    number: 0, title: "", worker: "", name: "", key: "", label: "", kind: "", source: "", cut: "", size: 0, options: "",
    until: 0, same: false, walled: false
  }
};

export const TABLE_NAMES = Object.keys(DEFAULTS) as TableName[];

/** Whether a task is over. */
export function isOver(state: TaskState): boolean {
  return state === "done" || state === "failed" || state === "cancelled";
}
