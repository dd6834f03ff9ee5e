"""A question to a lender: harmless and bounded whatever a stranger puts into it; it arrives as it was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.questions import (
    ANSWERS,
    MAX_LINE,
    MAX_LINES,
    MAX_SIZE,
    MAX_SOURCE,
    Answered,
    Asked,
    asked,
    read_asked,
    source_lines,
)

FACTS: dict[str, Any] = {
    "until": 1.5,
    "name": "carol",
    "key": "SHA256:c",
    "label": "fit",
    "run": "cell",
    "source": "1 + 1",
    "size": 3,
    "options": "",
    "same": True,
}


def sent(question: Asked) -> Asked | None:
    return read_asked(json.loads(json.dumps(question.fields())))


strange = st.text(max_size=50) | st.text("x\n\t\x1b\u202e\ud800", max_size=2000) | st.just("y" * 5000)


@given(strange, strange, strange, strange, strange, st.integers(0, 1 << 70))
def test_strangers_text_is_cut_and_harmless_and_arrives(
    name: str, label: str, source: str, options: str, key: str, size: int
) -> None:
    facts = {"name": name, "label": label, "source": source, "options": options, "key": key, "size": size}
    question = asked(1, **{**FACTS, **facts})
    assert sent(question) == question
    for text in (question.name, question.label, question.key, question.options):
        assert plain(text, len(text)) == text
    assert all(plain(line, MAX_LINE) == line for line in question.source.split("\n"))


def test_what_is_not_shown_of_a_source_is_counted() -> None:
    assert source_lines("", 10).cut == ""
    assert source_lines("a\nb", 10) == (("a", "b"), 0, 0)
    assert source_lines("a\n" * 12, 10).cut == "3 lines more"
    hidden = source_lines(f"x = 1{' ' * 2000}; evil()\nshort\n" + "z" * MAX_LINE, 10)
    assert [len(line) for line in hidden.lines] == [MAX_LINE, 5, MAX_LINE]
    assert hidden.lines[0].endswith("…")
    assert hidden.cut == "1 line cut where … stands"
    invisible = source_lines("\u202e" * 4 * MAX_LINE + "evil()", 10)
    assert invisible.long == 1


def test_a_large_source_is_cut_at_a_line() -> None:
    many = asked(1, **{**FACTS, "source": "\n".join(["x" * 250] * MAX_LINES)})
    assert len(many.source) <= MAX_SOURCE
    shown = many.source.count("\n") + 1
    assert many.cut == f"{MAX_LINES - shown} lines more"
    huge = asked(1, **{**FACTS, "size": 1 << 70})
    assert huge.size == MAX_SIZE


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 0},
        {"number": "1"},
        {"number": True},
        {"run": "shell"},
        {"source": "x" * (MAX_SOURCE + 1)},
        {"until": -1},
    ],
)
def test_a_line_that_breaks_a_rule_is_no_question(wrong: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        read_asked({**asked(1, **FACTS).fields(), **wrong})


def test_an_answer_is_one_of_four_words() -> None:
    for answer in ANSWERS:
        assert Answered.read({"do": "answer", "number": 3, "answer": answer}) == Answered(3, answer)
    for wrong in ({"number": 3, "answer": "yes"}, {"answer": "once"}, {"number": 0, "answer": "once"}):
        with pytest.raises(RemoteProtocolError):
            Answered.read(wrong)
    assert read_asked(None) is None
