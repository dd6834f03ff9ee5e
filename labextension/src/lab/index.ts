/** The JupyterLab extension: small plugins, each of which can be disabled without the others. */

import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from "@jupyterlab/application";
import { ICommandPalette } from "@jupyterlab/apputils";
import { IConsoleTracker } from "@jupyterlab/console";
import { INotebookTracker, NotebookPanel } from "@jupyterlab/notebook";
import { ISettingRegistry } from "@jupyterlab/settingregistry";
import { IStatusBar } from "@jupyterlab/statusbar";
import { ITranslator, nullTranslator } from "@jupyterlab/translation";
import type { IDisposable } from "@lumino/disposable";

import { addCommands } from "./commands";
import { CommandIDs, DOMAIN, SIDEBAR, SIDEBAR_PLUGIN } from "./ids";
import { KernelLinks, type Document, type Documents } from "./links";
import { PanelSidebar } from "./sidebar";
import { ClusterStatus } from "./status";
import { IKernelLinks } from "./tokens";
import { whenConnected } from "./watch";

const link: JupyterFrontEndPlugin<IKernelLinks> = {
  id: "@p2p-ipython/labextension:link",
  description: "Links panels with the kernel of the current notebook or console.",
  autoStart: true,
  provides: IKernelLinks,
  optional: [INotebookTracker, IConsoleTracker, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker | null,
    consoles: IConsoleTracker | null,
    translator: ITranslator | null
  ): IKernelLinks => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    const documents = [notebooks, consoles].filter((tracker) => tracker !== null) as readonly Documents[];
    return new KernelLinks(app.shell, documents, {
      unreachable: trans.__("The kernel can't be reached."),
      revealer: (document) => (document instanceof NotebookPanel ? revealer(app.shell, document) : undefined)
    });
  }
};

const sidebar: JupyterFrontEndPlugin<void> = {
  id: SIDEBAR_PLUGIN,
  description: "A sidebar with the cluster of the current notebook.",
  autoStart: true,
  requires: [IKernelLinks],
  optional: [ILayoutRestorer, ISettingRegistry, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    links: IKernelLinks,
    restorer: ILayoutRestorer | null,
    registry: ISettingRegistry | null,
    translator: ITranslator | null
  ): void => {
    const widget = new PanelSidebar(links, (translator ?? nullTranslator).load(DOMAIN));
    app.shell.add(widget, "right", { rank: 950, type: "Peer-to-Peer Cluster" });
    restorer?.add(widget, SIDEBAR);
    let opening: IDisposable | undefined;
    void follow(registry, "openPanel", (openPanel) => {
      opening?.dispose();
      opening =
        openPanel === "connected"
          ? whenConnected(links.cluster, () => widget.showQuietly(() => app.shell.activateById(SIDEBAR)))
          : undefined;
    });
  }
};

const status: JupyterFrontEndPlugin<void> = {
  id: "@p2p-ipython/labextension:status",
  description: "The number of workers and tasks of the current notebook's cluster, in the status bar.",
  autoStart: true,
  requires: [IKernelLinks],
  optional: [IStatusBar, ISettingRegistry, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    links: IKernelLinks,
    statusBar: IStatusBar | null,
    registry: ISettingRegistry | null,
    translator: ITranslator | null
  ): void => {
    if (statusBar === null) {
      return; // Notebook 7 has none
    }
    const open = (): void => app.shell.activateById(SIDEBAR);
    const item = new ClusterStatus(links.cluster, (translator ?? nullTranslator).load(DOMAIN), open);
    statusBar.registerStatusItem(status.id, {
      item,
      align: "left",
      rank: 3,
      isActive: () => item.active,
      activeStateChanged: item.activeChanged
    });
    void follow(registry, "statusItem", (wanted) => {
      item.wanted = wanted !== false;
    });
  }
};

const commands: JupyterFrontEndPlugin<void> = {
  id: "@p2p-ipython/labextension:commands",
  description: "Commands for the current notebook's cluster.",
  autoStart: true,
  requires: [IKernelLinks],
  optional: [INotebookTracker, ICommandPalette, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    links: IKernelLinks,
    notebooks: INotebookTracker | null,
    palette: ICommandPalette | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    addCommands({ app, links, trans, notebooks, sidebar: app.hasPlugin(SIDEBAR_PLUGIN) });
    const category = trans.__("Peer-to-Peer Cluster");
    for (const command of Object.values(CommandIDs)) {
      if (app.commands.hasCommand(command)) {
        palette?.addItem({ command, category, args: { isPalette: true } });
      }
    }
  }
};

/** Call `use` with a setting's value, now and when it changes. */
async function follow(
  registry: ISettingRegistry | null,
  name: string,
  use: (value: unknown) => void
): Promise<void> {
  const settings = await registry?.load(SIDEBAR_PLUGIN).catch(() => undefined);
  if (settings !== undefined) {
    const look = (): void => use(settings.composite[name]);
    settings.changed.connect(look);
    look();
  }
}

/** Show the cell that a task came from. The kernel knows it by the front end's id. */
function revealer(shell: JupyterFrontEnd.IShell, document: Document & NotebookPanel): (cell: string) => void {
  return (id) => {
    const notebook = document.content;
    const index = notebook.widgets.findIndex((cell) => cell.model.id === id);
    if (index >= 0) {
      shell.activateById(document.id);
      notebook.activeCellIndex = index;
      notebook.deselectAll();
      void notebook.scrollToItem(index, "center");
    }
  };
}

export { IKernelLinks } from "./tokens";

export default [link, sidebar, status, commands];
