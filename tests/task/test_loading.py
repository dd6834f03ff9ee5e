"""A pickle that can't be loaded says why; only the code of a library is said to be of another version."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from slot_support import worker

from p2p_ipython.protocol.task_frames import Result, TaskFailure
from p2p_ipython.task.loading import advice, is_absent, raised_in
from p2p_ipython.task.outcome import decode
from p2p_ipython.task.payload import pack_result, unpack
from tests.task.elsewhere_support import notebook


def hint_of(failure: TaskFailure, *, trusted: bool = True) -> str:
    """What the client says of a worker's failure."""
    with pytest.raises(Exception) as caught:
        decode(Result("t", 1, False, (), 0.0, failure=failure), b"", {}, worker="w", trusted=trusted)
    return str(getattr(caught.value, "hint", ""))


S = "class S:\n  def __init__(s, a=1): s.a = a\n"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (S + "  def __setstate__(s, state): raise ValueError('no')\nv = S()", "Code of your notebook raised it"),
        (S + "  def __setstate__(s, state): s.b.c\nv = S()", "Code of your notebook raised it"),
        (S + "  def __setstate__(s, state): open('/nowhere/x')\nv = S()", "Code of your notebook raised it"),
        (S + "  def __setstate__(s, state): raise MemoryError\nv = S()", "need more memory than a task has there"),
        (S + "  def __setstate__(s, state): s.__setstate__(state)\nv = S()", "looked up without end"),
        (S.replace("a=1", "a") + "  def __reduce__(s): return S, ()\nv = S(1)", "other arguments than pickle gives it"),
        (
            S + "  def __reduce__(s): return getattr, (__import__('__main__'), 'zz')\nv = S()",
            "by its name in your note",
        ),
        (
            "import json\nclass S:\n  def __reduce__(s): return json.loads, ('{',)\nv = S()",
            "can't be made of what pickle",
        ),
        (
            "import numpy\nclass S:\n  def __reduce__(s): return numpy.eye, ('x',)\nv = S()",
            "The code of numpy raised it: its",
        ),
    ],
)
async def test_a_task_that_can_not_be_loaded_says_why(source: str, words: str) -> None:
    home = notebook(source)
    async with worker() as it:
        failure = (await it.cell("v", {"v": home["v"]})).error
    hint = hint_of(failure)
    assert words in hint
    assert ("version" in hint) == ("numpy" in source)


async def test_what_a_module_lacks_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def f(): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    only_here = __import__("only_here")
    try:
        async with worker() as it:
            absent = (await it.call(only_here.f)).error
            json.only_here = only_here.f  # type: ignore[attr-defined]
            only_here.f.__module__, only_here.f.__qualname__ = "json", "only_here"
            changed = (await it.call(only_here.f)).error
    finally:
        del json.only_here  # type: ignore[attr-defined]
        del sys.modules["only_here"]
    assert "pip install only_here" in hint_of(absent)
    assert "what your notebook has added to the module" in hint_of(changed)


def test_a_result_that_can_not_be_loaded_here_says_why() -> None:
    home = notebook(S + "  def __setstate__(s, state): raise ValueError('no')\nv = S()")
    packed = pack_result(home["v"])
    result = Result("t", 1, True, packed.segments, 0.0)
    with pytest.raises(Exception, match="Code of your notebook raised it"):
        decode(result, packed.inline, {}, worker="w", trusted=True)


def test_a_stranger_chooses_no_name_of_a_library() -> None:
    failure = TaskFailure("unloadable", "builtins.TypeError", (), "x", "", "evil")
    assert "evil" not in hint_of(failure, trusted=False)
    assert "evil" in hint_of(failure, trusted=True)


def _raise_in_library() -> None:
    json.loads("{")


@pytest.mark.parametrize(
    ("call", "absent", "module"),
    [
        (lambda: __import__("no_such_module"), True, ""),
        (lambda: unpack([(5, None)], b"nope.", {}), False, ""),
        (_raise_in_library, False, "json.decoder"),
    ],
)
def test_the_code_that_raised_it_is_found(call: Callable[[], object], absent: bool, module: str) -> None:
    with pytest.raises(Exception) as caught:
        call()
    error = caught.value
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") == __name__:
        trace = trace.tb_next  # this test is nobody's library
    error.__traceback__ = trace
    assert (is_absent(error), raised_in(error)) == (absent, module)


def test_bytes_that_are_not_those_sent_are_sent_again() -> None:
    for kind in ("_pickle.UnpicklingError", "builtins.EOFError", "p2p_ipython.task.payload.PayloadError"):
        assert advice(kind, "", "there") == "What arrived is not what was sent: submit it again."
