/** The frame of a row's details, for tasks, members and offers alike. */

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

import { useEnvironment } from "./environment";
import { Glyph } from "./glyphs";
import { Button, onEscape } from "./parts";

/** Names and values, in two columns. */
export function Facts({ facts }: { facts: ReadonlyArray<readonly [string, ComponentChildren]> }) {
  return (
    <dl class="p2p-facts">
      {facts.filter(([, value]) => Boolean(value)).map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** The details of one row, under its list. They take the focus, which returns to the row when they are closed. */
export function Details({ title, onClose, children, actions }: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  actions?: ComponentChildren;
}) {
  const { t } = useEnvironment();
  const element = useRef<HTMLElement>(null);
  useLayoutEffect(() => element.current?.focus({ preventScroll: true }), [title]);
  return (
    <section
      class="p2p-details"
      aria-label={title}
      tabIndex={-1}
      ref={element}
      onKeyDown={onEscape(onClose)}
    >
      <header>
        <h3>{title}</h3>
        <span class="p2p-actions">
          {actions}
          <Button kind="quiet" name={t("Close details of %1", title)} onClick={onClose}><Glyph name="down" /></Button>
        </span>
      </header>
      {children}
    </section>
  );
}
