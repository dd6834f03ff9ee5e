"""Try everything: from a small world, every event in every order, breadth first, and check each state.

States are worlds, pickled. Two that differ only in the time that has passed are one state: ``key`` takes all
times relative to the world's clock. What is explored is bounded by the number of faults and by ``limit``
states, not by time, so that a slow machine sees no less.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from people import certificate
from simulation import ClientSide, Event, Violation, WorkerSide, World

from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import Accept
from p2p_ipython.protocol.worker_machine import WorkerMachine

FAR = 60.0
"""Seconds: the explorer doesn't wait for what is further off."""

PAST = 1.0
"""Seconds: what is longer ago is all the same to the machines, but for tasks that need a certain Python and for
the time since a worker was heard (``Settings.presence`` is to be far away here)."""

MAX_UNREAD = 1
"""Lines that may be under way to one reader while time passes."""

# Certificates never change and there are few of them: one travels in a pickle by its name.
_NAMES: dict[bytes, tuple[str, str]] = {}


def _name(vouched: Certificate) -> tuple[Callable[..., Certificate], tuple[str, str]]:
    if vouched.sid not in _NAMES:
        for role, letter in [("client", "c"), ("worker", "w")]:
            for number in range(10):
                _NAMES[certificate(f"{letter}{number}", role).sid] = (f"{letter}{number}", role)
    return certificate, _NAMES[vouched.sid]


class _Pickler(pickle.Pickler):
    dispatch_table = copyreg.dispatch_table.copy()
    dispatch_table[Certificate] = _name


@dataclass
class Report:
    """What an exploration has found."""

    states: int = 0
    steps: int = 0
    completions: int = 0
    exhausted: bool = False
    violation: str = ""
    story: list[Event] = field(default_factory=list)


def dump(world: World) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(world)
    return buffer.getvalue()


def key(world: World) -> Hashable:
    """Equal for worlds that can't be told apart but by the clock."""
    now = world.now

    def ahead(time: float) -> float:
        return round(min(max(time - now, -PAST), FAR), 6)

    def client(side: ClientSide) -> Hashable:
        machine = side.machine
        return (
            tuple(
                (t.spec.id, t.state, t.attempt, t.losses, t.sid, frozenset(t.refused)) for t in machine._tasks.values()
            ),
            tuple((python, tuple(queue)) for python, queue in machine._queues.items()),
            tuple(
                (
                    (w.sid, w.state, w.terms.slots, w.terms.paused, tuple(w.tasks), frozenset(w.have), w.failures),
                    (w.full_until and ahead(w.full_until), w.meet_after and ahead(w.meet_after)),
                )
                for w in machine.workers.values()
            ),
            (ahead(machine._request_at), frozenset(machine._placement._usual)),
            tuple(side.links.items()),
        )

    def shares(machine: WorkerMachine) -> Hashable:
        turns = machine._turns
        order = {who.certificate.signer: turns._shares.order(who.certificate.signer, now) for who in world.clients}
        ranks = sorted(order, key=order.__getitem__)
        return (
            tuple((who, round(order[who][0] - order[ranks[0]][0], 2)) for who in ranks),
            tuple((link, place.next, ahead(place.until)) for link, place in machine._turns._places.items()),
            tuple((slot, kept.link, ahead(kept.since)) for slot, kept in machine._turns._reserves.items()),
        )

    def worker(side: WorkerSide) -> Hashable:
        if not side.alive:
            return None
        machine = side.machine
        slots = ((s.ready, s.job, s.announced or ahead(s.since), s.wanted) for s in machine._slots)
        waiting = machine._turns._held.items()
        held = ((link, tuple((job, ahead(t)) for job, t in jobs.items())) for link, jobs in waiting)
        return (
            (side.closing, side.paused),
            tuple(side.running.items()),
            (frozenset(side.known), frozenset(side.cache), frozenset(side.awaited.items())),
            tuple(slots),
            tuple(held),
            tuple(machine._links),
            (tuple(machine._meeting.items()), ahead(machine._hello_at), ahead(machine._answered)),
            # Nobody shares with himself: then it makes no difference who has had how much.
            shares(machine) if len(world.clients) > 1 else None,
        )

    return (
        tuple(map(client, world.clients)),
        tuple(map(worker, world.workers)),
        tuple(
            (
                (k.number, k.up, k.dead, k.in_order, k.client_knows, k.worker_knows),
                (repr(k.to_worker), repr(k.to_client), tuple(k.bulk)),
            )
            for k in world.links.values()
        ),
        # Lines may come in any order.
        tuple(frozenset(Counter(map(_line, lines)).items()) for lines in world.inboxes.values()),
        (tuple(world.asking.items()), tuple(world.answering.items())),
        (frozenset(world.granted.items()), frozenset(world.executions.items()), frozenset(world.settled.items())),
        (world.faults, world.pauses, world.says),
    )


def _line(line: Any) -> Hashable:
    vouched, message, _ = line
    return vouched.sid, type(message), message.box if isinstance(message, Accept) else getattr(message, "offer", None)


def explore(world: World, *, limit: int, complete_every: int = 0) -> Report:
    """Visit up to ``limit`` states; from each ``complete_every``-th one, check that all comes to its end."""
    report = Report()
    start = dump(world)
    seen = {hash(key(world))}
    queue: deque[tuple[bytes, tuple[Any, ...]]] = deque([(start, ())])
    while queue:
        state, story = queue.popleft()
        report.states += 1
        here: World = pickle.loads(state)
        try:
            if complete_every and report.states % complete_every == 0:
                report.completions += 1
                event: Event = ("all comes to its end",)
                ending: World = pickle.loads(state)
                ending.settle()
            events = [event for event in here.enabled() if _worth(here, event)]
            for event in events:
                report.steps += 1
                after: World = pickle.loads(state)
                after.step(event)
                mark = hash(key(after))
                if mark not in seen and len(seen) < limit:
                    seen.add(mark)
                    queue.append((dump(after), (*story, event)))
        except Violation as violation:
            report.violation, report.story = str(violation), [*story, event]
            return report
    report.exhausted = len(seen) < limit
    return report


def _worth(world: World, event: Event) -> bool:
    """Whether to try it. Time passes up to the next near deadline, and not while the board is full of unread lines:
    who asks every 15 seconds would otherwise make states for ever."""
    if event[0] != "time":
        return True
    deadline = world._next_deadline()
    near = deadline is not None and deadline <= world.now + FAR
    return near and all(len(lines) <= MAX_UNREAD for lines in world.inboxes.values())
