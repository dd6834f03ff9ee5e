"""What stands in a payload for a value that travels beside it; see data.py.

The runner imports this inside the sandbox: standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_values: list[Any] = []
"""On a worker, while a payload is loaded: the values that its task has beside it."""


class Datum:
    """Stands in a payload for a value that travels beside it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return datum, (self.number,)


def datum(number: int) -> Any:
    """Return a value that has come beside the payload that is loaded."""
    return _values[number]


@contextmanager
def beside(values: list[Any]) -> Iterator[None]:
    """Let a payload find the values beside it while the block runs."""
    _values[:] = values
    try:
        yield
    finally:
        _values.clear()
