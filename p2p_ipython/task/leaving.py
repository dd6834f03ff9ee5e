"""Attributes that stay behind because they can't travel, where what they belong to is of use without them.

``ipywidgets.interact`` puts a widget into an attribute of the function that it shows, and the function works without.
Code that mentions the attribute doesn't: then nothing is sent, and the error names it. An exception that a task raised
comes home without attributes, cause or context that can't.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

_ALWAYS_KEPT = "__wrapped__"
_PLAIN = (int, float, complex, str, bytes, bool, type(None))


class Leave:
    """What a pickle leaves behind. ``travels`` says whether a part can be pickled; ``errors``: exceptions may lose."""

    def __init__(self, travels: Callable[[object], bool], *, errors: bool) -> None:
        self._travels = travels
        self._errors = errors
        self._left: dict[str, object] = {}
        self._codes: list[CodeType] = []

    def of_function(self, attributes: dict[str, Any], function: FunctionType | None) -> None:
        """Remove from the ``attributes`` of a function, or of a cache around one, those that can't travel."""
        if function is not None:
            self._codes.append(function.__code__)
        for name in self._hindered(attributes, _ALWAYS_KEPT):
            self._left[name] = attributes.pop(name)

    def of_exception(self, reduced: Any) -> None:
        """Remove from an exception that was taken apart what can't travel. Its own attributes become None.

        Its class may read them to say what the error is.
        """
        if self._errors and len(reduced) > 2:
            attributes, fields = reduced[2]
            attributes.update(dict.fromkeys(self._hindered(attributes)))
            for name in self._hindered(fields):
                del fields[name]

    def check(self, source: str) -> None:
        """Raise ``TypeError`` if ``source``, or a function that travels, mentions an attribute that was left."""
        mentioned = {name for code in self._codes for name in _names(code)} | set(re.findall(r"\.\s*(\w+)", source))
        for name, value in self._left.items():
            if name in mentioned:
                kind = type(value).__name__
                raise TypeError(f"a function's attribute {name!r} ({kind}) can't travel, and the code mentions it")

    def _hindered(self, attributes: dict[str, Any], kept: str = "") -> list[str]:
        return [
            name
            for name, value in attributes.items()
            if name != kept and not isinstance(value, _PLAIN) and not self._travels(value)
        ]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
