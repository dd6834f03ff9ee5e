/** The panel's store without a panel: the state of the current cluster for the status item and the commands. */

import { DisposableDelegate, type IDisposable } from "@lumino/disposable";
import { Signal, type ISignal } from "@lumino/signaling";

import { Store } from "../panel/store";
import type { FromKernel } from "../panel/contract";
import type { Link } from "../panel/transport";
import type { ClusterView, IKernelLinks, Work } from "./tokens";

const CLOSED: Link = { state: "closed", busy: false };

export class ClusterWatch implements ClusterView, IDisposable {
  private readonly _changed = new Signal<this, void>(this);
  private _store = new Store();
  private _stop: (() => void) | undefined;
  private _work: Work | null = null;
  private _isDisposed = false;

  constructor(private readonly _links: Pick<IKernelLinks, "current" | "currentChanged">) {
    _links.currentChanged.connect(this._turn, this);
    this._turn();
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get work(): Work | null {
    return this._work;
  }

  get link(): Link {
    return this._work?.link.link ?? CLOSED;
  }

  get store(): Store {
    return this._store;
  }

  get clustered(): boolean {
    const { state } = this._store.cluster;
    return this.link.state === "open" && !this._store.foreign && state !== "none" && state !== "closed";
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (!this._isDisposed) {
      this._isDisposed = true;
      this._links.currentChanged.disconnect(this._turn, this);
      this._stop?.();
      Signal.clearData(this);
    }
  }

  private _turn(): void {
    this._stop?.();
    this._stop = undefined;
    this._work = this._links.current;
    this._store = new Store();
    if (this._work !== null) {
      const { link } = this._work;
      this._stop = link.listen(
        (message) => this._take(message),
        (state) => this._linked(state)
      );
      if (link.link.state === "open") {
        link.hello();
      }
    }
    this._changed.emit();
  }

  private _take(message: FromKernel): void {
    if (message.t !== "snapshot" && message.t !== "delta") {
      return;
    }
    const began = this._store.rev < 0;
    if (!this._store.apply(message) && !began) {
      this._work?.link.hello();
    }
    this._changed.emit();
  }

  private _linked(link: Link): void {
    if (link.state !== "open") {
      this._store = new Store();
    }
    this._changed.emit();
  }
}

/** Call `act` whenever a kernel that had no cluster gets one; not for clusters that are there when they come into view. */
export function whenConnected(cluster: ClusterView, act: () => void): IDisposable {
  let without: Work | null = null;
  const look = (): void => {
    if (cluster.link.state !== "open" || cluster.store.rev < 0) {
      without = null;
    } else if (!cluster.clustered) {
      without = cluster.work;
    } else if (without !== null) {
      const same = without === cluster.work;
      without = null;
      if (same) {
        act();
      }
    }
  };
  cluster.changed.connect(look);
  look();
  return new DisposableDelegate(() => void cluster.changed.disconnect(look));
}
