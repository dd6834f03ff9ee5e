/**
 * The panel as an anywidget. Front ends load this module once for each model, so its variables belong to the model: a
 * view that is made again looks like the one before it.
 */

import { mountPanel, newMemory, Rest } from "../panel";
import { loadMore } from "./loading";
import { WidgetTransport, type Model } from "./transport";

export default () => {
  const memory = newMemory();
  let rest: Rest | undefined;
  return {
    render({ model, el }: { model: Model; el: HTMLElement }): () => void {
      const transport = new WidgetTransport(model);
      const unmount = mountPanel(el, transport, { memory, label: unused("p2p cluster in a cell"), rest: (rest ??= new Rest(() => loadMore(model))) });
      return () => {
        unmount();
        transport.close();
      };
    }
  };
};

/** A name that no other panel of the page has: "p2p cluster in a cell", or with ", 2" behind it. */
function unused(name: string): string {
  const labels = new Set([...document.querySelectorAll(".p2p-panel")].map((panel) => panel.getAttribute("aria-label")));
  let label = name;
  for (let number = 2; labels.has(label); number += 1) {
    label = `${name}, ${number}`;
  }
  return label;
}
