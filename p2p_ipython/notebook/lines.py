"""A magic's line: its options are read, and it is answered in a line."""

from __future__ import annotations

import sys
from typing import Any

from IPython.core.error import UsageError as MagicUsage
from IPython.core.magic_arguments import parse_argstring


def options_of(magic: Any, line: str) -> dict[str, Any]:
    """The options in a line of a magic with ``@magic_arguments``, by name. Raises IPython's ``UsageError``."""
    if {"--help", "-h"} & set(line.split()):
        raise MagicUsage(f"for help, type %{magic.__name__}? in a cell of its own")
    return {name: unquoted(value) for name, value in vars(parse_argstring(magic, line)).items()}


def unquoted(value: Any) -> Any:
    """A value without the quotes around it, which IPython's argument parser keeps."""
    if isinstance(value, list):
        return [unquoted(entry) for entry in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def without_arguments(magic: str, line: str) -> None:
    """Raise IPython's ``UsageError`` if there is anything in the line of ``magic``."""
    if line.strip():
        raise MagicUsage(f"{magic} takes no arguments: {line.strip()}")


def say(words: str) -> None:
    """Print under the cell that runs."""
    sys.stdout.write(f"{words}\n")


class Interrupted(KeyboardInterrupt):
    """The user interrupted a ``--wait``; ``what`` was done about what it waited for."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def _render_traceback_(self) -> list[str]:
        return [f"\x1b[31mKeyboardInterrupt\x1b[39m: {self.what}"]
