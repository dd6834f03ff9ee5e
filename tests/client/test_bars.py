"""Bars of groups in programs and terminals: what each kind draws, and that its thread ends with the group."""

from __future__ import annotations

import io
import sys
import threading

import pytest

import p2p_ipython
from p2p_ipython.client.bars import Bar, Drawing, drawn
from p2p_ipython.client.groups import Groups, Standing

HALF = Standing("scores", 4, 1, 1, 0, began=0.0)
WHOLE = Standing("scores", 4, 3, 1, 0, began=0.0, ended=9.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def draw(drawing: Drawing) -> None:
    next(drawing)
    for each in (HALF, WHOLE):
        drawing.send(each)
    drawing.close()


def test_a_terminal_gets_a_bar_with_the_counts() -> None:
    stream = Terminal()
    draw(drawn(stream))
    assert "scores" in stream.getvalue()
    assert "3 of 4 done, 1 failed" in stream.getvalue()


def test_elsewhere_it_is_tqdms_where_that_is_installed() -> None:
    pytest.importorskip("tqdm")
    stream = io.StringIO()
    draw(drawn(stream))
    assert "scores: 100%" in stream.getvalue()
    assert "failed=1" in stream.getvalue()


def test_without_tqdm_it_is_a_line_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    stream = io.StringIO()
    draw(drawn(stream))
    assert stream.getvalue() == "scores: 3 of 4 done, 1 failed\n"


def test_a_bar_ends_with_its_group_also_where_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    for stream in (io.StringIO(), Gone()):
        monkeypatch.setattr(sys, "stderr", stream)
        group = Groups(lambda _id: None, lambda: 1).new("scores", 2)
        bar = Bar(group)
        group.over(2)
        bar._thread.join(60)
        assert not bar._thread.is_alive()
    assert not [each for each in threading.enumerate() if each.name == "p2p-bar"]


def test_a_map_that_takes_long_draws_one_in_a_program_that_asks_for_it(capfd: pytest.CaptureFixture[str]) -> None:
    with p2p_ipython.connect(workers=1) as cluster:
        for progress in (None, True):
            assert list(cluster.map(_slowly, range(12), chunksize=1, progress=progress)) == list(range(12))
            if progress is None:
                assert "_slowly" not in capfd.readouterr().err
    for each in threading.enumerate():
        if each.name == "p2p-bar":
            each.join(60)
    assert "_slowly: 100%" in capfd.readouterr().err


def _slowly(n: int) -> int:
    import time

    time.sleep(0.15)
    return n
