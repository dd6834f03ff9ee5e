"""How far a task is, as it says itself: by ``p2p_ipython.progress`` and by tqdm, on a real cluster and at home."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import p2p_ipython
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.follow import Follower
from p2p_ipython.client.progress import Progress, reported
from p2p_ipython.loop import background
from p2p_ipython.protocol.task_frames import MAX_AMOUNT
from p2p_ipython.protocol.task_frames import Progress as Frame
from p2p_ipython.task import progress as module

PATIENCE = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=1) as made:
        yield made


def half(path: str) -> str:
    import time

    for number in p2p_ipython.progress(range(10), label="halves"):
        while number == 5 and not Path(path).exists():
            time.sleep(0.01)
        time.sleep(0.11)  # longer than between two reports
    return "over"


def until(cluster: Cluster, holds: Any) -> None:
    """Wait for what a change of the cluster brings about."""
    news = threading.Event()
    followers: list[Follower] = []

    async def follow() -> None:
        followers.append(cluster._core.follow(news.set))

    async def leave() -> None:
        followers[0].close()

    background().run(follow())
    try:
        while not holds():
            assert news.wait(PATIENCE)
            news.clear()
            background().loop.call_soon_threadsafe(followers[0].take)
    finally:
        background().run(leave())


def test_a_task_says_how_far_it_is_while_it_runs_and_in_the_end(cluster: Cluster, tmp_path: Path) -> None:
    future = cluster.submit(half, str(tmp_path / "go"))
    assert future.progress is None
    until(cluster, lambda: future.progress is not None and future.progress.done == 5)
    told = future.progress
    assert told is not None
    assert (told.total, told.label, told.part) == (10, "halves", 0.5)
    assert told.rate is not None
    assert told.left is not None
    assert told.words.startswith("halves: 5 of 10, about")
    (tmp_path / "go").touch()
    assert future.result(PATIENCE) == "over"
    assert future.progress is not None
    assert (future.progress.done, future.progress.part, future.progress.left) == (10, 1, 0)


def bars(kind: str) -> int:
    import importlib

    tqdm = importlib.import_module(kind).tqdm
    total = 0
    for outer in tqdm(range(4), desc="outer"):
        for inner in tqdm(range(3), desc="inner", leave=False):
            total += outer * inner
    return total


@pytest.mark.parametrize("kind", ["tqdm", "tqdm.auto", "tqdm.notebook"])
def test_bars_of_tqdm_say_how_far_they_are_the_outermost_one(cluster: Cluster, kind: str) -> None:
    pytest.importorskip("tqdm")
    future = cluster.submit(bars, kind)
    assert future.result(PATIENCE) == 18
    assert future.progress is not None
    assert (future.progress.done, future.progress.total, future.progress.label) == (4, 4, "outer")
    assert "100%" in future.stderr


def strange() -> None:
    module.runner.report(float("nan"), 1, "no number", 0)  # type: ignore[misc]
    module.runner.report(-1, 1, "too little", 0)  # type: ignore[misc]
    module.runner.report(3, float("inf"), "\ud800" * 5000, -1)  # type: ignore[misc]


def test_what_makes_no_sense_is_left_out(cluster: Cluster) -> None:
    future = cluster.submit(strange)
    future.result(PATIENCE)
    assert future.progress == Progress(3, None, "?" * 80)


def test_a_loop_that_ends_early_has_said_how_far_it_came(cluster: Cluster) -> None:
    def look() -> int:
        return next(n for n in p2p_ipython.progress(iter(range(100)), total=100) if n == 7)

    future = cluster.submit(look)
    assert future.result(PATIENCE) == 7
    assert future.progress is not None
    assert (future.progress.done, future.progress.total) == (7, 100)


def test_a_frame_of_a_stranger_becomes_plain_text_and_finite_numbers() -> None:
    told = reported(Frame("t", 1, 1e-9, MAX_AMOUNT, 1e9, "a\u202eb\n" * 60))
    assert told.label == "ab" * 40
    assert told.left is None
    assert reported(Frame("t", 1, 5.0, 10.0, 5.0)) == Progress(5, 10, "", 1, 5)
    assert reported(Frame("t", 1, 20.0, 10.0, 5.0)).part == 1
    assert reported(Frame("t", 1, 5.0)) == Progress(5, None)
    assert reported(Frame("t", 1, 2.5, 10.0)).words == "2.5 of 10"


def test_reports_are_rare_and_the_last_one_says_all(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, float | None, str]] = []
    clock = iter(n / 128 for n in range(10_000))  # seconds
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(module.runner, "report", lambda done, total, label, _s: told.append((done, total, label)))
    assert sum(p2p_ipython.progress(range(1000), label="x")) == 499_500
    assert [done for done, _, _ in told] == [*range(0, 1000, 13), 1000]  # each 13/128 s
    assert told[-1] == (1000, 1000, "x")


def test_at_home_it_is_an_ordinary_bar() -> None:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert list(p2p_ipython.progress([1, 2, 3], label="here")) == [1, 2, 3]
    assert "here: 100%" in said.getvalue()


def test_at_home_without_tqdm_it_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert list(p2p_ipython.progress(iter("ab"), label="here")) == ["a", "b"]
        assert list(p2p_ipython.progress("ab")) == ["a", "b"]
    assert said.getvalue() == "\rhere: 0\r0/2\r2/2\n"
