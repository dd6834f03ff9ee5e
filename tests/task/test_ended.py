"""Files and pools that are over travel as what they are; open ones don't."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from p2p_ipython.task.payload import pack_result, unpack


def sent(value: Any) -> Any:
    packed = pack_result(value)
    return unpack(packed.segments, packed.inline, packed.large)


@pytest.mark.parametrize("mode", ["w", "a", "r", "r+", "x", "wb", "rb", "ab", "r+b", "w+b"])
@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_closed_file_looks_and_acts_the_same_elsewhere(tmp_path: Path, mode: str, buffering: int) -> None:
    path = tmp_path / "poem.txt"
    if mode != "x":
        path.write_text("a line\n")
    if buffering == 0 and "b" not in mode:
        pytest.skip("text has a buffer")
    with open(path, mode, buffering, encoding=None if "b" in mode else "utf-8") as file:
        pass
    got = sent({"of": [file]})["of"][0]
    assert type(got) is type(file)
    assert got.closed
    assert got.name == str(path)
    if mode not in ("x", "w+b"):  # the system's own names for these
        assert repr(got).replace("closefd=True", "") == repr(file).replace("closefd=True", "")
    for use in (lambda each: each.read(), lambda each: each.write(b"x" if "b" in mode else "x"), iter, Path.stat):
        assert type(fails(use, got)) is type(fails(use, file))
    assert (path.read_text() == "a line\n") is ("w" not in mode and "x" not in mode), "it is not touched"


def fails(use: Any, value: Any) -> BaseException | None:
    try:
        use(value)
    except Exception as error:
        return error
    return None


def test_an_open_file_stays(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as file, pytest.raises(TypeError, match="open file"):
        pack_result(file)


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_a_pool_that_was_shut_down_refuses_tasks_elsewhere_too(kind: type[Executor]) -> None:
    with kind(2) as pool:  # type: ignore[call-arg]
        pass
    before = threading.active_count()
    got = sent(pool)
    assert type(got) is kind
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        got.submit(print)
    got.shutdown()
    with got:
        pass
    assert threading.active_count() == before


def test_a_pool_that_is_there_stays() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(TypeError):
        pack_result(pool)
