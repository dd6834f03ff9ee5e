"""Tracebacks of errors that come with others: each without our frames, and with the names that people know."""

from __future__ import annotations

import sys
import traceback

import pytest

from p2p_ipython.task.payload import pack_result
from p2p_ipython.task.tracebacks import has_group, lines_with_groups, own_frames, tidy, tree_of


def raised(error: BaseException, depth: int = 0) -> BaseException:
    """The error, raised below ``depth`` frames."""

    def down(left: int) -> None:
        if left:
            down(left - 1)
        raise error

    with pytest.raises(type(error)) as caught:
        down(depth)
    return caught.value


def from_our_code() -> BaseException:
    """An error that code of ours has raised from code of the task's."""

    class Not:
        def __reduce__(self) -> str:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        pack_result(Not())
    return caught.value


def files(error: BaseException) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]


def test_each_error_that_is_shown_is_in_the_tree_once() -> None:
    cause, context, hidden, member = KeyError(1), KeyError(2), KeyError(3), KeyError(4)
    member.__context__ = context
    top = ExceptionGroup("g", [member, member, ExceptionGroup("in", [cause])])
    top.__cause__, top.__context__ = cause, hidden
    cause.__context__ = top
    assert [type(each) for each in tree_of(top)].count(KeyError) == 3
    assert hidden not in list(tree_of(top))
    assert has_group(cause)
    assert not has_group(member)


def test_our_frames_are_taken_out_of_each_error_also_between_others() -> None:
    member, cause = from_our_code(), from_our_code()
    assert any("/p2p_ipython/" in name for name in files(member))
    group = raised(BaseExceptionGroup("g", [member]))
    group.__cause__ = cause
    tidy(group)
    for each in group, member, cause:
        assert files(each)
        assert not any("/p2p_ipython/" in name or "cloudpickle" in name for name in files(each))


def test_a_librarys_pickler_that_the_task_itself_calls_is_shown() -> None:
    import cloudpickle

    class Not:
        def __reduce__(self) -> str:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        cloudpickle.dumps(Not())
    own_frames(caught.value.__traceback__)
    assert any("cloudpickle" in name for name in files(caught.value))


def test_the_middle_of_long_tracebacks_is_cut_in_each_error() -> None:
    group = ExceptionGroup("g", [ValueError(1), ExceptionGroup("in", [error := ValueError(2)])])
    raised(error, 300)
    tidy(group)
    assert len(files(error)) == 80


def test_lines_have_the_names_that_people_know_and_errors_their_own_lines() -> None:
    remote = ValueError("remote")
    group = raised(ExceptionGroup("g", [raised(KeyError("k")), ExceptionGroup("in", [remote])]))
    own = {id(remote): ["where it was", "and that"]}
    lines = lines_with_groups(group, {__file__: ("Cell", "In[3]")}.get, lambda each: own.get(id(each)))
    assert lines[0] == "  + Exception Group Traceback (most recent call last):"
    assert f"  |   Cell In[3], line {traceback.extract_tb(group.__traceback__)[-1].lineno}, in down" in lines
    assert not any(__file__ in line for line in lines)
    assert [line for line in lines if line.endswith((" it was", " and that"))] == [
        "      | where it was",
        "      | and that",
    ]
    assert not any("ValueError" in line for line in lines)


def test_a_tree_that_is_no_tree_ends() -> None:
    error = ExceptionGroup("g", [inside := ValueError(1)])
    inside.__context__ = error
    for number in range(3 * sys.getrecursionlimit()):
        (following := ValueError(number)).__context__ = inside.__context__
        inside.__context__ = following
    tidy(error)
    assert len(list(tree_of(error))) == 1000
