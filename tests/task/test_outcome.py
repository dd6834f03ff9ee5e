"""What a task returned or raised is what ``decode`` returns or raises, whatever a worker sends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import traceback
from typing import Any

import cloudpickle
import numpy as np
import pytest
from frame_support import read_result
from IPython.core.interactiveshell import InteractiveShell

from p2p_ipython.errors import (
    NameMissing,
    NotTrusted,
    RemoteError,
    RemoteProtocolError,
    ResultNotPicklable,
    TaskDied,
    TaskError,
)
from p2p_ipython.task import safe
from p2p_ipython.task.outcome import decode
from p2p_ipython.task.payload import pack_result

TRACEBACK = "\x1b[31mZeroDivisionError\x1b[39m  Traceback\nCell In[1], line 2\n\x1b[31mZeroDivisionError\x1b[39m: oh"


class TwoArguments(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class Closed(ValueError):
    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


def returned(value: object) -> Any:
    packed = pack_result(value)
    return decode(
        read_result({"ok": True, "segments": packed.segments}),
        packed.inline,
        packed.large,
        worker="ann",
        trusted=True,
    )


def failed(error: BaseException | None, *, pickled: bool = True, **words: Any) -> BaseException:
    """The exception that ``decode`` raises for a task that raised ``error``."""
    description: dict[str, Any] = {"kind": "exception", "traceback": TRACEBACK}
    if error is not None:
        cls = type(error)
        description |= {
            "class": f"{cls.__module__}.{cls.__qualname__}",
            "bases": [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__],
            "message": str(error),
        }
    packed = pack_result(error) if pickled else None
    header = {"ok": False, "segments": packed.segments if packed else [], "error": description | words}
    with pytest.raises(BaseException) as caught:
        decode(read_result(header), packed.inline if packed else b"", {}, worker="ann", trusted=True)
    return caught.value


def test_values_come_back() -> None:
    assert returned({"a": [1, None]}) == {"a": [1, None]}
    array = np.arange(1 << 20)
    assert np.array_equal(returned(array), array)


@pytest.mark.parametrize("trusted", [True, False])
def test_plain_data_is_read_whoever_sent_it(trusted: bool) -> None:
    packed = safe.encode({"a": (1, None)})
    header = {"ok": True, "codec": "safe", "segments": packed.segments}
    assert decode(read_result(header), packed.inline, packed.large, trusted=trusted) == {"a": (1, None)}


def test_a_pickle_of_a_worker_that_is_not_trusted_stays_unread() -> None:
    packed = pack_result([1])
    header = {"ok": True, "codec": "pickle", "type": "m.C", "segments": packed.segments}
    with pytest.raises(NotTrusted, match=r"m\.C") as caught:
        decode(read_result(header), packed.inline, packed.large, worker="ann", trusted=False)
    assert "%p2p_trust ann" in caught.value.hint
    assert decode(read_result(header), packed.inline, packed.large, worker="ann", trusted=True) == [1]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.worker, str(again)) == (NotTrusted, "ann", str(caught.value))


def test_an_exception_is_raised_as_its_own_class() -> None:
    error = failed(KeyError("k"))
    assert type(error) is KeyError
    assert error.args == ("k",)


def test_an_exception_that_the_notebook_defined_is_its_own_class_again() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("class Mine(ValueError): pass", namespace)
    away = pickle.loads(cloudpickle.dumps(namespace["Mine"]))
    assert type(failed(away("x"))) is namespace["Mine"]


def test_plain_python_shows_the_remote_traceback_as_the_cause() -> None:
    text = "".join(traceback.format_exception(failed(ZeroDivisionError("oh"))))
    assert "Cell In[1], line 2" in text
    assert "\x1b" not in text
    assert text.rstrip().endswith("ZeroDivisionError: oh")


def test_ipython_shows_the_remote_traceback_as_the_cells_own(capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell()
    try:
        error = failed(ZeroDivisionError("oh"))
        shell.showtraceback((type(error), error, error.__traceback__))
    finally:
        shell.history_manager.end_session()
        InteractiveShell.clear_instance()
    shown = capsys.readouterr().out
    assert shown.strip() == TRACEBACK
    assert "decode" not in shown


def test_a_remote_exception_can_travel_on() -> None:
    error = pickle.loads(pickle.dumps(failed(ZeroDivisionError("oh"))))
    assert error._render_traceback_() == TRACEBACK.splitlines()


def test_a_class_that_refuses_attributes_is_raised_all_the_same() -> None:
    assert type(failed(Closed("x"))) is Closed


def test_escape_sequences_other_than_colours_are_taken_out() -> None:
    error = failed(ValueError("x"), traceback="\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b\r\nnext")
    assert error._render_traceback_() == ["]0;title[2J\x1b[31mred", "next"]  # type: ignore[attr-defined]


def test_an_exception_that_can_not_be_unpickled_is_rebuilt_from_its_words() -> None:
    error = failed(TwoArguments("a", "b"))
    assert type(error) is TwoArguments
    assert str(error) == "a b"
    assert isinstance(error.__cause__, Exception)


def test_an_unknown_class_becomes_its_built_in_base() -> None:
    error = failed(
        None, pickled=False, **{"class": "gone.Mine", "bases": ["gone.Mine", "builtins.ValueError"], "message": "m"}
    )
    assert type(error) is ValueError
    assert str(error) == "gone.Mine: m"


@pytest.mark.parametrize("bases", [["gone.Mine", "builtins.Exception"], [], ["builtins.print"]])
def test_a_class_without_such_a_base_becomes_a_remote_error(bases: Any) -> None:
    error = failed(None, pickled=False, **{"class": "gone.Mine", "bases": bases, "message": "m"})
    assert isinstance(error, RemoteError)
    assert error.class_name == "gone.Mine"
    assert "on ann" in str(error)


@pytest.mark.parametrize(
    "control",
    [StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError, concurrent.futures.CancelledError],
)
def test_what_would_steer_the_reader_is_only_reported(control: type[BaseException]) -> None:
    assert isinstance(failed(control("x")), RemoteError)


def test_a_task_may_exit_without_ending_the_notebook_differently_than_at_home() -> None:
    assert type(failed(SystemExit(3))) is SystemExit


def test_each_kind_of_trouble_has_its_error_and_a_hint() -> None:
    expected = {
        "unpicklable": ResultNotPicklable,
        "missing": NameMissing,
        "unloadable": TaskError,
        "interrupted": TaskDied,
    }
    for kind, cls in expected.items():
        error = failed(TypeError("why"), kind=kind)
        assert type(error) is cls
        assert error.hint
        assert "on ann" in error.message


def test_a_missing_module_is_named() -> None:
    error = failed(ModuleNotFoundError("No module named 'sky.net'"), kind="missing", name="sky.net")
    assert isinstance(error, NameMissing)
    assert "'sky.net'" in error.message
    assert "pip install sky)" in error.hint


def test_a_result_whose_module_is_missing_here_says_so() -> None:
    stream = b"\x80\x05\x8c\x06nowher\x8c\x01x\x93."
    with pytest.raises(NameMissing, match="'nowher'"):
        decode(read_result({"ok": True, "segments": [[len(stream), None]]}), stream, {}, worker="ann", trusted=True)


@pytest.mark.parametrize("segments", [[], [[9, None]], [[9, "r0"]]])
def test_a_result_that_makes_no_sense_is_the_workers_fault(segments: Any) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(read_result({"ok": True, "segments": segments}), b"", {}, worker="ann", trusted=True)
    assert caught.value.peer == "ann"


def test_a_pickle_that_is_broken_or_not_an_exception_falls_back_to_words() -> None:
    for stream in (b"\x80\x05garbage", pickle.dumps("no exception")):
        header = {
            "ok": False,
            "segments": [[len(stream), None]],
            "error": {"class": "builtins.ValueError", "kind": "exception", "message": "m"},
        }
        with pytest.raises(ValueError, match=r"^m$"):
            decode(read_result(header), stream, {}, trusted=True)


def test_words_of_any_kind_and_length_are_bounded() -> None:
    error = failed(
        None, pickled=False, **{"class": "x" * (1 << 20), "message": "m" * (1 << 20), "bases": ["no"] * 4000}
    )
    assert isinstance(error, RemoteError)
    assert len(str(error)) < (1 << 19)
