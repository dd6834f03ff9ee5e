"""What goes around tasks: to machines of others nothing of the environment, unless it is named."""

from __future__ import annotations

import decimal
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import p2p_ipython
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.surroundings import Surroundings
from p2p_ipython.errors import CaptureError
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.capture import capture_cell
from p2p_ipython.task.environment import Environment
from p2p_ipython.task.files import Files
from p2p_ipython.task.task import make_call


def values(surroundings: Surroundings, *names: str) -> list[tuple[str, str]]:
    parts = surroundings.parts(env=names)
    return [entry for part in parts if isinstance(part, Environment) for entry in part.entries]


def test_of_the_environment_nothing_goes_to_others_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "hush-1234")
    monkeypatch.setenv("ANOTHER", "hush-5678")
    assert values(Surroundings("", shared=True)) == []
    assert values(Surroundings("", shared=True), "ANOTHER") == [("ANOTHER", "hush-5678")]
    assert ("A_TOKEN", "hush-1234") in values(Surroundings(""))
    store = BufferStore(1 << 20)
    task = replace(make_call(abs, (1,), {}, store), parts=Surroundings("", shared=True).parts())
    around = Surroundings("", shared=True).around(task, store).around
    assert around is None or b"hush" not in around.inline
    assert "hush" not in repr(replace(task, parts=Surroundings("").parts()))


def test_a_call_that_waits_for_a_future_has_the_settings_of_when_it_was_submitted() -> None:
    def third(_: object) -> str:
        import decimal

        return str(decimal.Decimal(1) / 3)

    with p2p_ipython.connect(workers=1) as cluster, decimal.localcontext() as context:
        context.prec = 4
        waits = cluster.submit(third, cluster.submit(os.getpid))
        context.prec = 6
        assert waits.result(timeout=60) == "0.3333"


def test_a_seed_is_a_whole_number() -> None:
    with p2p_ipython.connect(workers=1) as cluster:
        for wrong in (-1, 1.5, "a", None):
            with pytest.raises(CaptureError, match="no seed"):
                cluster.seeded(wrong)  # type: ignore[arg-type]


def pins(store: BufferStore) -> int:
    return sum(entry.pins for entry in list(store._entries.values()))


def test_a_buffer_of_a_task_and_of_what_goes_around_it_is_pinned_once() -> None:
    store = BufferStore(1 << 30)
    array = np.zeros(2 << 20, np.uint8)
    task = make_call(np.sum, (array,), {}, store)
    files = Files(("zeros",), (array.tobytes(),))
    whole = Surroundings("").around(replace(task, parts=(files,)), store)
    assert whole.around is not None
    assert set(whole.around.large) & set(task.large)
    store.unpin(whole.large)
    assert pins(store) == 0


def test_a_task_that_is_refused_pins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise CaptureError("not now", hint="Later.")

    with p2p_ipython.connect(workers=1) as cluster:
        core = cluster._core
        for refuses in ("parts", "around"):
            task = make_call(np.sum, (np.ones(2 << 20),), {}, core.store)
            assert pins(core.store) == 1
            with monkeypatch.context() as patch:
                patch.setattr(core.surroundings, refuses, refuse)
                with pytest.raises(CaptureError, match="not now"):
                    core.submit_task(task)
            assert pins(core.store) == 0


def set_up(cluster: Cluster, source: str) -> None:
    captured = capture_cell(source, {}, transform=TransformerManager().transform_cell)
    cluster._core.surroundings.set_up(captured, cluster._core.store)


def test_a_call_that_waits_for_a_future_has_what_the_set_up_cell_of_its_submission_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_it.py").write_text("mark = 'set up'")

    def mark(_: object) -> object:
        import math

        return math.mark  # type: ignore[attr-defined]

    def opened(path: Path) -> None:
        import time

        while not path.exists():
            time.sleep(0.01)

    with p2p_ipython.connect(workers=2) as cluster:
        monkeypatch.syspath_prepend(tmp_path)  # now, so that workers find it in what travels only
        gate = cluster.submit(opened, tmp_path / "gate")
        set_up(cluster, "import math, beside_it\nmath.mark = beside_it.mark")
        waits = cluster.submit(mark, gate)
        set_up(cluster, "1")
        (tmp_path / "gate").touch()
        assert waits.result(timeout=60) == "set up"
