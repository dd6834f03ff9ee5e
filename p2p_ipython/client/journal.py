"""The record of tasks' lives: what was submitted, where it went, when, and what came of it.

For people: the panel's table of tasks, ``Cluster.journal()``, ``Cluster.timeline()``. It decides nothing. All tasks
that aren't over are in it, and the last ``JOURNAL`` that are; it holds no values and no output, about a kilobyte a
task, and of cells' sources as many as fit into ``SOURCES``.

Times are the client's clock, Unix seconds; 0.0 is "not yet". When a task began is reckoned: its worker says that it
runs when it has for ``ANNOUNCE`` seconds (of a shorter one, nothing), and in the end how long it took (``seconds``). So
the way there and the way back can be told from the work, but for the time that these words travel.

Pure: time is an argument. Written on the loop's thread; ``rows`` may be called from any.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from p2p_ipython.client.progress import Progress
from p2p_ipython.protocol.client_machine import TaskState
from p2p_ipython.protocol.placement import WorkerView
from p2p_ipython.protocol.worker_machine import ANNOUNCE

Key = TypeVar("Key", str, bytes)

JOURNAL = 10_000
"""Tasks that are over and are kept."""

SOURCES = 4 << 20
"""Characters of cells' sources that are kept."""

MAX_USERS = 2000
"""Members, and sessions of theirs, whose work for us is summed up."""

COLUMNS = (
    *("task", "label", "kind", "state", "worker", "attempt", "submitted", "sent", "started", "ended"),
    *("waited", "travelled", "ran", "returned", "size_in", "size_out", "said", "error"),
)
"""The fields of each of ``Journal.rows()``."""

OVER = frozenset((TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED))

_WORDS = {state: state.value for state in TaskState}


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that came to nothing: the worker was lost, or handed the task back (``started`` is 0.0 then)."""

    worker: str
    sent: float
    started: float
    ended: float
    sid: bytes = b""


@dataclass(slots=True)
class Entry:
    """One task. Read it, don't write it.

    ``kind`` is "cell" or "call"; ``cell`` is by what the front end knows its cell. ``words`` say where it is or how it
    ended; of one that waits, only what is peculiar to it: the common reason is ``Cluster.reasons()[needs]``. Words that
    begin with ``status.WHOLE`` are all there is to say. ``needs`` is the key of what it needs of a worker (needs.py).
    ``signer`` is the fingerprint of the worker's member. ``attempts`` are the earlier ones. Sizes are bytes;
    ``seconds`` is what the worker says it took. ``said`` is its last line of output, ``error`` the first line of its
    error; both are plain text.
    """

    id: str
    label: str
    kind: str
    cell: str
    needs: str
    submitted: float
    size_in: int
    state: TaskState = TaskState.WAITING
    words: str = ""
    worker: str = ""
    sid: bytes | None = None
    signer: str = ""
    attempt: int = 0
    sent: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    seconds: float = 0.0
    size_out: int = 0
    said: str = ""
    error: str = ""
    progress: Progress | None = None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Spans:
    """Where a task's time went, in seconds: until it was sent, on its way (and in the worker's queue), running, and on
    its way back. A part that has not happened yet is 0."""

    waited: float
    travelled: float
    ran: float
    returned: float


def spans(entry: Entry, now: float = 0.0) -> Spans:
    """Split the time of a task's last attempt; what goes on still goes on until ``now``."""
    end = entry.ended or now
    sent, started = entry.sent or end, entry.started or end
    if not entry.sent:
        return Spans(max(0.0, end - entry.submitted), 0.0, 0.0, 0.0)
    there = max(0.0, end - started)
    ran = min(entry.seconds, there) if entry.seconds else there
    return Spans(max(0.0, sent - entry.submitted), max(0.0, started - sent), ran, there - ran)


class Journal:
    """See the module. ``touched`` is called with the id of each task that changes, also of one that is forgotten."""

    def __init__(self, *, attempts: int = 3, keep: int = JOURNAL, touched: Callable[[str], None] | None = None) -> None:
        self.entries: dict[str, Entry] = {}  # in the order of submission
        self.done = self.failed = self.cancelled = 0
        self.usage: dict[str, tuple[int, float]] = {}
        """The work that was done for us: tasks and seconds, by the fingerprint of their member."""
        self.served: dict[bytes, tuple[int, float]] = {}
        """The same by the worker's session."""
        self._attempts = attempts
        self._keep = keep
        self._touched = touched or (lambda _task: None)
        self._over: deque[str] = deque()
        self._sources: OrderedDict[str, str] = OrderedDict()
        self._characters = 0

    # -- what happens --

    def submitted(
        self,
        id: str,
        label: str,
        kind: str,
        now: float,
        *,
        cell: str = "",
        needs: str = "",
        size_in: int = 0,
        source: str = "",
    ) -> None:
        """Add a new task."""
        if id in self.entries:  # once more, after it was over
            self._over.remove(id)
            del self.entries[id]
        self.entries[id] = Entry(id, label, kind, cell, needs, now, size_in)
        if source:
            self._keep_source(id, source)
        self._touched(id)

    def sent(self, id: str, worker: WorkerView, attempt: int, now: float) -> None:
        """Note that a task is on its way to a worker."""
        entry = self.entries[id]
        entry.state, entry.words, entry.worker = TaskState.SENT, f"on {worker.name}", worker.name
        entry.sid, entry.signer, entry.attempt = worker.certificate.sid, worker.certificate.signer, attempt
        entry.sent, entry.started = now, 0.0
        self._touched(id)

    def running(self, id: str, now: float) -> None:
        """Note that a worker says that a task runs."""
        entry = self.entries[id]
        entry.state, entry.started = TaskState.RUNNING, max(entry.sent, now - ANNOUNCE)
        self._touched(id)

    def stopping(self, id: str, words: str) -> None:
        """Note that its worker was asked to stop a task; ``words`` say so."""
        entry = self.entries[id]
        entry.state, entry.words = TaskState.STOPPING, words
        self._touched(id)

    def waiting(self, id: str, words: str, now: float) -> None:
        """Note that a task waits again; ``words`` are what is peculiar to it, "" for nothing."""
        entry = self.entries[id]
        if entry.sent:
            tried = Attempt(entry.worker, entry.sent, entry.started, now, entry.sid or b"")
            entry.attempts = self._kept((*entry.attempts, tried))
        entry.state, entry.words = TaskState.WAITING, words
        entry.worker, entry.sid, entry.signer = "", None, ""
        entry.sent = entry.started = 0.0
        self._touched(id)

    def placed(self, id: str, words: str) -> None:
        """Change what is said of where a task is."""
        entry = self.entries[id]
        if entry.words != words:
            entry.words = words
            self._touched(id)

    def said(self, id: str, line: str) -> None:
        """Note the line that a task has printed."""
        entry = self.entries[id]
        if entry.said != line:
            entry.said = line
            self._touched(id)

    def at(self, id: str, progress: Progress | None) -> None:
        """Note how far a task is."""
        entry = self.entries[id]
        if entry.progress != progress:
            entry.progress = progress
            self._touched(id)

    def ended(
        self,
        id: str,
        state: TaskState,
        now: float,
        *,
        came: bool = False,
        seconds: float | None = None,
        size_out: int = 0,
        error: str = "",
        word: str = "",
    ) -> None:
        """Note that a task is over; ``came``: by a result. ``seconds`` is what the worker says that it took.

        ``word`` is for people, if the state's own says too little.
        """
        entry = self.entries[id]
        entry.state, entry.ended, entry.size_out, entry.error = state, now, size_out, error
        if state is TaskState.DONE:
            self.done += 1
        elif state is TaskState.FAILED:
            self.failed += 1
        else:
            self.cancelled += 1
        on = entry.worker if state is not TaskState.CANCELLED else ""
        word = word or _WORDS[state]
        entry.words = f"{word} on {on}" if on else word
        if came:
            entry.seconds = min(float(seconds or 0), max(0.0, now - entry.sent))
            latest = now - entry.seconds if seconds is not None else entry.started or entry.sent
            entry.started = max(entry.sent, min(entry.started or latest, latest))
        if entry.started:
            self._sum_up(entry)
        self._over.append(id)
        self._touched(id)
        if len(self._over) > self._keep:
            oldest = self._over.popleft()
            del self.entries[oldest]
            self._characters -= len(self._sources.pop(oldest, ""))
            self._touched(oldest)

    # -- questions --

    def source(self, id: str) -> str:
        """Return the source of a cell; "" for a call, and if it is no longer kept."""
        return self._sources.get(id, "")

    def rows(self) -> list[dict[str, Any]]:
        """All entries for people, the oldest first: times as Unix seconds, None for what has not happened."""
        return [_row(entry) for entry in list(self.entries.values())]

    # -- inside --

    def _kept(self, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
        """As many as are allowed: those that ran before those that were handed back, the later before the earlier."""
        if len(attempts) <= self._attempts:
            return attempts
        gone = next((tried for tried in attempts if not tried.started), attempts[0])
        return tuple(tried for tried in attempts if tried is not gone)

    def _keep_source(self, id: str, source: str) -> None:
        self._characters += len(source) - len(self._sources.pop(id, ""))
        self._sources[id] = source
        while self._characters > SOURCES:
            self._characters -= len(self._sources.popitem(last=False)[1])

    def _sum_up(self, entry: Entry) -> None:
        seconds = entry.seconds or max(0.0, entry.ended - entry.started)
        _add(self.usage, entry.signer, seconds)
        _add(self.served, entry.sid or b"", seconds)


def _add(totals: dict[Key, tuple[int, float]], key: Key, seconds: float) -> None:
    """Count a task; beyond ``MAX_USERS`` the one who has run none for longest is forgotten."""
    tasks, before = totals.pop(key, (0, 0.0))
    totals[key] = tasks + 1, before + seconds
    if len(totals) > MAX_USERS:
        del totals[next(iter(totals))]


def _row(entry: Entry) -> dict[str, Any]:
    parts = spans(entry)
    return {
        "task": entry.id,
        "label": entry.label,
        "kind": entry.kind,
        "state": entry.state.value,
        "worker": entry.worker,
        "attempt": entry.attempt,
        "submitted": entry.submitted,
        "sent": entry.sent or None,
        "started": entry.started or None,
        "ended": entry.ended or None,
        "waited": parts.waited if entry.sent else None,
        "travelled": parts.travelled if entry.started else None,
        "ran": parts.ran if entry.started and entry.ended else None,
        "returned": parts.returned if entry.started and entry.ended else None,
        "size_in": entry.size_in,
        "size_out": entry.size_out,
        "said": entry.said,
        "error": entry.error,
    }


def last_line(text: str, unfinished: str = "") -> tuple[str, str]:
    """Return a stream's last line that isn't empty, and what is unfinished of it, to be given with what comes next.

    A carriage return begins a line, too, as in progress bars. Only the end of a long text is looked at.
    """
    text = (unfinished + text[-500:])[-500:]
    end = text.rstrip("\r\n")
    begin = max(end.rfind("\n"), end.rfind("\r")) + 1
    line = end[begin:]
    return line, "" if len(end) < len(text) else line
