"""A built-in error of a worker that isn't trusted has its class, arguments and attributes, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from frame_support import read_result

from p2p_ipython.errors import RemoteError
from p2p_ipython.task import error_facts, safe
from p2p_ipython.task.error_facts import facts
from p2p_ipython.task.outcome import decode


class Mine(ValueError):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")
        self.one = one


def read(error: BaseException, found: Any) -> Any:
    """The exception that the words of ``error`` and some facts become."""
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__]
    words = {"kind": "exception", "class": names[0], "bases": names, "message": str(error)}
    packed = safe.encode(found)
    header = {"ok": False, "codec": "safe", "segments": packed.segments, "error": words}
    with pytest.raises(BaseException) as caught:
        decode(read_result(header), packed.inline, packed.large, worker="bob", trusted=False)
    return caught.value


def back(error: BaseException) -> Any:
    """An error after its way."""
    return read(error, facts(error))


def syntax_error() -> SyntaxError:
    with pytest.raises(SyntaxError) as caught:
        compile("1 +", "f.py", "exec")
    return caught.value


ERRORS: list[BaseException] = [
    AssertionError(),
    ValueError(),
    Exception(),
    Exception("plain"),
    MemoryError(),
    KeyError("k"),
    KeyError((1, "k")),
    ValueError("a", 2, [3]),
    UnicodeDecodeError("utf8", b"x\xff", 1, 2, "why"),
    UnicodeEncodeError("ascii", "\xe9", 0, 1, "why"),
    FileNotFoundError(2, "No such file", "name"),
    OSError(2, "moved", "one", None, "two"),
    OSError("text"),
    ImportError("no x", name="x", path="/p"),
    NameError("no y", name="y"),
    AttributeError("no z", name="z"),
    syntax_error(),
    TimeoutError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_built_in_error_comes_back_as_it_was(error: BaseException) -> None:
    got = back(error)
    assert (type(got), got.args, str(got)) == (type(error), error.args, str(error))
    for name in (
        "errno",
        "strerror",
        "filename",
        "filename2",
        "name",
        "path",
        "lineno",
        "offset",
        "text",
        "msg",
        "start",
    ):
        assert getattr(got, name, None) == getattr(error, name, None), name


def test_what_a_task_has_noted_on_its_error_comes_with_it() -> None:
    error = ValueError("x")
    error.code, error.what = 7, object()  # type: ignore[attr-defined]
    error.add_note("mind the gap")
    got = back(error)
    assert (got.code, got.__notes__) == (7, ["mind the gap"])
    assert got.what.startswith("<object object")


def test_an_error_of_a_class_of_the_tasks_own_has_its_attributes() -> None:
    got = back(Mine("a", "b"))
    assert (type(got), got.one) == (ValueError, "a")
    assert "Mine: a b" in str(got)


def test_what_would_steer_the_reader_is_reported_with_what_it_says() -> None:
    ended, left = back(StopIteration(5)), back(SystemExit(3))
    assert (type(ended), ended.value) == (RemoteError, 5)
    assert (type(left), left.code) == (RemoteError, 3)


def test_a_group_has_its_errors() -> None:
    group = ExceptionGroup("g", [ValueError(1), Mine("a", "b"), ExceptionGroup("in", [KeyError("k")])])
    got = back(group)
    assert type(got) is ExceptionGroup
    first, second, third = got.exceptions
    assert (first.args, type(second), third.exceptions[0].args) == ((1,), ValueError, ("k",))


class NotUtf8(UnicodeDecodeError):
    """A subclass that words alone don't make."""


class Several(ExceptionGroup[Exception]):
    """A group of the task's own."""


class Both(ExceptionGroup[Exception], LookupError):
    """A group that is something else, too."""


@pytest.mark.parametrize(
    ("member", "base"),
    [
        (NotUtf8("utf8", b"x", 0, 1, "why"), UnicodeError),
        (Several("in", [KeyError("k")]), ExceptionGroup),
        (Both("in", [KeyError("k")]), ExceptionGroup),
        (Mine("a", "b"), ValueError),
    ],
    ids=repr,
)
def test_a_group_has_errors_of_classes_of_the_tasks_own(member: Exception, base: type[Exception]) -> None:
    member.code = 7  # type: ignore[attr-defined]
    first, second = back(ExceptionGroup("g", [member, KeyError("k")])).exceptions
    assert type(first) is base
    assert f"{type(member).__qualname__}: {member}" in str(first)
    assert (first.code, second.args) == (7, ("k",))
    if isinstance(member, ExceptionGroup):
        assert first.exceptions[0].args == ("k",)


def test_a_group_of_a_class_of_the_tasks_own_is_a_group() -> None:
    got = back(Several("in", [KeyError("k"), Several("deeper", [KeyError("l")])]))
    assert type(got) is ExceptionGroup
    assert "Several: in" in str(got)
    assert [type(each) for each in got.exceptions] == [KeyError, ExceptionGroup]


def test_a_group_has_what_is_no_error_as_its_words() -> None:
    got = back(BaseExceptionGroup("g", [SystemExit(3), BaseExceptionGroup("in", [KeyboardInterrupt(), ValueError(1)])]))
    assert isinstance(got, ExceptionGroup)
    ended, inner = got.exceptions
    assert (type(ended), str(ended)) == (Exception, "SystemExit: 3")
    assert [type(each) for each in inner.exceptions] == [Exception, ValueError]


def count(found: Any) -> int:
    return 1 + sum(count(each) for each in found.get("group", ()))


def test_of_a_large_group_as_many_errors_come_as_there_is_room_for_and_it_says_so() -> None:
    inner = [ExceptionGroup(str(number), [ValueError(number)] * 300) for number in range(5)]
    found = facts(ExceptionGroup("g", inner))
    assert count(found) == 1000
    assert [each["group"][0]["args"] for each in found["group"]] == [(0,), (1,), (2,), (3,)]
    assert found["notes"] == ["1 of its 5 errors stayed on the worker"]
    assert back(ExceptionGroup("g", inner)).__notes__ == found["notes"]
    assert count(facts(ExceptionGroup("g", [ValueError(1)] * 3000))) == 1000


def test_the_facts_of_an_error_don_t_repeat_its_description() -> None:
    assert set(facts(ValueError("x" * 1000))) == {"args", "attributes"}


@pytest.mark.parametrize(
    "lie",
    [
        {"args": ("utf8", b"x", -5, 1 << 62, "why")},
        {"args": ("utf8", "text", 0, 1, "why")},
        {"args": ("utf8", b"", 0, 0, "why")},
        {"args": [1]},
        {"args": 5, "attributes": 5, "notes": 5},
        {"args": (), "attributes": [1]},
        [],
    ],
    ids=repr,
)
def test_facts_that_make_no_sense_leave_the_words(lie: Any) -> None:
    got = read(UnicodeDecodeError("utf8", b"x", 0, 1, "why"), lie)
    assert type(got) is UnicodeError  # its own class can't be made of words
    assert "why" in str(got)


def test_attributes_that_mean_something_to_others_are_not_set() -> None:
    names = ("_render_traceback_", "__class__", "__cause__", "with_traceback", "add_note", "args", "no name")
    got = read(ValueError("x"), {"args": ("x",), "attributes": dict.fromkeys(names, "evil")})
    assert (type(got), got.args, got.__cause__) == (ValueError, ("x",), None)
    assert not hasattr(got, "_render_traceback_")
    assert callable(got.with_traceback)


def test_a_syntax_error_can_neither_fill_the_screen_nor_have_a_file_read() -> None:
    found = {"args": ("m",), "attributes": {"offset": 1 << 40, "end_offset": 1 << 40, "filename": "/dev/zero"}}
    got = read(SyntaxError("m"), found)
    assert (got.offset, got.end_offset, got.filename) == (None, None, "zero")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("k"),
        KeyError((1, "k")),
        FileNotFoundError(2, "No such file", "a.csv"),
        FileExistsError(17, "File exists", "a", None, "b"),
        OSError(5, "no luck"),
        UnicodeDecodeError("utf8", b"??\xff", 2, 3, "invalid start byte"),
    ],
    ids=repr,
)
def test_words_alone_make_the_error_again_where_they_say_all(error: Exception) -> None:
    facts = error_facts.facts_in(type(error), str(error))
    made = error_facts.with_facts(type(error), facts)
    assert (type(made), str(made)) == (type(error), str(error))
    assert made is not None
    assert made.args == error.args
    assert getattr(made, "filename", None) == getattr(error, "filename", None)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (KeyError, "__import__('os')"),
        (KeyError, "(" * 10_000),
        (OSError, "[Errno 99999999999] x"),
        (OSError, "[Errno 2] x: 'a' -> b"),
        (UnicodeDecodeError, "'utf8' codec can't decode byte 0xff in position 999999999: x"),
        (ValueError, "1"),
    ],
)
def test_words_that_say_something_else_make_nothing_up(cls: type[Exception], message: str) -> None:
    facts = error_facts.facts_in(cls, message)
    assert facts == {} or facts["args"] == (2, "x: 'a' -> b")
