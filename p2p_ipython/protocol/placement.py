"""Which worker gets a task, and how many tasks may wait there: placement, of the client's machine.

A worker gets as many tasks as it has slots. Tasks of a function or cell that has been short so far (``SHORT``) may be
sent ahead, up to ``backlog`` a slot and not more than takes ``AHEAD``, so that slots need not wait for the next one to
travel. The worker hands back what it could not start within ``hold``, so that a wrong guess costs a quarter of a
second, for which the client then leaves the worker alone.

Pure: ``now`` is any clock that doesn't go back, seconds.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from p2p_ipython.config import Settings
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import Terms
from p2p_ipython.protocol.needs import ANY, Needs
from p2p_ipython.protocol.packages import offers_packages
from p2p_ipython.protocol.retries import ANY_ERROR

SHORT = 0.02
"""Seconds: tasks that run less than this may be sent ahead."""

AHEAD = 0.05
"""Seconds of work that is sent ahead to a slot, at most: what another worker might have done meanwhile."""

MAX_KINDS = 1000
"""Functions and cells whose usual time is remembered; beyond that the one heard of longest ago is forgotten."""

SMALL = 64 << 10
"""Bytes of a task's large buffers up to which it may be sent ahead."""


class Refused(NamedTuple):
    """A worker's refusal of a task: the edition of its offer then, the end of the pause after it, and how often."""

    edition: int
    until: float
    times: int = 1


NOBODY: Mapping[bytes, Refused] = {}


class WorkerState(enum.Enum):
    """Where a worker stands, seen from a client."""

    KNOWN = "known"
    MEETING = "meeting"
    UP = "up"
    AWAY = "reconnecting"
    LEAVING = "leaving"


@dataclass(frozen=True)
class TaskSpec:
    """The facts about a task that the machine needs: no bytes.

    ``python`` is the minor version it needs ("" for any), ``refs`` its large buffers by size in bytes,
    ``once``: never start it a second time. ``kind`` says which function or cell it runs: what took little time
    is likely to take little time again. ``size``: bytes that it brings, small ones and large ones. ``on``, ``tags``,
    ``memory``, ``gpus``, ``packages`` and ``pin`` are as in ``Needs``; without the worker of its ``pin`` it is lost. Of
    the tasks that wait, those of a higher ``priority`` come first. A task that raises one of the classes ``retry_on``
    (their names) runs again, ``retries`` times at most. ``timeout``: seconds after which its worker is to end it, 0 for
    never.
    """

    id: str
    python: str = ""
    refs: Mapping[str, int] = field(default_factory=dict)
    once: bool = False
    kind: str = ""
    size: int = 0
    timeout: float = 0.0
    packages: tuple[str, ...] = ()
    pin: bytes | None = None
    on: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    memory: int = 0
    gpus: int = 0
    priority: int = 0
    retries: int = 0
    retry_on: tuple[str, ...] = ANY_ERROR

    @cached_property
    def needs(self) -> Needs:
        """What it needs of its worker."""
        needs = Needs(self.python, self.on, self.tags, self.memory, self.gpus, self.packages, self.pin)
        return needs if needs != ANY else ANY  # which is met without a look


@dataclass
class WorkerView:
    """A worker as the client knows it. Read it, don't write it."""

    certificate: Certificate
    name: str
    terms: Terms
    heard: float
    state: WorkerState = WorkerState.KNOWN
    tasks: dict[str, None] = field(default_factory=dict)
    have: set[str] = field(default_factory=set)
    full_until: float = 0.0
    nacks: int = 0  # since it took a task: of several at once the first one
    broken: int = 0  # of these, those after it had said that it has room
    room_at: float = float("-inf")  # when it got a task because it had said so
    room_after: float = 0.0  # until then it isn't believed to have room
    meet_after: float = 0.0
    failures: int = 0
    done: int = 0
    detail: str = ""
    member: str = ""  # the roster's name of its member, "" in personal clusters
    for_us: bool = True
    own: bool = False  # it is of our own member
    too_bare: bool = False  # it has no sandbox, and the client requires one

    @property
    def sid(self) -> bytes:
        return self.certificate.sid

    @property
    def word(self) -> str:
        """Its state as people read it."""
        here = self.state in (WorkerState.KNOWN, WorkerState.UP)
        return self.terms.pause if here and self.terms.paused else self.state.value


FREE_NACKS = 8
"""Times that a worker may hand back tasks and take none before it is left alone for longer each time."""

LONGEST_HOLD = 1.0
"""Seconds for which such a worker is left alone, at most. It may only be busy; a shared one keeps a place for 2 s."""

LONGEST_DOUBT = 30.0
"""Seconds for which a worker isn't believed to have room, at most, after it has said so and taken nothing."""


def handed_back(worker: WorkerView, hold: float, now: float) -> None:
    """Leave a worker alone that has handed a task back: for ``hold`` seconds, and longer if it takes none at all."""
    if now >= worker.full_until:
        worker.nacks += 1
    if now < worker.room_at + LONGEST_HOLD:
        worker.room_at = float("-inf")
        worker.broken += 1
        worker.room_after = now + min(max(hold, LONGEST_DOUBT), hold * 2.0 ** min(worker.broken, 30))
    doublings = min(max(0, worker.nacks - FREE_NACKS), 30)
    worker.full_until = now + min(max(hold, LONGEST_HOLD), hold * 2.0**doublings)


def has_room(worker: WorkerView, now: float) -> None:
    """Give a worker that says it has room a task at once, unless that has come to nothing lately."""
    if now >= worker.room_after:
        worker.full_until = 0.0


def takes(worker: WorkerView, hold: float, now: float) -> None:
    """Note that a worker has taken a task: nothing speaks against giving it another one."""
    worker.full_until = min(worker.full_until, now + hold)
    worker.nacks = worker.broken = 0
    worker.room_at, worker.room_after = float("-inf"), 0.0


class Placement:
    """Chooses workers for tasks, by what tasks of the same kind have taken lately."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._usual: dict[str, float] = {}  # seconds, by kind

    def usual(self, kind: str) -> float | None:
        """Return the seconds that tasks of a kind have taken lately; None while that isn't known."""
        return self._usual.get(kind)

    def took(self, kind: str, seconds: float) -> None:
        """Learn from a task that is over."""
        before = self._usual.pop(kind, None)
        self._usual[kind] = seconds if before is None else 0.8 * before + 0.2 * seconds
        if len(self._usual) > MAX_KINDS:
            del self._usual[next(iter(self._usual))]

    def forget(self, kind: str) -> None:
        """Send no task of this kind ahead until a short one has come back."""
        self._usual.pop(kind, None)

    def choose(
        self, workers: Iterable[WorkerView], spec: TaskSpec, now: float, refused: Mapping[bytes, Refused] = NOBODY
    ) -> WorkerView | None:
        """Return the worker to give the task to, or None.

        It is one with a free slot, which has most of the task's buffers already and least to do; else one that may be
        sent short tasks ahead. ``refused``: workers that have refused the task. They get it again under other
        conditions only, and not at once.
        """
        ahead, needs = self._ahead(spec), spec.needs
        best: WorkerView | None = None
        best_rank: tuple[bool, int, float] = (True, 0, 0.0)
        for worker in workers:
            if worker.state is not WorkerState.UP or not fits(worker, needs):
                continue
            if refused and (no := refused.get(worker.sid)) and (no.edition == worker.terms.edition or now < no.until):
                continue
            if 0 < worker.terms.input < spec.size:
                continue
            load = len(worker.tasks)
            busy = load >= worker.terms.slots
            if now < worker.full_until or load >= worker.terms.slots * (1 + ahead):
                continue
            if load and worker.nacks > FREE_NACKS:  # one at a time, until it takes one
                continue
            missing = sum(size for ref, size in spec.refs.items() if ref not in worker.have) if spec.refs else 0
            rank = (busy, missing, load / max(1, worker.terms.slots))
            if best is None or rank < best_rank:
                best, best_rank = worker, rank
        return best

    def _ahead(self, spec: TaskSpec) -> int:
        """Return how many tasks like this one may wait at a worker for each of its slots."""
        usual = self._usual.get(spec.kind)
        if usual is None or usual > SHORT or (spec.refs and sum(spec.refs.values()) > SMALL):
            return 0
        return min(self._settings.backlog, int(AHEAD / max(usual, 1e-6)))


def stays(worker: WorkerView) -> bool:
    """Return whether the worker may have tasks of ours, now or later."""
    may = worker.for_us and not worker.too_bare
    return may and worker.state is not WorkerState.LEAVING and worker.terms.slots > 0


def fits(worker: WorkerView, needs: Needs) -> bool:
    """Return whether the worker takes tasks with these needs, now or when it has room."""
    terms = worker.terms  # and stays(), written out: this is asked several times for each task
    return (
        worker.state is not WorkerState.LEAVING
        and terms.slots > 0
        and worker.for_us
        and not worker.too_bare
        and not terms.paused
        and (needs is ANY or (is_chosen(worker, needs) and needs.met(terms) and installs(worker, needs.packages)))
    )


def is_chosen(worker: WorkerView, needs: Needs) -> bool:
    """Return whether the worker is one of those, or of those members, that are named; or the one that is."""
    named = not needs.on or worker.member in needs.on or worker.name in needs.on
    return named and needs.pin in (None, worker.sid)


def installs(worker: WorkerView, packages: tuple[str, ...]) -> bool:
    """Return whether the worker takes tasks that ask for these packages, by what its offer says."""
    return not packages or offers_packages(worker.terms.packages, own=worker.own)


def pythons(workers: Iterable[WorkerView]) -> str:
    """Return the workers' versions of Python, for people."""
    return ", ".join(sorted({w.terms.python for w in workers})) or "none"
