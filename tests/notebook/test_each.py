"""``--each``: what it says, and the settings that come of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from IPython.core.error import UsageError as MagicUsage

from p2p_ipython.errors import UsageError
from p2p_ipython.notebook.each import MOST, axis, grid, label

NAMES: dict[str, Any] = {"alphas": [1, 2, 3], "pairs": [("a", 1), ("b", 2)], "count": itertools.count, "limit": 1}


def settings(*options: str) -> list[dict[str, Any]]:
    return grid([axis(option, NAMES) for option in options])


def test_a_loop_gives_a_setting_for_each_value() -> None:
    assert settings("alpha in alphas") == [{"alpha": 1}, {"alpha": 2}, {"alpha": 3}]
    assert settings("alpha in (n * n for n in alphas if n > limit)") == [{"alpha": 4}, {"alpha": 9}]
    assert settings("alpha in alphas if alpha > limit") == [{"alpha": 2}, {"alpha": 3}]


def test_a_loop_takes_values_apart_as_a_for_does() -> None:
    assert settings("a, b in pairs") == [{"a": "a", "b": 1}, {"a": "b", "b": 2}]
    assert settings("(a, (b, c)) in [(1, (2, 3))]") == [{"a": 1, "b": 2, "c": 3}]


def test_several_are_a_grid_in_the_order_given() -> None:
    assert settings("a in 'xy'", "b in range(2)") == [
        {"a": "x", "b": 0},
        {"a": "x", "b": 1},
        {"a": "y", "b": 0},
        {"a": "y", "b": 1},
    ]


def test_the_loop_leaves_nothing_in_the_notebook() -> None:
    settings("a in alphas")
    assert set(NAMES) - {"__builtins__"} == {"alphas", "pairs", "count", "limit"}


@pytest.mark.parametrize(
    "option",
    [
        "",
        "alphas",
        "alpha = alphas",
        "alpha in",
        "a in b for c in d",
        "a.b in alphas",
        "a[0] in alphas",
        "*a, b in pairs",
        "() in alphas",
        "a in alphas] + [b",
        "a, a in pairs",
        "a in alphas\0",
    ],
)
def test_what_is_no_loop_over_names_is_refused_with_an_example(option: str) -> None:
    with pytest.raises(MagicUsage, match="--each"):
        axis(option, NAMES)


def test_two_loops_that_set_one_name_are_refused() -> None:
    with pytest.raises(MagicUsage, match="same name"):
        settings("a in alphas", "a, b in pairs")


@pytest.mark.parametrize("options", [["n in count()"], [f"n in range({MOST})", "m in range(2)"]])
def test_endless_and_too_many_settings_are_refused(options: list[str]) -> None:
    with pytest.raises(UsageError, match="more than 100,000 settings"):
        settings(*options)


def test_no_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="no value for a, b"):
        settings("n in alphas", "a, b in []")


def test_an_error_of_the_loop_is_the_users_own() -> None:
    with pytest.raises(NameError, match="betas"):
        settings("b in betas")
    with pytest.raises(ValueError, match="unpack"):
        settings("a, b in [(1, 2, 3)]")


def test_a_setting_has_a_short_label() -> None:
    class Strange:
        def __repr__(self) -> str:
            raise RuntimeError

    assert label({"alpha": 0.3, "kind": "ridge"}) == "alpha=0.3, kind='ridge'"
    assert label({"f": len, "s": Strange()}) == "f=len, s=Strange"
    assert len(label({"text": "x" * 1000, "items": list(range(1000))})) <= 80
    assert label({"text": "a\nb\u202e"}) == r"text='a\nb\u202e'"
