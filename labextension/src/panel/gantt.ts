/**
 * The geometry of a timeline. Pure; times are seconds since 1970.
 *
 * A task is in it from when it begins. A row is a slot as seen from here: the tasks in it ran one after the other, also if
 * they were sent ahead.
 *
 * p2p_ipython/client/timeline.py does the same for `Cluster.timeline()`; tests/panel/timeline.json is the fixture of both.
 */

import type { Task } from "./rows";

/** A task, or a lost attempt of it, on its worker's lane. Its times are in order; `ended` may be now. */
export interface Bar {
  /** Unique among bars. */
  id: string;
  task: Task;
  worker: string;
  lost: boolean;
  /** Its row in the picture, from the top. */
  row: number;
  /** When it was submitted, or its attempt before was lost. */
  ready: number;
  /** Where its wait begins in the picture: at `ready`, or when its row became free, if that was later. */
  idle: number;
  sent: number;
  /** Where its way there begins in the picture: at `sent`, or when its row became free, if that was later. */
  way: number;
  started: number;
  /** When it had run and its result began to travel back; `ended` if that isn't known. */
  back: number;
  ended: number;
}

export interface Lane {
  worker: string;
  /** Its first row, and their number: one for each task that it has run at the same time. */
  row: number;
  rows: number;
  bars: number;
  /** Share of its slots' time in which something ran, 0 to 1, since the first task of the picture was sent. */
  used: number;
  /** Seconds, on average: from submitted to sent, from sent to started, while it ran, and from then to its end. */
  waited: number;
  travelled: number;
  ran: number;
  returned: number;
}

export interface Gantt {
  from: number;
  to: number;
  rows: number;
  lanes: Lane[];
  bars: Bar[];
}

/** The time that one attempt of a task had at a worker. */
type Piece = Omit<Bar, "row" | "idle" | "way">;

function piecesOf(task: Task, now: number): Piece[] {
  const pieces: Piece[] = [];
  let ready = task.submitted || (task.tried[0]?.[1] ?? task.sent);
  for (const [worker, sent, started, ended] of task.tried) {
    const end = Math.max(ended, sent);
    pieces.push({ id: `${task.id} ${pieces.length}`, task, worker, lost: true, ready, sent, started: Math.min(started, end), back: end, ended: end });
    ready = end;
  }
  if (task.started > 0) {
    const { worker, sent } = task;
    const ended = Math.max(task.ended || now, sent);
    const started = Math.min(task.started, ended);
    const back = task.ended > 0 && task.ran > 0 ? Math.min(started + task.ran, ended) : ended;
    pieces.push({ id: task.id, task, worker, lost: false, ready, sent, started, back, ended });
  }
  return pieces;
}

/** Lay out tasks that have begun. `slots`: how many a worker has, 0 for not known. */
export function gantt(tasks: readonly Task[], now: number, slots: (worker: string) => number): Gantt {
  const byWorker = new Map<string, Piece[]>();
  let first = Infinity;
  for (const piece of tasks.flatMap((task) => piecesOf(task, now)).sort((a, b) => a.started - b.started)) {
    first = Math.min(first, piece.sent);
    const others = byWorker.get(piece.worker);
    if (others === undefined) {
      byWorker.set(piece.worker, [piece]);
    } else {
      others.push(piece);
    }
  }
  const picture: Gantt = { from: Infinity, to: -Infinity, rows: 0, lanes: [], bars: [] };
  for (const [worker, its] of [...byWorker].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const free: number[] = []; // when each row of this lane becomes free
    const lane: Lane = { worker, row: picture.rows, rows: 0, bars: its.length, used: 0, waited: 0, travelled: 0, ran: 0, returned: 0 };
    for (const piece of its) {
      const { ready, sent, started, back, ended } = piece;
      let row = free.findIndex((time) => time <= started);
      if (row < 0) {
        row = free.length;
      }
      const since = free[row] ?? -Infinity;
      const way = Math.min(started, Math.max(sent, since));
      picture.bars.push({ ...piece, row: picture.rows + row, idle: Math.min(way, Math.max(ready, since)), way });
      free[row] = ended;
      picture.from = Math.min(picture.from, ready);
      picture.to = Math.max(picture.to, ended);
      lane.waited += (sent - ready) / its.length;
      lane.travelled += (started - sent) / its.length;
      lane.ran += (back - started) / its.length;
      lane.returned += (ended - back) / its.length;
    }
    lane.rows = free.length;
    lane.used = (lane.ran * lane.bars) / (slots(worker) || lane.rows);
    picture.rows += lane.rows;
    picture.lanes.push(lane);
  }
  const span = Math.max(picture.to - first, 1e-3);
  for (const lane of picture.lanes) {
    lane.used = Math.min(1, lane.used / span);
  }
  return picture;
}

/** Round steps for an axis of `span` seconds with about `wanted` of them. */
export function step(span: number, wanted: number): number {
  const rough = span / wanted;
  if (rough > 1) {
    for (const round of [2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200]) {
      if (round >= rough) {
        return round;
      }
    }
    return Math.ceil(rough / 86400) * 86400;
  }
  const power = 10 ** Math.floor(Math.log10(rough));
  return ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10) * power;
}
