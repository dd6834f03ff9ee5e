"""What a cluster tells of itself and of its tasks, with real workers on this machine."""

from __future__ import annotations

import concurrent.futures
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from IPython.core.formatters import DisplayFormatter
from IPython.core.inputtransformer2 import TransformerManager

import p2p_ipython
from p2p_ipython.client import views as views_module
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.future import Future
from p2p_ipython.errors import UsageError
from p2p_ipython.loop import background
from p2p_ipython.protocol.client_machine import TaskState
from p2p_ipython.task.task import Task, make_cell

PATIENCE = 60.0
T = TypeVar("T")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=1) as made:
        yield made


def on_loop(call: Callable[[], T]) -> T:
    async def work() -> T:
        return call()

    return background().run(work(), timeout=PATIENCE)


def cell(cluster: Cluster, source: str) -> Task:
    return make_cell(source, {}, cluster._core.store, transform=TransformerManager().transform_cell)


class Sink:
    """An output area that knows its cell."""

    cell = "cell-7"

    def __call__(self, message: Any) -> None:
        pass


def test_a_cell_s_entry_has_its_source_its_cell_and_what_it_said_last(cluster: Cluster) -> None:
    source = "import sys\nfor n in range(3):\n    print(f'\\r\\x1b[32mstep {n}\\x1b[0m', end='')\nsys.stdout.flush()\nn"
    future = cluster._core.submit_task(cell(cluster, source), Sink())
    assert future.result(PATIENCE) == 2
    entry = cluster._core.record.entries[future.task_id]
    assert (entry.kind, entry.cell, entry.state, entry.said) == ("cell", "cell-7", TaskState.DONE, "step 2")
    assert cluster._core.source_of(future.task_id) == source


def test_how_long_a_task_ran_is_told_from_its_ways(cluster: Cluster) -> None:
    future = cluster.submit(time.sleep, 0.3)
    future.result(PATIENCE)
    row = next(row for row in cluster._core.record.rows() if row["task"] == future.task_id)
    assert 0.3 <= row["ran"] <= row["ended"] - row["sent"]
    assert row["ended"] - row["submitted"] == pytest.approx(
        row["waited"] + row["travelled"] + row["ran"] + row["returned"]
    )


def test_the_journal_is_a_dataframe_and_the_timeline_has_a_band_for_the_worker(cluster: Cluster) -> None:
    pytest.importorskip("pandas")
    cluster.submit(pow, 2, 3).result(PATIENCE)
    frame = cluster.journal()
    assert frame.worker.iloc[-1] == "worker-1"
    assert frame.label.iloc[-1] == "pow"
    (band,) = cluster.timeline().plan.bands
    assert (band.name, band.lanes) == ("worker-1", 1)
    assert cluster.timeline(last=1).plan.tasks == 1
    assert cluster.timeline(last=0).plan.tasks == 0


def test_a_task_can_be_cancelled_by_its_id_until_it_is_over(cluster: Cluster) -> None:
    future = cluster.submit(time.sleep, 60)
    assert cluster.cancel_task(future.task_id)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(PATIENCE)
    assert future.cancelled()
    assert not cluster.cancel_task(future.task_id)
    assert not cluster.cancel_task("no such task")


def test_a_future_can_be_found_as_long_as_somebody_has_it(cluster: Cluster) -> None:
    future = cluster.submit(pow, 2, 3)
    future.result(PATIENCE)
    task_id = future.task_id
    assert cluster._core.shown(task_id) is future
    kept: weakref.ref[Future[int]] = weakref.ref(future)
    del future
    end = time.monotonic() + PATIENCE
    while kept() is not None and time.monotonic() < end:  # the loop may still hold it for a moment
        on_loop(lambda: None)
    assert cluster._core.shown(task_id) is None
    assert cluster._core.record.entries[task_id].state is TaskState.DONE


def test_facts_say_what_holds_of_the_cluster_and_that_it_is_closed_afterwards() -> None:
    with p2p_ipython.connect(workers=1, name="alice") as cluster:
        cluster.submit(pow, 2, 3).result(PATIENCE)
        facts = on_loop(cluster._core.facts)
        assert (facts.state, facts.words, facts.kind, facts.note) == ("connected", "connected", "personal", "")
        assert (facts.title, facts.board, facts.me) == ("personal, on this machine", "this machine", "alice")
        assert facts.key.startswith("SHA256:")
        assert (facts.done, facts.failed, facts.cancelled) == (1, 0, 0)
        assert 0 < facts.since <= time.time()
        changed = threading.Event()
        follower = on_loop(lambda: cluster._core.follow(changed.set))
    assert changed.wait(PATIENCE)
    assert follower.take().facts
    facts = cluster._core.facts()
    assert (facts.state, facts.words, facts.done) == ("closed", "closed", 1)


def test_whoever_wants_to_know_is_told_of_a_cluster_that_was_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Cluster, bool]] = []

    def fails(_cluster: Cluster) -> None:
        raise RuntimeError("a bug of who watches")

    monkeypatch.setattr(views_module, "opened", [fails, lambda one: told.append((one, one._core.joined))])
    with p2p_ipython.connect(workers=1) as cluster:
        assert told == [(cluster, False), (cluster, True)]


def test_without_the_extension_a_cluster_shows_its_status_and_has_no_panel(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views_module, "views", None)
    with pytest.raises(UsageError, match="load_ext"):
        cluster.panel()
    data, _ = DisplayFormatter().format(cluster)  # type: ignore[no-untyped-call]
    assert "<table>" in data["text/html"]


def test_the_extension_decides_what_a_cluster_looks_like(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    class Views:
        def panel(self, shown: Cluster) -> object:
            return ("the panel of", shown)

        def mimebundle(self, shown: Cluster) -> dict[str, Any] | None:
            return {"text/plain": "plain", "text/html": "<p>the panel</p>"}

    monkeypatch.setattr(views_module, "views", Views())
    assert cluster.panel() == ("the panel of", cluster)
    data, _ = DisplayFormatter().format(cluster)  # type: ignore[no-untyped-call]
    assert data["text/html"] == "<p>the panel</p>"


@pytest.mark.parametrize("size", [1000, 2 << 20])
def test_the_size_of_a_task_is_that_of_all_that_goes_with_it(
    cluster: Cluster, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where a personal cluster's tasks work
    made = cell(cluster, "'a source'")
    future = cluster._core.submit_task(made, files={"zeros": bytes(size)})
    future.result(PATIENCE)
    entry = cluster._core.record.entries[future.task_id]
    assert entry.size_in >= size + made.packed.size + len("'a source'")
