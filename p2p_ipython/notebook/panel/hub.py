"""The rows of a panel, and what of them has changed since the last message. Pure: time is an argument.

A row is a dict of the contract's fields that leaves out what has its default. The hub keeps every row as it was sent
last (a *revision*) and as it is now. So a ``delta`` holds the differences and nothing else; changes that were taken
back are not in it. A ``snapshot`` holds what was sent up to now, so that one panel can get it while the others
continue with deltas.

Rows are replaced, never changed in place. A row's id stays in its table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from p2p_ipython.notebook.panel.contract import VERSION

Row = Mapping[str, Any]

TABLES = ("members", "tasks", "groups", "offers", "visitors", "lending", "questions")
PARTS = ("cluster", "means")

_EMPTY: Row = {}


class Hub:
    """See the module. Belongs to one thread."""

    def __init__(self) -> None:
        self.rev = 0
        self._tables: dict[str, dict[str, Row]] = {name: {} for name in TABLES}
        self._parts: dict[str, Row] = {name: {} for name in PARTS}
        # As they were sent last, the rows that have been touched since; None: there was no such row.
        self._told: dict[str, dict[str, Row | None]] = {name: {} for name in TABLES}
        self._told_parts: dict[str, Row] = {}

    # -- what there is --

    def rows(self, table: str) -> Mapping[str, Row]:
        """Return the rows of a table as they are now, by id. To read only."""
        return self._tables[table]

    def part(self, name: str) -> Row:
        """Return the cluster's facts, or the means, as they are now. To read only."""
        return self._parts[name]

    # -- changes --

    def set(self, name: str, row: Row) -> None:
        """Replace the cluster's facts, or the means."""
        before = self._parts[name]
        if row != before:
            self._told_parts.setdefault(name, before)
            self._parts[name] = row

    def put(self, table: str, id: str, row: Row) -> None:
        """Put a row into its table, which may have it already."""
        rows = self._tables[table]
        before = rows.get(id)
        if row != before:
            self._told[table].setdefault(id, before)
            rows[id] = row

    def drop(self, table: str, id: str) -> None:
        """Remove a row, if it is there."""
        before = self._tables[table].pop(id, None)
        if before is not None:
            self._told[table].setdefault(id, before)

    def fill(self, table: str, rows: Iterable[tuple[str, Row]]) -> None:
        """Make these the rows of the table, and no others."""
        given = dict(rows)
        for id in [id for id in self._tables[table] if id not in given]:
            self.drop(table, id)
        for id, row in given.items():
            self.put(table, id, row)

    # -- messages --

    def picture(self, now: float) -> dict[str, Any]:
        """Return all rows as they are now, in the shape of a snapshot; not for panels that get deltas."""
        return _snapshot(self.rev, now, self._parts, self._tables)

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return what has been sent up to now, for a panel that knows nothing."""
        parts = {**self._parts, **self._told_parts}
        tables: dict[str, Mapping[str, Row]] = {}
        for name, rows in self._tables.items():
            told, tables[name] = self._told[name], rows
            if told:
                untouched = {id: row for id, row in rows.items() if id not in told}
                tables[name] = untouched | {id: row for id, row in told.items() if row is not None}
        return _snapshot(self.rev, now, parts, tables)

    def delta(self, now: float) -> dict[str, Any] | None:
        """Return what has changed since the last delta, and count it as sent; None for nothing."""
        set_, put, del_ = self._changes()
        if not (set_ or put or del_):
            return None
        message = {"t": "delta", "rev": self.rev + 1, "base": self.rev, "now": now}
        message.update({name: part for name, part in (("set", set_), ("put", put), ("del", del_)) if part})
        self.rev += 1
        return message

    def settle(self) -> None:
        """Forget what has changed since the last delta: there is no panel to send it to."""
        self._told_parts.clear()
        for told in self._told.values():
            told.clear()

    def _changes(self) -> tuple[dict[str, Row], dict[str, dict[str, Row]], dict[str, list[str]]]:
        set_: dict[str, Row] = {}
        for name, told in self._told_parts.items():
            if changed := difference(told, self._parts[name]):
                set_[name] = changed
        self._told_parts.clear()
        put: dict[str, dict[str, Row]] = {}
        del_: dict[str, list[str]] = {}
        for name, before in self._told.items():
            if not before:
                continue
            rows = self._tables[name]
            changes: dict[str, Row] = {}
            gone: list[str] = []
            for id, row in before.items():
                new = rows.get(id)
                if row is None:
                    if new is not None:
                        changes[id] = new
                elif new is None:
                    gone.append(id)
                elif changed := difference(row, new):
                    changes[id] = changed
            before.clear()
            if changes:
                put[name] = changes
            if gone:
                del_[name] = gone
        return set_, put, del_


def _snapshot(
    rev: int, now: float, parts: Mapping[str, Row], tables: Mapping[str, Mapping[str, Row]]
) -> dict[str, Any]:
    message: dict[str, Any] = {"t": "snapshot", "v": VERSION, "rev": rev, "now": now}
    if set_ := {name: part for name, part in parts.items() if part}:
        message["set"] = set_
    if put := {name: rows for name, rows in tables.items() if rows}:
        message["put"] = put
    return message


def difference(old: Row, new: Row) -> Row:
    """Return the fields of ``new`` that differ; those that went back to their default, with that default."""
    changed = {name: value for name, value in new.items() if name not in old or old[name] != value}
    if len(new) - len(changed) < len(old):  # some of the old fields have changed, or are gone
        for name, value in old.items():
            if name not in new:
                changed[name] = type(value)()
    return changed
