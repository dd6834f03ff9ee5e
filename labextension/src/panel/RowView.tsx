/** A row of a table, and the gap in place of rows that aren't drawn. */

import { Component, type ComponentChildren } from "preact";

import type { HasId } from "./ordered";

export interface Column<R> {
  key: string;
  title: string;
  /** Shown by screen readers only. */
  quiet?: boolean;
  class?: string;
  /** `active`: the keyboard is on this row, so that its buttons are in the order of tabbing. */
  cell: (row: R, active: boolean) => ComponentChildren;
}

/** Rows that aren't drawn. One cell only: a span of columns of which some are hidden would make new ones. */
export function Gap({ height }: { height: number }) {
  return (
    <tr class="p2p-gap" aria-hidden="true" style={{ height: `${height}px` }}>
      <td />
    </tr>
  );
}

interface RowProps<R extends HasId> {
  row: R;
  index: number;
  columns: ReadonlyArray<Column<R>>;
  mark: string;
  active: boolean;
  selected: boolean;
  onOpen: (row: R) => void;
  onActive: (row: R) => void;
}

/** A row; drawn again only after a change. */
export class RowView<R extends HasId> extends Component<RowProps<R>> {
  override shouldComponentUpdate(next: RowProps<R>): boolean {
    const { row, index, columns, mark, active, selected } = this.props;
    return next.row !== row || next.index !== index || next.columns !== columns || next.mark !== mark
      || next.active !== active || next.selected !== selected;
  }

  override render({ row, index, columns, active, selected }: RowProps<R>) {
    return (
      <tr
        data-id={row.id}
        aria-rowindex={index + 2}
        aria-selected={selected}
        tabIndex={active ? 0 : -1}
        class={selected ? "p2p-selected" : undefined}
        onFocusIn={() => this.props.onActive(this.props.row)}
        onClick={(event) => {
          if ((event.target as HTMLElement).closest("button, a, input") === null) {
            this.props.onOpen(this.props.row);
          }
        }}
      >
        {columns.map((column) => (
          <td key={column.key} class={column.class}>{column.cell(row, active)}</td>
        ))}
      </tr>
    );
  }
}
