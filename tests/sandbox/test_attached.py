"""What a runner sends beside a task's value: names that were asked for, and files that the task has left."""

from __future__ import annotations

from pathlib import Path

import pytest
from slot_support import Outcome, Worker, worker

from p2p_ipython.client.arrived import Arrived
from p2p_ipython.sandbox.inside.folder import TaskFolder
from p2p_ipython.task.outcome import decode


class Keeping(Worker):
    """Keeps the results as they came."""

    def on_result(self, slot: object, result: object, body: object) -> None:
        outcome = self._outcome(result)  # type: ignore[arg-type]
        outcome.value = bytes(body)  # type: ignore[call-overload]
        self._end(outcome)

    def names(self, outcome: Outcome) -> dict[str, object]:
        arrived = Arrived(outcome.result, outcome.value, self._chunks, "bob")
        _, attached = arrived.taken_apart()
        return {
            name: decode(one.result, one.inline, one.large, trusted=True)
            for (_, name), one in attached.items()
            if one.result.codec != "left"
        }


@pytest.mark.parametrize("reply", ["", "safe"])
async def test_all_names_that_were_asked_for_come_however_many_there_are(reply: str) -> None:
    async with worker() as it:
        it.__class__ = Keeping
        assert isinstance(it, Keeping)
        wanted = {f"name{number}": bytes([number]) * 200_000 for number in range(20)}
        source = "for number in range(20):\n    globals()[f'name{number}'] = bytes([number]) * 200_000\nbytes(200_000)"
        outcome = await it.cell(source, bind=tuple(wanted), reply=reply)
        assert it.names(outcome) == wanted
        assert not it.deaths


async def test_a_name_in_too_many_pieces_stays_and_the_others_come() -> None:
    async with worker() as it:
        it.__class__ = Keeping
        assert isinstance(it, Keeping)
        source = """
import numpy as np
before = 1
a = b = c = [np.zeros(1000) for _ in range(1000)]
after = 2
"""
        outcome = await it.cell(source, bind=("before", "a", "b", "c", "after"))
        found = it.names(outcome)
        assert {name: value for name, value in found.items() if name in ("before", "after")} == {"before": 1}
        left = [entry for entry in outcome.result.attached if entry.codec == "left"]
        assert [entry.name for entry in left] == ["c", "after"]
        assert "pieces" in left[0].at


def test_a_change_right_after_the_last_one_is_seen(tmp_path: Path) -> None:
    def names(folder: TaskFolder) -> dict[str, str]:
        return {each.entry.name: each.entry.codec for each in folder.left()}

    for round_ in range(50):  # each within one tick of the clock that files have, if the machine is quick
        folder = TaskFolder(str(tmp_path))
        (tmp_path / "new.txt").write_text(str(round_ % 10))
        assert names(folder) == {"new.txt": "bytes"}
        folder.clear()
        (tmp_path / "brought.txt").write_text("0")
        folder.begin()
        assert names(folder) == {}
        (tmp_path / "brought.txt").write_text("1")
        assert names(folder) == {"brought.txt": "bytes"}
        folder.clear()
        assert list(tmp_path.iterdir()) == []
