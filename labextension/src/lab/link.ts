/** The transport of a panel in JupyterLab: to whatever kernel a notebook or console has. */

import type { ISessionContext } from "@jupyterlab/apputils";
import type { Kernel } from "@jupyterlab/services";
import type { IDisposable } from "@lumino/disposable";

import { VERSION, type Action, type Did, type FromKernel } from "../panel/contract";
import { Listeners } from "../panel/listeners";
import type { Link, Transport } from "../panel/transport";
import { KernelPeer, PATIENCE, type Patience } from "./peer";

/** The part of a notebook's or console's session that a link needs. */
export type Session = Pick<ISessionContext, "session" | "kernelChanged" | "disposed">;

export interface LinkOptions {
  reveal?: (cell: string) => void;
  /** Of the connections with the same kernel, the one that handles comms. */
  handling?: (kernel: Kernel.IKernelConnection) => Kernel.IKernelConnection;
  /** The answer to an action when there is no kernel to perform it. */
  unreachable?: string;
  patience?: Readonly<Patience>;
}

/** Milliseconds for which a comm stays open that nobody listens to: a panel may just be moving. */
const LINGER = 2000;

export class KernelLink implements Transport, IDisposable {
  readonly reveal?: (cell: string) => void;
  private readonly _onMessage = new Listeners<[FromKernel]>();
  private readonly _onLink = new Listeners<[Link]>();
  private readonly _waiting = new Map<number, (did: Did) => void>();
  private _peer: KernelPeer | null = null;
  private _link: Link = { state: "closed", busy: false };
  private _ids = 0;
  private _fresh = false;
  private _isDisposed = false;
  private _linger: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly _session: Session,
    private readonly _options: LinkOptions = {}
  ) {
    if (_options.reveal !== undefined) {
      this.reveal = _options.reveal;
    }
    _session.kernelChanged.connect(this.follow, this);
    _session.disposed.connect(this.dispose, this);
    this.follow();
  }

  get link(): Link {
    return this._link;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  listen(onMessage: (message: FromKernel) => void, onLink: (link: Link) => void): () => void {
    const stops = [this._onMessage.add(onMessage), this._onLink.add(onLink)];
    clearTimeout(this._linger);
    this._peer?.listen();
    return () => {
      stops.forEach((stop) => stop());
      if (this._onLink.size === 0 && !this._isDisposed) {
        clearTimeout(this._linger);
        this._linger = setTimeout(() => this._peer?.rest(), LINGER);
      }
    };
  }

  hello(): void {
    if (!this._fresh) {
      this._peer?.say({ t: "hello", v: VERSION, view: "sidebar" });
    }
  }

  act(action: Action, args: Record<string, unknown>): Promise<Did> {
    this._ids += 1;
    const id = this._ids;
    return new Promise((resolve) => {
      this._waiting.set(id, resolve);
      if (this._link.state !== "open" || this._peer?.say({ t: "do", id, action, args }) !== true) {
        this._giveUp();
      }
    });
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    clearTimeout(this._linger);
    this._session.kernelChanged.disconnect(this.follow, this);
    this._session.disposed.disconnect(this.dispose, this);
    this._drop();
    this._linked({ state: "closed", busy: false });
    this._onMessage.clear();
    this._onLink.clear();
  }

  /** Go to the connection that handles the comms of the session's kernel now, if that is another one. */
  follow(): void {
    if (this._isDisposed) {
      return;
    }
    const shown = this._session.session?.kernel ?? null;
    const kernel = shown === null ? null : (this._options.handling?.(shown) ?? shown);
    if (this._peer !== null && !this._peer.isDisposed && this._peer.kernel === kernel) {
      return;
    }
    this._drop();
    if (kernel === null || kernel.isDisposed || !kernel.handleComms) {
      this._linked({ state: "closed", busy: false });
      return;
    }
    const peer: KernelPeer = new KernelPeer(
      kernel,
      {
        linked: (link) => {
          if (this._peer === peer) {
            this._linked(link);
          }
        },
        told: (message) => {
          if (this._peer === peer) {
            this._told(message);
          }
        }
      },
      this._options.patience ?? PATIENCE
    );
    this._peer = peer;
    this._linked(peer.link);
    if (this._onLink.size > 0) {
      peer.listen();
    }
  }

  private _drop(): void {
    const peer = this._peer;
    this._peer = null;
    peer?.dispose();
    this._giveUp();
  }

  private _linked(link: Link): void {
    // The message that opens a link is the snapshot: a panel that asks for one when the link opens has it already.
    this._fresh = link.state === "open" && this._link.state !== "open";
    this._link = link;
    if (link.state !== "open") {
      this._giveUp();
    }
    this._onLink.call(link);
  }

  private _told(message: FromKernel): void {
    this._fresh = false;
    if (message.t === "did") {
      this._waiting.get(message.id)?.(message);
      this._waiting.delete(message.id);
    }
    this._onMessage.call(message);
  }

  /** Answer all open requests: there is no kernel any more to perform them. */
  private _giveUp(): void {
    const waiting = [...this._waiting];
    this._waiting.clear();
    for (const [id, resolve] of waiting) {
      resolve({ t: "did", id, ok: false, say: this._options.unreachable ?? "The kernel can't be reached." });
    }
  }
}
