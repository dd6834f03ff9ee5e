/** Report a failure to a user who may not be looking at a panel. */

import { Notification, showErrorMessage } from "@jupyterlab/apputils";
import type { TranslationBundle } from "@jupyterlab/translation";

/** JupyterLab cuts longer texts. */
const LONGEST = 140;

/** A notification, with all of a text that is too long for it behind a button. */
export function complain(trans: TranslationBundle, text: string): void {
  const actions =
    text.length <= LONGEST
      ? []
      : [
          {
            label: trans.__("Read All"),
            caption: trans.__("Show the whole message"),
            callback: () => void showErrorMessage(trans.__("Peer-to-Peer Cluster"), text)
          }
        ];
  Notification.error(text, { autoClose: false, actions });
}
