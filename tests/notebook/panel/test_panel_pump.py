"""The pump at a real personal cluster: open panels get changes, ten times a second at most."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

import p2p_ipython
from p2p_ipython.client import views
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.journal import Entry
from p2p_ipython.loop import background
from p2p_ipython.notebook.panel import rows, static
from p2p_ipython.notebook.panel.hub import Row
from p2p_ipython.notebook.panel.pump import EVERY, Pump
from p2p_ipython.notebook.panel.watch import ABSENT
from tests.notebook.panel.contract_support import keeps
from tests.notebook.panel.test_panel_hub import Reader

PATIENCE = 60.0


class Panel:
    """A panel that keeps the messages it gets."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.rests = 0
        self.reader: Reader | None = None

    def send(self, message: bytes) -> None:
        said = json.loads(message)
        keeps(said)
        self.messages.append(said)
        self.times.append(time.monotonic())
        if said["t"] == "snapshot":
            self.reader = Reader(said)
        else:
            assert self.reader is not None
            self.reader.read(said)

    def rested(self) -> None:
        self.rests += 1

    def rows(self, table: str) -> list[dict[str, Any]]:
        return list(self.reader.tables[table].values()) if self.reader is not None else []

    def fact(self, name: str) -> Any:
        return self.reader.parts["cluster"].get(name) if self.reader is not None else None

    async def until(self, holds: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, self.messages[-5:]
            await asyncio.sleep(0.01)


class Beside:
    """Nothing but the cluster, unless a test says so."""

    def __init__(self) -> None:
        self.visitor_rows: list[tuple[str, Row]] = []
        self.wakes: list[Callable[[], None]] = []

    def follow(self, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakes.append(wake)
        return lambda: self.wakes.remove(wake)

    def visitors(self) -> Sequence[tuple[str, Row]]:
        return self.visitor_rows

    def lending(self, cluster: Cluster | None) -> Sequence[tuple[str, Row]]:
        return []

    def questions(self) -> Sequence[tuple[str, Row]]:
        return []

    def used(self) -> dict[str, tuple[int, float]]:
        return {}

    def means(self, cluster: Cluster | None) -> Row:
        return {"can": ["connect"]}


def waits_for(gate: Path) -> Callable[[], None]:
    """A task that ends when there is such a file."""

    def wait() -> None:
        while not gate.exists():
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=2) as made:
        made.submit(pow, 2, 2).result(PATIENCE)
        yield made


@pytest.fixture
def pump(cluster: Cluster) -> Iterator[Pump]:
    async def make() -> Pump:
        return Pump(asyncio.get_running_loop(), lambda: cluster, Beside())

    async def end() -> None:
        made.close()

    made = background().run(make())
    yield made
    background().run(end())


async def test_a_panel_sees_members_offers_and_a_task_from_beginning_to_end(
    pump: Pump, cluster: Cluster, tmp_path: Path
) -> None:
    panel = Panel()
    pump.hello(panel)
    await panel.until(lambda: sum(row.get("state") == "up" for row in panel.rows("members")) == 2)
    assert panel.fact("state") == "connected"
    assert [row["me"] for row in panel.rows("members") if row.get("me")] == [True]
    assert {row["name"] for row in panel.rows("offers")} == {"worker-1", "worker-2"}
    gate = tmp_path / "gate"
    future = cluster.submit(waits_for(gate))
    seen: list[str] = []

    def ended() -> bool:
        assert panel.reader is not None
        state = panel.reader.tables["tasks"].get(future.task_id, {}).get("state", "")
        if state and state not in seen[-1:]:
            seen.append(state)
        if state == "running":
            gate.touch()
        return state == "done"

    await panel.until(ended)
    assert seen[-2:] == ["running", "done"]
    worker = panel.reader.tables["tasks"][future.task_id]["worker"]  # type: ignore[union-attr]
    await panel.until(
        lambda: any(row["name"] == worker and row.get("lentSeconds", 0) > 0 for row in panel.rows("members"))
    )
    await panel.until(lambda: panel.fact("done") == cluster._core.record.done)


def test_a_panel_sees_that_a_cluster_is_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Cluster] = []
    monkeypatch.setattr(views, "opened", [lambda one: None if one in made else made.append(one)])
    panel = Panel()

    async def look() -> Pump:
        pump = Pump(asyncio.get_running_loop(), lambda: made[0], Beside())
        pump.hello(panel)
        await panel.until(lambda: panel.messages)
        return pump

    def progress(_words: str) -> None:
        if not pumps:
            pumps.append(background().start(look()))

    pumps: list[concurrent.futures.Future[Pump]] = []
    with p2p_ipython.connect(workers=1, progress=progress):
        pump = pumps[0].result(PATIENCE)
        background().run(panel.until(lambda: panel.fact("state") == "connected"), PATIENCE)
        background().loop.call_soon_threadsafe(pump.close)
    assert panel.messages[0]["set"]["cluster"]["state"] == "connecting"
    assert [row["state"] for row in panel.rows("members") if row.get("me")] == ["this kernel"]


async def test_what_could_not_be_told_once_is_told_the_next_time(
    pump: Pump, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    panel = Panel()
    pump.hello(panel)
    await panel.until(lambda: panel.messages)
    broken = [True]

    def task(entry: Entry) -> Row:
        if broken and broken.pop():
            raise KeyError("a mistake")
        return rows_of(entry)

    rows_of = rows.task
    monkeypatch.setattr(rows, "task", task)
    future = cluster.submit(pow, 2, 2)
    await panel.until(lambda: future.done() and not broken)
    pump.outside()  # as every ten seconds
    await panel.until(lambda: panel.reader is not None and future.task_id in panel.reader.tables["tasks"])
    assert "could not send to the panels" in caplog.text


async def test_what_a_worker_has_lent_counts_tasks_that_are_listed_no_longer(
    pump: Pump, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster._core.record, "_keep", 1)
    before = sum(tasks for tasks, _ in cluster._core.record.served.values())
    futures = [cluster.submit(pow, 2, n) for n in range(5)]
    panel = Panel()
    pump.hello(panel)
    await panel.until(lambda: all(future.done() for future in futures))
    lent = [row.get("lentTasks", 0) for row in Reader(pump.state(0.0)).tables["members"].values()]
    assert sum(lent) == before + 5


async def test_messages_come_at_most_ten_times_a_second_and_all_panels_get_the_same(
    pump: Pump, cluster: Cluster
) -> None:
    panels = [Panel(), Panel()]
    for panel in panels:
        pump.hello(panel)
    futures = [cluster.submit(pow, 2, n) for n in range(300)]
    await panels[0].until(lambda: all(future.done() for future in futures))
    await panels[0].until(lambda: panels[0].fact("done") == cluster._core.record.done)
    assert panels[0].messages == panels[1].messages
    between = [b - a for a, b in zip(panels[0].times, panels[0].times[1:], strict=False)]
    assert min(between) > 0.9 * EVERY
    assert panels[0].reader is not None
    assert panels[0].reader.state() == Reader(pump.hub.snapshot(0.0)).state()
    fresh = Pump(asyncio.get_running_loop(), lambda: cluster, Beside())  # reads everything anew
    assert Reader(fresh.state(0.0)).tables["tasks"] == Reader(pump.hub.snapshot(0.0)).tables["tasks"]


async def test_a_panel_that_says_hello_again_gets_everything_again_and_the_others_continue(
    pump: Pump, cluster: Cluster
) -> None:
    first, second = Panel(), Panel()
    pump.hello(first)
    pump.hello(second)
    await first.until(lambda: first.messages)
    pump.hello(first)
    future = cluster.submit(pow, 2, 3)
    await first.until(lambda: future.done() and first.fact("done") == cluster._core.record.done)
    assert [m["t"] for m in first.messages].count("snapshot") == 2
    assert [m["t"] for m in second.messages].count("snapshot") == 1
    await second.until(lambda: second.reader.state() == first.reader.state())  # type: ignore[union-attr]


async def test_while_no_panel_is_open_nothing_is_followed_and_no_timer_runs(pump: Pump, cluster: Cluster) -> None:
    panel = Panel()
    pump.hello(panel)
    await panel.until(lambda: panel.messages)
    assert cluster._core.records.feed.followers
    pump.leave(panel)
    assert not cluster._core.records.feed.followers
    assert pump._timer is pump._refresh is pump._rest is None
    told = len(panel.messages)
    future = cluster.submit(pow, 2, 3)
    await panel.until(future.done)
    pump.woken()
    pump.outside()
    await asyncio.sleep(0)
    assert len(panel.messages) == told
    assert pump._timer is None


async def test_when_nothing_is_pending_any_more_panels_are_told_of_the_rest(
    pump: Pump, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("p2p_ipython.notebook.panel.pump.REST", 0.2)
    panel = Panel()
    pump.hello(panel)
    gate = tmp_path / "gate"
    future = cluster.submit(waits_for(gate))
    await panel.until(lambda: any(row["state"] == "running" for row in panel.rows("tasks")))
    before = panel.rests  # a slow machine may have rested before the task came
    await panel.until(lambda: pump._rest is None)
    assert panel.rests == before
    gate.touch()
    await panel.until(lambda: panel.rests == before + 1)
    assert future.done()


async def test_a_visitor_is_sent_to_the_panels(cluster: Cluster) -> None:
    beside = Beside()
    pump = Pump(asyncio.get_running_loop(), lambda: cluster, beside)
    panel = Panel()
    pump.hello(panel)
    await panel.until(lambda: panel.messages)
    beside.visitor_rows = [("x", {"name": "bob"})]
    for wake in beside.wakes:
        wake()
    await panel.until(lambda: panel.rows("visitors") == [{"name": "bob"}])
    pump.close()
    assert not beside.wakes


async def test_another_cluster_takes_the_place_of_the_one_before(cluster: Cluster) -> None:
    shown: list[Cluster | None] = [None]
    pump = Pump(asyncio.get_running_loop(), lambda: shown[0], Beside())
    panel = Panel()
    pump.hello(panel)
    await panel.until(lambda: panel.messages)
    assert (panel.fact("state"), panel.rows("members")) == ("none", [])
    shown[0] = cluster
    pump.woken()
    await panel.until(lambda: panel.fact("state") == "connected" and panel.rows("offers"))
    shown[0] = None
    pump.woken()
    await panel.until(lambda: panel.fact("state") == "none")
    assert not panel.rows("members")
    assert not panel.rows("tasks")
    pump.close()


async def test_nobody_of_a_cluster_is_listed_in_the_one_that_takes_its_place_at_once(cluster: Cluster) -> None:
    other = await asyncio.to_thread(p2p_ipython.connect, workers=1)
    shown = [cluster]
    pump, panel = Pump(asyncio.get_running_loop(), lambda: shown[0], Beside()), Panel()
    pump.hello(panel)
    await panel.until(lambda: len(panel.rows("offers")) == 2)
    await asyncio.to_thread(other.submit(pow, 2, 3).result, PATIENCE)  # its worker is here
    shown[0] = other
    pump.woken()
    await panel.until(lambda: [row["state"] for row in panel.rows("tasks")] == ["done"])
    assert sorted(row["state"] for row in panel.rows("members")) == ["this kernel", "up"]
    assert len(panel.rows("offers")) == 1
    pump.close()
    await asyncio.to_thread(other.close)


async def test_tasks_beyond_the_rows_that_are_told_are_counted_and_told_when_there_is_room(
    pump: Pump, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(cluster._core.record.entries)
    monkeypatch.setattr("p2p_ipython.notebook.panel.watch.MOST_TASKS", before + 40)
    monkeypatch.setattr("p2p_ipython.notebook.panel.watch.ROOM", 10)
    panel = Panel()
    pump.hello(panel)

    def long() -> None:  # of a kind that is never sent ahead
        time.sleep(600)

    futures = [cluster.submit(long) for _ in range(102)]
    try:
        await panel.until(lambda: sum(row["state"] == "running" for row in panel.rows("tasks")) == 2)
        await panel.until(lambda: panel.fact("unlisted") == 62)
        assert len(panel.rows("tasks")) == before + 40
        assert "102 tasks pending" in static.text(pump.state(time.time()))
        monkeypatch.setattr(cluster._core.record, "_keep", 1)  # for one that is over, one is forgotten
        for future in futures[2:82]:
            future.cancel()
        await panel.until(lambda: not panel.fact("unlisted") and len(panel.rows("tasks")) == before + 22)
        assert sum(row["state"] == "waiting" for row in panel.rows("tasks")) == 20
    finally:
        for future in futures:
            future.cancel()


async def test_what_is_looked_at_while_no_panel_is_open_is_not_kept_for_any(pump: Pump, cluster: Cluster) -> None:
    panel = Panel()
    assert pump.state(time.time())["put"]["tasks"]
    assert not any(pump.hub._told.values())
    pump.hello(panel)
    await panel.until(lambda: panel.rows("tasks"))


async def test_a_worker_whose_process_has_ended_is_no_longer_listed_beside_the_one_that_takes_its_place() -> None:
    made = await asyncio.to_thread(p2p_ipython.connect, workers=1)
    pump, panel = Pump(asyncio.get_running_loop(), lambda: made, Beside()), Panel()
    pump.hello(panel)

    def workers() -> set[str]:
        tables = panel.reader.tables if panel.reader is not None else {"members": {}}
        return {id for id, row in tables["members"].items() if row.get("slots")}

    await panel.until(lambda: panel.rows("offers"))
    before = workers()
    psutil.Process(made.pids[1]).kill()
    await panel.until(lambda: len(workers()) == 1 and workers() != before)
    pump.close()
    await asyncio.to_thread(made.close)


async def test_without_a_list_of_members_nobody_is_absent(pump: Pump) -> None:
    panel = Panel()
    pump.hello(panel)
    await panel.until(lambda: panel.messages)
    assert panel.reader is not None
    assert not [id for id in panel.reader.tables["members"] if id.startswith(ABSENT)]


def test_a_cluster_that_is_closed_is_said_to_be() -> None:
    made = p2p_ipython.connect(workers=1)
    panel = Panel()

    async def begin() -> Pump:
        pump = Pump(asyncio.get_running_loop(), lambda: made, Beside())
        pump.hello(panel)
        await panel.until(lambda: panel.messages)
        return pump

    async def end() -> None:
        await panel.until(lambda: panel.fact("state") == "closed" and not panel.rows("members"))
        pump.close()

    pump = background().run(begin())
    made.submit(pow, 2, 2).result(PATIENCE)
    made.close()
    background().run(end())
    assert [row["state"] for row in panel.rows("tasks")] == ["done"]
