/**
 * A table with any number of rows, of which only the visible ones are in the document.
 *
 * All rows have the same height, which is measured once and whenever the size changes. Rows keep their place on the
 * screen when others come and go above. The keyboard's row is kept by id and stays in the document while it has the
 * focus. Up, Down, Page, Home and End move it, Enter opens it, Delete calls `onDelete`, Right and Left go to the row's
 * buttons and back.
 */

import type { ComponentChildren, TargetedKeyboardEvent } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import { useEnvironment, useOwnId } from "./environment";
import { Items, type Section } from "./items";
import type { HasId } from "./ordered";
import { Gap, RowView, type Column } from "./RowView";

interface Props<R extends HasId> {
  /** Names the list in the panel's memory. */
  name: string;
  caption: string;
  columns: ReadonlyArray<Column<R>>;
  sections: ReadonlyArray<Section<R>>;
  /** Whether rows have a third line where the panel is narrow. */
  tall?: boolean | undefined;
  /** Anything but the row itself that its looks depend on. */
  mark?: ((row: R) => string) | undefined;
  selected: string;
  onOpen: (row: R) => void;
  onDelete?: ((row: R) => void) | undefined;
}

const OVERSCAN = 4;
const NEAR = 400;
const USUAL_ROW = 32;
const USUAL_HEIGHT = 400;
/** In a cell the panel grows by STEP rows at a time, not with each row, and to at most MOST rows. */
const HEAD = 26;
const STEP = 3;
const MOST = 15;

export function VirtualTable<R extends HasId>(props: Props<R>) {
  const { control } = useEnvironment();
  const { sections, columns, name } = props;
  const id = useOwnId();
  const scroller = useRef<HTMLDivElement>(null);
  const body = useRef<HTMLTableSectionElement>(null);
  const [rowHeight, setRowHeight] = useState(control.memory.rows[name] ?? USUAL_ROW);
  const [height, setHeight] = useState(USUAL_HEIGHT);
  const [top, setTop] = useState(control.memory.scroll[name] ?? 0);
  const laidOut = useRef(rowHeight);
  const measured = useRef(false); // before, the end of the list is unknown
  const replaced = useRef(false); // the element isn't scrolled to where it belongs
  const [active, setActive] = useState("");
  const activeAt = useRef(0);
  const anchor = useRef<{ id: string; at: number } | undefined>(undefined);
  const wantsFocus = useRef(false);

  const items = new Items(sections);
  const { count, headings } = items;

  // The keyboard's row: where it is now, or the row that has taken its place.
  let at = active === "" ? -1 : items.placeOf(active, activeAt.current, NEAR);
  if (at < 0 && count > 0) {
    at = items.nearestRow(Math.min(activeAt.current, count - 1), 1);
    if (at < 0) {
      at = items.nearestRow(count - 1, -1);
    }
  }
  activeAt.current = Math.max(0, at);
  const activeId = items.rowAt(at)?.id ?? "";

  // The row at the top of the window stays there.
  let scrollTop = measured.current ? Math.min(top, Math.max(0, count * rowHeight - Math.max(0, height - 2 * rowHeight))) : top;
  const held = anchor.current;
  if (held !== undefined && top > 0 && items.rowAt(held.at)?.id !== held.id) {
    const moved = items.placeOf(held.id, held.at, NEAR);
    if (moved >= 0) {
      scrollTop = Math.max(0, top + (moved - held.at) * rowHeight);
    }
  }
  const first = Math.max(0, Math.floor(scrollTop / rowHeight) - OVERSCAN);
  const last = Math.min(count - 1, Math.ceil((scrollTop + height) / rowHeight) + OVERSCAN);

  const hadFocus = body.current?.contains(document.activeElement) ?? false;
  const indices: number[] = [];
  if (hadFocus && at >= 0 && at < first) {
    indices.push(at);
  }
  for (let index = first; index <= last; index += 1) {
    indices.push(index);
  }
  if (hadFocus && at > last) {
    indices.push(at);
  }

  const remember = (position: number): void => {
    control.memory.scroll[name] = position;
    const index = Math.ceil(position / rowHeight);
    const found = items.nearestRow(Math.min(index, Math.max(0, count - 1)), 1);
    const row = items.rowAt(found);
    anchor.current = position > 0 && row !== undefined ? { id: row.id, at: found } : undefined;
  };

  useLayoutEffect(() => {
    const element = scroller.current;
    if (element !== null && (scrollTop !== top || replaced.current)) {
      replaced.current = false;
      element.scrollTop = scrollTop;
      setTop(scrollTop);
      remember(scrollTop);
    }
    const focused = body.current;
    if (focused !== null && (wantsFocus.current || hadFocus) && !focused.contains(document.activeElement)) {
      wantsFocus.current = true;
    }
    if (wantsFocus.current) {
      wantsFocus.current = false;
      focusRow(focused, activeId);
    }
  });

  useEffect(() => {
    const element = scroller.current;
    if (element === null) {
      return undefined;
    }
    element.scrollTop = control.memory.scroll[name] ?? 0;
    const measure = (): void => {
      const row = element.querySelector("tbody tr[data-id], tbody tr.p2p-group");
      const high = row?.getBoundingClientRect().height ?? 0;
      if (high > 0) {
        const { memory } = control;
        const grown = high / laidOut.current;
        measured.current = true;
        laidOut.current = memory.rows[name] = high;
        if (grown !== 1) { // the rows in sight stay the same ones
          memory.scroll[name] = (memory.scroll[name] ?? 0) * grown;
          replaced.current = true;
          setRowHeight(high);
          setTop((before) => before * grown);
        }
      }
      if (element.clientHeight > 0) {
        setHeight(element.clientHeight);
      }
    };
    measure();
    if (typeof ResizeObserver === "undefined") {
      return undefined;
    }
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [control, name, count > 0, props.tall]);

  const goTo = (index: number): void => {
    const row = items.rowAt(index);
    const element = scroller.current;
    if (row === undefined || element === null) {
      return;
    }
    activeAt.current = index;
    setActive(row.id);
    wantsFocus.current = true;
    const head = element.querySelector("thead")?.getBoundingClientRect().height ?? 0;
    const view = Math.max(rowHeight, height - head);
    const over = headings && index === 1 ? 0 : index * rowHeight;
    const next = over < scrollTop ? over : Math.max(scrollTop, (index + 1) * rowHeight - view);
    if (next !== scrollTop) {
      element.scrollTop = next;
      setTop(next);
      remember(next);
    }
  };

  // The row whose details are open stays visible, also when these shorten the list.
  useEffect(() => {
    const element = scroller.current;
    const open = props.selected === activeId ? at : -1;
    if (element !== null && open >= 0) {
      const lowest = open * rowHeight;
      const highest = (open + 2) * rowHeight - height;
      const next = Math.min(Math.max(scrollTop, highest), lowest);
      if (next !== scrollTop) {
        element.scrollTop = next;
      }
    }
  }, [props.selected, height]);

  const onKeyDown = (event: TargetedKeyboardEvent<HTMLTableSectionElement>): void => {
    const target = event.target as HTMLElement;
    const onRow = target.tagName === "TR";
    const page = Math.max(1, Math.floor(height / rowHeight) - 2);
    const row = items.rowAt(at);
    const controls = [...(target.closest("tr")?.querySelectorAll<HTMLElement>("button") ?? [])];
    const control = controls.indexOf(target);
    const way = ({
      ArrowDown: [at + 1, 1], ArrowUp: [at - 1, -1], PageDown: [Math.min(count - 1, at + page), -1], PageUp: [Math.max(0, at - page), 1],
      Home: [0, 1], End: [count - 1, -1]
    } as Record<string, [from: number, step: 1 | -1]>)[event.key];
    switch (event.key) {
      case "ArrowRight":
        controls[control + 1]?.focus();
        break;
      case "ArrowLeft":
        if (!onRow) {
          (control > 0 ? controls[control - 1] : target.closest("tr"))?.focus();
        }
        break;
      case "Enter":
        if (!onRow || row === undefined) {
          return;
        }
        props.onOpen(row);
        break;
      case "Delete":
      case "Backspace":
        if (!onRow || row === undefined || props.onDelete === undefined) {
          return;
        }
        props.onDelete(row);
        break;
      default:
        if (way === undefined) {
          return;
        }
        goTo(items.nearestRow(...way));
    }
    event.preventDefault();
    event.stopPropagation();
  };

  const drawn: ComponentChildren[] = [];
  let next = 0;
  for (const index of indices) {
    if (index > next) {
      drawn.push(<Gap key={`gap ${next}`} height={(index - next) * rowHeight} />);
    }
    next = index + 1;
    const item = items.itemAt(index);
    if (item === undefined) {
      continue;
    }
    drawn.push(
      "heading" in item ? (
        <tr key={`group ${item.heading.key}`} class="p2p-group" aria-rowindex={index + 2}>
          <th scope="rowgroup">
            {item.heading.title} <span class="p2p-count">{item.heading.rows.length}</span>
          </th>
        </tr>
      ) : (
        <RowView
          key={item.row.id}
          row={item.row}
          index={index}
          columns={columns}
          mark={props.mark?.(item.row) ?? ""}
          active={item.row.id === activeId}
          selected={item.row.id === props.selected}
          onOpen={props.onOpen}
          onActive={(row) => {
            activeAt.current = index;
            setActive(row.id);
          }}
        />
      )
    );
  }
  if (next < count) {
    drawn.push(<Gap key="gap end" height={(count - next) * rowHeight} />);
  }

  return (
    <div
      class="p2p-scroller"
      ref={scroller}
      style={{ "--p2p-rows": `${Math.ceil((Math.min(count, MOST) * rowHeight + HEAD) / (STEP * rowHeight)) * STEP * rowHeight}px` }}
      onScroll={(event) => {
        const position = event.currentTarget.scrollTop;
        if (position !== top) {
          setTop(position);
          remember(position);
        }
      }}
    >
      <table class={`p2p-table p2p-table-${name}${props.tall === true ? " p2p-tall" : ""}`} role="grid" aria-rowcount={count + 1} aria-labelledby={id}>
        <caption id={id} class="p2p-unseen">{props.caption}</caption>
        <thead>
          <tr aria-rowindex={1}>
            {columns.map((column) => (
              <th key={column.key} scope="col" class={column.class}>
                <span class={column.quiet === true ? "p2p-unseen" : undefined}>{column.title}</span>
              </th>
            ))}
          </tr>
        </thead>
        <tbody ref={body} onKeyDown={onKeyDown}>{drawn}</tbody>
      </table>
    </div>
  );
}

function focusRow(body: HTMLElement | null, id: string): void {
  for (const row of body?.querySelectorAll<HTMLElement>("tr[data-id]") ?? []) {
    if (row.dataset.id === id) {
      row.focus({ preventScroll: true });
      return;
    }
  }
}
