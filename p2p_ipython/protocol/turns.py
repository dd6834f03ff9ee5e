"""Whose turn it is at a worker: tasks that wait for a slot, members who wait, and slots that are kept for them.

Slots are shared by member, that is, by who signed the client's certificate: a slot that falls free goes to the member
who has had least of them lately (shares.py), then to their links in turn, then in order of arrival. A member who waits
need not have a task here: those that were handed back are with their client for a moment, and the next one comes when
the last one's result has got there. So a link goes through these states, as far as others want the slots, too::

    (no task here) ──task handed back, or its result sent──► waiting ──its turn──► a slot is kept, `room` is said
          ▲                                                     │                   │   │
          ├──────── a task comes, `pass`, or WAIT seconds ──────┘                   │   └──a task comes──► it runs
          └──── `pass`, or `hold` seconds: not waiting until a task comes ──────────┘

A slot is kept only from somebody who has had more, by at least what keeping it may cost, ``hold``; and it counts as
used by the member whom it is kept for. So nobody gains by waiting and not coming, and a single member's tasks never
wait for this.

Pure: ``now`` is any clock that doesn't go back, seconds.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from p2p_ipython.protocol.shares import Shares

MAX_HELD = 1024
"""Tasks that one link may have waiting here; more are handed back at once. Clients send far fewer."""

MAX_HELD_PER_MEMBER = 4 * MAX_HELD
"""Tasks that all the links of one member may have waiting here."""

WAIT = 2.0
"""Seconds for which a link without a task here is taken to wait: clients with work come again after 0.25 s."""


class Job(NamedTuple):
    """An attempt of a task that came by a link."""

    link: int
    task: str
    attempt: int


class Next(enum.Enum):
    """Where the next task of a link that waits probably is."""

    PAUSED = "with a client that got one back, and doesn't send it unasked for a moment"
    COMING = "with a client that sends it of its own accord, or was told to"
    HERE = "here: held, or it runs already"


@dataclass(frozen=True)
class _Place:
    """A link waits: its member wants more slots than they have."""

    until: float
    next: Next


@dataclass(frozen=True)
class _Reserve:
    """A slot is kept for a member, whose client at this link was told so."""

    link: int
    member: str
    since: float


class Turns:
    """See the module. ``hold`` is how long a task or a slot is held at most, seconds."""

    def __init__(self, hold: float) -> None:
        self._hold = hold
        self._members: dict[int, str] = {}  # by link
        self._linked: Counter[str] = Counter()  # links by member; nobody is in it with none
        # By link, which is in order of its turn; tasks in order of arrival, with the time.
        self._held: dict[int, dict[Job, float]] = {}
        self._places: dict[int, _Place] = {}  # by link, in order of its turn
        self._reserves: dict[int, _Reserve] = {}  # by slot
        self._shares = Shares()

    # -- links --

    def join(self, link: int, member: str) -> None:
        """Let a link take part; ``member`` is the fingerprint of its client's member."""
        self._members[link] = member
        self._linked[member] += 1

    def part(self, link: int, now: float) -> list[Job]:
        """Forget a link that is gone. Returns the tasks that it had waiting here."""
        one_less(self._linked, self._members[link])
        self.leave(link, now)
        del self._members[link]
        return list(self._held.pop(link, {}))

    def member(self, link: int) -> str:
        """Return the member at the other end of a link."""
        return self._members[link]

    def links_of(self, member: str) -> int:
        """Count the links of a member."""
        return self._linked[member]

    def is_shared(self) -> bool:
        """Return whether there is more than one member to share with."""
        return len(self._linked) > 1

    # -- tasks that wait here --

    def is_held(self, job: Job) -> bool:
        """Return whether a task waits here."""
        return job in self._held.get(job.link, ())

    def is_full(self, link: int) -> bool:
        """Return whether a link, or its member, has as many tasks waiting here as it may."""
        if len(self._held.get(link, ())) >= MAX_HELD:
            return True
        if self._held.keys() <= {link}:
            return False
        member = self._members[link]
        mine = (held for at, held in self._held.items() if self._members[at] == member)
        return sum(map(len, mine)) >= MAX_HELD_PER_MEMBER

    def hold(self, job: Job, now: float, *, slot_free: bool) -> None:
        """Let a task that has arrived wait; ``slot_free``: a slot is there for it."""
        if self.is_shared():
            self._level(job.link, now, slot_free=slot_free)
        self._held.setdefault(job.link, {})[job] = now

    def drop(self, job: Job) -> bool:
        """Take a task out. Returns whether it was here."""
        return self._held.get(job.link, {}).pop(job, None) is not None

    def take(self, link: int) -> Job:
        """Take out the task of a link that came first; the next turn is another link's."""
        held = self._held.pop(link)
        job = next(iter(held))
        del held[job]
        self._held[link] = held  # to the end
        return job

    def has_task(self, link: int) -> bool:
        """Return whether a link has a task waiting here."""
        return bool(self._held.get(link))

    def overdue(self, now: float) -> list[Job]:
        """Return the tasks that have waited for as long as they may."""
        due = []
        for held in self._held.values():
            for job, since in held.items():
                if now < since + self._hold:  # as deadline() adds it up: floats don't always agree
                    break
                due.append(job)
        return due

    def prolong(self, job: Job, now: float) -> None:
        """Let a task wait for as long again; it keeps its place."""
        self._held[job.link][job] = now

    def hand_over(self, now: float) -> list[Job]:
        """Take out all tasks; from now on no link waits. Returns the tasks."""
        for link in self._members:
            self.leave(link, now)
        jobs = [job for held in self._held.values() for job in held]
        for held in self._held.values():
            held.clear()
        return jobs

    # -- slots --

    def begin(self, member: str, now: float) -> None:
        """Count a slot as used by a member, from now on."""
        self._shares.begin(member, now)

    def end(self, member: str, since: float, now: float) -> None:
        """Count it no longer."""
        self._shares.end(member, since, now)

    @property
    def kept(self) -> int:
        """How many slots are kept."""
        return len(self._reserves)

    def is_kept(self, slot: int) -> bool:
        """Return whether a slot is kept for somebody."""
        return slot in self._reserves

    def keep(self, slot: int, link: int, now: float) -> None:
        """Keep a slot for the member at a link, which is to be told."""
        member = self._members[link]
        self._reserves[slot] = _Reserve(link, member, now)
        self._shares.begin(member, now)
        self._places[link] = replace(self._places.pop(link), next=Next.COMING)  # to the end

    def give_up(self, slot: int, now: float) -> None:
        """Keep a slot no longer."""
        reserve = self._reserves.pop(slot, None)
        if reserve is not None:
            self._shares.end(reserve.member, reserve.since, now)

    def claim(self) -> tuple[int, int] | None:
        """Return (slot, link) of a kept slot whose member has a task here, by whatever link it came."""
        for slot, reserve in self._reserves.items():
            for link in self._held_links():
                if self._members[link] == reserve.member:
                    return slot, link
        return None

    def end_reserves(self, now: float) -> None:
        """Free the slots whose member hasn't come in time; that member waits on no link any more."""
        late = [(slot, kept.member) for slot, kept in self._reserves.items() if now >= kept.since + self._hold]
        for slot, member in late:
            self.give_up(slot, now)
            for link in [link for link in self._places if self._members[link] == member]:
                del self._places[link]

    def deadline(self) -> float:
        """Return when ``overdue`` or ``end_reserves`` has something to say."""
        times = [next(iter(held.values())) + self._hold for held in self._held.values() if held]
        times += [reserve.since + self._hold for reserve in self._reserves.values()]
        return min(times, default=float("inf"))

    # -- who waits --

    def next_link(self, now: float) -> int | None:
        """Return the link whose turn it is: it has a task here, or a slot should be kept for it. None: nobody's."""
        if not self.is_shared() or not (self._places or any(self._held.values())):
            return next(self._held_links(), None)
        here: dict[str, int] = {}
        for link in self._held_links():
            here.setdefault(self._members[link], link)
        away: dict[str, int] = {}
        for link, place in self._places.items():
            member = self._members[link]
            if member not in here and place.next is not Next.HERE:
                away.setdefault(member, link)
        if len(here) == 1 and not away:
            return next(iter(here.values()))
        order = {member: self._shares.order(member, now) for member in (*here, *away)}
        first = min(order, key=order.__getitem__, default=None)
        if first is None or first in here:
            return here[first] if first is not None else None
        if here:
            second = min(here, key=order.__getitem__)
            cheap = order[second][0] - order[first][0] <= self._hold
            return here[second] if cheap else away[first]
        # Nobody else wants it: a client that sends of its own accord is not told.
        needless = len(away) == 1 and self._places[away[first]].next is Next.COMING
        return None if needless else away[first]

    def wait(self, link: int, now: float, where: Next) -> None:
        """Let a link wait: its task has left, others want the slots, too, and it probably has another task."""
        before = self._places.get(link)
        if before is not None and before.next is Next.PAUSED:
            where = Next.PAUSED
        self._places[link] = _Place(now + WAIT, where)

    def end_waits(self, now: float) -> None:
        """Let links that have waited for ``WAIT`` seconds wait no longer."""
        self._places = {link: place for link, place in self._places.items() if now < place.until}

    def leave(self, link: int, now: float) -> None:
        """Let a link wait no longer; slots that are kept for it are free."""
        self._places.pop(link, None)
        for slot, reserve in list(self._reserves.items()):
            if reserve.link == link:
                self.give_up(slot, now)

    def others_wait(self, member: str, now: float) -> bool:
        """Return whether another member wants more slots than they have."""
        return self.is_shared() and bool(self._waiting(now) - {member})

    def keeps_for_others(self, member: str) -> bool:
        """Return whether a slot is kept for another member."""
        return any(reserve.member != member for reserve in self._reserves.values())

    # -- inside --

    def _held_links(self) -> Iterator[int]:
        return (link for link, held in self._held.items() if held)

    def _waiting(self, now: float) -> set[str]:
        """Return the members that want more slots than they have."""
        links = [*self._held_links(), *(link for link, place in self._places.items() if now < place.until)]
        return {self._members[link] for link in links}

    def _level(self, link: int, now: float, *, slot_free: bool) -> None:
        """Compare a member who wasn't waiting with the others from now on: a task of theirs has come."""
        if slot_free and not self._places and not any(self._held.values()):
            return  # nobody waits, and this member won't either
        member, waiting = self._members[link], self._waiting(now)
        if member not in waiting:
            self._shares.level(member, waiting, now)
        if link in self._places:
            self._places[link] = replace(self._places[link], next=Next.HERE)


def one_less(counter: Counter[str], key: str) -> None:
    """Count one less; a key with none is not in the counter."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
