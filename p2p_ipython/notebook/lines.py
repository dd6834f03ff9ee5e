"""The line of a magic: reads its options, and prints an answer."""

from __future__ import annotations

import ast
import difflib
import keyword
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from IPython.core.error import UsageError as MagicUsage
from IPython.core.magic_arguments import parse_argstring

from p2p_ipython.task.reads import parsed

_NOT_OFFERED = {"-h", "--help"}
_GLOBAL = re.compile(r"auto|none|[+-][^\W\d]\w*")


def options_of(magic: Any, line: str) -> dict[str, Any]:
    """Return the options in a line of a magic with ``@magic_arguments``, by name. Raises IPython's ``UsageError``."""
    if {"--help", "-h"} & set(line.split()):
        raise MagicUsage(f"for help, type %{magic.__name__}? in a cell of its own")
    return {name: unquoted(value) for name, value in vars(parsed_line(magic, line)).items()}


def parsed_line(magic: Any, line: str) -> Any:
    """Parse the options in a line of a magic. IPython's ``UsageError`` names what a misspelt one is like."""
    try:
        return parse_argstring(magic, line)
    except MagicUsage as error:
        wrong = re.search(r"unrecognized arguments: .*?(--?[\w-]+)", str(error))
        known = [name for name in magic.parser._option_string_actions if name not in _NOT_OFFERED]
        like = difflib.get_close_matches(wrong[1], known) if wrong else []
        meant = sorted(
            like, key=lambda name: wrong is None or sorted(name) != sorted(wrong[1])
        )  # letters in a mess first
        raise MagicUsage(f"{error} (did you mean {meant[0]}?)" if meant else str(error)) from None


def unquoted(value: Any) -> Any:
    """Return a value without the quotes around it, which IPython's argument parser keeps."""
    if isinstance(value, list):
        return [unquoted(entry) for entry in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def separated(values: list[str] | None) -> list[str]:
    """Return the values of an option that may be repeated, and may have several with commas between them."""
    return [part.strip() for value in values or () for part in unquoted(value).split(",") if part.strip()]


def without_arguments(magic: str, line: str) -> None:
    """Raise IPython's ``UsageError`` if there is anything in the line of ``magic``."""
    if line.strip():
        raise MagicUsage(f"{magic} takes no arguments: {line.strip()}")


class GlobalsOption(NamedTuple):
    """``--globals``: find names by themselves (``automatic``), and those to add and to leave out."""

    automatic: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]


def split_globals(line: str) -> tuple[str, GlobalsOption]:
    """Take ``--globals auto|none [+NAME] [-NAME] …`` out of a magic's line; argparse would stumble over -NAME.

    Raises IPython's ``UsageError`` when nothing usable follows it.
    """
    kept: list[str] = []
    given: list[str] = []
    inside = False
    for word in line.replace("--globals=", "--globals ").split():
        parts = [part for part in word.strip("\"'").split(",") if part]
        if word == "--globals":
            if inside and not given:
                break
            inside = True
        elif inside and parts and all(_GLOBAL.fullmatch(part) for part in parts):
            given += parts
        else:
            kept.append(word)
    if inside and not given:
        raise MagicUsage("--globals wants auto or none, +NAME to add a name, -NAME to leave one out")
    include = tuple(part[1:] for part in given if part[0] == "+")
    exclude = tuple(part[1:] for part in given if part[0] == "-")
    return " ".join(kept) if inside else line, GlobalsOption("none" not in given, include, exclude)


def name_in(word: str | None, of: str = "a future") -> str | None:
    """Return the word if it can be a name, and None for none. Raises IPython's ``UsageError``; ``of`` what it names."""
    if word is not None and (not word.isidentifier() or keyword.iskeyword(word)):
        raise MagicUsage(f"{word!r} can't be the name of {of}")
    return word


def is_expression(source: str, transform: Callable[[str], str]) -> bool:
    """Return whether a cell is one expression."""
    body = parsed(source, transform).body
    return len(body) == 1 and isinstance(body[0], ast.Expr)


def say(words: str) -> None:
    """Print under the cell that runs."""
    sys.stdout.write(f"{words}\n")


class Interrupted(KeyboardInterrupt):
    """The user interrupted a ``--wait``. ``what`` says what has become of the thing that it waited for."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def _render_traceback_(self) -> list[str]:
        return [f"\x1b[31mKeyboardInterrupt\x1b[39m: {self.what}"]
