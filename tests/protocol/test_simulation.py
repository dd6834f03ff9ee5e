"""Clusters of real machines through seeded faults: the invariants of simulation.py hold at every step."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from people import NOW, OTHER_CLUSTER, session, stream
from simulation import FAULTS, Event, World

from p2p_ipython.config import Settings
from p2p_ipython.protocol.client_machine import Send
from p2p_ipython.protocol.messages import Bye
from p2p_ipython.protocol.placement import TaskSpec
from p2p_ipython.protocol.task_frames import Lost, Nack, Result, Room, Started, Want
from p2p_ipython.protocol.turns import Turns
from p2p_ipython.protocol.wire import LineWriter
from p2p_ipython.protocol.worker_machine import WorkerMachine

SEEDS = range(400)


def run(
    seed: int, *, steps: int = 400, faults: int = 25, pauses: int = 0, wired: bool = False, crowd: bool = False
) -> World:
    """Draw ``steps`` events by ``seed``, then let everything come to its end. ``crowd``: several want one worker."""
    rng = random.Random(seed)
    world = World(
        clients=rng.choice([2, 3, 4] if crowd else [1, 1, 2, 3]),
        members=rng.choice([0, 2]),
        workers=1 if crowd else rng.choice([1, 2, 3]),
        slots=rng.choice([1, 2, 4]),
        faults=faults,
        pauses=pauses,
        settings=Settings(backlog=rng.choice([0, 2, 16])),
        wired=wired,
    )
    tasks = 40 if crowd else rng.choice([1, 5, 30])
    slow, clumsy = rng.choice([0.02, 0.3, 1.0]), rng.choice([0.02, 0.1, 0.3])
    for _ in range(steps):
        if len(world.specs) < tasks and rng.random() < (0.8 if crowd else 0.2):
            number = len(world.specs)
            refs = {f"ref{r}": 1 << 20 for r in range(3) if rng.random() < 0.2}
            once, python = rng.random() < 0.3, rng.choice(["", "3.11"])
            retries, priority = 0 if once else rng.choice([0, 0, 2]), rng.choice([0, 0, 0, -1, 5])
            spec = TaskSpec(f"t{number}", python, refs, once, retries=retries, priority=priority)
            world.submit(rng.randrange(len(world.clients)), spec)
        if not any(side.alive and not side.closing for side in world.workers) and len(world.workers) < 8:
            world.start_worker(rng.choice([1, 2]))
        events = world.enabled()
        wrong = [event for event in events if event[0] in FAULTS and (event[0] != "cancel" or rng.random() < 0.2)]
        usual = [event for event in events if event[0] not in FAULTS]
        quick = [event for event in usual if event[0] not in ("finish", "time")]
        pausing = [event for event in usual if event[0] in ("pause", "resume")]
        usual, quick = ([event for event in some if event not in pausing] for some in (usual, quick))
        if pausing and rng.random() < clumsy:
            event = rng.choice(pausing)
        elif wrong and rng.random() < clumsy:
            kind = rng.choice(sorted({event[0] for event in wrong}))
            event = rng.choice([event for event in wrong if event[0] == kind])
        elif usual:
            event = rng.choice(quick if quick and rng.random() > slow / 2 else usual)
        else:
            continue
        world.step(event)
        if world.faults and rng.random() < clumsy / 3:
            lie(world, rng)
    world.settle(20_000)
    return world


def lie(world: World, rng: random.Random) -> None:
    """A worker speaks of a task or an attempt that it doesn't have."""
    links = [link for link in world.links.values() if not link.dead]
    if not links or not world.specs:
        return
    link, task = rng.choice(links), rng.choice(list(world.specs))
    sid = world.workers[link.worker].certificate.sid
    attempt = rng.randrange(5)
    if world.granted.get(task) == (sid, attempt):
        return
    if any(isinstance(said, Send) and said.task == task for said in link.to_worker):
        return  # by the time it is heard the lie might be what the task's own worker may say
    if any(job[1] == task for job in world.workers[link.worker].known):
        return
    lies = [
        Result(task, attempt, True, ()),
        Nack(task, attempt, ""),
        Lost(task, attempt),
        Started(task, attempt),
        Want(task, attempt, ("ref0",)),
        Room(1),
    ]
    world.step(("lie", link.number, rng.choice(lies)))


def test_where_several_want_one_worker_kept_slots_end_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariants hold there, too; the counts show that it was tried."""
    ends: Counter[str] = Counter()
    ways = ("task", "passed", "link_lost", "end_reserves")

    def counted(owner: type, name: str) -> None:
        whole = getattr(owner, name)

        def count(self: Any, *args: Any, **kwargs: Any) -> Any:
            turns = self if isinstance(self, Turns) else self._turns
            before = turns.kept
            answer = whole(self, *args, **kwargs)
            ends[name] += turns.kept < before
            return answer

        monkeypatch.setattr(owner, name, count)

    for name in ways:
        counted(Turns if name == "end_reserves" else WorkerMachine, name)
    for seed in range(150):
        run(seed, crowd=True)
    assert all(ends[name] for name in ways), ends


@pytest.mark.parametrize("part", range(4))
def test_every_task_ends_once_and_nothing_is_left_behind_whatever_goes_wrong(part: int) -> None:
    for seed in SEEDS[part::4]:
        try:
            run(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def test_without_faults_every_task_has_its_result_after_one_execution() -> None:
    for seed in range(30):
        world = run(seed, faults=0)
        assert set(world.settled.values()) <= {"result"}
        assert all(times == 1 + world.specs[task][1].retries for task, times in world.executions.items())


def test_workers_that_are_paused_and_go_on_lose_no_task_and_run_none_twice() -> None:
    paused = 0
    for seed in range(80):
        world = run(seed, faults=0, pauses=20, crowd=seed % 2 == 0)
        paused += 20 - world.pauses if world.pauses else 20
        assert set(world.settled.values()) <= {"result"}
        assert all(times == 1 + world.specs[task][1].retries for task, times in world.executions.items())
    assert paused > 200


@pytest.mark.parametrize("part", range(2))
def test_pauses_among_all_that_goes_wrong_leave_nothing_behind(part: int) -> None:
    for seed in range(part, 100, 2):
        try:
            run(seed, pauses=10, crowd=seed % 3 == 0)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def test_over_a_real_wire_duplicated_lines_change_nothing() -> None:
    for seed in range(8):
        run(seed, steps=150, wired=True)


def test_forged_and_replayed_lines_change_nothing() -> None:
    """Two clusters with the same story; in one of them an attacker repeats every line and adds his own."""
    for seed in range(4):
        told = []
        for attacked in (False, True):
            world = World(clients=2, workers=2, wired=True)
            for number in range(4):
                world.submit(number % 2, TaskSpec(f"t{number}"))
            told.append(story(world, attacked=attacked, rng=random.Random(seed)))
        assert told[0] == told[1]
        assert any(event[0] == "finish" for event in told[0])


def story(world: World, *, attacked: bool, rng: random.Random) -> list[Event]:
    """Draw events until all tasks are over; return them. An attack comes before each, to every reader."""
    mallory = LineWriter(session("mallory"), OTHER_CLUSTER, stream("mallory"))
    heard: dict[tuple[str, int], list[bytes]] = {address: [] for address in world.inboxes}
    told = []
    while len(world.settled) < len(world.specs):
        if attacked:
            for address, lines in heard.items():
                for line in [*lines, *(line[:-4] for line in lines), mallory.write(Bye(), introduce=True)]:
                    assert world.readers[address].read(line, NOW + world.now) is None
        event = rng.choice(world.enabled())
        if event[0] == "line":
            heard[event[1]].append(world.inboxes[event[1]][event[2]][0])
        world.step(event)
        told.append(event)
    return told


def test_a_seed_tells_the_whole_story() -> None:
    first, second = run(5), run(5)
    assert (first.now, first.settled, first.executions) == (second.now, second.settled, second.executions)
