"""Options of tasks: their values, and what holds for tasks that have some."""

from __future__ import annotations

import concurrent.futures
import gc
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import p2p_ipython
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.inflow import FULL, TaskOutput
from p2p_ipython.client.lazy import WORDS
from p2p_ipython.client.options import Options
from p2p_ipython.client.task_options import USUAL, TaskOptions
from p2p_ipython.config import Settings
from p2p_ipython.errors import CaptureError, ConfigError, TaskDied
from p2p_ipython.protocol.task_frames import Output
from tests.client.test_personal_cluster import PATIENCE, until


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=2) as made:
        made.wait_for_workers(2, PATIENCE)
        yield made


class Flaky(ConnectionError):
    """An error of the tests' own."""


# --- values ---


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, USUAL),
        ({"label": None, "retries": None, "on": None}, USUAL),
        ({"retry_on": ValueError}, TaskOptions(retry_on=("builtins.ValueError",))),
        ({"retry_on": "OSError, a.b.C"}, TaskOptions(retry_on=("builtins.OSError", "a.b.C"))),
        ({"retry_on": (Flaky, IOError)}, TaskOptions(retry_on=(f"{__name__}.Flaky", "builtins.OSError"))),
        ({"retry_on": TaskDied}, TaskOptions(retry_on=("p2p_ipython.errors.TaskDied",))),
        ({"timeout": "5m"}, TaskOptions(timeout=300.0)),
        ({"timeout": 2}, TaskOptions(timeout=2.0)),
        ({"on": "bob"}, TaskOptions(on=("bob",))),
        ({"on": "bob, carol,bob"}, TaskOptions(on=("bob", "carol"))),
        ({"on": ["bob (desk, left)"]}, TaskOptions(on=("bob (desk, left)",))),
        ({"tags": {"gpu"}}, TaskOptions(tags=("gpu",))),
        ({"memory": "2G"}, TaskOptions(memory=2 << 30)),
        ({"memory": 1000}, TaskOptions(memory=1000)),
        (
            {"priority": -3, "gpus": 2, "once": True, "lazy": True},
            TaskOptions(priority=-3, gpus=2, once=True, lazy=True),
        ),
        ({"files": "a.csv,b.csv"}, TaskOptions(files=("a.csv", "b.csv"))),
    ],
)
def test_options_are_read_as_people_write_them(given: dict[str, Any], options: TaskOptions) -> None:
    assert USUAL.changed(given) == options
    assert options.changed({}) == options


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"label": 3}, "a text"),
        ({"retries": -1}, "whole number from 0 to 1000"),
        ({"retries": True}, "retries=2"),
        ({"retries": 1001}, "whole number"),
        ({"retry_on": int}, "classes of errors"),
        ({"retry_on": "ValueEror"}, "Did you mean ValueError?"),
        ({"retry_on": ()}, "classes of errors"),
        ({"retry_on": "os.system('x')"}, "classes of errors"),
        ({"timeout": 0}, "timeout='5m'"),
        ({"timeout": "soon"}, "duration"),
        ({"once": 1}, "True or False"),
        ({"priority": 1.5}, "whole number"),
        ({"on": 3}, "on='bob'"),
        ({"on": "bob,"}, "on='bob'"),
        ({"on": ["x" * 2000]}, "on='bob'"),
        ({"tags": "GPU"}, "small letters"),
        ({"tags": list("abcdefghi")}, "up to 8"),
        ({"seed": -1}, "whole number"),
        ({"memory": 1.5}, "memory='2G'"),
        ({"memory": "much"}, "512M"),
        ({"memory": -1}, "memory='2G'"),
        ({"gpus": 65}, "whole number"),
        ({"files": [1]}, "files='data.csv'"),
        ({"stdout": "later"}, "'live'"),
        ({"lazy": "yes"}, "True or False"),
        ({"once": True, "retries": 1}, "contradict"),
    ],
)
def test_a_value_that_cant_be_is_an_error_that_says_what_to_give(given: dict[str, Any], says: str) -> None:
    with pytest.raises((ConfigError, CaptureError)) as caught:
        USUAL.changed(given)
    assert says in str(caught.value)


def test_once_and_retries_contradict_one_another_also_by_and_by(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match="contradict"):
        cluster.options(retries=2).options(once=True)
    assert cluster.options(retries=2).options(retries=0, once=True)._options.once


def test_a_setting_gives_tasks_their_retries_unless_these_say_more() -> None:
    assert Settings.load({"P2P_RETRIES": "2"}).retries == 2
    each = [USUAL, TaskOptions(retries=0), TaskOptions(retries=5), TaskOptions(once=True)]
    assert [options.attempts_after_errors(2) for options in each] == [2, 0, 5, 0]


# --- views ---


def test_a_view_is_an_executor_that_leaves_the_cluster_open(cluster: Cluster) -> None:
    with cluster.options(label="view") as view:
        assert isinstance(view, concurrent.futures.Executor)
        future = view.submit(abs, -3)
        assert (future.result(PATIENCE), future.label) == (3, "view")
    assert cluster.submit(abs, -3).result(PATIENCE) == 3


def test_later_options_win_and_change_no_view_before(cluster: Cluster) -> None:
    first = cluster.options(label="a", priority=1)
    second = first.options(label="b")
    assert repr(first) == "<Options label='a', priority=1>"
    assert repr(second) == "<Options label='b', priority=1>"


def test_a_calls_keywords_stay_the_functions_own(cluster: Cluster) -> None:
    def f(label: str, retries: int) -> tuple[str, int]:
        return label, retries

    assert cluster.options(label="x", retries=1).submit(f, label="mine", retries=7).result(PATIENCE) == ("mine", 7)


def test_views_of_a_seeded_view_draw_on_from_one_stream(cluster: Cluster) -> None:
    import random

    plain = [cluster.seeded(7).submit(random.random).result(PATIENCE)]
    seeded = cluster.options(seed=7)
    each = [seeded.options(label=name).submit(random.random).result(PATIENCE) for name in "ab"]
    assert each[0] == plain[0]
    assert each[0] != each[1]
    assert list(cluster.seeded(7).map(_draw, range(2))) == each
    assert isinstance(cluster.seeded(7), Options)


def _draw(_number: int) -> float:
    import random

    return random.random()


def test_a_maps_tasks_have_its_views_options(cluster: Cluster) -> None:
    assert list(cluster.options(label="tiles", on="worker-2").map(abs, range(-500, 0))) == list(range(500, 0, -1))
    rows = [row for row in cluster.journal().to_dict("records") if row["label"].startswith("tiles")]
    assert {row["worker"] for row in rows} == {"worker-2"}
    assert len(rows) < 200  # many elements a task


# --- places ---


def test_on_chooses_the_worker(cluster: Cluster) -> None:
    futures = [cluster.options(on=name).submit(abs, -3) for name in ("worker-1", "worker-2") * 5]
    assert [future.result(PATIENCE) for future in futures] == [3] * 10
    assert [future.worker for future in futures] == ["worker-1", "worker-2"] * 5


def test_a_worker_that_there_is_not_is_named_with_those_that_there_are(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match=r"There are worker-1, worker-2\. Did you mean worker-2\?"):
        cluster.options(on="worker-22")


def test_what_nobody_has_is_waited_for_and_named(cluster: Cluster) -> None:
    future = cluster.options(tags=("gpu", "home"), gpus=1).submit(abs, -3)
    until(lambda: "here:" in future.state_text, "a reason")
    assert future.state_text.startswith(
        "waiting for a worker with tags gpu, home and 1 graphics card for a task; here: "
    )
    assert future.state_text in cluster.status().text()
    assert future.cancel()


def test_a_task_that_needs_more_memory_than_a_task_may_use_says_how_much_that_is(cluster: Cluster) -> None:
    assert cluster.options(memory="1M").submit(abs, -3).result(PATIENCE) == 3
    future = cluster.options(memory=1 << 50).submit(abs, -3)
    until(lambda: "of memory" in future.state_text, "a reason")
    assert "waiting for a worker with 1.05e+06 GiB of memory for a task; here: worker-" in future.state_text
    assert future.cancel()


# --- retries ---


def _fails_until(marks: Path, times: int, kind: type[Exception] = Flaky) -> str:
    done = len(list(marks.iterdir()))
    (marks / str(done)).touch()
    print(f"run {done}")
    if done < times:
        raise kind("not yet")
    return "done"


def test_a_task_that_raises_runs_again_and_its_output_stays(cluster: Cluster, tmp_path: Path) -> None:
    future = cluster.options(retries=3).submit(_fails_until, tmp_path, 2)
    assert future.result(PATIENCE) == "done"
    assert future.stdout == "run 0\nrun 1\nrun 2\n"
    assert future.stderr.split("\n\n") == [
        "\n[retry 1 of 3 after Flaky: not yet]",
        "[retry 2 of 3 after Flaky: not yet]\n",
    ]


def test_the_error_of_the_last_retry_is_raised(cluster: Cluster, tmp_path: Path) -> None:
    future = cluster.options(retries=2, retry_on=ConnectionError).submit(_fails_until, tmp_path, 9)
    with pytest.raises(Flaky):
        future.result(PATIENCE)
    assert len(list(tmp_path.iterdir())) == 3


def test_other_errors_are_raised_at_once(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        cluster.options(retries=2, retry_on=OSError).submit(_fails_until, tmp_path, 9, KeyError).result(PATIENCE)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("retry_on", "runs"), [(Exception, 1), (TaskDied, 2)])
def test_a_task_that_ends_its_process_is_tried_again_if_that_is_asked_for(
    cluster: Cluster, tmp_path: Path, retry_on: type[Exception], runs: int
) -> None:
    def dies() -> None:
        import os

        (tmp_path / str(len(list(tmp_path.iterdir())))).touch()
        os._exit(3)

    with pytest.raises(TaskDied):
        cluster.options(retries=1, retry_on=retry_on).submit(dies).result(PATIENCE)
    assert len(list(tmp_path.iterdir())) == runs


def test_an_element_of_a_map_that_raises_is_tried_again_alone(cluster: Cluster, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()

    def element(number: int) -> str:
        return _fails_until(tmp_path / str(number), number)

    assert list(cluster.options(retries=2).map(element, range(3), chunksize=3)) == ["done"] * 3
    assert [len(list((tmp_path / str(number)).iterdir())) for number in range(3)] == [1, 2, 3]


def test_a_task_runs_again_with_the_options_that_it_had(cluster: Cluster, tmp_path: Path) -> None:
    first = cluster.options(on="worker-2", label="mine", retries=1).submit(_fails_until, tmp_path, 1)
    assert first.result(PATIENCE) == "done"
    for mark in tmp_path.iterdir():
        mark.unlink()
    again = first.again()
    assert (again.result(PATIENCE), again.worker, again.label) == ("done", "worker-2", "mine")


# --- priority, files ---


def test_of_the_tasks_that_wait_the_highest_priority_goes_first() -> None:
    with p2p_ipython.connect(workers=1, backlog=0) as cluster:
        cluster.wait_for_workers(1, PATIENCE)
        order: queue.SimpleQueue[str] = queue.SimpleQueue()
        futures = [cluster.submit(time.sleep, 1)]
        for name, priority in (("a", 0), ("low", -5), ("high", 9), ("b", 0)):
            future = cluster.options(label=name, priority=priority).submit(time.sleep, 0.03)
            future.add_done_callback(lambda done: order.put(done.label))  # type: ignore[attr-defined]
            futures.append(future)
        concurrent.futures.wait(futures, PATIENCE)
        assert [order.get(timeout=PATIENCE) for _ in range(4)] == ["high", "a", "b", "low"]


def test_files_go_with_calls(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> str:
        with open("data/names.csv") as file:
            return file.read()

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "names.csv").write_text("ada")
    monkeypatch.chdir(tmp_path)
    view = cluster.options(files="data/names.csv")
    assert view.submit(read).result(PATIENCE) == "ada"
    assert list(view.map(lambda _number: read(), range(3))) == ["ada"] * 3
    with pytest.raises(CaptureError, match="below the notebook's folder"):
        cluster.options(files="../names.csv").submit(read)


# --- lazy ---


def test_a_lazy_task_runs_when_its_value_is_asked_for(cluster: Cluster) -> None:
    future = cluster.options(lazy=True, label="later").submit(pow, 2, 10)
    assert (future.done(), future.running(), future.state_text) == (False, False, WORDS)
    assert "later" in cluster.status().text()
    assert future.result(PATIENCE) == 1024


def test_a_lazy_tasks_arguments_are_as_they_were(cluster: Cluster) -> None:
    values = [1, 2]
    future = cluster.options(lazy=True).submit(sum, values)
    values.append(4)
    assert future.exception(PATIENCE) is None
    assert future.result() == 3


async def test_awaiting_asks(cluster: Cluster) -> None:
    assert await cluster.options(lazy=True).submit(abs, -3) == 3


@pytest.mark.parametrize(
    "wait", [concurrent.futures.wait, lambda futures, timeout: list(concurrent.futures.as_completed(futures, timeout))]
)
def test_waiting_asks(cluster: Cluster, wait: Any) -> None:
    futures = [cluster.options(lazy=True).submit(abs, -n) for n in range(3)]
    wait(futures, PATIENCE)
    assert [future.result(0) for future in futures] == [0, 1, 2]


def test_a_task_that_has_a_lazy_one_among_its_arguments_asks_when_it_is_asked(cluster: Cluster) -> None:
    lazy = cluster.options(lazy=True)
    inner = lazy.submit(abs, -3)
    outer = lazy.submit(pow, inner, 2)
    assert (inner.state_text, outer.state_text) == (WORDS, WORDS)
    assert outer.result(PATIENCE) == 9


def test_a_lazy_task_can_be_cancelled_and_runs_again_at_once(cluster: Cluster) -> None:
    future = cluster.options(lazy=True).submit(abs, -3)
    again = future.again()
    until(again.done, "that it runs")
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(PATIENCE)


def test_a_lazy_task_that_nobody_can_ask_for_is_forgotten(cluster: Cluster) -> None:
    core = cluster._core
    idle = core.store.idle
    future = cluster.options(lazy=True).submit(len, np.ones(4 << 17))
    assert (len(core.submitted.lazy), core.store.idle) == (1, idle)
    del future
    gc.collect()
    assert (len(core.submitted.lazy), core.store.idle) == (0, idle + (4 << 20))


def test_a_cluster_that_is_shut_down_waits_for_no_lazy_task() -> None:
    with p2p_ipython.connect(workers=1) as cluster:
        future = cluster.options(lazy=True).submit(abs, -3)
    with pytest.raises(concurrent.futures.CancelledError, match="before its value was asked for"):
        future.result(PATIENCE)


def test_output_of_many_attempts_is_bounded_and_its_end_is_said_once() -> None:
    output = TaskOutput(limit=1000)
    frame = Output("t", 1, "stream", "stdout")
    shown = []
    for _attempt in range(10_000):
        shown.append(output.take(frame, b"x" * 1000))
        output.restart()
    texts = [message["text"] for message in shown if message is not None]
    assert texts[-1] == FULL
    assert sum(text == FULL for text in texts) == 1
    assert sum(map(len, texts)) < 2000 + (2 << 20)
