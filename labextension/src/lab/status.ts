/** The status bar's item: "p2p: 3 workers, 2 tasks". */

import type { TranslationBundle } from "@jupyterlab/translation";
import { Signal, type ISignal } from "@lumino/signaling";
import { Widget } from "@lumino/widgets";

import { capacity, unfinished } from "../panel/summary";
import type { ClusterView } from "./tokens";

export class ClusterStatus extends Widget {
  private readonly _button: HTMLButtonElement;
  private readonly _activeChanged = new Signal<this, void>(this);
  private _wanted = true;
  private _active = false;

  constructor(
    private readonly _watch: ClusterView,
    private readonly _trans: TranslationBundle,
    private readonly _open: () => void
  ) {
    super();
    this.addClass("p2p-status");
    this._button = document.createElement("button");
    this._button.type = "button";
    this._button.className = "p2p-status-button";
    this._button.title = _trans.__("Show the panel of the notebook's cluster");
    this.node.append(this._button);
    _watch.changed.connect(this._look, this);
    this._look();
  }

  /** Whether there is anything to tell. */
  get active(): boolean {
    return this._active;
  }

  get activeChanged(): ISignal<this, void> {
    return this._activeChanged;
  }

  /** Whether the user wants the item. */
  set wanted(wanted: boolean) {
    this._wanted = wanted;
    this._look();
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this._watch.changed.disconnect(this._look, this);
      super.dispose();
    }
  }

  protected override onAfterAttach(): void {
    this._button.addEventListener("click", this._open);
  }

  protected override onBeforeDetach(): void {
    this._button.removeEventListener("click", this._open);
  }

  private _look(): void {
    const active = this._wanted && this._watch.link.state === "open";
    const text = active ? this._text() : "";
    if (this._button.textContent !== text) {
      this._button.textContent = text;
    }
    if (active !== this._active) {
      this._active = active;
      this._activeChanged.emit();
    }
  }

  private _text(): string {
    const { store, clustered } = this._watch;
    if (!clustered) {
      return this._trans.__("p2p: not connected");
    }
    if (store.cluster.state !== "connected") {
      return this._trans.__("p2p: %1", store.cluster.words);
    }
    const { workers } = capacity(store);
    const tasks = unfinished(store);
    return this._trans.__(
      "p2p: %1, %2",
      this._trans._n("%1 worker", "%1 workers", workers, workers),
      this._trans._n("%1 task", "%1 tasks", tasks, tasks)
    );
  }
}
