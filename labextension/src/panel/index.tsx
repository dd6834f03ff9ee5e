/**
 * The panel: a view of a cluster in any element, fed by a transport.
 *
 * The widget and the sidebar use nothing but `mountPanel`. The same transport mounted again shows the same as before: tab,
 * filters, scroll position.
 */

import { render } from "preact";

import { Control } from "./control";
import { newMemory, type Memory } from "./memory";
import { keepFocus } from "./focus";
import { Panel } from "./Panel";
import type { Rest } from "./rest";
import type { Transport } from "./transport";
import { untranslated, type Translate } from "./words";

export type { Memory } from "./memory";
export { newMemory } from "./memory";
export { Rest, type More } from "./rest";
export type { Link, Transport } from "./transport";
export type { Translate } from "./words";

export interface PanelOptions {
  /** The parts that aren't needed at first: `new Rest(() => import("./more"))`, or where they come otherwise. */
  rest: Rest;
  /** "%1" in the text is the first argument. */
  translate?: Translate;
  /** Fill the element and scroll inside of it, as a sidebar does; otherwise as high as an output. */
  compact?: boolean;
  /** The accessible name; no two panels on a page have the same. */
  label?: string;
  /** Its looks from before; by default, those that the same transport was mounted with last. */
  memory?: Memory;
}

const memories = new WeakMap<Transport, Memory>();

/** Show the panel in `element`; the result takes it away again. */
export function mountPanel(element: HTMLElement, transport: Transport, options: PanelOptions): () => void {
  const t = options.translate ?? untranslated;
  const memory = options.memory ?? memories.get(transport) ?? newMemory();
  memories.set(transport, memory);
  const control = new Control(transport, memory, t);
  const stopWatching = watch(element, (visible) => control.show(visible));
  const letGo = keepFocus(element);
  render(<Panel control={control} rest={options.rest} t={t} compact={options.compact ?? false} label={options.label ?? t("p2p cluster")} />, element);
  const leaving = (): void => control.undo.close(); // the page is left: perform delayed actions now
  window.addEventListener("pagehide", leaving);
  return () => {
    window.removeEventListener("pagehide", leaving);
    stopWatching();
    letGo();
    control.close();
    render(null, element);
  };
}

/** Report whether the element is visible, as far as the browser knows. */
function watch(element: HTMLElement, tell: (visible: boolean) => void): () => void {
  let near = true;
  const say = (): void => tell(near && document.visibilityState !== "hidden");
  document.addEventListener("visibilitychange", say);
  let observer: IntersectionObserver | undefined;
  if (typeof IntersectionObserver !== "undefined") {
    observer = new IntersectionObserver((entries) => {
      near = entries[entries.length - 1]?.isIntersecting ?? true;
      say();
    }, { rootMargin: "200px" });
    observer.observe(element);
  }
  return () => {
    document.removeEventListener("visibilitychange", say);
    observer?.disconnect();
  };
}
