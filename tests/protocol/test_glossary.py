"""One word for one thing: PROTOCOL.md's glossary has it, and the texts keep to it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from protocol_tables import rows

ROOT = Path(__file__).parents[2]

SYNONYMS = {
    # What is not to be said: what is said instead.
    r"visitors?|invitees?": "guest, for a person with an invitation who is no member yet",
    r"outsiders?|intruders?": "stranger, for a person or a session that has not proved to be a member",
    r"list numbers?|numbers? of (?:the|a) (?:list|roster)": "epoch",
    r"(?:member|user) lists?|lists? of members": "roster",
    r"expel(?:s|led|ling)?|expulsion|kick(?:s|ed|ing)? out": "revoke",
    r"(?:take|takes|took|taken|taking) (?:\w+ )?out(?= of (?:the|a|its|this) cluster|[.,:;)]|$)": "revoke",
    r"burn(?:s|t|ed|ing)?": "use up, of a code",
    r"doors?|desks?|entrances?": "the thing's name: lobby, invitation, operations, registration",
    r"(?:let|lets|letting) (?:\w+ )?in(?=$|[.,:;)]| by| to the cluster)": "admit",
}
"""Patterns of whole words, and the glossary's word for each. A name in backquotes is code, and may be anything."""

SCANNED = ["README.md", "PROTOCOL.md", "THREATS.md"]
"""Documents, and folders of modules whose docstrings are read."""
SCANNED += ["CONTRIBUTING.md", "CHANGELOG.md", "JOURNEYS.md", "DECISIONS.md"]
ROOMS = sorted(path.parent.name for path in (ROOT / "p2p_ipython").glob("*/__init__.py"))
SCANNED += [f"p2p_ipython/{room}" for room in ROOMS]

QUOTED = re.compile(r"```.*?```|``[^`]*``|`[^`]*`|\]\([^)]*\)", re.S)


def texts(name: str) -> Iterator[tuple[str, str]]:
    """A document, or the docstrings of a folder's modules: where each is, and its words."""
    path = ROOT / name
    if path.suffix == ".md":
        yield name, path.read_text(encoding="utf-8")
        return
    for module in sorted(path.rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                where = f"{module.relative_to(ROOT)}:{getattr(node, 'name', '')}"
                yield where, ast.get_docstring(node) or ""


def synonyms_in(text: str) -> list[str]:
    """What a text says that the glossary has another word for, and that word."""
    plain = re.sub(r"\s+", " ", QUOTED.sub("…", text))
    found = []
    for pattern, better in SYNONYMS.items():
        found += [f"{match[0]!r}: say {better}" for match in re.finditer(rf"\b(?:{pattern})(?!\w)", plain, re.I)]
    return found


def glossary() -> dict[str, str]:
    return {word: meaning for words, meaning in rows("## Glossary") for word in words.split(", ")}


@pytest.mark.parametrize("name", SCANNED)
def test_a_thing_has_one_word(name: str) -> None:
    assert not {where: found for where, text in texts(name) if (found := synonyms_in(text))}


def test_a_synonym_is_found_in_prose_and_not_in_code() -> None:
    assert synonyms_in("The owner has taken him out.") == ["'taken him out': say revoke"]
    assert len(synonyms_in("A Visitor knocks at the door,\nand is let\nin. The code is burnt.")) == 4
    assert not synonyms_in("`Visitor` and ``take_out`` are names; take out is said of food. What is let in the cluster")


def test_the_glossary_has_a_line_for_each_word_of_the_house() -> None:
    words = glossary()
    expected = {
        "board", "topic", "lobby", "link", "member", "session", "worker", "agent", "slot", "runner", "warden", "roster",
        "epoch", "host", "invitation", "knock", "vouch", "offer", "lend", "attempt", "segment", "ref", "row", "journal",
    }  # fmt: skip
    assert expected <= words.keys()
    assert all(20 < len(meaning) < 120 for meaning in words.values()), "one line each"
    assert not synonyms_in(" ".join(words))
