/** The items of a table: its sections' headings and rows, by index from the top. Pure. */

import type { HasId } from "./ordered";

export interface Section<R> {
  key: string;
  title: string;
  rows: readonly R[];
  /** Show the last one first. */
  reversed?: boolean;
}

type Item<R> = { heading: Section<R> } | { row: R };

export class Items<R extends HasId> {
  readonly count: number;
  readonly headings: boolean;
  private readonly shown: ReadonlyArray<Section<R>>;

  constructor(sections: ReadonlyArray<Section<R>>) {
    this.shown = sections.filter((section) => section.rows.length > 0);
    this.headings = this.shown.some((section) => section.title !== "");
    this.count = this.shown.reduce((sum, section) => sum + section.rows.length + (this.headings ? 1 : 0), 0);
  }

  itemAt(index: number): Item<R> | undefined {
    let rest = index;
    for (const section of this.shown) {
      if (this.headings) {
        if (rest === 0) {
          return { heading: section };
        }
        rest -= 1;
      }
      if (rest < section.rows.length) {
        const row = section.rows[section.reversed === true ? section.rows.length - 1 - rest : rest];
        return row === undefined ? undefined : { row };
      }
      rest -= section.rows.length;
    }
    return undefined;
  }

  rowAt(index: number): R | undefined {
    const item = this.itemAt(index);
    return item !== undefined && "row" in item ? item.row : undefined;
  }

  /** The present index of a row that was at `at`, searched for nearby, as far as `range`; -1 if it isn't there. */
  placeOf(rowId: string, at: number, range: number): number {
    for (let distance = 0; distance <= range; distance += 1) {
      if (this.rowAt(at - distance)?.id === rowId) {
        return at - distance;
      }
      if (this.rowAt(at + distance)?.id === rowId) {
        return at + distance;
      }
      if (at - distance < 0 && at + distance >= this.count) {
        break;
      }
    }
    return -1;
  }

  /** The index of the first row from `index` on, up or down; -1 if there is none. */
  nearestRow(index: number, step: 1 | -1): number {
    for (let at = index; at >= 0 && at < this.count; at += step) {
      if (this.rowAt(at) !== undefined) {
        return at;
      }
    }
    return -1;
  }
}
