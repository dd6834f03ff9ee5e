/** The panel beside the notebook: always that of the notebook or console which the user works with. */

import type { TranslationBundle } from "@jupyterlab/translation";
import { Widget } from "@lumino/widgets";

import type { Link, Transport } from "../panel/transport";
import { p2pIcon } from "./icon";
import { SIDEBAR } from "./ids";
import type { IKernelLinks, Work } from "./tokens";

const CLOSED: Link = { state: "closed", busy: false };

/** Where there is no notebook. */
const NOWHERE: Transport = {
  link: CLOSED,
  listen: () => () => undefined,
  hello: () => undefined,
  act: () => Promise.resolve({ t: "did", id: 0, ok: false, say: "" })
};

export class PanelSidebar extends Widget {
  private readonly _heading: HTMLElement;
  private readonly _body: HTMLElement;
  private _work: Work | null = null;
  private _shown = false;
  private _unmount: (() => void) | undefined;

  constructor(
    private readonly _links: IKernelLinks,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.id = SIDEBAR;
    this.addClass("p2p-sidebar");
    this.title.icon = p2pIcon;
    this.title.caption = _trans.__("Peer-to-Peer Cluster");
    this.node.setAttribute("role", "region");
    this.node.setAttribute("aria-label", _trans.__("Peer-to-peer cluster"));
    this._heading = document.createElement("h2");
    this._heading.className = "p2p-sidebar-of";
    this._body = document.createElement("div");
    this._body.className = "p2p-sidebar-body";
    this.node.append(this._heading, this._body);
    _links.currentChanged.connect(this._turn, this);
    this._turn();
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._links.currentChanged.disconnect(this._turn, this);
    this._work?.title.changed.disconnect(this._name, this);
    this._hide();
    super.dispose();
  }

  protected override onAfterShow(): void {
    this._show();
  }

  protected override onAfterAttach(): void {
    if (this.isVisible) {
      this._show();
    }
  }

  protected override onBeforeHide(): void {
    this._hide();
  }

  protected override onBeforeDetach(): void {
    this._hide();
  }

  protected override onActivateRequest(): void {
    this._body.querySelector<HTMLElement>("[role=tab][tabindex='0'], button, input")?.focus();
  }

  private _turn(): void {
    this._take();
    this._work?.title.changed.disconnect(this._name, this);
    this._work = this._links.current;
    this._work?.title.changed.connect(this._name, this);
    this._name();
    if (this._shown) {
      void this._put();
    }
  }

  private _name(): void {
    const name = this._work?.title.label ?? "";
    this._heading.textContent = name === "" ? this._trans.__("No notebook") : name;
    this._heading.title = name;
  }

  private _show(): void {
    this._shown = true;
    void this._put();
  }

  private _hide(): void {
    this._shown = false;
    this._take();
  }

  private async _put(): Promise<void> {
    const { mountPanel } = await import("../panel");
    if (this._shown && !this.isDisposed && this._unmount === undefined) {
      this._unmount = mountPanel(this._body, this._work?.link ?? NOWHERE, {
        // eslint-disable-next-line jupyter/no-dynamic-translation -- the panel's texts are in src/panel
        translate: (text, ...args) => this._trans.__(text, ...args),
        compact: true
      });
    }
  }

  private _take(): void {
    this._unmount?.();
    this._unmount = undefined;
  }
}
