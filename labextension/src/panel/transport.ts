/** How a panel reaches its kernel: by an anywidget's model, or by a comm of the sidebar's. */

import type { Action, Did, FromKernel } from "./contract";

/**
 * The way to the kernel, as the front end sees it.
 *
 * `closed`: no kernel, or it has ended; `absent`: a kernel in which the extension isn't loaded; `opening`: asked, not
 * answered yet; `open`: messages come. `busy` says that the kernel computes, so that answers may take their time.
 */
export interface Link {
  state: "closed" | "absent" | "opening" | "open";
  busy: boolean;
}

export interface Transport {
  readonly link: Link;
  /** Listen to messages and to changes of the link; the result stops that. A listener gets what comes from now on. */
  listen(onMessage: (message: FromKernel) => void, onLink: (link: Link) => void): () => void;
  /** Ask for a snapshot. */
  hello(): void;
  /** Have something done. Never rejects: trouble is an answer with `ok` false. */
  act(action: Action, args: Record<string, unknown>): Promise<Did>;
  /** Jump to a cell of the notebook; undefined where that can't be done. */
  reveal?: (cell: string) => void;
}
