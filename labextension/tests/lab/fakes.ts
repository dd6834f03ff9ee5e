/** Kernels and sessions, as far as links need them. */

import type { Kernel, KernelMessage } from "@jupyterlab/services";
import { Signal } from "@lumino/signaling";

import { HERE_TARGET, type FromKernel, type ToKernel } from "../../src/panel/contract";
import type { Session } from "../../src/lab/link";

export class FakeComm {
  isDisposed = false;
  opened = false;
  closed = false;
  sent: ToKernel[] = [];
  onMsg: (message: unknown) => void = () => {};
  onClose: (message: unknown) => void = () => {};
  readonly subshellStarted: Promise<void>;
  haveSubshell: () => void = () => {};

  constructor(
    readonly targetName: string,
    readonly kernel: FakeKernel,
    readonly commId = "comm"
  ) {
    this.subshellStarted = new Promise((resolve) => {
      this.haveSubshell = resolve;
    });
  }

  open(): void {
    this.opened = true;
  }

  send(message: ToKernel): void {
    this.sent.push(message);
  }

  dispose(): void {
    this.isDisposed = true;
  }

  /** What the kernel says. */
  tell(message: FromKernel): void {
    this.onMsg({ content: { data: message } });
  }

  /** The kernel closes it. */
  end(): void {
    this.onClose({});
    this.dispose();
  }
}

export class FakeKernel {
  isDisposed = false;
  handleComms = true;
  supportsSubshells = false;
  username = "";
  clientId = "client";
  status: Kernel.Status = "idle";
  connectionStatus: Kernel.ConnectionStatus = "connected";
  readonly info = Promise.resolve({});
  readonly statusChanged = new Signal<this, Kernel.Status>(this);
  readonly connectionStatusChanged = new Signal<this, Kernel.ConnectionStatus>(this);
  readonly disposed = new Signal<this, void>(this);
  readonly targets = new Map<string, (comm: unknown, message: unknown) => unknown>();
  readonly comms: FakeComm[] = [];
  /** Whether the extension is loaded. */
  loaded = false;
  /** Whether the main shell answers at all. */
  answers = true;
  subshells = 0;
  /** Be done with the message that closes a comm. */
  hear: () => void = () => {};

  constructor(readonly id = "kernel") {}

  get comm(): FakeComm {
    const comm = this.comms.at(-1);
    if (comm === undefined) {
      throw new Error("no comm has been made");
    }
    return comm;
  }

  registerCommTarget(name: string, callback: (comm: unknown, message: unknown) => unknown): void {
    this.targets.set(name, callback);
  }

  removeCommTarget(name: string, callback: unknown): void {
    if (this.targets.get(name) === callback) {
      this.targets.delete(name);
    }
  }

  createComm(target: string): FakeComm {
    const comm = new FakeComm(target, this, `comm ${this.comms.length}`);
    this.comms.push(comm);
    return comm;
  }

  requestCommInfo(): Promise<unknown> {
    return this.answers ? Promise.resolve(this.list()) : new Promise(() => {});
  }

  requestCreateSubshell(): { done: Promise<unknown> } {
    this.subshells += 1;
    return { done: Promise.resolve({ content: { subshell_id: "subshell" } }) };
  }

  requestDeleteSubshell(): void {
    this.subshells -= 1;
  }

  sendShellMessage(message: KernelMessage.IMessage): { done: Promise<unknown> } {
    const { comm_id } = message.content as { comm_id?: string };
    if (comm_id !== undefined) {
      const comm = this.comms.find(({ commId }) => commId === comm_id)!;
      comm.closed = !comm.isDisposed;
      return { done: new Promise<void>((resolve) => (this.hear = resolve)) };
    }
    const known = (message.header as unknown as { subshell_id?: string }).subshell_id === "subshell";
    return { done: known ? Promise.resolve(this.list()) : new Promise(() => {}) };
  }

  /** The user loads the extension: it makes itself known. */
  load(): void {
    this.loaded = true;
    this.targets.get(HERE_TARGET)?.({}, {});
  }

  turn(status: Kernel.Status): void {
    this.status = status;
    this.statusChanged.emit(status);
  }

  connect(status: Kernel.ConnectionStatus): void {
    this.connectionStatus = status;
    this.connectionStatusChanged.emit(status);
  }

  /** As JupyterLab's: its comms are gone without a word. */
  restart(): void {
    this.turn("restarting");
    for (const comm of this.comms) {
      comm.dispose();
    }
    this.loaded = false;
  }

  dispose(): void {
    this.isDisposed = true;
    this.status = "dead";
    this.disposed.emit();
  }

  private list(): unknown {
    return { content: { status: "ok", comms: this.loaded ? { here: { target_name: HERE_TARGET } } : {} } };
  }
}

export class FakeSession {
  session: { kernel: FakeKernel | null } | null = null;
  readonly kernelChanged = new Signal<this, unknown>(this);
  readonly disposed = new Signal<this, void>(this);

  constructor(kernel: FakeKernel | null = null) {
    this.session = kernel === null ? null : { kernel };
  }

  /** As links see it. */
  get it(): Session {
    return this as unknown as Session;
  }

  change(kernel: FakeKernel | null): void {
    this.session = kernel === null ? null : { kernel };
    this.kernelChanged.emit({});
  }
}

export const SNAPSHOT: FromKernel = { t: "snapshot", v: 1, rev: 1, now: 1000 };
