"""Files and pools that are over travel as what they are; open ones don't."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
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


def test_a_pool_at_work_stays() -> None:
    begun, enough = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: begun.set() or enough.wait(60))
        assert begun.wait(60)
        with pytest.raises(TypeError):
            pack_result(pool)
        enough.set()
        running.result(60)


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_a_pool_with_nothing_to_do_is_a_new_one_elsewhere(kind: type[Executor]) -> None:
    with kind(1, initializer=math.sqrt, initargs=(4,)) as pool, sent(pool) as got:  # type: ignore[call-arg]
        assert (type(got), got._max_workers) == (kind, 1)
        assert got.submit(math.sqrt, 9).result(60) == 3
        assert got is not pool


def numbers() -> Iterator[int]:
    yield 1


async def number() -> int:
    return 1


def test_a_generator_and_a_coroutine_that_have_ended_travel() -> None:
    used = numbers()
    assert list(used) == [1]
    got = sent({"of": used})["of"]
    assert (type(got), got.__name__, got.__qualname__, list(got)) == (type(used), "numbers", "numbers", [])
    waited = number()
    asyncio.run(waited)  # type: ignore[arg-type]
    got = sent(waited)
    assert (type(got), got.__name__) == (type(waited), "number")
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        got.send(None)


def test_a_generator_that_may_go_on_stays() -> None:
    begun = numbers()
    assert next(begun) == 1
    with pytest.raises(TypeError):
        pack_result(begun)


def test_polynomials_travel_though_sympy_cannot_pickle_their_ring() -> None:
    sympy = pytest.importorskip("sympy")
    rings = pytest.importorskip("sympy.polys.rings")
    ring, x, y = rings.ring("x,y", sympy.QQ)
    got, other = sent((ring, x**2 + y))
    assert got == ring
    assert other == x**2 + y
    assert other + x == x**2 + x + y


class Wants(Exception):
    """An error that reads an attribute of its own to say what it is."""

    def __init__(self, message: str, origin: object) -> None:
        super().__init__(message)
        self.origin = origin

    def __str__(self) -> str:
        return str(self.args[0]) if self.origin is None else f"{self.args[0]} at {self.origin}"


def test_an_error_whose_attribute_cannot_travel_still_says_what_it_is() -> None:
    packed = pack_result(Wants("nowhere", threading.Lock()), error=True)
    got = unpack(packed.segments, packed.inline, packed.large)
    assert (type(got), str(got), got.origin) == (Wants, "nowhere", None)
