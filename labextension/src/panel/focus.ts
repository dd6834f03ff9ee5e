/**
 * The keyboard stays in the panel. When the focused element disappears (a form that was sent, a notice that was read,
 * details that were closed), the focus moves to the element that stands there now, or near it, not to the top of the page. A
 * button that is disabled while its action takes place has it again afterwards.
 */

/** Also a part that is still loading: it passes the focus on. */
const TARGETS = "button:not(:disabled):not([tabindex='-1']), input:not(:disabled), select, summary, [tabindex='0'], .p2p-later";

/** Watch over `root`; the result stops that. Parts that know better move the focus themselves, before this looks. */
export function keepFocus(root: HTMLElement): () => void {
  let last: Element | undefined;
  /** Where the element was: its ancestors, from the inside to the outside, and its place in each. */
  let way: Array<readonly [Element, number]> = [];
  const came = ({ target }: FocusEvent): void => {
    last = target as Element;
    way = [];
    for (let at: Element = last; at !== root && at.parentElement !== null; at = at.parentElement) {
      way.push([at.parentElement, [...at.parentElement.children].indexOf(at)]);
    }
  };
  const went = (): void => queueMicrotask(() => {
    if (last?.isConnected === true && !last.matches(":disabled") && !root.contains(document.activeElement)) {
      last = undefined; // somebody has gone elsewhere, which is none of the panel's business
    }
  });
  const look = (): void => {
    if (last === undefined || (last.isConnected && (last.matches(":disabled") || last === document.activeElement))) {
      return;
    }
    const lost = last.isConnected ? last as HTMLElement : near(way);
    last = undefined;
    if (document.activeElement === null || document.activeElement === document.body) {
      lost?.focus();
    }
  };
  const observer = new MutationObserver(look);
  root.addEventListener("focusin", came);
  root.addEventListener("focusout", went);
  observer.observe(root, { childList: true, subtree: true, attributeFilter: ["disabled"] });
  return () => {
    observer.disconnect();
    root.removeEventListener("focusin", came);
    root.removeEventListener("focusout", went);
  };
}

/** The focusable element nearest to a place: in the element that stands there now, after it, or else before it. */
function near(way: ReadonlyArray<readonly [Element, number]>): HTMLElement | undefined {
  for (const [parent, place] of way) {
    const children = parent.isConnected ? [...parent.children] : [];
    for (const child of [...children.slice(place), ...children.slice(0, place).reverse()]) {
      const found = child.matches(TARGETS) ? child : child.querySelector(TARGETS);
      if (found !== null) {
        return found as HTMLElement;
      }
    }
  }
  return undefined;
}
