"""The worker's side of a task's life: every decision, no I/O.

A task goes through these states on a worker::

    (arrives) ──free slot──► running ──result──► over
        │                       │  ├──its process ended by itself──► over: "died", an error of the task
        └──all busy──► held ────┤  └──its process was killed──► "lost": the client gives it to somebody else
                         │      └──recall, or its link is lost──► stopped, nothing is said
                         ├──`hold` seconds, or closing──► nack: never started
                         └──recall, or its link is lost──► dropped

A task is known by (link, id, attempt). An attempt that was nacked has certainly never started; one that was
started is never nacked. Slots are never exceeded: a slot is busy from ``Start`` until its runner has said
``result`` or has ended (``slot_died``), after which it needs a fresh one (``slot_ready``).

Held tasks are started in turn by link, so that a client with a thousand tasks doesn't keep another one waiting.

Pure: ``now`` is any clock that doesn't go back, seconds. Each event returns the actions that follow from it;
``deadline()`` says when ``tick`` is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from p2p_ipython.config import Settings
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import Accept, Bye, Hello, Message, Request, Terms

ANNOUNCE = 0.05
"""Seconds after which a running task is announced as started. Most short ones are over by then, and their
result says enough."""

START_GRACE = 10.0
"""Seconds that tasks are held for a runner that is being started. One has taken 0.2 s, on a busy machine 3 s."""

MAX_LINKS = 256
"""Clients that are met at a time."""

MAX_HELD = 1024
"""Tasks that one link may have waiting here; more are handed back at once. Clients send far fewer."""

ANSWER_EVERY = 1.0
"""Seconds between two answers to requests on the board, whoever asks."""


# --- actions ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """Post a message on the board."""

    message: Message


@dataclass(frozen=True)
class Meet:
    """Open ``box`` and meet the client; answer with ``link_up`` or ``meet_failed``."""

    client: Certificate
    box: bytes


@dataclass(frozen=True)
class Start:
    """Run the task in the slot."""

    slot: int
    link: int
    task: str
    attempt: int


@dataclass(frozen=True)
class Stop:
    """Interrupt the task that the slot runs; its result is of no interest."""

    slot: int
    task: str


@dataclass(frozen=True)
class Forget:
    """Drop what is kept of a task that was not started, or is over."""

    link: int
    task: str
    attempt: int


@dataclass(frozen=True)
class Reply:
    """Send a frame without a body."""

    link: int
    header: Mapping[str, Any]


Action = Say | Meet | Start | Stop | Forget | Reply


# --- state ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """An attempt of a task that came by a link."""

    link: int
    task: str
    attempt: int


@dataclass
class _Slot:
    starting_until: float
    ready: bool = False
    job: _Job | None = None
    since: float = 0.0
    announced: bool = False
    wanted: bool = True  # False once the task was recalled or its link lost: the runner is still ending it


class WorkerMachine:
    """Which task runs in which slot, and what the clients are told."""

    def __init__(self, settings: Settings, *, sid: bytes, name: str, terms: Terms, now: float) -> None:
        self._settings = settings
        self._sid = sid
        self._name = name
        self._terms = terms
        self._slots = [_Slot(starting_until=now + START_GRACE) for _ in range(terms.slots)]
        self._held: dict[int, dict[_Job, float]] = {}  # by link, in order of arrival, with the time
        self._links: dict[int, Certificate] = {}
        self._meeting = 0
        self._closing = False
        self._hello_at = now
        self._answered = float("-inf")
        self._actions: list[Action] = []

    # -- the board --

    def hello(self, wall: float) -> Hello:
        """What to say of ourselves; ``wall`` is Unix time, seconds."""
        return Hello(name=self._name, time=int(wall), offer=self.terms())

    def terms(self) -> Terms:
        """The standing offer as it is now; a worker that is closing offers no slots."""
        if self._closing:
            return replace(self._terms, slots=0, free=0)
        return replace(self._terms, free=sum(slot.ready and slot.job is None for slot in self._slots))

    def heard(self, client: Certificate, message: Message, now: float, wall: float) -> list[Action]:
        """An authentic message of another session of this cluster."""
        match message:
            case Accept(to=to, box=box) if client.role == "client":
                if to == self._sid and not self._closing and len(self._links) + self._meeting < MAX_LINKS:
                    self._meeting += 1
                    self._actions.append(Meet(client, box))
            case Hello(offer=None) | Request():
                # A client has come, or has nobody for its work: show the offer. Not for every one of a crowd:
                # who comes shortly after an answer has missed it, and gets the next one with all the others.
                fits = not isinstance(message, Request) or message.python in ("", self._terms.python)
                if fits and not self._closing:
                    if now >= self._answered + ANSWER_EVERY:
                        self._say_hello(now, wall)
                    else:
                        self._hello_at = min(self._hello_at, self._answered + ANSWER_EVERY)
            case _:
                pass
        return self._done()

    # -- links --

    def meet_failed(self) -> list[Action]:
        """The client was not met. It will ask again."""
        self._meeting -= 1
        return self._done()

    def link_up(self, link: int, client: Certificate) -> list[Action]:
        """A link to a client is made. ``link`` numbers it; numbers aren't used again."""
        self._meeting -= 1
        self._links[link] = client
        return self._done()

    def link_lost(self, link: int, now: float) -> list[Action]:
        """The link is gone for good: nobody waits for its tasks any more."""
        if self._links.pop(link, None) is None:
            return []
        for job in self._held.pop(link, {}):
            self._actions.append(Forget(link, job.task, job.attempt))
        for number, slot in enumerate(self._slots):
            if slot.job is not None and slot.job.link == link and slot.wanted:
                slot.wanted = False
                self._actions.append(Stop(number, slot.job.task))
        return self._fill(now)

    # -- tasks --

    def task(self, link: int, task: str, attempt: int, now: float) -> list[Action]:
        """A task has arrived by a link (its large buffers may still be on their way)."""
        job = _Job(link, task, attempt)
        if link not in self._links or any(slot.job == job for slot in self._slots):
            return self._done()
        held = self._held.setdefault(link, {})
        if job in held:
            return self._done()
        if self._closing or len(held) >= MAX_HELD:
            self._nack(job, "closing" if self._closing else "busy")
            return self._done()
        held[job] = now
        return self._fill(now)

    def recall(self, link: int, task: str, attempt: int, now: float) -> list[Action]:
        """The client doesn't want the task any more."""
        job = _Job(link, task, attempt)
        if self._held.get(link, {}).pop(job, None) is not None:
            self._actions.append(Forget(link, task, attempt))
        for number, slot in enumerate(self._slots):
            if slot.job == job and slot.wanted:
                slot.wanted = False
                self._actions.append(Stop(number, task))
        return self._fill(now)

    # -- slots --

    def slot_ready(self, number: int, now: float) -> list[Action]:
        """The slot has a fresh runner."""
        self._slots[number].ready = True
        return self._fill(now)

    def slot_result(self, number: int, now: float) -> tuple[int, int] | None:
        """The slot's runner has said its task's result.

        Returns (link, attempt) of who is to get it, or None when nobody wants it. ``fill`` must follow.
        """
        slot = self._slots[number]
        job, wanted = slot.job, slot.wanted
        slot.job, slot.wanted = None, True
        if job is None:
            return None
        self._actions.append(Forget(job.link, job.task, job.attempt))
        return (job.link, job.attempt) if wanted else None

    def fill(self, now: float) -> list[Action]:
        """Start held tasks in free slots."""
        return self._fill(now)

    def slot_died(self, number: int, *, killed: bool, detail: str, now: float) -> list[Action]:
        """The slot's runner has ended in the middle of a task, or idle.

        ``killed``: from outside (signal 9: the machine's memory ran out, or somebody's kill), so another worker
        may do better. Otherwise the task did it, and would do it again: that is its result.
        """
        slot = self._slots[number]
        slot.ready, slot.starting_until = False, now + START_GRACE
        job, wanted = slot.job, slot.wanted
        slot.job, slot.wanted = None, True
        if job is not None:
            self._actions.append(Forget(job.link, job.task, job.attempt))
        if job is not None and wanted:
            head = {"id": job.task, "attempt": job.attempt}
            if killed:
                self._actions.append(Reply(job.link, {"t": "lost", **head, "detail": detail}))
            else:
                error = {"kind": "died", "message": detail, "class": "", "traceback": "", "bases": []}
                result = {"t": "result", **head, "ok": False, "segments": [], "error": error}
                self._actions.append(Reply(job.link, result))
        return self._fill(now)

    # -- time, and the end --

    def close(self, now: float) -> list[Action]:
        """Take no more tasks; hand back those that wait. Those that run go on until the caller ends them."""
        if not self._closing:
            self._closing = True
            self._actions.append(Say(Bye()))
            for held in self._held.values():
                for job in list(held):
                    self._hand_back(job, "closing")
        return self._done()

    def deadline(self) -> float:
        """When ``tick`` is due."""
        times = [self._hello_at]
        times += [next(iter(held.values())) + self._settings.hold for held in self._held.values() if held]
        times += [s.since + ANNOUNCE for s in self._slots if s.job is not None and s.wanted and not s.announced]
        return min(times)

    def tick(self, now: float, wall: float) -> list[Action]:
        """Time has passed."""
        starting = any(not slot.ready and now < slot.starting_until for slot in self._slots)
        for held in self._held.values():
            due = []
            for job, since in held.items():
                if now < since + self._settings.hold:  # as deadline() adds it up: floats don't always agree
                    break
                due.append(job)
            for job in due:
                if starting:
                    held[job] = now  # a runner is about to be there: elsewhere it would hardly be sooner
                else:
                    self._hand_back(job, "busy")
        for slot in self._slots:
            if slot.job is not None and slot.wanted and not slot.announced and now >= slot.since + ANNOUNCE:
                slot.announced = True
                head = {"t": "started", "id": slot.job.task, "attempt": slot.job.attempt}
                self._actions.append(Reply(slot.job.link, head))
        if now >= self._hello_at:
            self._say_hello(now, wall)
        return self._done()

    # -- questions --

    def owner_of(self, link: int) -> Certificate | None:
        """Who is at the other end of a link."""
        return self._links.get(link)

    def current(self, number: int) -> tuple[int, str, int] | None:
        """(link, task, attempt) of what a slot runs for somebody who still wants it."""
        slot = self._slots[number]
        return (slot.job.link, slot.job.task, slot.job.attempt) if slot.job and slot.wanted else None

    def busy(self) -> bool:
        """Whether a slot runs something that is still wanted."""
        return any(slot.job is not None and slot.wanted for slot in self._slots)

    # -- inside --

    def _say_hello(self, now: float, wall: float) -> None:
        self._answered, self._hello_at = now, now + self._settings.presence
        if not self._closing:
            self._actions.append(Say(self.hello(wall)))

    def _fill(self, now: float) -> list[Action]:
        for number, slot in enumerate(self._slots):
            if not slot.ready or slot.job is not None:
                continue
            link = next((link for link, held in self._held.items() if held), None)
            if link is None:
                break
            held = self._held.pop(link)
            job = next(iter(held))
            del held[job]
            self._held[link] = held  # to the end: the next slot is another link's
            slot.job, slot.since, slot.announced, slot.wanted = job, now, False, True
            self._actions.append(Start(number, job.link, job.task, job.attempt))
        return self._done()

    def _nack(self, job: _Job, reason: str) -> None:
        self._actions.append(Reply(job.link, {"t": "nack", "id": job.task, "attempt": job.attempt, "reason": reason}))
        self._actions.append(Forget(job.link, job.task, job.attempt))

    def _hand_back(self, job: _Job, reason: str) -> None:
        del self._held[job.link][job]
        self._nack(job, reason)

    def _done(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions
