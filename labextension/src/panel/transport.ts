/** The way from a panel to its kernel: an anywidget's model, or a comm of the sidebar. */

import type { Action, Did, FromKernel } from "./contract";

/**
 * The way to the kernel, as the front end sees it.
 *
 * `closed`: no kernel, or it has ended; `absent`: a kernel in which the extension isn't loaded; `opening`: asked, not
 * answered yet; `open`: messages come. `busy`: the kernel computes, so answers may take a while.
 */
export interface Link {
  state: "closed" | "absent" | "opening" | "open";
  busy: boolean;
}

export interface Transport {
  readonly link: Link;
  /** Listen to messages and to changes of the link, from now on; the result stops that. */
  listen(onMessage: (message: FromKernel) => void, onLink: (link: Link) => void): () => void;
  /** Ask for a snapshot. */
  hello(): void;
  /** Ask for an action. Never rejects: a failure is an answer with `ok` false. */
  act(action: Action, args: Record<string, unknown>): Promise<Did>;
  /** Jump to a cell of the notebook; undefined if the front end can't. */
  reveal?: (cell: string) => void;
}
