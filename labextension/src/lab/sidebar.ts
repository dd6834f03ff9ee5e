/** The panel beside the notebook: always that of the notebook or console which the user works with. */

import type { TranslationBundle } from "@jupyterlab/translation";
import { Widget } from "@lumino/widgets";

import type { Rest } from "../panel";
import type { Link } from "../panel/transport";
import { complain } from "./complain";
import { p2pIcon } from "./icon";
import { SIDEBAR } from "./ids";
import type { IKernelLinks, Work } from "./tokens";

export class PanelSidebar extends Widget {
  private readonly _heading: HTMLElement;
  private readonly _load: HTMLButtonElement;
  private readonly _why: HTMLElement;
  private readonly _body: HTMLElement;
  private _work: Work | null = null;
  private _shown = false;
  private readonly _loading = new Set<Work>();
  private _rest: Rest | undefined;
  private _unmount: (() => void) | undefined;
  private _quiet = false;
  private _wantsFocus = false;

  constructor(
    private readonly _links: IKernelLinks,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.id = SIDEBAR;
    this.addClass("p2p-sidebar");
    this.title.icon = p2pIcon;
    this.title.caption = _trans.__("Peer-to-Peer Cluster");
    this.node.tabIndex = -1;
    this.node.setAttribute("role", "region");
    this.node.setAttribute("aria-label", _trans.__("Peer-to-peer cluster"));
    this._heading = document.createElement("h2");
    this._heading.className = "p2p-sidebar-of";
    this._body = document.createElement("div");
    this._body.className = "p2p-sidebar-body";
    this._load = document.createElement("button");
    this._load.type = "button";
    this._load.className = "p2p-sidebar-load jp-Button jp-mod-styled jp-mod-accept";
    this._load.textContent = _trans.__("Load It in This Kernel");
    this._load.hidden = true;
    this._load.addEventListener("click", () => void this._loadIt());
    this._why = document.createElement("p");
    this._why.className = "p2p-sidebar-why";
    this._why.textContent = _trans.__(
      "With it, a cell that begins with %1 runs on another machine while you go on. Who is there and what runs is shown here.", "%%p2p"
    );
    this._why.hidden = true;
    this.node.append(this._heading, this._body, this._load, this._why);
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

  /** The next activation is the panel's own: the keyboard stays where the user types. */
  showQuietly(show: () => void): void {
    this._quiet = true;
    show();
  }

  protected override onActivateRequest(): void {
    this._wantsFocus = !this._quiet;
    this._quiet = false;
    if (this._unmount !== undefined) {
      this._focus();
    }
  }

  /** Take the keyboard, if that is wanted: to the tab that is chosen, rather than to a button that does something. */
  private _focus(): void {
    if (this._wantsFocus) {
      this._wantsFocus = false;
      (this._body.querySelector<HTMLElement>("[role=tab][tabindex='0']") ?? this.node).focus();
    }
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
    this._body.querySelector(".p2p-panel")?.setAttribute("aria-label", this._label());
  }

  private _label(): string {
    return this._trans.__("p2p cluster of %1", this._work?.title.label ?? "");
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
    const panel = await import("../panel").catch(() => undefined);
    if (this._shown && !this.isDisposed && this._unmount === undefined) {
      if (panel === undefined) {
        this._body.textContent = this._trans.__("The panel can't be loaded from the server. Reload the page to try again.");
        this._focus();
        return;
      }
      if (this._work === null) {
        this._load.hidden = this._why.hidden = true;
        const open = document.createElement("p");
        open.className = "p2p-sidebar-why";
        open.textContent = this._trans.__("Open a notebook or a console to see its cluster here.");
        this._body.replaceChildren(open);
        this._unmount = () => open.remove();
        this._focus();
        return;
      }
      const { mountPanel, Rest } = panel;
      const { link } = this._work;
      const look = ({ state }: Link): void => {
        this._load.hidden = this._why.hidden = state !== "absent";
        this._enable();
      };
      const stop = link.listen(() => undefined, look);
      look(link.link);
      const unmount = mountPanel(this._body, link, {
        rest: (this._rest ??= new Rest(() => import("../panel/more"))),
        // In a text for translation "%%" stands for "%"; the panel's texts have a plain "%".
        // eslint-disable-next-line jupyter/no-dynamic-translation -- they are in src/panel
        translate: (text, ...args) => this._trans.__(text.replaceAll("%%", "%%%%"), ...args),
        compact: true,
        label: this._label()
      });
      this._unmount = () => {
        stop();
        unmount();
      };
      this._focus();
    }
  }

  private _take(): void {
    this._unmount?.();
    this._unmount = undefined;
  }

  private async _loadIt(): Promise<void> {
    const work = this._work;
    if (work === null) {
      return;
    }
    this._loading.add(work);
    this._enable();
    try {
      await work.run("%load_ext p2p_ipython");
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      complain(this._trans, this._trans.__("The kernel has not loaded p2p_ipython: %1", reason));
    } finally {
      this._loading.delete(work);
      this._enable();
    }
  }

  private _enable(): void {
    this._load.disabled = this._work !== null && this._loading.has(this._work);
  }
}
