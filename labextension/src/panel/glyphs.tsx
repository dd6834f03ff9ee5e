/** Small pictures: each state has a shape of its own, so that colour is never all there is to tell it by. */

import type { ComponentChildren } from "preact";

import type { TaskState } from "./contract";
import type { Standing } from "./words";

function Picture({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <svg class={`p2p-glyph p2p-glyph-${name}`} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

/** Waiting: a dashed ring; sent: a ring with an arrow; running: a turning arc; done: a tick; failed: a cross in a square. */
export function TaskGlyph({ state }: { state: TaskState }) {
  switch (state) {
    case "waiting":
      return <Picture name="waiting"><circle cx="8" cy="8" r="5.5" fill="none" stroke-dasharray="2.2 2.12" /></Picture>;
    case "sent":
      return (
        <Picture name="sent">
          <circle cx="8" cy="8" r="5.5" fill="none" />
          <path d="M5.5 8h5M8.3 5.8 10.5 8l-2.2 2.2" fill="none" />
        </Picture>
      );
    case "running":
      return (
        <Picture name="running">
          <circle class="p2p-track" cx="8" cy="8" r="5.5" fill="none" />
          <path class="p2p-turning" d="M8 2.5A5.5 5.5 0 0 1 13.5 8" fill="none" />
          <circle class="p2p-solid" cx="8" cy="8" r="2" stroke="none" />
        </Picture>
      );
    case "done":
      return <Picture name="done"><path d="m3 8.5 3.2 3.2L13 4.8" fill="none" /></Picture>;
    case "failed":
      return (
        <Picture name="failed">
          <rect x="2.5" y="2.5" width="11" height="11" rx="2" fill="none" />
          <path d="m5.7 5.7 4.6 4.6m0-4.6-4.6 4.6" fill="none" />
        </Picture>
      );
    case "cancelled":
      return (
        <Picture name="cancelled">
          <circle cx="8" cy="8" r="5.5" fill="none" />
          <path d="m4.2 11.8 7.6-7.6" fill="none" />
        </Picture>
      );
  }
}

/** Good: a filled disc; wait: half of one; bad: a triangle; off: a ring. */
export function ToneGlyph({ tone }: { tone: Standing["tone"] }) {
  switch (tone) {
    case "good":
      return <Picture name="good"><circle class="p2p-solid" cx="8" cy="8" r="4.5" stroke="none" /></Picture>;
    case "wait":
      return (
        <Picture name="wait">
          <circle cx="8" cy="8" r="4.5" fill="none" />
          <path class="p2p-solid" d="M8 3.5a4.5 4.5 0 0 1 0 9z" stroke="none" />
        </Picture>
      );
    case "bad":
      return <Picture name="bad"><path d="M8 2.8 14 13H2zM8 6.6v3M8 11.4v.1" fill="none" /></Picture>;
    case "off":
      return <Picture name="off"><circle cx="8" cy="8" r="4.5" fill="none" /></Picture>;
  }
}

export function Cross() {
  return <Picture name="cross"><path d="m4 4 8 8m0-8-8 8" fill="none" /></Picture>;
}

export function Power() {
  return <Picture name="power"><path d="M8 2v5.5M4.5 4.4a5 5 0 1 0 7 0" fill="none" /></Picture>;
}
