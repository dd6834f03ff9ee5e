/**
 * The contract of a panel and its kernel: what each may say to the other.
 *
 * The kernel's half is p2p_ipython/notebook/panel/contract.py. The schema of both is contract.json: a field that is
 * added here has to be added there, and tests/panel/contract.test.ts says so.
 *
 * A panel sends `hello` and gets a `snapshot`. From then on the kernel sends a `delta` for each change, at most ten a
 * second, each on top of the one before (`base`). A panel that misses one sends `hello` again. Both messages name rows
 * by table and id, and leave out what has its default: 0, "", false, []. A delta that takes a field back to its default
 * contains that default.
 *
 * Times are seconds of the kernel's clock since 1970 (0: not yet), `now` is that clock when the message was sent;
 * sizes are bytes. All text may be a stranger's: a panel shows it as text, never as HTML.
 */

export const VERSION = 1;

/** Kernel-side comm target that a sidebar opens. */
export const PANEL_TARGET = "p2p_ipython:panel";

/** Target of the comm that a kernel with the extension loaded keeps open; it carries nothing. */
export const HERE_TARGET = "p2p_ipython:here";

export type ClusterState = "none" | "connecting" | "connected" | "reconnecting" | "waiting" | "lost" | "closed";

export type ClusterKind = "none" | "personal" | "own" | "shared";

export interface ClusterFacts {
  state: ClusterState;
  /** The state for people: "connected", "reconnecting, 3rd try", "waiting for alice's approval". */
  words: string;
  kind: ClusterKind;
  /** What people call the cluster: "alice/friends", "personal, on this machine". */
  title: string;
  board: string;
  /** The name of this user, and the fingerprint of their key. */
  me: string;
  key: string;
  /** What the user should do; "" for nothing. */
  note: string;
  since: number;
  /** Why tasks wait, by what they need of Python ("" for any). */
  reasons: Record<string, string>;
  /** Tasks that have ended since the cluster was connected, also those that the kernel no longer lists. */
  done: number;
  failed: number;
  cancelled: number;
  /** Waiting tasks beyond those that have rows. */
  unlisted: number;
}

/** What may be done now, and with what. */
export interface Means {
  /** Actions that work now; a panel shows no others. */
  can: Action[];
  /** Clusters of friends that this machine knows, by title. */
  clusters: string[];
  /** Those of them that are hosted in this kernel. */
  hosted: string[];
  /** The name of the kernel's machine. */
  machine: string;
  cores: number;
  python: string;
  /** What `lend` may be asked for, by the names that workers know; the last one is no sandbox. */
  sandboxes: string[];
}

/** A process that is here; or a member none of whose processes is (`here` false, id "key:" and their fingerprint). */
export interface MemberRow {
  name: string;
  /** "owner", "host", "client", "worker". */
  roles: string[];
  own: boolean;
  /** This very kernel. */
  me: boolean;
  here: boolean;
  /** In words: "up", "meeting", "reconnecting (…)", "away". */
  state: string;
  machine: string;
  python: string;
  since: number;
  slots: number;
  busy: number;
  /** What results of their workers may be: "yours", "any type", "plain data". */
  trust: string;
  key: string;
  /** "direct", "relay", "memory"; "" for none. */
  link: string;
  /** Round trip, seconds; 0 if it isn't known. */
  rtt: number;
  /** What they ran for this user, and what this user's machine ran for them: tasks, seconds. */
  lentTasks: number;
  lentSeconds: number;
  usedTasks: number;
  usedSeconds: number;
}

export type TaskState = "waiting" | "sent" | "running" | "stopping" | "done" | "failed" | "cancelled";

/** An attempt that was lost: its worker, and when it was sent, began and was known to be lost. */
export type Attempt = readonly [worker: string, sent: number, started: number, ended: number];

export interface TaskRow {
  label: string;
  /** "cell" or "call". */
  kind: string;
  state: TaskState;
  /** Where it is or how it ended, in words. Of a waiting task: what is peculiar to it ("after losing bob: …"), or all ("waiting for bob's yes"). */
  words: string;
  /** Of a waiting task: its key in `ClusterFacts.reasons`. */
  needs: string;
  worker: string;
  attempt: number;
  submitted: number;
  sent: number;
  started: number;
  ended: number;
  /** The attempts that were lost while they ran, the earlier first. */
  tried: Attempt[];
  /** Seconds that it took, as its worker says; 0 if that isn't known. The rest, until `ended`, was the way back. */
  ran: number;
  sizeIn: number;
  sizeOut: number;
  /** Its last line of output. */
  said: string;
  /** First line of its error. */
  error: string;
  /** The front end's id of its cell; "" if the front end doesn't keep cells apart. */
  cell: string;
  /** While it runs, how far it says that it is: the part that is done, from 0 to 1; and in words. */
  part: number;
  at: string;
}

/** Tasks that belong together: of a sweep, a map or a call of a library. */
export interface GroupRow {
  label: string;
  /** "running" until all are over; then how they ended, the worst first. */
  state: TaskState;
  /** How far they are: "7 of 20 done, 2 failed, about 40 s". */
  words: string;
  /** How many there are; 0 if that isn't known. */
  total: number;
  /** How many of them are over, and have failed. */
  over: number;
  failed: number;
  began: number;
  ended: number;
  /** How many of them can run again: those that have failed or were cancelled; 0 while others run. */
  again: number;
}

/** The standing offer of a worker; its id is the worker's in the table of members. */
export interface OfferRow {
  name: string;
  own: boolean;
  state: string;
  slots: number;
  free: number;
  cores: number;
  memory: number;
  tags: string[];
  until: number;
  python: string;
  platform: string;
  /** Whom it is for, in words; "" for everybody in the cluster. */
  only: string;
  paused: boolean;
  /** Whether it is open to this user's tasks. */
  mine: boolean;
  /** The sandbox that tasks run in, by name; "" for none. */
  sandbox: string;
  /** The graphics cards that tasks may use, in words; "" for none. */
  cards: string;
}

/** A person who waits for a yes or no. */
export interface VisitorRow {
  title: string;
  name: string;
  called: string;
  key: string;
  invited: boolean;
  about: string;
  /** What else the owner should know before saying yes. */
  note: string;
}

export type LendingState = "starting" | "lending" | "paused" | "ending" | "failed";

/** A worker that this kernel has started, to lend this machine. */
export interface LendingRow {
  title: string;
  name: string;
  state: LendingState;
  words: string;
  slots: number;
  busy: number;
  until: number;
  only: string;
  tasks: number;
  seconds: number;
  /** The policy that counts: in a sentence, "" for one without conditions; and as its file would have it. */
  policy: string;
  conditions: string;
  /** The last sentences for the lender, as of new members; the newest last. */
  news: string[];
  /** Entries that it has written to the lending log. */
  logged: number;
  /** Members whose tasks wait until the lender knows them: names by keys. */
  unknown: Record<string, string>;
}

/** A question to the lender: whether a task of another member may run here. */
export interface QuestionRow {
  /** For `answer`, and for `%p2p_lend --yes`. */
  number: number;
  title: string;
  /** The worker that asks. */
  worker: string;
  /** The member, and the fingerprint of the key that signed. */
  name: string;
  key: string;
  label: string;
  /** "cell" or "call". */
  kind: string;
  source: string;
  /** What of the source is not shown, in words. */
  cut: string;
  size: number;
  /** What else it brings or wants, in words. */
  options: string;
  /** From then on it counts as answered by no. */
  until: number;
  /** All of the task is here: a yes may be for whatever is the same. */
  same: boolean;
  /** It would run in a sandbox. */
  walled: boolean;
}

export interface Tables {
  members: MemberRow;
  tasks: TaskRow;
  groups: GroupRow;
  offers: OfferRow;
  visitors: VisitorRow;
  lending: LendingRow;
  questions: QuestionRow;
}

export type TableName = keyof Tables;

/** The rows of which there is one each. */
export interface Parts {
  cluster?: Partial<ClusterFacts>;
  means?: Partial<Means>;
}

/** Rows by table and id. */
export type Rows = { [T in TableName]?: Record<string, Partial<Tables[T]>> };

/** Ids of rows that are no longer there. */
export type Gone = Partial<Record<TableName, string[]>>;

/** All there is: a panel forgets what it knew before. */
export interface Snapshot {
  t: "snapshot";
  v: number;
  rev: number;
  now: number;
  set?: Parts;
  put?: Rows;
}

/** What has changed since revision `base`. */
export interface Delta {
  t: "delta";
  rev: number;
  base: number;
  now: number;
  set?: Parts;
  put?: Rows;
  del?: Gone;
}

/** What came of an action: `say` is for people, `data` depends on the action. */
export interface Did {
  t: "did";
  id: number;
  ok: boolean;
  say: string;
  data?: unknown;
}

export type FromKernel = Snapshot | Delta | Did;

/** The text of a widget's second module, more.js; a widget asks for it when it first needs it. */
export interface Code {
  t: "more";
  code: string;
}

/** Actions and their arguments. */
export interface Arguments {
  cancel: { task: string };
  /** Answered with `Shown`. */
  show: { task: string };
  /** Cancel a group's tasks; run those of it again that have failed or were cancelled. */
  halt: { group: string };
  again: { group: string };
  /** A title or HOST[:PORT]; "" for a personal cluster. */
  connect: { target: string };
  disconnect: Record<string, never>;
  /** Answered with `Invited`. */
  invite: { title: string; who: string };
  /** `called`: as the panel showed it. */
  approve: { key: string; title: string; called: string };
  refuse: { key: string; title: string };
  revoke: { title: string; member: string };
  trust: { member: string };
  distrust: { member: string };
  /** `hours`: 0 for an open end. `sandbox`: one of `Means.sandboxes`. `cpus`: cores of a task, 0 for all. */
  lend: {
    title: string; slots: number; hours: number; only: string[]; tags: string[]; sandbox: string; gpu: boolean; cpus: number;
    /** Whether to ask before each task of another member. */
    ask: boolean;
  };
  pause: { lending: string };
  resume: { lending: string };
  stop: { lending: string };
  /** `answer`: "once", "member", "same", or "no". */
  answer: { number: number; answer: string };
  /** Answered with `Logged`. */
  log: { lending: string };
  /** Know a member from now on. */
  welcome: { lending: string; key: string };
}

export type Action = keyof Arguments;

export type View = "widget" | "sidebar";

/** A panel asks for a snapshot. */
export interface Hello {
  t: "hello";
  v: number;
  view: View;
}

/** A widget asks for its second module. */
export interface More {
  t: "more";
}

/** A panel asks for an action, and for a `Did` with the same id. */
export interface Do {
  t: "do";
  id: number;
  action: Action;
  args: Record<string, unknown>;
}

export type ToKernel = Hello | More | Do;

export type StreamName = "stdout" | "stderr";
export type ImageType = "image/png" | "image/jpeg";

export interface StreamOutput {
  kind: "stream";
  name: StreamName;
  text: string;
}

export interface TextOutput {
  kind: "text";
  text: string;
}

/** A picture, as base64. */
export interface ImageOutput {
  kind: "image";
  mime: ImageType;
  data: string;
}

export type Output = StreamOutput | TextOutput | ImageOutput;

/** What there is to see of a task; `outputs` in order. */
export interface Shown {
  source: string;
  outputs: Output[];
  /** The whole error, as text. */
  error: string;
}

/** A task that has run on this machine, or was refused. -1 stands for what isn't known. */
export interface LogEntry {
  time: number;
  member: string;
  label: string;
  /** "done", "failed", "died", "lost", "recalled", "stopped", or "refused" with `why`. */
  outcome: string;
  why: string;
  seconds: number;
  cpu: number;
  memory: number;
  bytesIn: number;
  bytesOut: number;
}

/** The last entries of the lending log, the newest first. */
export interface Logged {
  entries: LogEntry[];
}

/** An invitation that was made. The code is a secret until the guest has used it: a panel shows it and never keeps it. */
export interface Invited {
  code: string;
  /** What the guest may type. */
  commands: string[];
  until: number;
}
