"""Sweeps on a real cluster: one cell for many settings, frozen once; what its list of futures can do."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from typing import Any

import pytest

import p2p_ipython
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.sweep import AT_LEAST, Sweep, sweep_of, sweep_of_workers
from p2p_ipython.client.task_options import TaskOptions
from p2p_ipython.errors import ClusterClosed, NotPicklable, WorkerLost
from p2p_ipython.task.capture import capture_cell
from p2p_ipython.task.each import each_of, pins

PATIENCE = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=2) as made:
        made.wait_for_workers(2, PATIENCE)
        yield made


def captured(source: str, home: dict[str, Any], settings: list[dict[str, Any]]) -> Any:
    given = {name: [setting[name] for setting in settings] for name in settings[0]}
    return capture_cell(source, home, transform=lambda text: text, given=given)


def word(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in setting.items())


def sweep(cluster: Cluster, source: str, settings: list[dict[str, Any]], **more: Any) -> Sweep:
    home = more.pop("home", {})
    return sweep_of(cluster._core, captured(source, home, settings), settings, label="sweep", word=word, **more)


def numbers(count: int) -> list[dict[str, Any]]:
    return [{"n": number} for number in range(count)]


def test_a_sweep_is_a_list_of_futures_and_gives_their_values_in_order(cluster: Cluster) -> None:
    made = sweep(cluster, "n * k", numbers(20), home={"k": 3, "n": "the notebook's own"})
    assert made.result(PATIENCE) == [3 * n for n in range(20)]
    assert (len(made), made.done(), made[2].result(), made[-1].result()) == (20, True, 6, 57)
    assert [future.result() for future in made[3:5]] == [9, 12]
    assert made.settings[4] == {"n": 4}
    assert made[4].label == "n=4"
    assert repr(made) == "<Sweep sweep: 20 of 20 done>"
    assert (made.progress.done, made.progress.total, made.progress.part) == (20, 20, 1)


def test_all_of_it_is_sent_once_and_each_task_only_has_its_own_values() -> None:
    from p2p_ipython.task.buffer_store import BufferStore

    store = BufferStore(1 << 30)
    settings = numbers(1000)
    tasks = each_of(captured("n + len(big)", {"big": list(range(50_000))}, settings), settings, store, label=word)
    assert len({task.packed.segments for task in tasks}) == 1
    assert all(ref is not None for _, ref in tasks[0].packed.segments)
    assert max(task.inline_size for task in tasks) < 20
    for ref in set(pins(tasks)):
        store.unpin([ref] * pins(tasks).count(ref))


@pytest.mark.parametrize("apart", [False, True])
def test_each_pin_of_the_store_is_named(apart: bool) -> None:
    from p2p_ipython.task.buffer_store import BufferStore

    store = BufferStore(0)
    home: dict[str, Any] = {"big": bytes(1 << 20), "f": lambda v: v}
    settings: list[dict[str, Any]] = [{"v": bytes([n]) * (1 << 18)} for n in range(3)] + [{"v": home["f"]}]
    tasks = each_of(captured("f(v), big", home, settings), settings, store, label=word, apart=apart)
    store.unpin(pins(tasks))  # asserts that it isn't unpinned too often
    assert not store._entries


def test_for_lenders_all_tasks_of_a_sweep_have_the_same_code_and_plain_values_beside_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster._core, "shared", True)
    home = {"k": [3, 4], "rows": {"a": 1}}
    made = sweep(cluster, "n, m, k, rows", [{"n": n, "m": {"x": n}} for n in range(3)], home=home)
    assert made.result(PATIENCE) == [(n, {"x": n}, [3, 4], {"a": 1}) for n in range(3)]
    codes = {(task.packed.inline, task.packed.segments) for task in made._tasks}
    assert len(codes) == 1
    assert all(ref is None for _, segments in codes for _, ref in segments)  # a lender sees it before saying yes
    monkeypatch.undo()


def test_values_that_are_no_plain_data_are_set_with_what_they_refer_to(cluster: Cluster) -> None:
    home: dict[str, Any] = {"k": 10, "__name__": "__main__"}
    exec("def tenfold(v): return k * v\nclass Box:\n def __init__(self, n): self.n = n", home)
    settings = [{"f": abs}, {"f": home["tenfold"]}, {"f": lambda v: -v}, {"f": home["Box"]}, {"f": 5}]
    made = sweep(cluster, "f(3) if callable(f) else f", settings, home=home)
    values = made.result(PATIENCE)
    assert values[:3] == [3, 30, -3]
    assert values[3].n == 3
    assert values[4] == 5


def test_a_value_that_the_cell_reaches_by_another_way_is_the_same_thing_there(cluster: Cluster) -> None:
    rows: list[list[int]] = [[1], [2]]
    settings = [{"row": row} for row in rows]
    assert sweep(cluster, "row is rows[0]", settings, home={"rows": rows}).result(PATIENCE) == [True, False]


def test_values_are_frozen_when_it_is_submitted(cluster: Cluster) -> None:
    row = [1]
    settings = [{"row": row, "n": number} for number in range(AT_LEAST + 10)]
    made = sweep(cluster, "len(row)", settings)
    row.append(2)
    assert set(made.result(PATIENCE)) == {1}


def test_a_value_that_cant_travel_is_named_before_anything_is_sent(cluster: Cluster) -> None:
    before = len(cluster.journal())
    with pytest.raises(NotPicklable, match="'lock'"):
        sweep(cluster, "lock", [{"lock": 1}, {"lock": threading.Lock()}])
    assert len(cluster.journal()) == before


def test_the_first_error_is_raised_and_the_failed_ones_are_listed_and_run_again(
    cluster: Cluster, tmp_path: Any
) -> None:
    flag = tmp_path / "mended"
    source = "import pathlib\n1 / n if n or not pathlib.Path(flag).exists() else 'mended'"
    made = sweep(cluster, source, numbers(4), home={"flag": str(flag)})
    with pytest.raises(ZeroDivisionError):
        made.result(PATIENCE)
    assert p2p_ipython.gather(made, errors="skip") == [1, 0.5, 1 / 3]
    assert [future.label for future in made.failed] == ["n=0"]
    assert made.errors() == ["n=0: ZeroDivisionError: division by zero"]
    assert "1 failed" in repr(made)
    flag.touch()
    before = made[1]
    assert made.again_failed() == 1
    assert made.result(PATIENCE) == ["mended", 1, 0.5, 1 / 3]
    assert made[1] is before
    assert made.failed == []
    assert made.again_failed() == 0
    assert made.group.standing.words == "4 of 4 done"


def test_errors_are_listed_up_to_a_bound(cluster: Cluster) -> None:
    made = sweep(cluster, "raise ValueError(n)", numbers(9))
    with pytest.raises(ValueError, match=r"^\d$"):
        made.result(PATIENCE)
    p2p_ipython.gather(made, errors="return")
    assert made.errors() == [*(f"n={n}: ValueError: {n}" for n in range(5)), "and 4 more"]


def test_a_sweep_of_more_than_is_sent_at_a_time_can_be_cancelled_and_goes_on_afterwards(cluster: Cluster) -> None:
    made = sweep(cluster, "import time\ntime.sleep(wait)\nn", numbers(3 * AT_LEAST), home={"wait": 0.05})
    made[0].result(PATIENCE)
    last = made[-1]
    assert last.state_text == "waiting for its turn"
    assert last.cancel()
    with pytest.raises(CancelledError, match="its cancel"):
        last.result(PATIENCE)
    assert made.cancel()
    made.over.result(PATIENCE)
    standing = made.group.standing
    assert standing.over == len(made)
    assert standing.cancelled > AT_LEAST
    assert not cluster._core.submitted.later


def test_a_table_has_a_column_for_each_name_and_each_key(cluster: Cluster) -> None:
    pytest.importorskip("pandas")
    frame = sweep(cluster, "{'square': n * n, 'odd': bool(n % 2)}", numbers(3)).frame()
    assert frame.to_dict("list") == {"n": [0, 1, 2], "square": [0, 1, 4], "odd": [False, True, False]}
    frame = sweep(cluster, "1 // n", numbers(2)).frame()
    assert list(frame.columns) == ["n", "error", "result"]
    assert frame["error"][0].startswith("ZeroDivisionError")
    assert frame["result"][1] == 1


def test_it_can_be_awaited_and_looped_over_as_values_come(cluster: Cluster) -> None:
    async def look() -> None:
        made = sweep(cluster, "n + 1", numbers(10))
        assert sorted([(setting["n"], value) async for setting, value in made]) == [(n, n + 1) for n in range(10)]
        assert await made == [n + 1 for n in range(10)]
        assert await made == [n + 1 for n in range(10)]

    asyncio.run(look())


def test_what_its_tasks_print_stays_with_each(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    made = sweep(cluster, "print('this is', n)", numbers(3))
    made.result(PATIENCE)
    assert capfd.readouterr().out == ""
    made[1].replay()
    assert capfd.readouterr().out == "this is 1\n"


def test_a_seed_gives_each_task_a_child_of_it(cluster: Cluster) -> None:
    source = "import random\nrandom.random()"
    first, second = (sweep(cluster, source, numbers(5), options=TaskOptions(seed=7)).result(PATIENCE) for _ in range(2))
    assert first == second
    assert len(set(first)) == 5
    assert [cluster.seeded(7).submit(_draw).result()] == first[:1]


def _draw() -> float:
    import random

    return random.random()


def test_a_cell_runs_once_on_each_worker(cluster: Cluster) -> None:
    made = sweep_of_workers(cluster._core, captured("import os\nos.getpid()", {}, [{}]), label="pids")
    assert len(set(made.result(PATIENCE))) == 2
    assert made.settings == [{"worker": "worker-1"}, {"worker": "worker-2"}]
    assert [future.worker for future in made] == ["worker-1", "worker-2"]


def test_a_task_of_a_worker_that_goes_away_is_lost_with_it() -> None:
    with p2p_ipython.connect(workers=2) as own:
        own.wait_for_workers(2, PATIENCE)
        busy = [own.submit(_wait) for _ in range(2)]
        source = captured("import os\nos.getppid()", {}, [{}])
        made = sweep_of_workers(own._core, source, label="parents")
        os.kill(own.pids[-1], signal.SIGKILL)  # a worker's
        lost = next(p2p_ipython.as_completed(made, PATIENCE))
        with pytest.raises(WorkerLost, match="went away"):
            lost.result()
        for future in busy:
            future.cancel()
        (other,) = (future for future in made if future is not lost)
        assert isinstance(other.result(PATIENCE), int)


def _wait() -> None:
    import time

    time.sleep(600)


def test_a_sweep_that_nobody_has_any_more_is_not_kept(cluster: Cluster) -> None:
    made = sweep(cluster, "1 // n", numbers(2))
    made.over.result(PATIENCE)
    group, there = made.group, weakref.ref(made)
    assert group.may_again
    del made
    gc.collect()
    assert there() is None
    assert not group.may_again


def test_what_has_not_begun_is_cancelled_when_its_cluster_is_closed() -> None:
    with p2p_ipython.connect(workers=1) as own:
        made = sweep(own, "import time\ntime.sleep(600)", numbers(AT_LEAST + 5))
        own.close()
        made.over.result(PATIENCE)
    assert all(future.cancelled() for future in made)
    with pytest.raises(ClusterClosed):
        made.again_failed()


def test_a_shutdown_finishes_all_of_it() -> None:
    with p2p_ipython.connect(workers=2) as own:
        made = sweep(own, "n", numbers(AT_LEAST + 50))
    assert made.result(0) == list(range(AT_LEAST + 50))
