"""Warnings of a task: which class they are of here, and that no code of a stranger's choice runs for that."""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.client.display import harmless
from p2p_ipython.task import warned
from p2p_ipython.task.warned import RemoteWarning, Warned


def content(**given: Any) -> dict[str, Any]:
    told = {
        "category": "builtins.UserWarning",
        "message": "m",
        "filename": "f.py",
        "line": 3,
        "module": "f",
        "text": "t",
    }
    return told | given


def recorded(one: Warned) -> warnings.WarningMessage:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        one.raise_again()
    (message,) = caught
    return message


def made(category: str, message: str = "m") -> warnings.WarningMessage:
    found = warned.read(content(category=category, message=message))
    assert found is not None
    return recorded(found[0])


def test_a_warning_has_its_class_and_its_place() -> None:
    message = made("builtins.RuntimeWarning", "slow")
    assert (message.category, str(message.message)) == (RuntimeWarning, "slow")
    assert (message.filename, message.lineno) == ("f.py", 3)


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "builtins.ValueError", "nowhere.Its", "antigravity.X", "x"]
)
def test_what_is_no_warning_here_is_a_remote_one_that_says_its_name(name: str) -> None:
    before = set(sys.modules)
    message = made(name, "text")
    assert message.category is RemoteWarning
    assert str(message.message) == f"{name}: text"
    assert set(sys.modules) == before


def test_no_code_of_a_class_or_a_module_runs_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    class Greedy(UserWarning):
        def __init__(self, one: str, other: int) -> None:
            called.append(one)

    module: Any = types.ModuleType("p2p_test_lazy")
    module.Greedy = Greedy
    module.__getattr__ = called.append
    monkeypatch.setitem(sys.modules, "p2p_test_lazy", module)
    assert made("p2p_test_lazy.Greedy").category is Greedy
    assert made("p2p_test_lazy.Other").category is RemoteWarning
    assert not called


@pytest.mark.parametrize(
    "wrong",
    [
        {"line": "3"}, {"line": -1}, {"line": True}, {"line": 1 << 60}, {"category": 5}, {"message": None},
        {"category": "x" * 501}, {"message": "x" * 10_001}, {"filename": "x" * 501}, {"text": []}, {"module": {}},
    ],
)  # fmt: skip
def test_nonsense_is_no_warning(wrong: dict[str, Any]) -> None:
    assert warned.read(content(**wrong)) is None


def test_a_strangers_warning_cannot_move_a_cursor() -> None:
    message = harmless(
        {"kind": "warning", "content": content(message="a\x1b[2Jb", text="\x1b]0;x\x07t", more="x")}, "bob"
    )
    assert message is not None
    assert message["content"] == content(message="ab")


def test_a_warning_of_no_module_is_one_all_the_same() -> None:
    found = warned.read(content(module=""))
    assert found is not None
    assert recorded(found[0]).category is UserWarning


@given(
    st.dictionaries(st.sampled_from([*content(), "more"]), st.none() | st.integers() | st.text() | st.lists(st.text()))
)
def test_whatever_a_stranger_sends_is_a_warning_or_nothing(sent: dict[str, Any]) -> None:
    message = harmless({"kind": "warning", "content": content(**sent)}, "bob")
    assert message is not None
    found = warned.read(message["content"])
    assert found is None or issubclass(recorded(found[0]).category, Warning)


def test_one_that_was_shown_is_an_error_if_a_filter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def _showwarnmsg_impl(message: Any) -> None:
        raise AssertionError(f"{message} is shown twice")

    monkeypatch.setattr(warnings, "_showwarnmsg_impl", _showwarnmsg_impl)
    one = Warned("builtins.UserWarning", "mind", "f.py", 3, "f")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        one.raise_again()
        warnings.filterwarnings("error", "mi")
        with pytest.raises(UserWarning, match="mind"):
            one.raise_again()
        warnings.filterwarnings("ignore", module="f$")
        one.raise_again()
