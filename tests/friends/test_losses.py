"""A member who floods a client or a worker costs others little: what the flood takes of its victim's processor.

In every second turn the flood hits a process that has nothing to do with the tasks of others. These turns say what a
task costs, on a machine that is as busy. So what else runs there matters little: it can only make the loss smaller.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import psutil
import pytest
from floods_support import ALL, CONNECTED, MOST, SEED, TITLE, WORK, Flooder, Growth, taking_part
from friends_support import Notebook, Village, eventually, lending, on_the_loop, soon
from strange_frames import Said, crowd

TURNS = 5 if ALL else 1
LOSS = 0.10
"""Part of a processor that a flood may take of its victim, in the median of the turns."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 if ALL else 240)]


class Turn(NamedTuple):
    """Two seconds or so: the tasks that were done, the victim's processor and the clock, seconds."""

    tasks: int
    spent: float
    seconds: float


def loss(working: Notebook, victim: int, what: str, busy: Callable[[], None], idle: Callable[[], None]) -> float:
    """The part of a processor that a flood takes of its victim, whose loop has one: so much others may lose.

    ``busy`` floods the victim, a process, and ``idle`` another one, while ``working`` has tasks done.
    """
    working.run(WORK)
    process = psutil.Process(victim)

    def spent() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    def turn(flood: Callable[[], None]) -> Turn:
        before, used, began = int(working.run("answer = len(done)")), spent(), time.monotonic()
        flood()
        tasks = int(working.run("answer = len(done)")) - before
        return Turn(tasks, spent() - used, time.monotonic() - began)

    turns = [(turn(idle), turn(busy)) for _ in range(TURNS)]
    working.run("over.set()")
    a_task = statistics.median(without.spent / max(1, without.tasks) for without, _ in turns)
    taken = [max(0.0, hit.spent - hit.tasks * a_task) / hit.seconds for _, hit in turns]
    rates = [statistics.median(each.tasks / each.seconds for each in some) for some in zip(*turns, strict=True)]
    lost = statistics.median(taken)
    print(
        f"{what}: a flood takes {lost:.1%} of a processor ({min(taken):.1%} to {max(taken):.1%});"
        f" tasks of others a second: {rates[1]:.0f}, without {rates[0]:.0f}",
        file=sys.stderr,
    )
    assert working.run("answer = failed") == "[]"
    return lost


def frames_of(sender: Any, kinds: list[str]) -> list[Said]:
    """Right frames about tasks that nobody has."""
    return [frame for kind in kinds for frame in crowd(sender, kind, 15, SEED)[1]]


def flooding(link: Callable[[], Any], said: list[Said]) -> Callable[[], None]:
    """What floods a link that stays."""
    flooder = Flooder(link, lambda _link: None)
    return lambda: flooder.flood(said, reads=True)


def test_a_client_that_a_worker_floods_does_its_tasks_with_others(alone: Village) -> None:
    profile = alone.found("bob", "carol", "dave")
    alone.person("carol").worker(TITLE, "--slots", "2")
    alice, _ = (alone.person(name).notebook(CONNECTED, logs=False) for name in ("alice", "dave"))
    said = frames_of("worker", ["started", "output", "chunk", "result", "nack", "lost", "want", "evicted"])
    with on_the_loop(lending(profile, alone.person("bob"))) as bob:

        def link_of(name: str) -> Any:
            signer = alone.person(name).fingerprint
            return next((end.link for number, end in list(bob._links.items()) if bob._member(number) == signer), None)

        for name in ("alice", "dave"):
            eventually(lambda name=name: link_of(name), f"a link with {name}")  # type: ignore[misc]
        links = [link_of(name) for name in ("alice", "dave")]
        soon(bob.pause)  # from now on it runs nothing
        with Growth(alice.program.process.pid) as growth:
            hit, other = (flooding(lambda link=link: link, said) for link in links)  # type: ignore[misc]
            lost = loss(alice, alice.program.process.pid, "a client", hit, other)
        assert all(link._connection is not None for link in links), "a link that has ended floods nobody"
    print(f"the client has grown by {growth.bytes >> 20} MiB from {growth.first >> 20}", file=sys.stderr)
    assert growth.bytes <= MOST
    assert lost < LOSS or not ALL


def test_a_worker_that_a_client_floods_does_the_tasks_of_others(alone: Village) -> None:
    profile = alone.found("bob", "carol", "dave")
    worker = alone.person("carol").worker(TITLE, "--slots", "2")
    alone.person("dave").worker(TITLE, "--only", "bob")
    alice = alone.person("alice").notebook(CONNECTED, logs=False)
    assert alice.run("answer = c.submit(pow, 2, 3).result(60)") == "8"
    said = frames_of("client", ["chunk", "recall", "pass"])
    with on_the_loop(taking_part(profile, alone.person("bob"))) as bob:

        def link_of(name: str) -> Any:
            signer, workers = alone.person(name).fingerprint, list(bob.machine.workers.values())
            sid = next((each.sid for each in workers if each.certificate.signer == signer), b"")
            return bob.links[sid].link if sid in bob.links else None

        for name in ("carol", "dave"):
            eventually(lambda name=name: link_of(name), f"a link with {name}")  # type: ignore[misc]
        links = [link_of(name) for name in ("carol", "dave")]
        with Growth(worker.process.pid) as growth:
            hit, other = (flooding(lambda link=link: link, said) for link in links)  # type: ignore[misc]
            lost = loss(alice, worker.process.pid, "a worker", hit, other)
        assert all(link._connection is not None for link in links), "a link that has ended floods nobody"
    print(f"the worker has grown by {growth.bytes >> 20} MiB from {growth.first >> 20}", file=sys.stderr)
    assert growth.bytes <= MOST
    assert lost < LOSS or not ALL
