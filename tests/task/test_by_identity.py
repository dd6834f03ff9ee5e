"""Constants that code knows by identity are found where a task runs, and copied nowhere."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from p2p_ipython.task.by_identity import known_by_identity, may_be_known
from tests.task.elsewhere_support import Ask, Elsewhere, at_home, frozen, notebook

BOOK = """
import dataclasses
@dataclasses.dataclass
class Book:
    title: str
    _: dataclasses.KW_ONLY
    pages: int = 0
    tags: list = dataclasses.field(default_factory=list)
"""
NOVEL = """
@dataclasses.dataclass(kw_only=True)
class Novel(Book):
    author: str
"""
PARSER = """
import argparse
parser = argparse.ArgumentParser(prog='count')
parser.add_argument('-n', type=int, default=3)
quiet = argparse.ArgumentParser(argument_default=argparse.SUPPRESS, parents=[parser], conflict_handler='resolve')
quiet.add_argument('-q', action='store_true', help=argparse.SUPPRESS)
"""


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    process = Elsewhere()
    yield process.ask
    process.close()


@pytest.mark.parametrize(
    ("source", "rest", "expression"),
    [
        (BOOK, NOVEL, "Novel('Emma', author='Austen')"),
        (BOOK, NOVEL, "[each.name for each in dataclasses.fields(Novel) if each.default is dataclasses.MISSING]"),
        (BOOK, "", "Book.__annotations__['_'] is dataclasses.KW_ONLY"),
        (PARSER, "", "parser.parse_args([]), parser.parse_known_args(['-n', '4', '-x'])"),
        (PARSER, "", "quiet.parse_args([]), quiet.parse_args(['-q']), quiet.format_usage()"),
    ],
)
def test_what_is_known_by_identity_is_known_elsewhere(ask: Ask, source: str, rest: str, expression: str) -> None:
    home = notebook(source)
    there = ask(frozen(f"{rest}\n{expression}", home), expression, rest)
    exec(rest, home)
    assert there.text == at_home(expression, home)


def test_a_dataclass_comes_back_with_the_constants_of_this_process(ask: Ask) -> None:
    home = notebook("import dataclasses")
    home["Book"] = ask(frozen("None", {}), "Book", BOOK).value()
    exec(NOVEL, home)
    assert repr(home["Novel"]("Emma", author="Austen")) == "Novel(title='Emma', pages=0, tags=[], author='Austen')"


def test_objects_that_are_one_of_many_are_copied() -> None:
    class Some:
        pass

    class Alike(type):
        def __eq__(cls, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    alike = Alike("C", (), {})()
    for value in (io.StringIO("a"), Some(), object(), slice(1), logging.root.manager, alike):
        assert not may_be_known(type(value)) or known_by_identity(value) is NotImplemented
