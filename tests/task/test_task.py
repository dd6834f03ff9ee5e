"""Calls and cells become tasks, or are refused before anything is sent."""

from __future__ import annotations

import functools
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2p_ipython.errors import CaptureError, NotPicklable
from p2p_ipython.protocol.frames import encode
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.payload import unpack
from p2p_ipython.task.task import MAX_SOURCE, Task, make_call, make_cell


def call(function: Any, *args: Any, **kwargs: Any) -> Task:
    return make_call(function, args, kwargs, BufferStore(0))


def cell(source: str, home: dict[str, Any] | None = None, **options: Any) -> Task:
    return make_cell(source, home or {}, BufferStore(0), transform=str, **options)


def test_a_call_is_complete() -> None:
    task = call(pow, 2, 10, mod=7)
    assert unpack(task.packed.segments, task.packed.inline, {}) == (pow, (2, 10), {"mod": 7})
    assert (task.kind, task.source, task.needs_python, task.label) == ("call", None, None, "pow")
    assert task.id != call(pow, 2, 10).id


def test_a_cell_is_its_source_as_typed_and_its_names() -> None:
    task = cell("\n# first\nx + 1\n", {"x": 1, "y": 2}, once=True)
    assert (task.kind, task.source, task.label, task.once) == ("cell", "\n# first\nx + 1\n", "# first", True)
    assert unpack(task.packed.segments, task.packed.inline, {}) == {"x": 1}


def test_a_task_with_code_needs_this_python() -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert call(lambda: 1).needs_python == here


@pytest.mark.parametrize(
    ("function", "label"),
    [
        (functools.partial(functools.partial(len), 1), "len"),
        (np.linalg.norm, "norm"),
        (np.add, "add"),
        (print, "print"),
    ],
)
def test_a_call_is_labelled_by_its_function(function: Any, label: str) -> None:
    assert call(function).label == label


def test_labels_are_one_short_printable_line() -> None:
    task = cell("x = 1", label="a\x1b[31m\nb" + "c" * 200)
    assert task.label.isprintable()
    assert len(task.label) == 80


def test_an_argument_that_can_not_travel_is_named() -> None:
    with pytest.raises(NotPicklable, match=r"argument 2 \(lock\) can't be pickled") as caught:
        call(pow, 1, threading.Lock())
    assert caught.value.name == "argument 2"
    with pytest.raises(NotPicklable, match="argument 'mod'"):
        call(pow, 1, mod=threading.Lock())
    with pytest.raises(NotPicklable, match="the function"):
        call(threading.Lock().acquire)


def test_an_argument_is_not_advised_to_be_left_out_of_a_cell() -> None:
    with pytest.raises(NotPicklable) as caught:
        call(pow, threading.Lock())
    assert caught.value.hint == "Make it inside the function."


def test_an_open_file_is_no_argument(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("private")
    with (tmp_path / "f").open() as file:
        with pytest.raises(NotPicklable, match=r"argument 2 .*open file") as caught:
            call(print, 1, file)
        with pytest.raises(NotPicklable, match=r"argument 'file' .*open file"):
            call(print, file=file)
    assert "inside the function" in caught.value.hint


def test_what_can_not_be_called_is_refused_at_once() -> None:
    with pytest.raises(CaptureError, match="no function, but of the type int") as caught:
        call(5)
    assert "submit(f, 3)" in caught.value.hint


def test_a_source_that_does_not_fit_a_frame_is_refused_and_one_that_does_is_not() -> None:
    with pytest.raises(CaptureError, match="source is"):
        cell("x = '" + "a" * MAX_SOURCE + "'")
    task = cell("x = '" + "é\\n" * (MAX_SOURCE // 8) + "'")
    encode({"t": "task", "source": task.source, "segments": task.packed.segments})


def test_showing_a_task_shows_no_values() -> None:
    assert "secret" not in repr(cell("\n# a cell\nx = 'secret' + y", {"y": "secret"}))
