/**
 * What the kernel and a panel say to each other. The kernel's half is p2p_ipython/notebook/panel/.
 *
 * A panel says `hello` and gets a `snapshot`; from then on it gets a `delta` for whatever has changed, at most ten a
 * second, each on top of the one before (`base`). A panel that misses one says `hello` again. Both name rows by
 * table and id, and leave out what has its default: 0, "", false, []. A delta that takes a field back to its default
 * says so.
 *
 * Times are seconds of the kernel's clock since 1970 (0: not yet), `now` is that clock when the message was sent;
 * sizes are bytes. All text may be a stranger's: it is shown as text, never as HTML.
 */

export const VERSION = 1;

/** Kernel-side comm target that a sidebar opens. */
export const PANEL_TARGET = "p2p_ipython:panel";

/** Target of the comm that a kernel with the extension loaded keeps open; it carries nothing. */
export const HERE_TARGET = "p2p_ipython:here";

export type ClusterState = "none" | "connecting" | "connected" | "reconnecting" | "waiting" | "lost" | "closed";

export interface ClusterFacts {
  state: ClusterState;
  /** The state for people: "connected", "reconnecting, 3rd try", "waiting for alice's approval". */
  words: string;
  kind: "none" | "personal" | "own" | "shared";
  /** What people call it: "alice/friends", "personal, on this machine". */
  title: string;
  board: string;
  /** What I am called, and the fingerprint of my key. */
  me: string;
  key: string;
  /** What to do, where there is something to do. */
  note: string;
  since: number;
  /** Why tasks wait, by what they need of Python ("" for any). */
  reasons: Record<string, string>;
  /** Tasks that are over since the cluster was connected, also those that the kernel no longer lists. */
  done: number;
  failed: number;
  cancelled: number;
  /** Tasks that wait beyond those that have rows. */
  unlisted: number;
}

/** What may be done now. */
export interface Means {
  /** Actions that work now; a panel shows no other. */
  can: Action[];
  /** Clusters of friends that this machine knows, by title. */
  clusters: string[];
  /** Those of them that are hosted in this kernel. */
  hosted: string[];
  /** Whether the kernel's main thread is free is the front end's to know; this is its user's machine. */
  machine: string;
  cores: number;
  python: string;
}

/** A process that is here, or a member of the cluster who isn't (`here` false, id "key:" and his fingerprint). */
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
  /** What results of his may be: "yours", "any type", "plain data". */
  trust: string;
  key: string;
  /** "direct", "relay", "memory"; "" for none. */
  link: string;
  /** Round trip, seconds; 0 where it isn't known. */
  rtt: number;
  /** What he ran for me, and what my machine ran for him: tasks, seconds. */
  lentTasks: number;
  lentSeconds: number;
  usedTasks: number;
  usedSeconds: number;
}

export type TaskState = "waiting" | "sent" | "running" | "done" | "failed" | "cancelled";

/** An attempt that was lost: its worker, and when it was sent, began, and was known to be lost. */
export type Attempt = readonly [worker: string, sent: number, started: number, ended: number];

export interface TaskRow {
  label: string;
  /** "cell" or "call". */
  kind: string;
  state: TaskState;
  /** Where it is or how it ended, in words; of one that waits: what is peculiar to it ("after losing bob: …"). */
  words: string;
  /** Of one that waits: its key in `ClusterFacts.reasons`. */
  needs: string;
  worker: string;
  attempt: number;
  submitted: number;
  sent: number;
  started: number;
  ended: number;
  /** The attempts that were lost while they ran, the earlier first. */
  tried: Attempt[];
  /** Seconds that its worker says it took; 0 where that isn't known. The rest, until `ended`, was the way back. */
  ran: number;
  sizeIn: number;
  sizeOut: number;
  /** Its last line of output. */
  said: string;
  /** First line of its error. */
  error: string;
  /** By what the front end knows its cell; "" where it doesn't keep cells apart. */
  cell: string;
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
  /** For whom, in words; "" for everybody in the cluster. */
  only: string;
  paused: boolean;
  /** Whether it is an offer for my tasks. */
  mine: boolean;
}

/** Somebody who waits for a yes or no. */
export interface VisitorRow {
  title: string;
  name: string;
  called: string;
  key: string;
  invited: boolean;
  about: string;
  /** What else is to be known before one says yes. */
  note: string;
}

/** A worker that this kernel has started, to lend this machine. */
export interface LendingRow {
  title: string;
  name: string;
  state: "starting" | "lending" | "paused" | "ending" | "failed";
  words: string;
  slots: number;
  busy: number;
  until: number;
  only: string;
  tasks: number;
  seconds: number;
}

export interface Tables {
  members: MemberRow;
  tasks: TaskRow;
  offers: OfferRow;
  visitors: VisitorRow;
  lending: LendingRow;
}

export type TableName = keyof Tables;

interface Changes {
  set?: { cluster?: Partial<ClusterFacts>; means?: Partial<Means> };
  put?: { [T in TableName]?: Record<string, Partial<Tables[T]>> };
}

/** All there is: what was known before is forgotten. */
export interface Snapshot extends Changes {
  t: "snapshot";
  v: number;
  rev: number;
  now: number;
}

export interface Delta extends Changes {
  t: "delta";
  rev: number;
  base: number;
  now: number;
  del?: Partial<Record<TableName, string[]>>;
}

/** What came of an action; `say` is for people, `data` depends on the action. */
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

/**
 * Actions and their arguments:
 *   cancel {task}; show {task} → Shown; connect {target} ("" for a personal cluster; else a title or HOST[:PORT]);
 *   disconnect {}; invite {title, who} → Invited; approve {key, title, called (as it was shown)}; refuse {key, title};
 *   revoke {title, member}; trust {member}; distrust {member};
 *   lend {title, slots, hours (0: open end), only: string[], tags: string[]}; pause, resume, stop {lending}.
 */
export type Action =
  | "cancel" | "show" | "connect" | "disconnect" | "invite" | "approve" | "refuse" | "revoke" | "trust" | "distrust"
  | "lend" | "pause" | "resume" | "stop";

export type ToKernel =
  | { t: "hello"; v: number; view: "widget" | "sidebar" }
  | { t: "more" }
  | { t: "do"; id: number; action: Action; args: Record<string, unknown> };

/** What there is to see of a task. `outputs` in order; images are base64. */
export interface Shown {
  source: string;
  outputs: Array<
    | { kind: "stream"; name: "stdout" | "stderr"; text: string }
    | { kind: "text"; text: string }
    | { kind: "image"; mime: "image/png" | "image/jpeg"; data: string }
  >;
  /** The whole error, as text. */
  error: string;
}

/** A secret, until the guest has used it: shown, never kept. */
export interface Invited {
  code: string;
  /** What the guest types. */
  commands: string[];
  until: number;
}
