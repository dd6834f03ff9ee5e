"""Generators and coroutines that have not begun: each travels as the call that will make it anew.

Nothing of such a one has run, so it is its function and its arguments. One that has begun stays where it is: its place
in the code can't be sent.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import sys
from inspect import CO_VARARGS, CO_VARKEYWORDS
from operator import attrgetter
from types import CellType, CodeType, FrameType, FunctionType, GeneratorType
from typing import Any

Reduced = tuple[Any, ...]


def taken_apart(value: Any) -> Reduced | None:
    """Return how to make a generator or a coroutine elsewhere that has not begun, either; None for one that has."""
    prefix = "gi" if isinstance(value, GeneratorType) else "cr"
    frame, code = getattr(value, f"{prefix}_frame"), getattr(value, f"{prefix}_code")
    if frame is None or getattr(value, f"{prefix}_running") or getattr(value, f"{prefix}_suspended"):
        return None
    return begin, (_function(value, frame, code), *_arguments(frame, code), value.__name__, value.__qualname__)


def begin(function: Any, arguments: list[Any], keywords: dict[str, Any], name: str, qualname: str) -> Any:
    """Make a generator or a coroutine.

    >>> def count(to):
    ...     yield from range(to)
    >>> list(begin(count, [3], {}, "count", "count"))
    [0, 1, 2]
    """
    made = function(*arguments, **keywords)
    made.__name__, made.__qualname__ = name, qualname
    return made


def _function(value: Any, frame: FrameType, code: CodeType) -> Any:
    """Return the function that has made ``value``: that of a module, so that its name is sent, or one like it."""
    try:
        found = attrgetter(value.__qualname__)(sys.modules[frame.f_globals["__name__"]])
    except (AttributeError, KeyError):
        found = None
    if isinstance(found, FunctionType) and found.__code__ is code:
        return found
    cells = tuple(CellType(frame.f_locals[name]) if name in frame.f_locals else CellType() for name in code.co_freevars)
    made = FunctionType(code, frame.f_globals, code.co_name, None, cells)
    made.__qualname__ = code.co_qualname
    return made


def _arguments(frame: FrameType, code: CodeType) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments by place and by name, as the frame has them before it has begun."""
    values, names = frame.f_locals, list(code.co_varnames)
    places, named = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
    arguments = [values[name] for name in names[:places]]
    keywords = {name: values[name] for name in names[places:named]}
    more = names[named:]
    if code.co_flags & CO_VARARGS:
        arguments += values[more.pop(0)]
    if code.co_flags & CO_VARKEYWORDS:
        keywords |= values[more.pop(0)]
    return arguments, keywords
