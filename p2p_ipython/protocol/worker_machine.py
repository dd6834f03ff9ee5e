"""The worker's side of a task's life: every decision, no I/O.

A task goes through these states on a worker::

    (arrives) ──free slot──► running ──result──► over
        │                       │  ├──its process ended by itself──► over: "died", an error of the task
        ├──all busy──► held ────┤  └──its process was killed──► "lost": the client gives it to somebody else
        │                │      └──recall, or its link is lost──► stopped, nothing is said
        └──paused────────┼──`hold` seconds, pausing, or closing──► nack: never started
                         └──recall, or its link is lost──► dropped

A task is known by (link, id, attempt). An attempt that was nacked has certainly never started; one that was
started is never nacked. Slots are never exceeded: a slot is busy from ``Start`` until its runner has said
``result`` or has ended (``slot_died``), after which it needs a fresh one (``slot_ready``).

Slots are shared by member, that is, by who signed the client's certificate: a slot that falls free goes to the one
who has had least of them lately (shares.py), then to his links in turn, then in order of arrival. Who waits need not
have a task here: those that he gets back are with his client for a moment, and the next one comes when the last one's
result has got there. So a link goes through these states, as far as others want the slots, too::

    (no task here) ──task handed back, or its result sent──► waiting ──it is his turn──► a slot is kept, `room` is said
          ▲                                                     │                         │   │
          ├──────── a task comes, `pass`, or WAIT seconds ──────┘                         │   └──a task comes──► it runs
          └──── `pass`, or `hold` seconds: not waiting on any link until a task comes ────┘

A slot is kept only from somebody who has had more, by at least what keeping it may cost, ``hold``; and it counts as
used by whom it is kept for. So nobody gains by waiting and not coming, and a single member's tasks never wait for this.

While it is *paused* it takes no task and keeps no slot: what is held is handed back, what runs goes on, links stay.

Pure: ``now`` is any clock that doesn't go back, seconds. Each event returns the actions that follow from it;
``deadline()`` says when ``tick`` is due.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from p2p_ipython.config import Settings
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import Accept, Bye, Hello, Message, Request, Terms
from p2p_ipython.protocol.shares import Shares

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

MAX_HELD = 1024
"""Tasks that one link may have waiting here; more are handed back at once. Clients send far fewer."""

MAX_HELD_PER_MEMBER = 4 * MAX_HELD
"""Tasks that all the links of one member may have waiting here."""

WAIT = 2.0
"""Seconds for which a link without a task here is taken to wait: clients with work come again after 0.25 s."""

MAX_USERS = 1000
"""Members whose use is counted, for whoever lends; beyond that, the one served longest ago is forgotten."""

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
    told: bool = False  # that it is there: offers said before don't count it
    job: _Job | None = None
    member: str = ""  # whose job it is: also when his link is lost
    since: float = 0.0
    announced: bool = False
    wanted: bool = True  # False once the task was recalled or its link lost: the runner is still ending it


class _Next(enum.Enum):
    """Where the next task of a link that waits probably is."""

    PAUSED = "with a client that got one back, and doesn't send it unasked for a moment"
    COMING = "with a client that sends it of its own accord, or was told to"
    HERE = "here: held, or it runs already"


@dataclass(frozen=True)
class _Place:
    """A link waits: its member wants more slots than he has."""

    until: float
    next: _Next


@dataclass(frozen=True)
class _Reserve:
    """A slot is kept for a member, whose client at this link was told so."""

    link: int
    member: str
    since: float


def _nobody(_signer: str) -> bool:
    return False


class WorkerMachine:
    """Which task runs in which slot, and what the clients are told.

    ``own`` says whether somebody, by the fingerprint of his key, is the worker's own member: the offer is always for
    him, too.
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
        # By link, which is in order of its turn; tasks in order of arrival, with the time.
        self._held: dict[int, dict[_Job, float]] = {}
        self._places: dict[int, _Place] = {}  # by link, in order of its turn
        self._reserves: dict[int, _Reserve] = {}  # by slot
        self._shares = Shares()
        self._links: dict[int, Certificate] = {}
        self._linked: Counter[str] = Counter()  # links by member; nobody is in it with none
        self._meeting: Counter[str] = Counter()  # likewise those that are being made
        self._closing = False
        self._paused = False
        self.usage: dict[str, tuple[int, float]] = {}
        """Tasks that were run for a member, whatever became of them, and the seconds that they took. Read it only."""
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
        if self._paused:
            return replace(self._terms, free=0, paused=True)
        free = sum(slot.ready and slot.job is None for slot in self._slots) - len(self._reserves)
        return replace(self._terms, free=free)

    def heard(self, client: Certificate, message: Message, now: float, wall: float) -> list[Action]:
        """An authentic message of another session of this cluster."""
        match message:
            case Accept(to=to, box=box) if client.role == "client":
                member, all_links = client.signer, len(self._links) + self._meeting.total()
                fits = all_links < MAX_LINKS and self._linked[member] + self._meeting[member] < MAX_LINKS_PER_MEMBER
                if to == self._sid and not self._closing and fits and self.welcomes(member):
                    self._meeting[member] += 1
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

    def meet_failed(self, client: Certificate) -> list[Action]:
        """The client was not met. It will ask again."""
        _one_less(self._meeting, client.signer)
        return self._done()

    def link_up(self, link: int, client: Certificate) -> list[Action]:
        """A link to a client is made. ``link`` numbers it; numbers aren't used again."""
        _one_less(self._meeting, client.signer)
        self._links[link] = client
        self._linked[client.signer] += 1
        return self._done()

    def link_lost(self, link: int, now: float) -> list[Action]:
        """The link is gone for good: nobody waits for its tasks any more."""
        client = self._links.pop(link, None)
        if client is None:
            return []
        _one_less(self._linked, client.signer)
        self._leave(link, now)
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
        if self._closing or self._paused or self._is_full(link):
            self._nack(job, "closing" if self._closing else "paused" if self._paused else "busy")
            return self._done()
        if self._is_shared():
            self._level(link, now)
        held[job] = now
        return self._fill(now)

    def passed(self, link: int, now: float) -> list[Action]:
        """The client has no task for us now: the slots that are kept for it go to others."""
        self._leave(link, now)
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
        slot = self._slots[number]
        slot.ready = True
        if not slot.told and self._answered > float("-inf"):  # those who heard the first offer think it is taken
            self._hello_at = min(self._hello_at, self._answered + ANSWER_EVERY)
        slot.told = True
        return self._fill(now)

    def slot_result(self, number: int, now: float) -> tuple[int, int] | None:
        """The slot's runner has said its task's result.

        Returns (link, attempt) of who is to get it, or None when nobody wants it. ``fill`` must follow.
        """
        job, wanted = self._vacate(number, now)
        if job is None:
            return None
        self._actions.append(Forget(job.link, job.task, job.attempt))
        if not wanted:
            return None
        others = self._waiting(now) - {self._links[job.link].signer} if self._is_shared() else None
        if others and not self._held.get(job.link):
            self._wait(job.link, now, _Next.COMING)  # its next task, if there is one, comes when this result is there
        return job.link, job.attempt

    def fill(self, now: float) -> list[Action]:
        """Give free slots to those who wait, held tasks first of all."""
        return self._fill(now)

    def slot_died(self, number: int, *, killed: bool, detail: str, now: float) -> list[Action]:
        """The slot's runner has ended in the middle of a task, or idle.

        ``killed``: from outside (signal 9: the machine's memory ran out, or somebody's kill), so another worker
        may do better. Otherwise the task did it, and would do it again: that is its result.
        """
        slot = self._slots[number]
        slot.ready, slot.starting_until = False, now + START_GRACE
        self._give_up(number, now)
        job, wanted = self._vacate(number, now)
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

    # -- pauses --

    def pause(self, now: float) -> list[Action]:
        """Take no task until ``resume``; hand back those that wait. The next ``tick``, which is due, says so."""
        if not self._paused and not self._closing:
            self._paused, self._hello_at = True, now
            self._hand_all_back("paused", now)
        return self._done()

    def resume(self, now: float) -> list[Action]:
        """Take tasks again. The next ``tick``, which is due, says so."""
        if self._paused and not self._closing:
            self._paused, self._hello_at = False, now
        return self._done()

    # -- time, and the end --

    def close(self, now: float) -> list[Action]:
        """Take no more tasks; hand back those that wait. Those that run go on until the caller ends them."""
        if not self._closing:
            self._closing = True
            self._actions.append(Say(Bye()))
            self._hand_all_back("closing", now)
        return self._done()

    def deadline(self) -> float:
        """When ``tick`` is due."""
        times = [self._hello_at]
        times += [next(iter(held.values())) + self._settings.hold for held in self._held.values() if held]
        times += [reserve.since + self._settings.hold for reserve in self._reserves.values()]
        times += [s.since + ANNOUNCE for s in self._slots if s.job is not None and s.wanted and not s.announced]
        return min(times)

    def tick(self, now: float, wall: float) -> list[Action]:
        """Time has passed."""
        if self._reserves:
            self._end_reserves(now)
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
                    self._wait_if_others_have_slots(job.link, now)
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

    def busy(self) -> int:
        """How many slots run something that is still wanted."""
        return sum(slot.job is not None and slot.wanted for slot in self._slots)

    def welcomes(self, signer: str) -> bool:
        """Whether the offer is for a member, by the fingerprint of his key."""
        return not self._terms.only or signer in self._terms.only or self._own(signer)

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
        for number, reserve in list(self._reserves.items()):
            held_at = next((link for link in self._held_links() if self._links[link].signer == reserve.member), None)
            if held_at is not None:
                self._give_up(number, now)
                self._start(number, held_at, now)
        self._places = {link: place for link, place in self._places.items() if now < place.until}
        told: Counter[int] = Counter()
        for number, slot in enumerate(self._slots):
            if not slot.ready or slot.job is not None or number in self._reserves:
                continue
            link = self._next_link(now)
            if link is None:
                break
            if self._held.get(link):
                self._start(number, link, now)
            else:
                self._reserve(number, link, now)
                told[link] += 1
        for link, free in told.items():
            self._actions.append(Reply(link, {"t": "room", "free": free}))

    def _next_link(self, now: float) -> int | None:
        """The link whose turn it is: it has a task here, or a slot should be kept for it. None: nobody's."""
        if not self._is_shared() or not (self._places or any(self._held.values())):
            return next(self._held_links(), None)
        here: dict[str, int] = {}
        for link in self._held_links():
            here.setdefault(self._links[link].signer, link)
        away: dict[str, int] = {}
        for link, place in self._places.items():
            member = self._links[link].signer
            if member not in here and place.next is not _Next.HERE:
                away.setdefault(member, link)
        if len(here) == 1 and not away:
            return next(iter(here.values()))
        order = {member: self._shares.order(member, now) for member in (*here, *away)}
        first = min(order, key=order.__getitem__, default=None)
        if first is None or first in here:
            return here[first] if first is not None else None
        if here:
            second = min(here, key=order.__getitem__)
            cheap = order[second][0] - order[first][0] <= self._settings.hold
            return here[second] if cheap else away[first]
        # Nobody else wants it: whoever sends of his own accord is not told.
        needless = len(away) == 1 and self._places[away[first]].next is _Next.COMING
        return None if needless else away[first]

    def _start(self, number: int, link: int, now: float) -> None:
        held = self._held.pop(link)
        job = next(iter(held))
        del held[job]
        self._held[link] = held  # to the end: the next slot is another link's
        slot = self._slots[number]
        slot.job, slot.since, slot.announced, slot.wanted = job, now, False, True
        slot.member = self._links[link].signer
        self._shares.begin(slot.member, now)
        self._actions.append(Start(number, job.link, job.task, job.attempt))

    def _vacate(self, number: int, now: float) -> tuple[_Job | None, bool]:
        """The slot's runner is done with its task; returns that and whether it was still wanted."""
        slot = self._slots[number]
        job, wanted = slot.job, slot.wanted
        if job is not None:
            self._shares.end(slot.member, slot.since, now)
            self._count(slot.member, now - slot.since)
        slot.job, slot.wanted = None, True
        return job, wanted

    def _count(self, member: str, seconds: float) -> None:
        tasks, before = self.usage.pop(member, (0, 0.0))
        self.usage[member] = tasks + 1, before + seconds
        if len(self.usage) > MAX_USERS:
            del self.usage[next(iter(self.usage))]

    def _held_links(self) -> Iterator[int]:
        return (link for link, held in self._held.items() if held)

    # -- inside: who waits, and what is kept for him --

    def _is_shared(self) -> bool:
        """Whether there is more than one member to share with."""
        return len(self._linked) > 1

    def _waiting(self, now: float) -> set[str]:
        """The members that want more slots than they have."""
        links = [*self._held_links(), *(link for link, place in self._places.items() if now < place.until)]
        return {self._links[link].signer for link in links}

    def _level(self, link: int, now: float) -> None:
        """A task comes by a link: whoever wasn't waiting is compared with the others from now on."""
        if not self._places and not any(self._held.values()) and self._has_free_slot():
            return  # nobody waits, he won't either
        member, waiting = self._links[link].signer, self._waiting(now)
        if member not in waiting:
            self._shares.level(member, waiting, now)
        if link in self._places:
            self._places[link] = replace(self._places[link], next=_Next.HERE)

    def _has_free_slot(self) -> bool:
        slots = enumerate(self._slots)
        return any(slot.ready and slot.job is None and number not in self._reserves for number, slot in slots)

    def _wait(self, link: int, now: float, where: _Next) -> None:
        """A link's task has left, and others want the slots, too: it probably has another one."""
        before = self._places.get(link)
        if before is not None and before.next is _Next.PAUSED:
            where = _Next.PAUSED
        self._places[link] = _Place(now + WAIT, where)

    def _wait_if_others_have_slots(self, link: int, now: float) -> None:
        if not self._is_shared():
            return
        users = {slot.member for slot in self._slots if slot.job is not None}
        users.update(reserve.member for reserve in self._reserves.values())
        if users - {self._links[link].signer}:
            self._wait(link, now, _Next.PAUSED)

    def _reserve(self, number: int, link: int, now: float) -> None:
        member = self._links[link].signer
        self._reserves[number] = _Reserve(link, member, now)
        self._shares.begin(member, now)
        self._places[link] = replace(self._places.pop(link), next=_Next.COMING)  # to the end

    def _give_up(self, number: int, now: float) -> None:
        """The slot is not kept any more."""
        reserve = self._reserves.pop(number, None)
        if reserve is not None:
            self._shares.end(reserve.member, reserve.since, now)

    def _leave(self, link: int, now: float) -> None:
        """The link doesn't wait any more."""
        self._places.pop(link, None)
        for number, reserve in list(self._reserves.items()):
            if reserve.link == link:
                self._give_up(number, now)

    def _end_reserves(self, now: float) -> None:
        """Who hasn't come in time doesn't wait any more, at any of his links; others get the slots."""
        for number, reserve in list(self._reserves.items()):
            if now >= reserve.since + self._settings.hold:
                self._give_up(number, now)
                for link in [link for link in self._places if self._links[link].signer == reserve.member]:
                    del self._places[link]
        self._assign(now)

    def _is_full(self, link: int) -> bool:
        """Whether a link, or its member, has as many tasks waiting here as it may."""
        if len(self._held[link]) >= MAX_HELD:
            return True
        if len(self._held) == 1:
            return False
        member = self._links[link].signer
        return sum(len(self._held[at]) for at in self._held_links() if self._links[at].signer == member) >= (
            MAX_HELD_PER_MEMBER
        )

    def _nack(self, job: _Job, reason: str) -> None:
        self._actions.append(Reply(job.link, {"t": "nack", "id": job.task, "attempt": job.attempt, "reason": reason}))
        self._actions.append(Forget(job.link, job.task, job.attempt))

    def _hand_back(self, job: _Job, reason: str) -> None:
        del self._held[job.link][job]
        self._nack(job, reason)

    def _hand_all_back(self, reason: str, now: float) -> None:
        """Nobody waits here any more."""
        for link in self._links:
            self._leave(link, now)
        for held in self._held.values():
            for job in list(held):
                self._hand_back(job, reason)

    def _done(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions


def _one_less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
