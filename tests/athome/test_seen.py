"""What is seen of a cell, and what counts as a difference."""

from __future__ import annotations

from typing import Any

import pytest

from p2p_ipython.notebook.card import line_html
from tests.athome.seen import Seen, cell_lines, differences, normal, seen_in


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"msg_type": "stream", "content": {"name": name, "text": text}}


def display(kind: str = "display_data", display_id: str = "", **data: str) -> dict[str, Any]:
    transient = {"display_id": display_id} if display_id else {}
    return {
        "msg_type": kind,
        "content": {"data": {k.replace("_", "/"): v for k, v in data.items()}, "transient": transient},
    }


def error(name: str, message: str, *lines: str) -> dict[str, Any]:
    return {"msg_type": "error", "content": {"ename": name, "evalue": message, "traceback": list(lines)}}


VALUE = display("execute_result", text_plain="3")


@pytest.mark.parametrize(
    ("home", "away", "aspects"),
    [
        ([stream("a"), stream("b")], [stream("ab")], set()),
        ([stream("a")], [stream("b")], {"stdout"}),
        ([stream("a")], [stream("a", "stderr")], {"stdout", "stderr"}),
        ([VALUE], [display("execute_result", text_plain="4")], {"value"}),
        ([VALUE], [display("execute_result", text_plain="3", text_html="3")], {"value's types"}),
        ([VALUE], [], {"value's types"}),
        ([VALUE, display(text_plain="f")], [display(text_plain="f"), VALUE], {"order"}),
        ([error("E", "m")], [error("E", "n")], {"error's message"}),
        ([error("E", "m")], [error("F", "m")], {"error's type"}),
        ([error("E", "m", "Cell In[1], line 1", "----> 1 f()")], [error("E", "m")], {"error's lines"}),
        ([display(text_plain="<a at 0x7f0012345678>")], [display(text_plain="<a at 0x7f0087654321>")], set()),
        ([display(image_png="one")], [display(image_png="other")], {"display"}),
        ([stream("1/3\r2/3\r3/3\n")], [stream("3/3\n")], set()),
    ],
)
def test_only_what_a_reader_sees_is_a_difference(home: list[Any], away: list[Any], aspects: set[str]) -> None:
    assert set(differences(seen_in(home), seen_in(away))) == aspects


def test_lines_of_our_own_are_none() -> None:
    line = line_html("waiting", "In[1]: submitted")
    ours = [
        display(display_id="line", text_plain="In[1]: submitted", text_html=line),
        display("update_display_data", "line", text_plain="In[1]: done", text_html="anything"),
    ]
    seen = seen_in([stream("a"), *ours, stream("b"), VALUE])
    assert differences(seen_in([stream("ab"), VALUE]), seen) == {}
    assert seen.notes == "In[1]: done"


def test_what_is_cleared_or_replaced_is_seen_no_longer() -> None:
    clear = {"msg_type": "clear_output", "content": {"wait": True}}
    assert differences(seen_in([stream("b")]), seen_in([stream("a"), clear, stream("b")])) == {}
    replaced = [display(display_id="x", text_plain="1"), display("update_display_data", "x", text_plain="2")]
    assert differences(seen_in([display(text_plain="2")]), seen_in(replaced)) == {}


def test_files_and_names_are_compared_too() -> None:
    changed = Seen(bound={"y": 3}, changed={"x": 1, "z": 2})
    assert differences(changed, Seen(bound={"y": 3, "x": 1})) == {}, "the copy is bound, and equal"
    assert set(differences(changed, Seen(bound={"y": 3, "x": 2}))) == {"names"}
    home = Seen(files={"a": "1"}, bound={"x": 1})
    assert set(differences(home, Seen(bound={"x": 2}))) == {"files", "names"}
    assert set(differences(home, Seen(files={"a": "1"}))) == set()  # names that can't be asked for
    assert set(differences(home, Seen(ended=False))) == {"hangs"}


def test_a_traceback_is_compared_by_the_lines_of_cells() -> None:
    in_cell, in_file = "Cell In[2], line 3\n      2 x\n----> 3 f(0)", "File lib.py:9, in f\n----> 9 raise"
    trace = f"{in_cell}\n\n{in_file}\n\nCell In[1], line 1, in g()\n----> 1 y"
    assert cell_lines(trace) == ["Cell In[2]", "> f(0)", "Cell In[1], in g()", "> y"]


def test_frames_of_a_recursion_count_once() -> None:
    frame = "Cell In[1], line 2, in f(n)\n----> 2 f(n + 1)\n"
    assert cell_lines(frame * 3) == cell_lines(frame) == ["Cell In[1], in f(n)", "> f(n + 1)"]


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("/tmp/ipykernel_12/345.py:3: UserWarning", "CELL:…: UserWarning"),
        ("<ipython-input-1-399a2269ddae>:3: UserWarning", "CELL:…: UserWarning"),
        ("Wall time: 3 ms", "Wall time: …"),
        ("23.5 μs ± 3 μs per loop (mean ± std. dev. of 2 runs, 10 loops each)", "… ± …"),
        ("0x10 and 7 ms", "0x10 and 7 ms"),
    ],
)
def test_what_differs_from_run_to_run_is_replaced(text: str, instead: str) -> None:
    assert normal(text) == instead
