/**
 * Rows in order, kept so as they come, change and go: nothing is sorted twice.
 *
 * A change costs two binary searches and a move of memory, whatever the number of rows. Rows are never changed in
 * place: a row that differs is another object.
 */

export interface HasId {
  readonly id: string;
}

export type Compare<R> = (a: R, b: R) => number;

/** Text in the order of its characters, the same in every language: an order must not depend on the reader. */
export function byText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export class Ordered<R extends HasId> {
  items: R[] = [];
  private readonly compare: Compare<R>;

  /** `compare` needn't tell all rows apart: those that it calls equal go by their ids. */
  constructor(
    compare: Compare<R>,
    private accept: (row: R) => boolean = () => true
  ) {
    this.compare = (a, b) => compare(a, b) || byText(a.id, b.id);
  }

  /** Update the order for a row: as it was before, and as it is now; undefined for not there. */
  change(before: R | undefined, after: R | undefined): void {
    const was = before !== undefined && this.accept(before);
    const is = after !== undefined && this.accept(after);
    if (was && is && this.compare(before, after) === 0) {
      const at = this.find(before);
      if (this.items[at]?.id === before.id) {
        this.items[at] = after;
        return;
      }
    }
    if (was) {
      const at = this.find(before);
      if (this.items[at]?.id === before.id) {
        this.items.splice(at, 1);
      }
    }
    if (is) {
      this.items.splice(this.find(after), 0, after);
    }
  }

  /** Begin anew with these rows, and perhaps another idea of which are wanted. */
  fill(rows: Iterable<R>, accept: (row: R) => boolean = this.accept): void {
    this.accept = accept;
    this.items = [];
    for (const row of rows) {
      if (accept(row)) {
        this.items.push(row);
      }
    }
    this.items.sort(this.compare);
  }

  /** Where the row is, or would be. */
  find(row: R): number {
    let low = 0;
    let high = this.items.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const other = this.items[middle];
      if (other !== undefined && this.compare(other, row) < 0) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
}
