"""What goes in comes out: values, sharing, sizes, and code that runs elsewhere as it did at home."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import pytest

from p2p_ipython.errors import CaptureError
from p2p_ipython.protocol.frames import INLINE, MAX_HEADER, encode
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.payload import (
    IN_BAND,
    LARGE,
    MAX_SEGMENTS,
    Packed,
    PayloadError,
    Segment,
    pack_result,
    pack_task,
    unpack,
)

MIB = 1 << 20


@pytest.fixture
def store() -> BufferStore:
    return BufferStore(64 * MIB)


def back(packed: Packed) -> Any:
    """Unpickle as a worker does: the segments as JSON gives them, large buffers as writable memory of its own."""
    segments = json.loads(json.dumps(packed.segments))
    return unpack(segments, packed.inline, {ref: bytearray(view) for ref, view in packed.large.items()})


def notebook(source: str) -> dict[str, Any]:
    """A namespace as a notebook's: what ``source`` defines in ``__main__``."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(source, namespace)
    return namespace


def shipped(home: dict[str, Any], *names: str) -> dict[str, Any]:
    """The names' values as a cell would find them on the worker."""
    part = {name: home[name] for name in names}
    away = back(pack_task(part, BufferStore(0), shared_globals=(home, part)))
    assert isinstance(away, dict)
    return away


def test_a_call_comes_back_as_it_was_in_one_inline_segment(store: BufferStore) -> None:
    packed = pack_task((pow, (2, 10), {"mod": 7}), store)
    assert packed.segments == (Segment(len(packed.inline), None),)
    assert not packed.large
    assert back(packed) == (pow, (2, 10), {"mod": 7})


def test_importable_functions_and_data_need_no_particular_python(store: BufferStore) -> None:
    for value in ((json.dumps, ([1],), {}), {"a": np.arange(3)}, [None, ..., int, type(None), ValueError("x")]):
        assert not pack_task(value, store).needs_python


@pytest.mark.parametrize(
    "source",
    [
        "def f(): pass",
        "f = lambda: 1",
        "class f:\n  def g(self): pass",
        "f = compile('1', 'x', 'eval')",
        "class f: pass",
    ],
)
def test_code_of_the_notebook_needs_the_same_python(store: BufferStore, source: str) -> None:
    assert pack_task([notebook(source)["f"]], store).needs_python


def test_code_objects_are_a_kind_of_code() -> None:
    assert isinstance(back(pack_result(compile("1", "x", "eval"))), CodeType)


def test_a_large_array_travels_by_the_hash_of_its_bytes(store: BufferStore) -> None:
    array = np.arange(MIB, dtype="u1")
    one, two = pack_task(array, store), pack_task([array.copy()], store)
    (ref,) = one.large
    assert set(two.large) == {ref}
    assert len(ref) == 64
    assert one.segments[1] == Segment(MIB, ref)
    assert np.array_equal(back(one), array)
    assert len(store) == 1


def test_inline_segments_end_where_a_frame_is_full(store: BufferStore) -> None:
    arrays = [np.full(100_000, i, "u1") for i in range(5)]
    packed = pack_task(arrays, store)
    assert len(packed.inline) <= INLINE
    assert [segment.ref is None for segment in packed.segments] == [True, True, True, False, False, False]
    assert all(np.array_equal(a, b) for a, b in zip(arrays, back(packed), strict=True))


def test_a_segment_of_the_large_size_is_never_inline_whatever_room_there_is(store: BufferStore) -> None:
    packed = pack_task(np.zeros(10_000, "u1"), store, large=10_000)
    assert [segment.size for segment in packed.segments if segment.ref] == [10_000]


def test_a_long_pickle_is_a_large_segment_itself(store: BufferStore) -> None:
    for value in (b"x" * (5 * MIB), "y" * LARGE, list(range(300_000))):
        packed = pack_task(value, store)
        assert packed.segments[0].ref is not None
        assert packed.inline == b""
        assert back(packed) == value


def test_results_number_their_large_segments_and_are_not_copied() -> None:
    array = np.zeros(MIB, "u1")
    packed = pack_result([array, np.ones(2 * MIB, "u1")])
    assert list(packed.large) == ["r0", "r1"]
    array[7] = 9
    assert packed.large["r0"][7] == 9


def test_small_buffers_stay_in_the_pickle() -> None:
    assert len(pack_result([np.zeros(IN_BAND - 8, "u1")] * 3).segments) == 1


def test_many_buffers_do_not_outgrow_a_frame_header(store: BufferStore) -> None:
    arrays = [np.full(IN_BAND, i % 251, "u1") for i in range(2 * MAX_SEGMENTS)]
    packed = pack_task(arrays, store)
    assert len(packed.segments) <= MAX_SEGMENTS
    assert len(encode({"t": "task", "segments": packed.segments})) < MAX_HEADER
    assert all(np.array_equal(a, b) for a, b in zip(arrays, back(packed), strict=True))


def test_arrays_are_writable_away_where_they_were_at_home(store: BufferStore) -> None:
    arrays = [np.zeros(n, "u1") for n in (10, IN_BAND, MIB)]
    for array in arrays:
        array.flags.writeable = False
    arrays += [np.zeros(n, "u1") for n in (10, IN_BAND, MIB + 1)]
    away = back(pack_task(arrays, store))
    assert [array.flags.writeable for array in away] == [False] * 3 + [True] * 3


def test_one_buffer_used_twice_is_one_array_away(store: BufferStore) -> None:
    array = np.zeros(MIB)
    one, two = back(pack_task([array, array], store))
    assert one is two


def test_odd_buffers_travel_too(store: BufferStore) -> None:
    square = np.arange(MIB).reshape(1024, 1024)
    arrays = [square[::2], square.T, np.asfortranarray(square), np.zeros((0, 3)), np.array(["a", None], object)]
    assert all(np.array_equal(a, b) for a, b in zip(arrays, back(pack_task(arrays, store)), strict=True))


def test_a_buffer_that_is_not_contiguous_fails_as_pickle_does(store: BufferStore) -> None:
    with pytest.raises(pickle.PicklingError, match="contiguous"):
        pack_task(pickle.PickleBuffer(memoryview(bytearray(100))[::2]), store)


def test_a_task_is_frozen_when_it_is_packed(store: BufferStore) -> None:
    arrays = [np.zeros(n, "u1") for n in (10, 100_000, 2 * MIB)]
    packed = pack_task(arrays, store)
    for array in arrays:
        array += 1
    assert [int(array.sum()) for array in back(packed)] == [0, 0, 0]


def test_a_changed_array_of_the_same_size_is_another_buffer(store: BufferStore) -> None:
    array = np.zeros(2 * MIB, "u1")
    before = pack_task(array, store)
    array[-1] = 1
    after = pack_task(array, store)
    assert set(before.large) != set(after.large)
    assert back(before)[-1] == 0
    assert back(after)[-1] == 1


def test_frozen_bytes_are_kept_and_not_copied(store: BufferStore) -> None:
    data = b"z" * MIB
    ref, view = store.freeze(data)
    assert view.obj is data
    assert store.freeze(bytearray(data)) == (ref, view)


def test_what_the_store_gives_can_not_be_written(store: BufferStore) -> None:
    for size in (MIB, 8 * MIB):
        _, view = store.freeze(bytearray(size))
        assert view.readonly


def test_the_hash_is_blake3_of_the_bytes_however_they_came(store: BufferStore) -> None:
    import blake3

    data = bytes(range(256)) * (20 * 1024)
    expected = blake3.blake3(data).hexdigest()
    assert BufferStore(0).freeze(bytearray(data))[0] == expected
    assert BufferStore(0).freeze(data)[0] == expected


def test_pinned_buffers_stay_and_idle_ones_go_least_recently_used_first() -> None:
    store = BufferStore(2 * MIB)
    refs = [store.freeze(bytes([i]) * MIB)[0] for i in range(4)]
    assert len(store) == 4
    store.unpin(refs[:3])
    assert [ref in store for ref in refs] == [False, True, True, True]
    store.pin([refs[1]])
    store.unpin([refs[1], refs[3]])
    assert [ref in store for ref in refs] == [False, True, False, True]
    assert store.idle == 2 * MIB
    with pytest.raises(KeyError):
        store.get(refs[0])
    with pytest.raises(KeyError):
        store.pin([refs[2]])


def test_a_buffer_pinned_by_two_tasks_stays_until_both_are_over() -> None:
    store = BufferStore(0)
    array = np.zeros(MIB, "u1")
    one, two = pack_task([array, array.copy()], store), pack_task(array, store)
    store.unpin(one.large)
    assert len(store) == 1
    store.unpin(two.large)
    assert (len(store), store.idle) == (0, 0)


def test_a_task_that_can_not_be_packed_leaves_nothing_pinned() -> None:
    class Late(BufferStore):
        def freeze(self, buffer: Any, *, ours: bool = False) -> tuple[str, memoryview]:
            if len(self):
                raise MemoryError
            return super().freeze(buffer, ours=ours)

    store = Late(0)
    with pytest.raises(MemoryError):
        pack_task([np.zeros(MIB, "u1"), np.ones(MIB, "u1")], store)
    assert len(store) == 0


def test_threads_may_freeze_the_same_bytes_at_once() -> None:
    store = BufferStore(0)
    arrays = [np.full(MIB, i, "u1") for i in range(3)]

    def work() -> None:
        for _ in range(20):
            for array in arrays:
                packed = pack_task(array, store)
                for ref, view in packed.large.items():
                    assert store.get(ref) == view
                store.unpin(packed.large)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(store), store.idle) == (0, 0)


@pytest.mark.parametrize(
    "segments",
    [
        [],
        [[3, None]],
        [[5, None]],
        [[4, "gone"]],
        [[4, "r0"]],
        [[4, None], [1, "r0"]],
        [[-1, None]],
        [["4", None]],
        [[True, None]],
        [[4.0, None]],
        [[4, 0]],
        [[4]],
        ["ab"],
        [None],
    ],
)
def test_segments_that_do_not_fit_their_bytes_are_refused(segments: Any) -> None:
    with pytest.raises(PayloadError):
        unpack(segments, pickle.dumps(1, 5)[:4], {"r0": b"12"})


def test_functions_share_the_namespace_that_they_travel_with() -> None:
    home = notebook("factor = 2\ndef scaled(x): return x * factor")
    away = shipped(home, "factor", "scaled")
    assert away["scaled"].__globals__ is away
    away["factor"] = 10  # the cell assigns
    assert away["scaled"](3) == 30
    assert home["scaled"](3) == 6


def test_functions_bring_the_globals_that_they_use() -> None:
    home = notebook("factor = 2\ndef scaled(x): return helper(x)\ndef helper(x): return x * factor\nunused = open")
    away = shipped(home, "scaled")
    assert away["scaled"](3) == 6
    assert away["helper"].__globals__ is away
    assert "unused" not in away


def test_functions_that_call_each_other_still_do() -> None:
    away = shipped(
        notebook("def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n > 0 and even(n - 1)"), "even", "odd"
    )
    assert away["even"](10)
    assert away["even"].__globals__["odd"] is away["odd"]


def test_a_function_that_sets_a_global_sets_the_cells() -> None:
    away = shipped(notebook("n = 0\ndef bump():\n  global n\n  n += 1"), "bump", "n")
    away["bump"]()
    assert away["n"] == 1


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("x = 1\ndef outer(k):\n  def inner(): return x + k\n  return inner\nf = outer(5)", "f()"),
        ("x = 1\nf = lambda: x", "f()"),
        ("x = 1\nf = [lambda: x][0]\ng = {'deep': [f]}", "g['deep'][0]()"),
        ("x = 1\ndef f():\n  yield x\n  yield x + 1", "list(f())"),
        ("x = 1\nclass C:\n  def get(self): return x\n  @staticmethod\n  def s(): return x\nf = C()", "f.get(), f.s()"),
        (
            "import functools\nx = 1\ndef deco(g):\n  @functools.wraps(g)\n  def w(): return g() + x\n  return w\n"
            "@deco\ndef f(): return x",
            "f(), f.__name__",
        ),
        ("import functools\nx = 1\ndef g(a, b=x): return a + b + x\nf = functools.partial(g, 1)", "f()"),
        (
            "x = 1\nclass A:\n  k = x\nclass B(A):\n  def m(self): return super().__init__() or (self.k, x)\nf = B()",
            "f.m()",
        ),
        ("import dataclasses\nx = 1\n@dataclasses.dataclass\nclass P:\n  a: int = x\nf = P", "f(2), f()"),
        ("import enum\nclass E(enum.Enum):\n  A = 1\nf = E", "f.A.value"),
        ("async def f(): return x\nx = 1", "f().close()"),
        ("def f(n): return 1 if n < 2 else n * f(n - 1)", "f(5)"),
    ],
)
def test_code_runs_away_as_it_does_at_home(source: str, call: str) -> None:
    home = notebook(source)
    names = [name for name in home if not name.startswith("__")]
    away = shipped(home, *names)
    assert repr(eval(call, away)) == repr(eval(call, home))


def test_values_that_were_replaced_for_the_cell_are_replaced_for_its_functions() -> None:
    home = notebook("lock = __import__('threading').Lock()\ndef f(): return lock")
    part = {"f": home["f"], "lock": "a stand-in"}
    away = back(pack_task(part, BufferStore(0), shared_globals=(home, part)))
    assert away["f"]() == "a stand-in"


def test_finished_futures_travel_as_finished_futures(store: BufferStore) -> None:
    good: Future[int] = Future()
    good.set_result(7)
    bad: Future[int] = Future()
    bad.set_exception(KeyError("k"))
    good_away, bad_away = back(pack_task([good, bad], store))
    assert good_away.result() == 7
    assert good_away.done()
    with pytest.raises(KeyError, match="k"):
        bad_away.result()


async def test_a_future_that_travelled_can_be_awaited(store: BufferStore) -> None:
    good: Future[int] = Future()
    good.set_result(7)
    assert await back(pack_task(good, store)) == 7


def test_an_unfinished_future_is_refused_with_what_to_do(store: BufferStore) -> None:
    with pytest.raises(CaptureError, match="await"):
        pack_task([Future()], store)


def test_the_runners_side_loads_without_the_clients_libraries() -> None:
    code = (
        "import sys, p2p_ipython.task.payload as p; r = p.pack_result(1); p.unpack(r.segments, r.inline, {}); "
        "print([m for m in ('blake3', 'numpy', 'IPython', 'cryptography', 'paramiko') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_kept_of_buffers_that_were_evicted() -> None:
    store = BufferStore(0)
    for number in range(20):
        ref, _ = store.freeze(bytearray([number]) * MIB)
        store.freeze(bytearray([number]) * MIB)
        store.unpin([ref, ref])
    assert len(store) == store.idle == len(store._samples) == 0


def test_a_task_that_ends_after_the_store_was_cleared_lets_go_of_nothing(store: BufferStore) -> None:
    packed = pack_task(np.zeros(MIB, "u1"), store)
    store.clear()
    kept, _ = store.freeze(b"x" * MIB)
    store.unpin([*packed.large, kept])
    assert store.idle == MIB


def test_an_open_file_inside_a_value_stays_here(tmp_path: Path) -> None:
    store = BufferStore(1 << 20)
    with (tmp_path / "file").open("w+") as file:
        with pytest.raises(TypeError, match="it is an open file"):
            pack_task([{"deep": file}], store)
        with pytest.raises(TypeError, match="it is an open file"):
            pack_task(lambda: file.read(), store)
