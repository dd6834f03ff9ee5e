/** A list with a filter (if it is long), its rows, and the details of the open row. */

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

import { useEnvironment } from "./environment";
import { Later } from "./Later";
import type { HasId } from "./ordered";
import { Empty, Filter } from "./parts";
import type { More } from "./rest";
import type { Filters } from "./store";
import type { Section } from "./items";
import type { Column } from "./RowView";
import { VirtualTable } from "./VirtualTable";

/** Lists above this many rows can be filtered. */
const FILTER_ABOVE = 10;

interface Props<R extends HasId> {
  /** Names it in the panel's memory, and its filter. */
  name: Exclude<keyof Filters, "onlyFailed">;
  caption: string;
  columns: ReadonlyArray<Column<R>>;
  sections: ReadonlyArray<Section<R>>;
  /** All rows, also those that the filter hides. */
  all: ReadonlyMap<string, R>;
  /** How many rows there would be without the filter. */
  count: number;
  /** The details of a row; they must call `close`. */
  details: (more: More, row: R, close: () => void) => ComponentChildren;
  /** Beside the filter. */
  extra?: ComponentChildren;
  /** Room for a third line where the panel is narrow. */
  tall?: boolean | undefined;
  mark?: (row: R) => string;
  onDelete?: ((row: R) => void) | undefined;
  /** Where there is nothing to list. */
  children: ComponentChildren;
}

export function Listing<R extends HasId>({ name, caption, columns, sections, all, count, details, extra, tall, mark, onDelete, children }: Props<R>) {
  const { control, t } = useEnvironment();
  const [open, setOpen] = useState("");
  const value = control.store.filters[name];
  const filter = count > FILTER_ABOVE || value !== "";
  const shown = all.get(open);
  return (
    <>
      {count > 0 && (filter || extra !== undefined) ? (
        <div class="p2p-bar">
          {filter ? <Filter value={value} label={t("Filter: %1", caption)} onChange={(text) => control.filter({ [name]: text })} /> : null}
          {extra}
        </div>
      ) : null}
      {count === 0 ? children : filter && sections.every((section) => section.rows.length === 0) ? (
        <Empty title={t("Nothing matches the filter.")} />
      ) : (
        <VirtualTable
          name={name}
          caption={caption}
          columns={columns}
          sections={sections}
          tall={tall}
          mark={mark}
          selected={open}
          onOpen={(row) => setOpen(row.id)}
          onDelete={onDelete}
        />
      )}
      {shown === undefined ? null : <Later key={open}>{(more) => details(more, shown, () => setOpen(""))}</Later>}
    </>
  );
}
