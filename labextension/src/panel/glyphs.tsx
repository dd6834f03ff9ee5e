/** Small pictures: each state has a shape of its own, so that colour is never all there is to tell it by. */

import type { TaskState } from "./contract";
import type { Standing } from "./words";

/** Rings of radius 5.5 and 4.5 around the middle. */
const RING = "M8 2.5a5.5 5.5 0 1 0 .01 0z";
const SMALL = "M8 3.5a4.5 4.5 0 1 0 .01 0z";

/** Lines, and areas that are filled. */
const PICTURES = {
  waiting: [RING],
  sent: [`${RING}M5.5 8h5M8.3 5.8 10.5 8l-2.2 2.2`],
  running: [RING, "M8 6a2 2 0 1 0 .01 0z"],
  stopping: [RING, "M6 6h4v4H6z"],
  done: ["m3 8.5 3.2 3.2L13 4.8"],
  failed: ["M4.5 2.5h7a2 2 0 0 1 2 2v7a2 2 0 0 1-2 2h-7a2 2 0 0 1-2-2v-7a2 2 0 0 1 2-2zM5.7 5.7l4.6 4.6m0-4.6-4.6 4.6"],
  cancelled: [`${RING}M4.2 11.8l7.6-7.6`],
  good: ["", SMALL],
  wait: [SMALL, "M8 3.5a4.5 4.5 0 0 1 0 9z"],
  bad: ["M8 2.8 14 13H2zM8 6.6v3M8 11.4v.1"],
  off: [SMALL],
  cross: ["m4 4 8 8m0-8-8 8"],
  down: ["m3.5 6 4.5 4.5L12.5 6"],
  power: ["M8 2v5.5M4.5 4.4a5 5 0 1 0 7 0"]
};

/** A task's state, how the cluster is, or what a button does. */
export function Glyph({ name }: { name: TaskState | Standing["tone"] | "cross" | "down" | "power" }) {
  const [lines, area] = (PICTURES as Partial<typeof PICTURES>)[name] ?? PICTURES.off; // a newer kernel may know other states
  return (
    <svg class={`p2p-glyph p2p-glyph-${name}`} viewBox="0 0 16 16" aria-hidden="true">
      <path d={lines} fill="none" />
      {name === "running" ? <path class="p2p-turning" d="M8 2.5A5.5 5.5 0 0 1 13.5 8" fill="none" /> : null}
      {area === undefined ? null : <path class="p2p-solid" d={area} />}
    </svg>
  );
}
