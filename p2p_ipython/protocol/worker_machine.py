"""The worker's side of a task's life: every decision, no I/O.

A task goes through these states on a worker::

    (arrives) ──free slot──► running ──result──► over
        │                       │  ├──its process ended by itself──► over: "died", an error of the task
        │                       │  ├──the lender's hand──► stopped, and said: its owner decides about another run
        ├──all busy──► held ────┤  └──its process was killed──► "lost": the client gives it to somebody else
        │                │      ├──recall──► stopped; when it has ended, a result says that it was interrupted
        │                │      └──its link is lost──► stopped, nothing is said
        └──paused────────┼──`hold` seconds, pausing, closing, or recall──► nack: never started
                         └──its link is lost──► dropped

A task is known by (link, id, attempt). An attempt that was nacked has certainly never started; one that was
started is never nacked. Slots are never exceeded: a slot is busy from ``Start`` until its runner has said
``result`` or has ended (``slot_died``), after which it needs a fresh one (``slot_ready``).

Slots are shared by member, that is, by who signed the client's certificate: turns.py says whose turn it is.

While it is *paused* it takes no task and keeps no slot: what is held is handed back, what runs goes on, links stay.
A pause has a reason, in a word, that its offers and nacks say: "" for the lender's hand, else the policy's.

Pure: ``now`` is any clock that doesn't go back, seconds. Each event returns the actions that follow from it;
``deadline()`` says when ``tick`` is due.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from p2p_ipython.config import Settings
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import Accept, Bye, Hello, Message, Request, Terms
from p2p_ipython.protocol.task_frames import (
    MAX_DETAIL,
    MAX_WORD,
    RECALLED,
    Lost,
    Nack,
    Result,
    Room,
    Started,
    TaskFailure,
    WorkerFrame,
)
from p2p_ipython.protocol.transitions import check
from p2p_ipython.protocol.turns import Job, Next, Turns, one_less

ANNOUNCE = 0.05
"""Seconds after which a running task is announced as started. Most short ones are over by then, and their
result says enough."""

START_GRACE = 10.0
"""Seconds that tasks are held for a runner that is being started. One has taken 0.2 s, on a busy machine 3 s."""

MAX_LINKS = 256
"""Clients that are met at a time."""

MAX_LINKS_PER_MEMBER = 16
"""Clients of one member that are met at a time. Another one is ignored rather than an older one dropped: that one's
client would come back and drop another. Links whose client is gone end by themselves."""

MAX_USERS = 1000
"""Members whose use is counted, for whoever lends; beyond that, the one served longest ago is forgotten."""

STOPPED = "p2p_ipython.errors.StoppedByLender"
"""The class of the error of a task that its lender has stopped, for clients that don't know this kind of failure."""

TIMEOUT = "builtins.TimeoutError"
"""The class of the error of a task whose time was up, for clients that don't know this kind of failure."""

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
    """Send a frame to the client."""

    link: int
    frame: WorkerFrame
    body: Buffer = b""


Action = Say | Meet | Start | Stop | Forget | Reply


# --- state ------------------------------------------------------------------------------------------


class JobState(enum.Enum):
    """Where a task stands at a worker. ``STOPPING``: nobody wants it any more, and its slot is not free yet."""

    __hash__ = object.__hash__  # as in the client's machine

    ARRIVED = "arrives"
    HELD = "held"
    RUNNING = "running"
    STOPPING = "stopping"
    OVER = "over"


TRANSITIONS: Mapping[JobState, Mapping[str, frozenset[JobState]]] = {
    JobState.ARRIVED: {
        "held": frozenset({JobState.HELD}),
        "nack": frozenset({JobState.OVER}),
    },
    JobState.HELD: {
        "slot": frozenset({JobState.RUNNING}),
        "nack": frozenset({JobState.OVER}),
        "recall": frozenset({JobState.OVER}),
        "link lost": frozenset({JobState.OVER}),
    },
    JobState.RUNNING: {
        "result": frozenset({JobState.OVER}),
        "died": frozenset({JobState.OVER}),
        "killed": frozenset({JobState.OVER}),
        "recall": frozenset({JobState.STOPPING}),
        "link lost": frozenset({JobState.STOPPING}),
        "stopped": frozenset({JobState.STOPPING}),
    },
    JobState.STOPPING: {
        "result": frozenset({JobState.OVER}),
        "died": frozenset({JobState.OVER}),
        "killed": frozenset({JobState.OVER}),
    },
}
"""What may become of a task: state → event → next states. An attempt that was nacked has never started, and one that
was started is never nacked."""


@dataclass
class _Slot:
    starting_until: float
    ready: bool = False
    told: bool = False  # that it is there: offers said before don't count it
    job: Job | None = None
    member: str = ""  # whose job it is: also when their link is lost
    since: float = 0.0
    announced: bool = False
    wanted: bool = True  # False once the task was recalled or its link lost: the runner is still ending it
    recalled: bool = False  # its client waits for its end


def _nobody(_signer: str) -> bool:
    return False


def _ended(what: str, detail: str) -> TaskFailure:
    """Describe how a task has ended that its runner has not described."""
    return TaskFailure(what, class_name="" if what == "died" else TIMEOUT, message=detail)


class WorkerMachine:
    """Decides which task runs in which slot, and what the clients are told.

    ``own`` says whether a fingerprint belongs to the worker's own member: the offer is always for them, too.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sid: bytes,
        name: str,
        terms: Terms,
        now: float,
        own: Callable[[str], bool] = _nobody,
    ) -> None:
        self._settings = settings
        self._sid = sid
        self._name = name
        self._terms = terms
        self._own = own
        self._slots = [_Slot(starting_until=now + START_GRACE) for _ in range(terms.slots)]
        self._turns = Turns(settings.hold)
        self._stories: dict[Job, list[str]] = {}  # of the tasks that aren't over
        self._links: dict[int, Certificate] = {}
        self._meeting: Counter[str] = Counter()  # links that are being made, by member
        self._closing = False
        self._paused = False
        self._why = ""  # it is paused
        self.usage: dict[str, tuple[int, float]] = {}
        """Tasks that were run for a member, whatever became of them, and the seconds that they took. Read it only."""
        self._hello_at = now
        self._answered = float("-inf")
        self._actions: list[Action] = []

    # -- the board --

    def hello(self, wall: float) -> Hello:
        """Return what to say of this worker; ``wall`` is Unix time, seconds."""
        return Hello(name=self._name, time=int(wall), offer=self.terms())

    def terms(self) -> Terms:
        """Return the standing offer as it is now; a worker that is closing offers no slots."""
        if self._closing:
            return replace(self._terms, slots=0, free=0)
        if self._paused:
            return replace(self._terms, free=0, paused=True, why=self._why)
        free = sum(slot.ready and slot.job is None for slot in self._slots) - self._turns.kept
        return replace(self._terms, free=free)

    def heard(self, client: Certificate, message: Message, now: float, wall: float) -> list[Action]:
        """Note that another session of this cluster has said something; ``message`` is authentic."""
        match message:
            case Accept(to=to, box=box) if client.role == "client":
                member, all_links = client.signer, len(self._links) + self._meeting.total()
                mine = self._turns.links_of(member) + self._meeting[member]
                fits = all_links < MAX_LINKS and mine < MAX_LINKS_PER_MEMBER
                if to == self._sid and not self._closing and fits and self.welcomes(member):
                    self._meeting[member] += 1
                    self._actions.append(Meet(client, box))
            case Hello(offer=None) | Request():
                # A client has come, or has nobody for its work: show the offer. Not for every one of a crowd:
                # a client that comes shortly after an answer has missed it, and gets the next one with all the others.
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

    def meet_failed(self, client: Certificate) -> list[Action]:
        """Note that the client was not met. It will ask again."""
        one_less(self._meeting, client.signer)
        return self._done()

    def link_up(self, link: int, client: Certificate) -> list[Action]:
        """Note that a link to a client is made. ``link`` numbers it; numbers aren't used again."""
        one_less(self._meeting, client.signer)
        self._links[link] = client
        self._turns.join(link, client.signer)
        return self._done()

    def link_lost(self, link: int, now: float) -> list[Action]:
        """Note that the link is gone for good: nobody waits for its tasks any more."""
        if self._links.pop(link, None) is None:
            return []
        for job in self._turns.part(link, now):
            self._enter(job, JobState.HELD, "link lost", JobState.OVER)
        for number, slot in enumerate(self._slots):
            if slot.job is not None and slot.job.link == link and slot.wanted:
                self._stop(number, slot, "link lost")
        return self._fill(now)

    # -- tasks --

    def task(self, link: int, task: str, attempt: int, now: float) -> list[Action]:
        """Note that a task has arrived by a link (its large buffers may still be on their way)."""
        job = Job(link, task, attempt)
        if link not in self._links or self._turns.is_held(job) or any(slot.job == job for slot in self._slots):
            return self._done()
        if self._closing or self._paused or self._turns.is_full(link):
            self._nack(job, JobState.ARRIVED, "closing" if self._closing else "paused" if self._paused else "busy")
            return self._done()
        self._enter(job, JobState.ARRIVED, "held", JobState.HELD)
        free = self._turns.is_shared() and any(self._is_free(number) for number in range(len(self._slots)))
        self._turns.hold(job, now, slot_free=free)
        return self._fill(now)

    def passed(self, link: int, now: float) -> list[Action]:
        """Note that the client has no task for us now: the slots that are kept for it go to others."""
        self._turns.leave(link, now)
        return self._fill(now)

    def recall(self, link: int, task: str, attempt: int, now: float) -> list[Action]:
        """Note that the client doesn't want the task any more."""
        job = Job(link, task, attempt)
        if self._turns.drop(job):
            self._actions.append(Reply(link, Nack(task, attempt, RECALLED)))
            self._enter(job, JobState.HELD, "recall", JobState.OVER)
        for number, slot in enumerate(self._slots):
            if slot.job == job and slot.wanted:
                slot.recalled = True
                self._stop(number, slot, "recall")
        return self._fill(now)

    # -- slots --

    def slot_ready(self, number: int, now: float) -> list[Action]:
        """Note that the slot has a fresh runner."""
        slot = self._slots[number]
        slot.ready = True
        if not slot.told and self._answered > float("-inf"):  # those who heard the first offer think it is taken
            self._hello_at = min(self._hello_at, self._answered + ANSWER_EVERY)
        slot.told = True
        return self._fill(now)

    def slot_result(self, number: int, result: Result, body: Buffer, now: float) -> list[Action]:
        """Note that the slot's runner has said the result of its task."""
        slot = self._slots[number]
        job, wanted = slot.job, slot.wanted
        if job is not None and wanted:
            self._actions.append(Reply(job.link, result, body))
        awaited = wanted or slot.recalled
        self._say_stopped(slot, result.seconds)
        self._vacate(number, "result", now)
        idle = job is not None and awaited and not self._turns.has_task(job.link)
        if job is not None and idle and self._turns.others_wait(slot.member, now):
            # The link's next task, if there is one, comes when this result is there.
            self._turns.wait(job.link, now, Next.COMING)
        return self._fill(now)

    def slot_died(self, number: int, *, killed: bool, detail: str, now: float, what: str = "died") -> list[Action]:
        """Note that the slot's runner has ended in the middle of a task, or idle.

        ``killed``: from outside (signal 9: the machine's memory ran out, or somebody's kill), so another worker
        may do better. Otherwise the task did it, and would do it again: that is its result, an error of kind ``what``.
        """
        slot = self._slots[number]
        slot.ready, slot.starting_until = False, now + START_GRACE
        self._turns.give_up(number, now)
        job, wanted = slot.job, slot.wanted
        if job is not None and wanted:
            detail = detail[:MAX_DETAIL]
            frame = (
                Lost(job.task, job.attempt, detail)
                if killed
                else Result(job.task, job.attempt, False, (), failure=_ended(what, detail))
            )
            self._actions.append(Reply(job.link, frame))
        self._say_stopped(slot, None)
        self._vacate(number, "killed" if killed else "died", now)
        return self._fill(now)

    # -- pauses --

    def pause(self, now: float, why: str = "") -> list[Action]:
        """Take no task until ``resume``; hand back those that wait. The next ``tick``, which is due, says so.

        ``why``: the policy's reason, in a word of messages.py; "" for the lender's hand. It may change meanwhile.
        """
        if not self._closing and (not self._paused or why != self._why):
            self._hello_at, self._why = now, why
            if not self._paused:
                self._paused = True
                self._hand_all_back("paused", now)
        return self._done()

    def resume(self, now: float) -> list[Action]:
        """Take tasks again. The next ``tick``, which is due, says so."""
        if self._paused and not self._closing:
            self._paused, self._why, self._hello_at = False, "", now
        return self._done()

    # -- the lender's policy and hand --

    def amend(self, now: float, **conditions: Any) -> list[Action]:
        """Change conditions of the offer, by the names of ``Terms``. The next ``tick``, which is due, says so."""
        terms = replace(self._terms, **conditions)
        if terms != self._terms:
            self._terms, self._hello_at = terms, now
        return self._done()

    def refuse(self, link: int, task: str, attempt: int, why: str, detail: str) -> list[Action]:
        """Hand back a task that has just arrived: the lender's policy doesn't take it."""
        job = Job(link, task, attempt)
        self._actions.append(Reply(link, Nack(task, attempt, "refused", why, detail[:MAX_WORD], self._terms.edition)))
        self._enter(job, JobState.ARRIVED, "nack", JobState.OVER)
        return self._done()

    def stop_all(self, now: float) -> list[Action]:
        """End what runs, by the lender's hand, and say so: its owners decide whether it runs elsewhere."""
        for number, slot in enumerate(self._slots):
            if slot.job is not None and slot.wanted:
                failure = TaskFailure("stopped", class_name=STOPPED, message="its lender has stopped it by hand")
                self._actions.append(
                    Reply(slot.job.link, Result(slot.job.task, slot.job.attempt, False, (), failure=failure))
                )
                self._stop(number, slot, "stopped")
        return self._fill(now)

    # -- time, and the end --

    def close(self, now: float) -> list[Action]:
        """Take no more tasks; hand back those that wait. Those that run go on until the caller ends them."""
        if not self._closing:
            self._closing = True
            self._actions.append(Say(Bye()))
            self._hand_all_back("closing", now)
        return self._done()

    def deadline(self) -> float:
        """Return when ``tick`` is due."""
        times = [self._hello_at, self._turns.deadline()]
        times += [s.since + ANNOUNCE for s in self._slots if s.job is not None and s.wanted and not s.announced]
        return min(times)

    def tick(self, now: float, wall: float) -> list[Action]:
        """Note that time has passed: at ``deadline()``, or at any other moment."""
        if self._turns.kept:
            self._turns.end_reserves(now)
            self._assign(now)
        starting = any(not slot.ready and now < slot.starting_until for slot in self._slots)
        for job in self._turns.overdue(now):
            if starting:
                self._turns.prolong(job, now)  # a runner is about to be there: elsewhere it would hardly be sooner
            else:
                self._turns.drop(job)
                self._nack(job, JobState.HELD, "busy")
                if self._others_have_slots(self._turns.member(job.link)):
                    self._turns.wait(job.link, now, Next.PAUSED)
        for slot in self._slots:
            if slot.job is not None and slot.wanted and not slot.announced and now >= slot.since + ANNOUNCE:
                slot.announced = True
                self._actions.append(Reply(slot.job.link, Started(slot.job.task, slot.job.attempt)))
        if now >= self._hello_at:
            self._say_hello(now, wall)
        return self._done()

    # -- questions --

    def owner_of(self, link: int) -> Certificate | None:
        """Return who is at the other end of a link."""
        return self._links.get(link)

    def current(self, number: int) -> Job | None:
        """Return what a slot runs for a client that still wants it."""
        slot = self._slots[number]
        return slot.job if slot.wanted else None

    def busy(self) -> int:
        """Count the slots that run something that is still wanted."""
        return sum(slot.job is not None and slot.wanted for slot in self._slots)

    def welcomes(self, signer: str) -> bool:
        """Return whether the offer is for a member, by the fingerprint of their key."""
        wanted = (not self._terms.only or signer in self._terms.only) and signer not in self._terms.not_for
        return wanted or self._own(signer)

    # -- inside --

    def _say_hello(self, now: float, wall: float) -> None:
        self._answered, self._hello_at = now, now + self._settings.presence
        if not self._closing:
            self._actions.append(Say(self.hello(wall)))

    def _fill(self, now: float) -> list[Action]:
        self._assign(now)
        return self._done()

    def _assign(self, now: float) -> None:
        """Use what slots there are: start tasks, or keep slots for those whose turn it is."""
        while (claim := self._turns.claim()) is not None:
            number, link = claim
            self._turns.give_up(number, now)
            self._start(number, link, now)
        self._turns.end_waits(now)
        told: dict[int, int] = {}
        for number in range(len(self._slots)):
            if not self._is_free(number):
                continue
            next_link = self._turns.next_link(now)
            if next_link is None:
                break
            if self._turns.has_task(next_link):
                self._start(number, next_link, now)
            else:
                self._turns.keep(number, next_link, now)
                told[next_link] = told.get(next_link, 0) + 1
        for link, free in told.items():
            self._actions.append(Reply(link, Room(free)))

    def _is_free(self, number: int) -> bool:
        slot = self._slots[number]
        return slot.ready and slot.job is None and not self._turns.is_kept(number)

    def _start(self, number: int, link: int, now: float) -> None:
        job, slot = self._turns.take(link), self._slots[number]
        self._enter(job, JobState.HELD, "slot", JobState.RUNNING)
        slot.job, slot.since, slot.announced, slot.wanted = job, now, False, True
        slot.member = self._turns.member(link)
        self._turns.begin(slot.member, now)
        self._actions.append(Start(number, job.link, job.task, job.attempt))

    def _stop(self, number: int, slot: _Slot, event: str) -> None:
        """End the task of a slot that nobody wants any more."""
        assert slot.job is not None
        self._enter(slot.job, JobState.RUNNING, event, JobState.STOPPING)
        slot.wanted = False
        self._actions.append(Stop(number, slot.job.task))

    def _say_stopped(self, slot: _Slot, seconds: float | None) -> None:
        """Say that a task has ended which its client has recalled; what it came to is of no interest."""
        if slot.job is not None and slot.recalled:
            failure = TaskFailure("interrupted", message="its client has recalled it")
            result = Result(slot.job.task, slot.job.attempt, False, (), seconds, failure=failure)
            self._actions.append(Reply(slot.job.link, result))

    def _vacate(self, number: int, event: str, now: float) -> None:
        """Take note that the slot's runner is done with its task, if it had one."""
        slot = self._slots[number]
        if slot.job is not None:
            self._enter(slot.job, JobState.RUNNING if slot.wanted else JobState.STOPPING, event, JobState.OVER)
            self._turns.end(slot.member, slot.since, now)
            self._count(slot.member, now - slot.since)
        slot.job, slot.wanted, slot.recalled = None, True, False

    def _enter(self, job: Job, before: JobState, event: str, state: JobState) -> None:
        """Let a task change its state. Raises ``LocalProtocolError`` where that can't be: a bug of ours."""
        check(TRANSITIONS, job.task, self._stories.setdefault(job, []), event, before=before, after=state)
        if state is JobState.OVER:
            del self._stories[job]
            self._actions.append(Forget(job.link, job.task, job.attempt))

    def _count(self, member: str, seconds: float) -> None:
        tasks, before = self.usage.pop(member, (0, 0.0))
        self.usage[member] = tasks + 1, before + seconds
        if len(self.usage) > MAX_USERS:
            del self.usage[next(iter(self.usage))]

    def _others_have_slots(self, member: str) -> bool:
        """Return whether other members have slots of this worker."""
        used = any(slot.job is not None and slot.member != member for slot in self._slots)
        return self._turns.is_shared() and (used or self._turns.keeps_for_others(member))

    def _nack(self, job: Job, state: JobState, reason: str) -> None:
        why = self._why if reason == "paused" else ""
        self._actions.append(Reply(job.link, Nack(job.task, job.attempt, reason, why)))
        self._enter(job, state, "nack", JobState.OVER)

    def _hand_all_back(self, reason: str, now: float) -> None:
        """Hand back the tasks that wait; nobody waits here any more."""
        for job in self._turns.hand_over(now):
            self._nack(job, JobState.HELD, reason)

    def _done(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions
