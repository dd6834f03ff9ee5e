/**
 * The card under a cell whose task takes a while: one line with a state, a ticking time, and a button to cancel.
 *
 * An anywidget, a module of its own for each card. The kernel's half is p2p_ipython/notebook/card.py: it writes the
 * fields, the browser sends {t: "ready"}, {t: "shown"} and {t: "cancel"}. All text may be a stranger's: it is shown as text.
 */

import "../../style/card.css";

import { Control, Card } from "./card";
import type { Model } from "./card";

/** When to send "ready", in ms. It is repeated: a message before JupyterLab has made a subshell waits for a busy kernel. */
const READY = [0, 700, 3000];

export default (): object => {
  let control: Control | undefined;
  return {
    initialize({ model }: { model: Model }): () => void {
      const made = (control = new Control(model));
      const page = Math.random().toString(36).slice(2);
      const timers = READY.map(ms => setTimeout(() => made.send({ t: "ready", page }), ms));
      return () => {
        timers.forEach(clearTimeout);
        made.close();
      };
    },
    render({ model, el }: { model: Model; el: HTMLElement }): () => void {
      const card = new Card(model, el, (control ??= new Control(model)));
      return () => card.close();
    }
  };
};
