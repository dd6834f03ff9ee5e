"""Warnings of a task: shown with its output, and raised again at home when its value is asked for.

``warnings.catch_warnings(record=True)`` around ``future.result()`` records them, and a filter "error" raises them. One
that is only to be shown isn't shown again. A class is looked up among the loaded modules, and no code runs for that;
a class that isn't there is a ``RemoteWarning``.

Both sides import this module, the runner inside the sandbox: standard library only.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

MOST = 1000
"""Warnings of a task that are raised again, at most; all are in its output."""

_MAX_TEXT = 10_000
_MAX_NAME = 500
_MAX_LINE = 10_000_000

_module: Any = warnings
_DISPLAYS: set[Any] = set()
"""Our own functions that only show a warning."""


class RemoteWarning(UserWarning):
    """A warning of a class that isn't here; its message begins with the name of the class."""


@dataclass(frozen=True)
class Warned:
    """A warning of a task. ``category`` is the full name of its class; ``module`` and ``line`` say where it was."""

    category: str
    text: str
    filename: str
    line: int
    module: str
    shown: bool = True

    def raise_again(self) -> None:
        """Give it to ``warnings``. Raises it if a filter says so."""
        warning = _made(self.category, self.text)
        if not (self.shown and is_plain()):
            if self.module:
                warnings.warn_explicit(warning, None, self.filename, self.line, self.module)
            else:  # for a module of None it would say nothing
                warnings.warn_explicit(warning, None, self.filename, self.line)
        elif _action(self.text, type(warning), self.module, self.line) == "error":
            raise warning


def hook(send: Callable[[dict[str, Any]], bool]) -> None:
    """Have warnings that would be shown on this process's stderr sent; ``send`` returns whether it has."""
    usual = _module._showwarnmsg_impl

    def show(message: Any) -> None:
        if message.file is not None or sys.stderr is not sys.__stderr__ or not send(facts_of(message)):
            usual(message)

    _DISPLAYS.add(show)
    _module._showwarnmsg_impl = show


def facts_of(message: Any) -> dict[str, Any]:
    """Return what is sent of a ``WarningMessage``: its parts, and the text that shows it."""
    category = message.category
    return {
        "category": f"{category.__module__}.{category.__qualname__}"[:_MAX_NAME],
        "message": str(message.message)[:_MAX_TEXT],
        "filename": str(message.filename)[:_MAX_NAME],
        "line": int(message.lineno),
        "module": _module_of(message)[:_MAX_NAME],
        "text": str(_module._formatwarnmsg(message))[: 2 * _MAX_TEXT],
    }


def read(content: Mapping[str, Any]) -> tuple[Warned, str] | None:
    """Return a warning that has come, and the text that shows it; None for nonsense."""
    names = ("category", "message", "filename", "module", "text")
    parts = [content.get(name) for name in names]
    line = content.get("line")
    if not all(isinstance(part, str) for part in parts) or type(line) is not int or not 0 <= line <= _MAX_LINE:
        return None
    category, message, filename, module, text = map(str, parts)
    if len(category) > _MAX_NAME or len(message) > _MAX_TEXT or max(len(filename), len(module)) > _MAX_NAME:
        return None
    return Warned(category, message, filename, line, module), text[: 2 * _MAX_TEXT]


def is_plain() -> bool:
    """Whether warnings are only shown now: nobody records them."""
    return _module.showwarning is _module._showwarning_orig and _shows(_module._showwarnmsg_impl)


@contextmanager
def noted(take: Callable[[Warned], object]) -> Iterator[None]:
    """Give the warnings of the block to ``take``. They are shown where they would be, but recorded by nobody yet."""
    usual = _module._showwarnmsg_impl
    plain = _shows(usual)

    def show(message: Any) -> None:
        facts = facts_of(message)
        found = read(facts)
        if found is not None:
            take(replace(found[0], shown=plain))
        if plain:
            usual(message)

    _DISPLAYS.add(show)
    _module._showwarnmsg_impl = show
    try:
        yield
    finally:
        _DISPLAYS.discard(show)
        if _module._showwarnmsg_impl is show:
            _module._showwarnmsg_impl = usual


def _shows(function: Any) -> bool:
    """Whether a function only shows a warning: Python's own, or one of ours."""
    return function in _DISPLAYS or getattr(function, "__name__", "") == "_showwarnmsg_impl"


def _made(name: str, text: str) -> Warning:
    """Make a warning of a class that is loaded. Its ``__init__`` isn't called: it may want more than a text."""
    module, _, attribute = name.rpartition(".")
    found: Any = vars(sys.modules[module]).get(attribute) if module in sys.modules else None
    if isinstance(found, type) and issubclass(found, Warning):
        with suppress(Exception):  # a class of the notebook's may do anything
            warning = found.__new__(found)
            warning.args = (text,)
            if str(warning) == text:
                return warning
    return RemoteWarning(f"{re.sub('[^ -~]', '?', name)}: {text}")


def _action(text: str, category: type[Warning], module: str, line: int) -> str:
    """Return what the filters say of a warning."""
    for action, message, kind, where, at in warnings.filters:
        pattern: Any = message
        place: Any = where
        if (
            (pattern is None or re.compile(pattern).match(text))
            and issubclass(category, kind)
            and (place is None or re.compile(place).match(module))
            and at in (0, line)
        ):
            return str(action)
    return str(_module.defaultaction)


def _module_of(message: Any) -> str:
    """Return the name of the module that warns: that of the frame at the warning's place."""
    frame = sys._getframe(1)
    for _ in range(100):
        if frame.f_lineno == message.lineno and frame.f_code.co_filename == message.filename:
            return str(frame.f_globals.get("__name__") or "")
        if frame.f_back is None:
            break
        frame = frame.f_back
    return ""
