"""The last state of a panel as plain HTML and as text, for viewers without a kernel. Pure.

It is made of a hub's snapshot. It has no script, no links and loads nothing; every text is escaped; its colours are
those of the page around it, light or dark.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any

from p2p_ipython.client.status import SANDBOX_HELP, WHOLE
from p2p_ipython.protocol.plain import count

MOST_ROWS = 50
"""Rows of a table, at most; a line below says how many more there are."""

CLASS = "p2p-panel-static"
"""The class by which the live panel's style hides this view in the same cell (labextension/style/panel.css)."""

Row = Mapping[str, Any]

_OVER = ("done", "failed", "cancelled")
_SHAPES = {"waiting": "○", "sent": "◔", "running": "◐", "stopping": "◼", "done": "✓", "failed": "✕", "cancelled": "–"}

_LINE = "border-bottom: 1px solid rgba(128, 128, 128, 0.35)"
_CELL = f"text-align: left; vertical-align: top; padding: 3px 14px 3px 0; {_LINE}; overflow-wrap: anywhere"
_QUIET = "opacity: 0.75; font-size: 92%"
_TABLE = (
    "border-collapse: collapse; border: 0; background: none; margin: 2px 0 10px 0; font-variant-numeric: tabular-nums"
)
_BLOCK = "line-height: 1.45; max-width: 1000px"


def text(snapshot: Mapping[str, Any]) -> str:
    """Return the state in a few lines."""
    cluster = snapshot.get("set", {}).get("cluster", {})
    workers = [row for row in _rows(snapshot, "members") if row.get("slots")]
    tasks = _rows(snapshot, "tasks")
    pending = sum(row.get("state") not in _OVER for row in tasks) + cluster.get("unlisted", 0)
    lines = [
        f"{cluster.get('title', 'p2p')}: {cluster.get('words', 'not connected')}",
        f"{count(len(workers), 'worker')}, {count(pending, 'task')} pending, {_ended(cluster)}",
        _moment(snapshot),
    ]
    return "\n".join(lines)


def page(snapshot: Mapping[str, Any], note: str = "") -> str:
    """Return everything as HTML, with ``note`` below."""
    cluster = snapshot.get("set", {}).get("cluster", {})
    title = escape(cluster.get("title") or "No cluster")
    words = escape(cluster.get("words", ""))
    parts = [f'<div><strong>{title}</strong> <span style="{_QUIET}">{words}</span></div>', *_facts(cluster)]
    parts += _members(snapshot.get("put", {}))
    parts += _groups(_rows(snapshot, "groups"))
    tasks = _rows(snapshot, "tasks")
    parts += _pending([row for row in tasks if row.get("state") not in _OVER], cluster)
    parts += _over([row for row in tasks if row.get("state") in _OVER], cluster)
    parts.append(f'<div style="{_QUIET}">{_moment(snapshot)}{f" {escape(note)}" if note else ""}</div>')
    return f'<div class="{CLASS}" style="{_BLOCK}">{"".join(parts)}</div>'


def _moment(snapshot: Mapping[str, Any]) -> str:
    when = time.strftime("%d %b %Y, %H:%M", time.localtime(snapshot.get("now", 0)))
    return f"As it was on {when}: a picture of that moment."


def _facts(cluster: Row) -> list[str]:
    said = []
    if cluster.get("board"):
        said.append(f"board: {cluster['board']}")
    if cluster.get("me"):
        said.append(f"I am {cluster['me']}")
    parts = [f'<div style="{_QUIET}">{escape(" · ".join(said))}</div>'] if said else []
    if cluster.get("note"):
        parts.append(f'<div style="white-space: pre-line">{escape(cluster["note"])}</div>')
    return parts


def _members(put: Mapping[str, Any]) -> list[str]:
    members, offers = put.get("members", {}), put.get("offers", {})
    listed = sorted(
        members.items(), key=lambda one: (not one[1].get("here"), not one[1].get("own"), one[1].get("name", ""))
    )
    table = [
        (
            f"{row.get('name', '')}{' (this kernel)' if row.get('me') else ''}",
            ", ".join(row.get("roles", ())),
            "" if row.get("me") else row.get("state", ""),
            f"{row.get('busy', 0)} of {row['slots']} busy" if row.get("slots") else "",
            row.get("python", ""),
            ", ".join(filter(None, (row.get("machine", ""), offers.get(id, {}).get("cards", "")))),
            offers[id].get("sandbox", "no sandbox") if id in offers else "",
            row.get("trust", ""),
        )
        for id, row in listed[:MOST_ROWS]
    ]
    head = ("name", "role", "state", "slots", "Python", "machine", "sandbox", "results")
    return _table("Members", head, table, len(listed), {"sandbox": SANDBOX_HELP})


def _groups(rows: Sequence[Row]) -> list[str]:
    listed = sorted(rows, key=lambda row: -row.get("began", 0.0))
    table = [(row.get("label", ""), _state(row), row.get("words", "")) for row in listed[:MOST_ROWS]]
    return _table("Groups of tasks", ("group", "state", "how far"), table, len(listed))


def _pending(rows: Sequence[Row], cluster: Row) -> list[str]:
    listed, reasons = sorted(rows, key=lambda row: row.get("submitted", 0.0)), cluster.get("reasons", {})
    table = [
        (row.get("label", ""), _state(row), _where(row, reasons), row.get("at", "") or row.get("said", ""))
        for row in listed[:MOST_ROWS]
    ]
    total = len(listed) + cluster.get("unlisted", 0)
    return _table("Pending tasks", ("task", "state", "where", "last output"), table, total)


def _over(rows: Sequence[Row], cluster: Row) -> list[str]:
    listed = sorted(rows, key=lambda row: -row.get("ended", 0.0))
    table = [
        (
            row.get("label", ""),
            _state(row),
            row.get("worker", ""),
            _took(row),
            row.get("error", "") or row.get("said", ""),
        )
        for row in listed[:MOST_ROWS]
    ]
    head = ("task", "state", "worker", "took", "error, or last output")
    return _table(f"Tasks that are over: {_ended(cluster)}", head, table, len(listed))


def _state(row: Row) -> str:
    state = row.get("state", "")
    return f"{_SHAPES.get(state, '')} {state}".strip()


def _where(row: Row, reasons: Mapping[str, str]) -> str:
    if row.get("state") != "waiting":
        return str(row.get("words", ""))
    own = row.get("words", "")
    common = "" if own.startswith(WHOLE) else reasons.get(row.get("needs", ""), "")
    return ", ".join(words for words in (common, own) if words)


def _took(row: Row) -> str:
    """Return how long a task ran, as panels say; if it never ran, how long it existed."""
    since = row.get("started") or row.get("sent") or row.get("submitted", 0.0)
    seconds = row.get("ended", 0.0) - since
    if seconds < 60:
        return f"{max(0.0, seconds):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _ended(cluster: Row) -> str:
    return ", ".join(f"{cluster.get(state, 0)} {state}" for state in _OVER)


def _rows(snapshot: Mapping[str, Any], table: str) -> list[Row]:
    return list(snapshot.get("put", {}).get(table, {}).values())


def _table(
    caption: str,
    head: tuple[str, ...],
    rows: Iterable[tuple[str, ...]],
    total: int,
    about: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Write a table; ``about`` explains words of its head, when one points at them."""
    listed = list(rows)
    if not listed:
        return []

    def line(cells: tuple[str, ...], tag: str, about: Mapping[str, str] = MappingProxyType({})) -> str:
        titles = [f' title="{escape(about[cell])}"' if cell in about else "" for cell in cells]
        inside = "".join(
            f'<{tag} style="{_CELL}"{title}>{escape(str(cell))}</{tag}>'
            for cell, title in zip(cells, titles, strict=True)
        )
        return f'<tr style="background: none">{inside}</tr>'

    more = f'<div style="{_QUIET}">… and {total - len(listed):,} more</div>' if total > len(listed) else ""
    return [
        f'<div style="margin-top: 8px"><strong>{escape(caption)}</strong></div>'
        f'<table style="{_TABLE}"><thead>{line(head, "th", about)}</thead>'
        f"<tbody>{''.join(line(row, 'td') for row in listed)}</tbody></table>{more}"
    ]
