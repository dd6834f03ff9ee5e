/** Tabs as the ARIA pattern has them: arrows choose, the panel follows. */

import type { ComponentChildren, TargetedKeyboardEvent } from "preact";
import { useRef } from "preact/hooks";

import { useOwnId } from "./environment";

export interface Tab<N extends string> {
  name: N;
  title: string;
  /** A figure that belongs to it. */
  count?: number | undefined;
  /** The number of failures among them, and the word for that. */
  alarm?: number;
  alarmWord?: string;
}

export function Tabs<N extends string>({ label, tabs, chosen, onChoose, children }: {
  label: string;
  tabs: ReadonlyArray<Tab<N>>;
  chosen: N;
  onChoose: (name: N) => void;
  children: ComponentChildren;
}) {
  const id = useOwnId();
  const list = useRef<HTMLDivElement>(null);
  const onKeyDown = (event: TargetedKeyboardEvent<HTMLDivElement>): void => {
    const at = tabs.findIndex((tab) => tab.name === chosen);
    const next = {
      ArrowRight: (at + 1) % tabs.length, ArrowLeft: (at + tabs.length - 1) % tabs.length, Home: 0, End: tabs.length - 1
    }[event.key];
    const tab = next === undefined ? undefined : tabs[next];
    if (tab !== undefined && next !== undefined) {
      event.preventDefault();
      event.stopPropagation();
      onChoose(tab.name);
      list.current?.querySelectorAll<HTMLElement>("[role=tab]")[next]?.focus();
    }
  };
  return (
    <>
      <div class="p2p-tabs" role="tablist" aria-label={label} ref={list} onKeyDown={onKeyDown}>
        {tabs.map((tab) => (
          <button
            key={tab.name}
            type="button"
            role="tab"
            id={`${id}-${tab.name}`}
            aria-selected={tab.name === chosen}
            aria-controls={tab.name === chosen ? `${id}-panel` : undefined}
            tabIndex={tab.name === chosen ? 0 : -1}
            data-tab={tab.name}
            onClick={() => onChoose(tab.name)}
          >
            <span class="p2p-tab-title">{tab.title}</span>
            {tab.count === undefined ? null : (
              <>
                {" "}
                <span class="p2p-count">
                  {tab.count}
                  {(tab.alarm ?? 0) > 0 ? (
                    <span class="p2p-alarm"><span aria-hidden="true">✕</span>{tab.alarm}<span class="p2p-unseen"> {tab.alarmWord}</span></span>
                  ) : null}
                </span>
              </>
            )}
          </button>
        ))}
      </div>
      <div class="p2p-tabpanel" role="tabpanel" id={`${id}-panel`} aria-labelledby={`${id}-${chosen}`}>
        {children}
      </div>
    </>
  );
}
