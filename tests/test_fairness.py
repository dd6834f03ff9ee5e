"""Members of one cluster share its workers: real clients and agents, on virtual time.

Shares are of slot-seconds, from when a member comes until one of them has nothing left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from p2p_ipython.client.future import Future
from p2p_ipython.protocol.shares import Shares
from p2p_ipython.protocol.turns import Turns
from p2p_ipython.rehearsal import Participant, Rehearsal, run

WORKERS = 3


@dataclass
class Day:
    """What ran when: (whose, from, to), virtual seconds."""

    runs: list[tuple[str, float, float]] = field(default_factory=list)

    def used(self, who: str, begin: float, end: float) -> float:
        """Slot-seconds that his tasks have run for in this time."""
        return sum(max(0.0, min(end, to) - max(begin, since)) for name, since, to in self.runs if name == who)

    def shares(self, begin: float, end: float) -> dict[str, float]:
        """The members' parts of all slot-seconds that were used in this time."""
        members = sorted({name for name, _, _ in self.runs})
        total = sum(self.used(who, begin, end) for who in members)
        return {who: self.used(who, begin, end) / total for who in members}

    def idle(self, begin: float, end: float, slots: int) -> float:
        """The part of the slot-seconds in which nothing ran."""
        members = {name for name, _, _ in self.runs}
        return 1 - sum(self.used(who, begin, end) for who in members) / (slots * (end - begin))

    def last(self, who: str) -> float:
        """When the last of his tasks has ended."""
        return max(to for name, _, to in self.runs if name == who)


DAYS: list[Day] = []


@pytest.fixture
def day() -> Iterator[Day]:
    DAYS.append(Day())
    yield DAYS[-1]
    DAYS.clear()


async def works(who: str, seconds: float) -> None:
    begin = now()
    await asyncio.sleep(seconds)
    DAYS[-1].runs.append((who, begin, now()))


def now() -> float:
    return asyncio.get_running_loop().time()


def submit(at: Participant, who: str, tasks: int, seconds: float) -> list[Future[None]]:
    return [at.submit(works, who, seconds) for _ in range(tasks)]


async def linked(*clients: Participant, workers: int = WORKERS) -> None:
    """Wait until each of them has a link to every worker. Who isn't met at first is met again for a task."""
    async with asyncio.timeout(600):
        while any(len(client.client.links) < workers for client in clients):
            await asyncio.gather(*(client.submit(pow, 2, 2) for client in clients))
            await asyncio.sleep(1)


async def flooded(
    cluster: Rehearsal, ours: tuple[int, float], theirs: tuple[int, float], clients: int = 1, late: float = 20
) -> float:
    """Have "a" submit (tasks, seconds each) by so many clients, then "b" by one; wait for all. Returns when b came."""
    mine = [cluster, *[await cluster.add_client() for _ in range(clients - 1)]]
    friend = await cluster.add_client("b")
    await linked(friend, *mine)
    futures = [future for client in mine for future in submit(client, "a", ours[0] // clients, ours[1])]
    await asyncio.sleep(late)
    came = now()
    await asyncio.gather(*futures, *submit(friend, "b", *theirs))
    return came


def test_who_comes_late_with_few_tasks_gets_half_and_the_other_everything_afterwards(day: Day) -> None:
    async def work() -> float:
        async with Rehearsal(workers=WORKERS) as cluster:
            return await flooded(cluster, (600, 1), (60, 1))

    came = run(work())
    end = day.last("b")
    assert 0.45 <= day.shares(came, end)["b"] <= 0.6
    assert day.idle(came, end, WORKERS) < 0.02
    assert day.idle(end, day.last("a") - 1, WORKERS) < 0.02


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param((900, 1), (1000, 0.1), id="ten times shorter"),
        pytest.param((900, 1), (60, 10), id="ten times longer"),
        pytest.param((6000, 0.01), (60, 1), id="a hundred times longer"),
    ],
)
def test_shares_dont_depend_on_how_long_tasks_are(
    day: Day, slots: int, ours: tuple[int, float], theirs: tuple[int, float]
) -> None:
    late = min(20.0, ours[0] * ours[1] / (4 * slots * WORKERS))

    async def work() -> float:
        async with Rehearsal(workers=WORKERS, slots=slots) as cluster:
            return await flooded(cluster, ours, theirs, late=late)

    came = run(work())
    end = min(day.last("a"), day.last("b"))
    assert 0.4 <= day.shares(came, end)["b"] <= 0.6
    assert day.idle(came, end - max(ours[1], theirs[1]), slots * WORKERS) < 0.02


def test_shares_dont_depend_on_how_many_clients_one_has(day: Day) -> None:
    async def work() -> float:
        async with Rehearsal(workers=WORKERS) as cluster:
            return await flooded(cluster, (600, 1), (60, 1), clients=5)

    came = run(work())
    end = day.last("b")
    assert 0.45 <= day.shares(came, end)["b"] <= 0.55
    assert day.idle(came, end, WORKERS) < 0.02


def test_what_a_member_gets_goes_to_his_clients_in_turn(day: Day) -> None:
    async def work() -> float:
        async with Rehearsal(workers=WORKERS) as cluster:
            others = [await cluster.add_client() for _ in range(2)]
            friend = await cluster.add_client("b")
            await linked(cluster, friend, *others)
            came = now()
            futures = [f for n, at in enumerate((cluster, *others)) for f in submit(at, f"a{n}", 60, 1)]
            await asyncio.gather(*futures, *submit(friend, "b", 200, 1))
            return came

    came = run(work())
    end = min(day.last(who) for who in ("a0", "a1", "a2"))
    shares = day.shares(came, end)
    assert all(abs(shares[who] - 1 / 6) < 0.03 for who in ("a0", "a1", "a2"))


def test_three_members_get_a_third_each(day: Day) -> None:
    async def work() -> float:
        async with Rehearsal(workers=WORKERS) as cluster:
            friends = [await cluster.add_client(who) for who in ("b", "c")]
            await linked(cluster, *friends)
            futures = submit(cluster, "a", 600, 1)
            await asyncio.sleep(20)
            came = now()
            await asyncio.gather(*futures, *submit(friends[0], "b", 600, 0.5), *submit(friends[1], "c", 100, 3))
            return came

    came = run(work())
    end = min(day.last(who) for who in "abc")
    assert all(abs(share - 1 / 3) < 0.06 for share in day.shares(came, end).values())
    assert day.idle(came, end - 3, WORKERS) < 0.02


def test_a_task_now_and_then_waits_for_one_task_of_others_and_costs_them_no_more_than_it_takes(day: Day) -> None:
    async def work() -> tuple[float, list[float]]:
        async with Rehearsal(workers=1) as cluster:
            friend = await cluster.add_client("b")
            await linked(cluster, friend, workers=1)
            futures = submit(cluster, "a", 200, 1)
            await asyncio.sleep(20)
            came, waits = now(), []
            for _ in range(40):
                begin = now()
                await friend.submit(works, "b", 0.01)
                waits.append(now() - begin)
                await asyncio.sleep(0.7)
            await asyncio.gather(*futures)
            return came, waits

    came, waits = run(work())
    assert max(waits) < 1.1
    assert day.idle(came, day.last("b"), 1) < 0.02


def test_a_client_that_stops_in_the_middle_keeps_no_slot_from_others(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:

    async def work() -> float:
        async with Rehearsal(workers=WORKERS) as cluster:
            friend = await cluster.add_client("b")
            await linked(cluster, friend)
            futures = submit(cluster, "a", 200, 1)
            theirs = submit(friend, "b", 600, 1)
            await asyncio.sleep(20)
            begin = now()
            monkeypatch.setattr(friend.client, "_perform", lambda actions: None)
            await asyncio.gather(*futures)
            monkeypatch.undo()
            for future in theirs:
                future.cancel()
            return begin

    begin = run(work())
    end = day.last("a") - 1
    assert day.idle(begin + 1, end, WORKERS) < 0.02


def test_without_the_account_of_use_long_tasks_would_take_nearly_all(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests can fail: turns by member, whatever he has used, aren't enough."""
    monkeypatch.setattr(Shares, "order", lambda self, member, now: (0.0, getattr(self, "_served", 0)))

    async def work() -> float:
        async with Rehearsal(workers=WORKERS) as cluster:
            return await flooded(cluster, (900, 1), (60, 10))

    came = run(work())
    assert day.shares(came, day.last("b"))["b"] > 0.8


def test_without_kept_slots_short_tasks_would_get_too_little(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turns, "wait", lambda *_: None)

    async def work() -> float:
        async with Rehearsal(workers=WORKERS) as cluster:
            return await flooded(cluster, (900, 1), (1000, 0.1))

    came = run(work())
    assert day.shares(came, day.last("a"))["b"] < 0.4
