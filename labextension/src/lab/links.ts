/** Links for all notebooks and consoles that are open, and which of them is the current one. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import type { ISessionContext } from "@jupyterlab/apputils";
import type { Kernel } from "@jupyterlab/services";
import type { IDisposable } from "@lumino/disposable";
import { Signal, type ISignal } from "@lumino/signaling";
import type { Widget } from "@lumino/widgets";

import { KernelLink } from "./link";
import type { ClusterView, IKernelLinks, Work } from "./tokens";
import { ClusterWatch } from "./watch";

/** A notebook or a console. */
export interface Document extends Widget {
  readonly sessionContext: ISessionContext;
}

/** The part of a tracker of notebooks or consoles that is used here. */
export interface Documents {
  readonly currentWidget: Document | null;
  readonly widgetAdded: ISignal<unknown, Document>;
  forEach(visit: (document: Document) => void): void;
  has(widget: Widget): boolean;
}

export interface LinksOptions {
  unreachable: string;
  /** How to show a cell, in documents that have such. */
  revealer(document: Document): ((cell: string) => void) | undefined;
}

interface Tracked extends Work {
  readonly document: Document;
  readonly link: KernelLink;
}

export class KernelLinks implements IKernelLinks, IDisposable {
  private readonly _works = new Map<Widget, Tracked>();
  private readonly _currentChanged = new Signal<this, Work | null>(this);
  private _current: Tracked | null = null;
  private _watch: ClusterWatch | undefined;
  private _isDisposed = false;

  constructor(
    private readonly _shell: JupyterFrontEnd.IShell,
    private readonly _documents: readonly Documents[],
    private readonly _options: LinksOptions
  ) {
    for (const documents of _documents) {
      documents.forEach((document) => this._add(documents, document));
      documents.widgetAdded.connect(this._add, this);
    }
    _shell.currentChanged?.connect(this._look, this);
    this._look();
  }

  get current(): Work | null {
    return this._current;
  }

  get currentChanged(): ISignal<this, Work | null> {
    return this._currentChanged;
  }

  get cluster(): ClusterView {
    this._watch ??= new ClusterWatch(this);
    return this._watch;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this._watch?.dispose();
    for (const documents of this._documents) {
      documents.widgetAdded.disconnect(this._add, this);
    }
    this._shell.currentChanged?.disconnect(this._look, this);
    for (const { document, link } of this._works.values()) {
      document.sessionContext.kernelChanged.disconnect(this._shared, this);
      document.disposed.disconnect(this._remove, this);
      link.dispose();
    }
    this._works.clear();
    Signal.clearData(this);
  }

  private _add(_: unknown, document: Document): void {
    if (this._works.has(document)) {
      return;
    }
    const context = document.sessionContext;
    const link = new KernelLink(context, {
      reveal: this._options.revealer(document),
      handling: (kernel) => this._handling(kernel),
      unreachable: this._options.unreachable
    });
    this._works.set(document, { document, link, title: document.title, run: (code) => run(context, code) });
    context.kernelChanged.connect(this._shared, this);
    document.disposed.connect(this._remove, this);
    this._look();
  }

  private _remove(document: Widget): void {
    document.disposed.disconnect(this._remove, this);
    const work = this._works.get(document);
    work?.document.sessionContext.kernelChanged.disconnect(this._shared, this);
    work?.link.dispose();
    this._works.delete(document);
    this._look();
  }

  /** Stay with a document while the user is in one that has no kernel, such as the launcher, until it is closed. */
  private _look(): void {
    const shown = this._shell.currentWidget;
    const kept = this._current !== null && this._works.has(this._current.document) ? this._current : null;
    let next = (shown === null ? undefined : this._works.get(shown)) ?? kept;
    for (const { currentWidget } of this._documents) {
      next ??= (currentWidget === null ? undefined : this._works.get(currentWidget)) ?? null;
    }
    if (next !== this._current) {
      this._current = next;
      this._currentChanged.emit(next);
    }
  }

  /** Update all links: a change of one document may concern another one with the same kernel. */
  private _shared(): void {
    for (const { link } of this._works.values()) {
      link.follow();
    }
  }

  /** Of a kernel that several documents share, only one connection handles comms. */
  private _handling(kernel: Kernel.IKernelConnection): Kernel.IKernelConnection {
    if (kernel.handleComms) {
      return kernel;
    }
    for (const { document } of this._works.values()) {
      const other = document.sessionContext.session?.kernel;
      if (other?.id === kernel.id && other.handleComms && !other.isDisposed) {
        return other;
      }
    }
    return kernel;
  }
}

async function run(context: ISessionContext, code: string): Promise<void> {
  const kernel = context.session?.kernel;
  if (kernel === null || kernel === undefined) {
    throw new Error("there is no kernel");
  }
  const reply = await kernel.requestExecute({ code, store_history: false, allow_stdin: false }).done;
  if (reply.content.status === "error") {
    throw new Error(reply.content.evalue);
  }
}
