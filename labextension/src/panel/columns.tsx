/** The kinds of columns that several lists have. */

import type { Column } from "./RowView";

/** Words, a line each; pointing at it shows what is cut off. Only a wide panel, or a wider one, has room for it. */
export function wordColumn<R>(key: string, title: string, words: (row: R) => string, room: "wide" | "wider" = "wide"): Column<R> {
  return {
    key, title, class: `p2p-words p2p-${room}`,
    cell: (row) => {
      const text = words(row);
      return <span class="p2p-line" title={text}>{text}</span>;
    }
  };
}

/** Figures, aligned at their ends. */
export function figureColumn<R>(key: string, title: string, cell: Column<R>["cell"], kind: "" | " p2p-wider" | " p2p-busy" = ""): Column<R> {
  return { key, title, class: `p2p-figure${kind}`, cell };
}
