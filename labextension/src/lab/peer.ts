/**
 * One kernel connection, as far as a panel is concerned: whether the extension is loaded in the kernel, and a comm
 * with it while somebody listens.
 *
 * A kernel that has the extension loaded keeps a comm of HERE_TARGET open, which carries nothing. Whether there is one
 * is asked for, because opening a comm with a target that a kernel doesn't know prints an error there; and a kernel
 * that loads the extension later opens it then. So each connection has to know that target, also while nobody listens:
 * JupyterLab closes a comm that has none.
 */

import { type Kernel, KernelMessage } from "@jupyterlab/services";
import { UUID, type JSONObject } from "@lumino/coreutils";
import type { IDisposable } from "@lumino/disposable";

import { HERE_TARGET, PANEL_TARGET, VERSION, type FromKernel, type ToKernel } from "../panel/contract";
import type { Link } from "../panel/transport";

/** Milliseconds. */
export interface Patience {
  /** For the subshell of a comm: after that, its messages share the kernel's main shell with the cells. */
  subshell: number;
  /** For the main shell's answer: after that, a subshell is asked. */
  answer: number;
  /** A kernel that computes for less isn't busy: each message makes it so for a moment. */
  busy: number;
  /** For the first word of a kernel. */
  silent: number;
}

export const PATIENCE: Readonly<Patience> = { subshell: 2000, answer: 1000, busy: 500, silent: 2000 };

/** The owner of a peer, which the peer notifies. */
export interface Ears {
  linked(link: Link): void;
  told(message: FromKernel): void;
}

const RESTARTING: ReadonlySet<Kernel.Status> = new Set<Kernel.Status>(["restarting", "autorestarting"]);
const ALIVE: ReadonlySet<Kernel.Status> = new Set<Kernel.Status>(["idle", "busy"]);

export class KernelPeer implements IDisposable {
  private readonly _forget: () => void;
  private _link: Link;
  private _listening = false;
  private _isDisposed = false;
  /** Of finding and opening; a newer one makes the older give up. */
  private _attempts = 0;
  private _comm: Kernel.IComm | null = null;
  private _opened = false;
  private _restarting = false;
  private _disconnected = false;
  private _busyTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly kernel: Kernel.IKernelConnection,
    private readonly _ears: Ears,
    private readonly _patience: Readonly<Patience> = PATIENCE
  ) {
    this._link = { state: kernel.status === "dead" ? "closed" : "opening", busy: false };
    this._forget = onAnnounced(kernel, () => this._announced());
    kernel.statusChanged.connect(this._onStatus, this);
    kernel.connectionStatusChanged.connect(this._onConnection, this);
    kernel.disposed.connect(this.dispose, this);
    this._watchBusy();
  }

  get link(): Link {
    return this._link;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  /** Find the extension, and talk with it as soon as it is there. */
  listen(): void {
    if (!this._listening && !this._isDisposed) {
      this._listening = true;
      this._find();
    }
  }

  /** Close the comm: a kernel that nobody listens to has nothing to do. */
  rest(): void {
    if (this._listening) {
      this._listening = false;
      this._attempts += 1;
      this._hangUp();
      if (this._link.state === "open" || this._link.state === "absent") {
        this._set("opening");
      }
    }
  }

  /** False when there is nobody to say it to. */
  say(message: ToKernel): boolean {
    if (!this._opened || this._comm === null || this._comm.isDisposed || this.kernel.isDisposed) {
      return false;
    }
    this._comm.send(message as unknown as JSONObject);
    return true;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this._attempts += 1;
    clearTimeout(this._busyTimer);
    this.kernel.statusChanged.disconnect(this._onStatus, this);
    this.kernel.connectionStatusChanged.disconnect(this._onConnection, this);
    this.kernel.disposed.disconnect(this.dispose, this);
    this._forget();
    this._hangUp();
    this._link = { state: "closed", busy: false };
    this._ears.linked(this._link);
  }

  private _announced(): void {
    if (this._listening && this._link.state !== "open") {
      void this._attempt((still) => this._open(still));
    }
  }

  private _find(): void {
    void this._attempt(async (still) => {
      await this.kernel.info;
      if (!still()) {
        return;
      }
      if (await this._isLoaded()) {
        if (still()) {
          await this._open(still);
        }
      } else if (still()) {
        this._set("absent");
      }
    });
  }

  /** Begin anew. After a failure the peer waits for the next change of the kernel's status. */
  private async _attempt(work: (still: () => boolean) => Promise<void>): Promise<void> {
    this._hangUp();
    this._attempts += 1;
    const mine = this._attempts;
    this._set("opening");
    try {
      await work(() => mine === this._attempts);
    } catch {
      if (mine === this._attempts) {
        this._hangUp();
      }
    }
  }

  private async _isLoaded(): Promise<boolean> {
    const asked = this.kernel.requestCommInfo({ target_name: HERE_TARGET });
    const late = Symbol("late");
    const first = await Promise.race([asked, after(this._patience.answer, late)]);
    if (first !== late) {
      return listsSome(first);
    }
    // The main shell computes. A subshell can tell, if the kernel has them.
    return Promise.race([asked.then(listsSome), this._subshellLists()]);
  }

  /** Never answers if there are no subshells. */
  private _subshellLists(): Promise<boolean> {
    const never = new Promise<boolean>(() => undefined);
    return this.kernel.supportsSubshells ? this._askSubshell().catch(() => never) : never;
  }

  private async _askSubshell(): Promise<boolean> {
    const made = await this.kernel.requestCreateSubshell({}).done;
    const content = made.content as { subshell_id?: string };
    const subshellId = content.subshell_id ?? null;
    const request = KernelMessage.createMessage<KernelMessage.ICommInfoRequestMsg>({
      msgType: "comm_info_request",
      channel: "shell",
      username: this.kernel.username,
      session: this.kernel.clientId,
      msgId: UUID.uuid4(),
      subshellId,
      content: { target_name: HERE_TARGET }
    });
    const reply = await this.kernel.sendShellMessage(request, true).done;
    if (subshellId !== null) {
      this.kernel.requestDeleteSubshell({ subshell_id: subshellId });
    }
    return listsSome(reply as KernelMessage.ICommInfoReplyMsg);
  }

  private async _open(still: () => boolean): Promise<void> {
    const comm = this.kernel.createComm(PANEL_TARGET);
    this._comm = comm;
    comm.onMsg = (message) => this._take(comm, message.content.data as unknown as FromKernel);
    comm.onClose = () => {
      if (this._comm === comm) {
        this._hangUp();
        this._set("absent");
      }
    };
    await this._subshell(comm);
    if (still()) {
      comm.open();
      this._opened = true;
      this.say({ t: "hello", v: VERSION, view: "sidebar" });
    }
  }

  /** A comm's messages go by a subshell, so that clicks count while a cell runs, if the comm has one when it opens. */
  private async _subshell(comm: Kernel.IComm): Promise<void> {
    const started = (comm as { subshellStarted?: Promise<void> }).subshellStarted;
    if (this.kernel.supportsSubshells && String(comm.commsOverSubshells) !== "disabled" && started !== undefined) {
      await Promise.race([started.catch(() => undefined), after(this._patience.subshell, undefined)]);
    }
  }

  private _take(comm: Kernel.IComm, message: FromKernel): void {
    if (comm === this._comm) {
      this._set("open");
      this._ears.told(message);
    }
  }

  private _hangUp(): void {
    const comm = this._comm;
    const opened = this._opened;
    this._comm = null;
    this._opened = false;
    if (comm === null || comm.isDisposed) {
      return;
    }
    comm.onClose = () => undefined;
    comm.onMsg = () => undefined;
    if (opened && !this.kernel.isDisposed && this.kernel.status !== "dead" && !this._restarting) {
      void this._close(comm);
    } else {
      comm.dispose();
    }
  }

  /**
   * Close a comm in the kernel, and here once that has heard of it. By itself a comm ends its subshell in the same breath,
   * with whatever the kernel hasn't read there yet: the comm would stay open in it, and be told everything.
   */
  private async _close(comm: Kernel.IComm): Promise<void> {
    const message = KernelMessage.createMessage<KernelMessage.ICommCloseMsg<"shell">>({
      msgType: "comm_close",
      channel: "shell",
      username: this.kernel.username,
      session: this.kernel.clientId,
      msgId: UUID.uuid4(),
      subshellId: (comm as { subshellId?: string | null }).subshellId ?? null,
      content: { comm_id: comm.commId, data: {} }
    });
    try {
      await Promise.race([this.kernel.sendShellMessage(message, false, true).done, after(this._patience.subshell, undefined)]);
    } catch {
      // the kernel, or the way to it, has ended meanwhile
    }
    comm.dispose();
  }

  private _onStatus(_: Kernel.IKernelConnection, status: Kernel.Status): void {
    this._watchBusy();
    if (RESTARTING.has(status)) {
      this._restarting = true;
      this._attempts += 1;
      this._hangUp();
      this._set("opening");
    } else if (status === "dead") {
      this._attempts += 1;
      this._hangUp();
      this._set("closed");
    } else if (this._restarting && ALIVE.has(status)) {
      this._restarting = false;
      this._findIfWanted();
    }
  }

  private _onConnection(_: Kernel.IKernelConnection, status: Kernel.ConnectionStatus): void {
    if (status !== "connected") {
      this._disconnected = true;
      if (this._link.state === "open") {
        this._set("opening");
      }
    } else if (this._disconnected) {
      this._disconnected = false; // messages in between have been missed, if it is the same kernel at all
      if (!this._restarting) {
        this._findIfWanted();
      }
    }
  }

  private _findIfWanted(): void {
    if (this._listening) {
      this._find();
    }
  }

  /** A kernel that has said nothing to a connection computes since before that was made, as after a page's reload. */
  private _watchBusy(): void {
    const { status } = this.kernel;
    clearTimeout(this._busyTimer);
    if (status !== "busy" && status !== "unknown") {
      this._set(this._link.state, false);
    } else if (!this._link.busy) {
      const patience = status === "busy" ? this._patience.busy : this._patience.silent;
      this._busyTimer = setTimeout(() => this._set(this._link.state, true), patience);
    }
  }

  private _set(state: Link["state"], busy = this._link.busy): void {
    if (!this._isDisposed && (state !== this._link.state || busy !== this._link.busy)) {
      this._link = { state, busy };
      this._ears.linked(this._link);
    }
  }
}

/** Listeners for the loading of the extension: a connection has only one callback for a target. */
const announced = new WeakMap<Kernel.IKernelConnection, { tell: Set<() => void>; target: () => void }>();

/** Call `tell` whenever the kernel makes itself known; the result stops that. */
function onAnnounced(kernel: Kernel.IKernelConnection, tell: () => void): () => void {
  let entry = announced.get(kernel);
  if (entry === undefined) {
    const all = new Set<() => void>();
    const target = (): void => {
      for (const one of [...all]) {
        one();
      }
    };
    entry = { tell: all, target };
    announced.set(kernel, entry);
    kernel.registerCommTarget(HERE_TARGET, target);
  }
  const { tell: all, target } = entry;
  all.add(tell);
  return () => {
    if (all.delete(tell) && all.size === 0) {
      announced.delete(kernel);
      kernel.removeCommTarget(HERE_TARGET, target);
    }
  };
}

function listsSome(reply: KernelMessage.ICommInfoReplyMsg): boolean {
  return reply.content.status === "ok" && Object.keys(reply.content.comms).length > 0;
}

function after<T>(milliseconds: number, value: T): Promise<T> {
  return new Promise((resolve) => setTimeout(() => resolve(value), milliseconds));
}
