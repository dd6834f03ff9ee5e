"""A cluster's state as values, and as text and HTML for people.

Names come from members, so they are strangers' text: protocol/plain.py has stripped what isn't printable, and the
HTML escapes all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from p2p_ipython.board.base import BoardReport, BoardState
from p2p_ipython.protocol.messages import Terms
from p2p_ipython.protocol.plain import count

SANDBOX_HELP = (
    "In a sandbox, tasks can't reach the lender's files, keys or network, nor each other. Without one, they run as the "
    "lender does."
)
"""Says what the word for a worker's sandbox means."""

WHOLE = "waiting"
"""The beginning of what is said of one waiting task where the common reason of many doesn't hold."""


def sandbox_words(terms: Terms) -> str:
    """Say how a worker's tasks are sandboxed: "bubblewrap", "no sandbox"."""
    return terms.sandbox if terms.walled else "no sandbox"


@dataclass(frozen=True)
class MemberStatus:
    """A worker.

    ``cards``: the graphics cards of its offer, in words.
    ``link`` is "direct", "relay", "memory" or "" for none; ``rtt`` seconds; ``state`` and ``sandbox`` in words.
    """

    name: str
    state: str
    slots: int
    busy: int
    python: str
    platform: str
    link: str
    rtt: float | None
    done: int
    sandbox: str
    cards: str = ""


@dataclass(frozen=True)
class TaskStatus:
    """A task that isn't over; ``state`` in words, with its reason."""

    label: str
    state: str


@dataclass(frozen=True)
class ClusterFacts:
    """The facts about a cluster as a whole; the panel shows it.

    ``state`` is "connecting", "connected", "reconnecting", "waiting" (for somebody, before it is of use), "lost" or
    "closed", and ``words`` say it to people; since when, ``since`` (Unix time) tells. ``kind`` is "personal" (on this
    machine), "own" (one person's, on a board) or "shared". ``me`` is what this user is called, ``key`` the fingerprint
    of their key. ``note`` is what to do or to know, where there is something. The numbers are of tasks that are over.
    """

    state: str
    words: str
    kind: str
    title: str
    board: str
    me: str
    key: str
    note: str
    since: float
    done: int
    failed: int
    cancelled: int


_STATES = {
    BoardState.CONNECTING: "connecting",
    BoardState.CONNECTED: "connected",
    BoardState.RECONNECTING: "reconnecting",
    BoardState.CLOSED: "closed",
    BoardState.FAILED: "lost",
}


def standing(report: BoardReport, trouble: str, alone: str, *, expelled: bool = False) -> tuple[str, str, str]:
    """State, words and note of ``ClusterFacts``.

    By the board, by what keeps us from the members (``trouble``; for good, if we are ``expelled``), and by what there
    is to say until one of them has answered (``alone``).
    """
    state = _STATES[report.state]
    if expelled:
        return "lost", trouble, ""
    if report.state is BoardState.CONNECTED:
        if trouble:
            return "waiting", trouble, report.detail
        return state, state + alone, report.detail
    tries, _, problem = report.detail.partition(": ")
    if report.state is BoardState.RECONNECTING and tries.endswith(" try"):
        return state, f"{state}, {tries}", problem
    return state, state, report.detail


@dataclass(frozen=True)
class ClusterStatus:
    """The status that ``%p2p_status`` shows."""

    cluster: str
    board: str
    board_state: str
    user: str
    name: str
    members: tuple[MemberStatus, ...]
    tasks: tuple[TaskStatus, ...]
    pending: int
    running: int
    note: str = ""
    """The user's next step, if there is one."""

    @property
    def slots(self) -> int:
        return sum(member.slots for member in self.members)

    @property
    def free(self) -> int:
        return sum(member.slots - member.busy for member in self.members)

    def facts(self) -> list[tuple[str, str]]:
        """Return the rows above the table."""
        me = f"{self.name} (on the board: {self.user})" if self.user else self.name
        return [
            ("cluster", self.cluster),
            ("board", f"{self.board}, {self.board_state}"),
            ("I am", me),
            ("offers", f"{self.free} of {count(self.slots, 'slot')} free, {count(len(self.members), 'worker')}"),
            ("tasks", f"{self.pending} pending, {self.running} running"),
        ]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table of members, its head first."""
        cards = any(m.cards for m in self.members)  # a column that most clusters have no need of
        head = ("worker", "state", "slots", "link", "round trip", "python", "platform", "sandbox")
        rows: list[tuple[str, ...]] = [(*head, *(["graphics"] if cards else []), "done")]
        for m in self.members:
            rtt = "" if m.rtt is None else f"{m.rtt * 1000:.1f} ms"
            busy = f"{m.busy} of {m.slots} busy"
            about = (m.name, m.state, busy, m.link, rtt, m.python, m.platform, m.sandbox)
            rows.append((*about, *([m.cards] if cards else []), str(m.done)))
        return rows

    def text(self) -> str:
        """For a terminal."""
        lines = [f"{name + ':':<9} {value}" for name, value in self.facts()]
        if self.members:
            rows = self.rows()
            widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
            lines += ["", *("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)]
        if self.note:
            lines += ["", self.note]
        for task in self.tasks:
            lines.append(f"  {task.label}: {task.state}")
        return "\n".join(lines)

    def html(self) -> str:
        """For a notebook: a table, with all text escaped."""

        def row(cells: tuple[str, ...], tag: str) -> str:
            def cell(text: str) -> str:
                title = f' title="{escape(SANDBOX_HELP)}"' if (tag, text) == ("th", "sandbox") else ""
                return f'<{tag} style="text-align:left"{title}>{escape(text)}</{tag}>'

            return "<tr>" + "".join(map(cell, cells)) + "</tr>"

        facts = "".join(row((name, value), "td") for name, value in self.facts())
        head, *members = self.rows()
        body = "".join(row(cells, "td") for cells in members)
        if not members:
            note = escape(self.note or "No worker is here.")
            body = f'<tr><td colspan="{len(head)}" style="text-align:left;white-space:pre-line">{note}</td></tr>'
        tasks = "".join(row((task.label, task.state), "td") for task in self.tasks)
        table = (
            f"<table><tbody>{facts}</tbody></table>"
            f"<table><caption>Workers</caption><thead>{row(head, 'th')}</thead><tbody>{body}</tbody></table>"
        )
        if self.note and members:
            table += f"<p>{escape(self.note)}</p>"
        if tasks:
            table += f"<table><caption>Tasks</caption><tbody>{tasks}</tbody></table>"
        return table
