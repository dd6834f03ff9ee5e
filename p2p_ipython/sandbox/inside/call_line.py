"""The call of a task in its traceback: as the line of a cell would be, with its arguments shortened.

A notebook's traceback begins with the cell that called. A task that is a call has no such line, so it is made here,
when the call has failed. No code of the task runs for it: a ``__repr__`` might print, or never end.

The runner imports it inside the sandbox: standard library only.
"""

from __future__ import annotations

import functools
import itertools
import reprlib
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, TracebackType
from typing import Any

from p2p_ipython.task import sources
from p2p_ipython.task.tracebacks import own_frames

_LONGEST = 200
_numbers = itertools.count()


class _Short(reprlib.Repr):
    """Shortened text of plain values; of others their class, and their shape if they have one."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxstring = self.maxother = 40
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 4

    def repr1(self, value: Any, level: int) -> str:
        kind = type(value)
        if kind.__module__ == "builtins" and (kind in _PLAIN or hasattr(self, f"repr_{kind.__name__}")):
            return super().repr1(value, level)
        if callable(value) and isinstance(name := getattr(value, "__qualname__", None), str):
            return name.rpartition(".")[2]
        shape = getattr(value, "shape", None) if kind.__module__ != "__main__" else None
        return f"<{kind.__qualname__}{f' {shape}' if type(shape) is tuple and shape else ''}>"


_PLAIN = (int, float, complex, bool, bytes, bytearray, range, slice, type(None), type(...))
_short = _Short()


def call_line(function: object, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> str:
    """Return the call as a line of Python would have it, at most 200 characters."""
    while isinstance(function, functools.partial):
        arguments, keywords = (*function.args, *arguments), {**function.keywords, **keywords}
        function = function.func
    parts = [_short.repr(each) for each in arguments[:20]] + ["…"] * (len(arguments) > 20)
    parts += [f"{name}={_short.repr(value)}" for name, value in itertools.islice(keywords.items(), 20)]
    line = f"{_short.repr(function)}({', '.join(parts)})"
    return line if len(line) <= _LONGEST else line[: _LONGEST - 2] + "…)"


def show_call(
    error: BaseException,
    label: str,
    function: Callable[..., Any],
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
) -> None:
    """Put the call at the beginning of the traceback of ``error``, which it has raised. Never fails."""
    try:
        name = f"<task {next(_numbers)}>"
        sources.arrive(name, "Task", label, f"{call_line(function, arguments, keywords)}\n".encode())
        frame = FunctionType(compile("__import__('sys')._getframe()", name, "eval"), {"__name__": "__main__"})()
        error.__traceback__ = TracebackType(own_frames(error.__traceback__), frame, frame.f_lasti, 1)
    except Exception:
        return
