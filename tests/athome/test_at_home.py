"""Cells under ``%%p2p`` do what they do at home: some lessons and some examples. ``make athome`` runs all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.athome import examples, known
from tests.athome.home import Verdict, compare
from tests.athome.lessons import FOLDER, Lesson, Piece, lessons, read

SOME = ["10-text", "12-classes", "23-words"]
EXAMPLES = 30

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def judge(verdicts: list[Verdict]) -> None:
    """Fail if something differs that isn't known to differ."""
    listed = known.read()
    new = [f"{one.id}: {one.found}" for one in verdicts if one.found and one.id not in listed]
    # With other versions of the libraries other examples are drawn, and the same ones say other words.
    bearable = 0 if known.made_with() == examples.versions() else len(verdicts) // 10
    assert len(new) <= bearable, "\n".join(new)


@pytest.mark.parametrize("name", SOME)
def test_a_lesson_is_as_at_home(name: str, tmp_path: Path) -> None:
    judge(compare(read(FOLDER / f"{name}.ipy"), tmp_path / "run"))


def test_drawn_examples_are_as_at_home(tmp_path: Path) -> None:
    verdicts = [
        verdict
        for lesson in examples.drawn(EXAMPLES, apart=False)
        for verdict in compare(lesson, tmp_path / lesson.name)
    ]
    assert len(verdicts) == EXAMPLES
    judge(verdicts)


def test_a_cell_that_does_something_else_on_a_worker_is_found(tmp_path: Path) -> None:
    cells = ["import os\nhome = os.getpid()", "os.getpid() == home", "1 + 1", "import time\ntime.time()"]
    pieces = tuple(Piece(str(number), cell) for number, cell in enumerate(cells))
    found = {one.id: one for one in compare(Lesson("pids", pieces, "lessons"), tmp_path / "run")}
    assert set(found["1"].found) == {"value"}
    assert found["2"].same
    assert found["3"].left_out


def test_there_are_enough_cells() -> None:
    assert sum(len(lesson.cells) for lesson in lessons()) >= 250


def test_the_known_differences_are_cells_that_there_are() -> None:
    cells = {piece.id for lesson in lessons() for piece in lesson.cells}
    ours = {cell for cell in known.read() if "/" in cell}
    assert ours <= cells
    assert all(needed for _, needed in known.read().values())
