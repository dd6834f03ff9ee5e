/** Tokens: services that one part of the extension offers to the others, and to other extensions. */

import { Token } from "@lumino/coreutils";
import type { ISignal } from "@lumino/signaling";
import type { Title, Widget } from "@lumino/widgets";

import type { Store } from "../panel/store";
import type { Link, Transport } from "../panel/transport";

/** The notebook or console that the user works with. */
export interface Work {
  /** To its kernel, whichever that is at the time; the same object for as long as the notebook is open. */
  readonly link: Transport;
  readonly title: Title<Widget>;
  /** Run code in its kernel, as if typed, and keep no trace of it in the history. Rejects when it fails. */
  run(code: string): Promise<void>;
}

/** The state of the current cluster, for parts without a panel. */
export interface ClusterView {
  /** Something that can be seen here may have changed: at most ten times a second. */
  readonly changed: ISignal<ClusterView, void>;
  readonly work: Work | null;
  readonly link: Link;
  readonly store: Store;
  /** Whether there is a cluster, connected or about to be. */
  readonly clustered: boolean;
}

/** Which cluster to show: that of the notebook or console which the user turned to last. */
export interface IKernelLinks {
  readonly current: Work | null;
  readonly currentChanged: ISignal<IKernelLinks, Work | null>;
  /** While somebody follows the cluster, the kernel sends changes. */
  readonly cluster: ClusterView;
}

export const IKernelLinks = new Token<IKernelLinks>(
  "@p2p-ipython/labextension:IKernelLinks",
  "A service that links panels with the kernel of the current notebook or console."
);
