/** The memory of a panel: its looks and notices, so that they are there again when it is mounted again. */

import type { Action } from "./contract";
import type { Store } from "./store";

export type TabName = "tasks" | "finished" | "members" | "offers" | "timeline";

export interface Memory {
  tab: TabName;
  /** Where the lists were scrolled to, and how high their rows were then, pixels. */
  scroll: Record<string, number>;
  rows: Record<string, number>;
  /** How high the panel has been in a cell, pixels; 0 at first. */
  high: number;
  /** The board that was typed last; it stays, to be corrected, if connecting fails. */
  board: string;
  store: Store | undefined;
  /** Failures that nobody has read, also of actions that ended while the panel wasn't mounted. */
  notices: readonly Notice[];
  /** Takes notices for the panel as it is mounted now. */
  control: Notified | undefined;
}

export function newMemory(): Memory {
  return { tab: "tasks", scroll: {}, rows: {}, high: 0, board: "", store: undefined, notices: [], control: undefined };
}

/** Shows notices. */
export interface Notified {
  notify(ok: boolean, text: string, action?: Action): void;
}

/** The outcome of an action, shown until the user dismisses it. */
export interface Notice {
  id: number;
  ok: boolean;
  text: string;
  /** The action, if it is the outcome of one. */
  action: Action | undefined;
}
