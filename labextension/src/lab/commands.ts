/** The commands in the palette and the menus. Each is enabled only while it works. */

import type { JupyterFrontEnd } from "@jupyterlab/application";
import { Dialog, Notification, showDialog } from "@jupyterlab/apputils";
import { type INotebookTracker, NotebookActions } from "@jupyterlab/notebook";
import type { TranslationBundle } from "@jupyterlab/translation";
import { DisposableDelegate, DisposableSet, type IDisposable } from "@lumino/disposable";
import { Throttler } from "@lumino/polling";

import type { Action, Did } from "../panel/contract";
import { complain } from "./complain";
import { p2pIcon } from "./icon";
import { CommandIDs, SIDEBAR } from "./ids";
import type { ClusterView, IKernelLinks, Work } from "./tokens";

/** Milliseconds until a kernel that has been told to load the extension must have answered. */
const LOADING = 20_000;
const FROM_PALETTE = {
  args: {
    type: "object",
    properties: { isPalette: { type: "boolean", description: "Whether it is shown in the command palette." } },
    additionalProperties: false
  }
} as const;

export interface CommandsOptions {
  app: JupyterFrontEnd;
  links: IKernelLinks;
  trans: TranslationBundle;
  notebooks: INotebookTracker | null;
  /** Whether there is a sidebar to show. */
  sidebar: boolean;
}

/** Add them all; the result takes them away again. */
export function addCommands({ app, links, trans, notebooks, sidebar }: CommandsOptions): IDisposable {
  const { commands } = app;
  const cluster = links.cluster;
  const added = new DisposableSet();

  if (sidebar) {
    added.add(
      commands.addCommand(CommandIDs.showPanel, {
        label: trans.__("Show Peer-to-Peer Cluster"),
        caption: trans.__("Show the panel of the notebook's cluster beside it"),
        icon: (args) => (args.isPalette === true ? p2pIcon : undefined),
        describedBy: FROM_PALETTE,
        execute: () => app.shell.activateById(SIDEBAR)
      })
    );
  }
  added.add(
    commands.addCommand(CommandIDs.load, {
      label: trans.__("Load p2p_ipython in the Kernel"),
      caption: trans.__("Run %load_ext p2p_ipython in the notebook's kernel"),
      describedBy: FROM_PALETTE,
      isEnabled: () => cluster.link.state === "absent",
      execute: async () => {
        await told(trans, load(cluster));
      }
    })
  );
  added.add(
    commands.addCommand(CommandIDs.connectPersonal, {
      label: trans.__("Connect a Personal Cluster"),
      caption: trans.__("Have workers on this machine run the notebook's tasks"),
      describedBy: FROM_PALETTE,
      isEnabled: () => cluster.link.state === "absent" || (!cluster.clustered && may(cluster, "connect")),
      execute: async () => {
        await told(trans, connect(cluster));
      }
    })
  );
  added.add(
    commands.addCommand(CommandIDs.disconnect, {
      label: trans.__("Disconnect From the Cluster"),
      caption: trans.__("Leave the notebook's cluster; its tasks are cancelled"),
      describedBy: FROM_PALETTE,
      isEnabled: () => may(cluster, "disconnect"),
      execute: async () => {
        const { work } = cluster;
        const tasks = cluster.store.pending.items.length;
        const sure =
          tasks === 0 ||
          (await confirmed(
            trans,
            trans.__("Disconnect from the cluster?"),
            trans._n("%1 unfinished task is cancelled.", "%1 unfinished tasks are cancelled.", tasks, tasks),
            trans.__("Disconnect")
          ));
        if (sure && work !== null) {
          await told(trans, work.link.act("disconnect", {}));
        }
      }
    })
  );
  added.add(
    commands.addCommand(CommandIDs.cancelAll, {
      label: trans.__("Cancel All Tasks…"),
      caption: trans.__("Cancel all unfinished tasks of the notebook's cluster"),
      describedBy: FROM_PALETTE,
      isEnabled: () => may(cluster, "cancel") && cluster.store.pending.items.length > 0,
      execute: async () => {
        const { work } = cluster;
        const tasks = cluster.store.pending.items.map(({ id }) => id);
        const sure = await confirmed(
          trans,
          trans.__("Cancel all tasks?"),
          trans._n("%1 task is unfinished.", "%1 tasks are unfinished.", tasks.length, tasks.length),
          trans.__("Cancel Tasks")
        );
        if (sure && work !== null) {
          await told(trans, cancel(work, tasks));
        }
      }
    })
  );
  if (notebooks !== null) {
    added.add(
      commands.addCommand(CommandIDs.runCell, {
        label: trans.__("Run Selected Cell on the Cluster"),
        caption: trans.__("Put %%%%p2p on top of the selected cell, if it isn't there, and run it"),
        describedBy: FROM_PALETTE,
        isEnabled: () =>
          cluster.clustered &&
          notebooks.currentWidget !== null &&
          notebooks.currentWidget === app.shell.currentWidget &&
          notebooks.activeCell?.model.type === "code" &&
          notebooks.activeCell.model.getMetadata("editable") !== false,
        execute: async () => {
          const notebook = notebooks.currentWidget;
          const cell = notebooks.activeCell;
          if (notebook !== null && cell !== null) {
            const source = cell.model.sharedModel.getSource();
            if (!/^\s*%%p2p(?!\S)/.test(source)) {
              cell.model.sharedModel.setSource(`%%p2p\n${source}`);
            }
            await NotebookActions.run(notebook.content, notebook.sessionContext);
          }
        }
      })
    );
  }

  const look = new Throttler(() => commands.notifyCommandChanged(), { limit: 200, edge: "trailing" });
  const changed = (): void => void look.invoke();
  cluster.changed.connect(changed);
  added.add(look);
  added.add(new DisposableDelegate(() => void cluster.changed.disconnect(changed)));
  return added;
}

function may(cluster: ClusterView, action: Action): boolean {
  return cluster.link.state === "open" && cluster.store.means.can.includes(action);
}

async function load(cluster: ClusterView): Promise<Did> {
  const { work } = cluster;
  if (work !== null) {
    await work.run("%load_ext p2p_ipython");
  }
  return { t: "did", id: 0, ok: true, say: "" };
}

async function connect(cluster: ClusterView): Promise<Did> {
  const { work } = cluster;
  if (work === null) {
    return { t: "did", id: 0, ok: false, say: "" };
  }
  if (work.link.link.state !== "open") {
    await load(cluster);
    await opened(work);
  }
  return work.link.act("connect", { target: "" });
}

/** Cancel tasks. If several can't be cancelled, return the answer for the first of them. */
async function cancel(work: Work, tasks: readonly string[]): Promise<Did> {
  const all = await Promise.all(tasks.map((task) => work.link.act("cancel", { task })));
  return all.find(({ ok }) => !ok) ?? { t: "did", id: 0, ok: true, say: "" };
}

/** Resolves when the work's kernel has answered, or when it should have. */
function opened(work: Work): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      stop();
      resolve();
    };
    const stop = work.link.listen(
      () => undefined,
      ({ state }) => {
        if (state === "open") {
          done();
        }
      }
    );
    const timer = setTimeout(done, LOADING);
    if (work.link.link.state === "open") {
      done();
    }
  });
}

/** Report the outcome of an action to a user who may not be looking at a panel. */
async function told(trans: TranslationBundle, doing: Promise<Did>): Promise<void> {
  try {
    const did = await doing;
    if (!did.ok) {
      complain(trans, did.say === "" ? trans.__("The kernel can't be reached.") : did.say);
    } else if (did.say !== "") {
      Notification.success(did.say, { autoClose: 4000 });
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    complain(trans, trans.__("The kernel could not do it: %1", reason));
  }
}

async function confirmed(trans: TranslationBundle, title: string, body: string, yes: string): Promise<boolean> {
  const result = await showDialog({
    title,
    body,
    buttons: [Dialog.cancelButton({ label: trans.__("Back") }), Dialog.warnButton({ label: yes })],
    defaultButton: 0
  });
  return result.button.accept;
}
