"""Many calls of one function in one task: what ``Cluster.map`` sends, so that a short call costs little.

Each call has an outcome of its own: an element that fails doesn't take the others along. Errors are described where
they are raised, as those of whole tasks are, and travel as the frame and the bytes that such a task would have sent.

Both sides import this module, the runner inside the sandbox: standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Failed = tuple[dict[str, Any], bytes]
"""The header of a result's frame, and its body."""


class Outcomes(NamedTuple):
    """Values in order, None for calls that failed; and those by their index."""

    values: list[Any]
    failures: dict[int, Failed]


class _Runner:
    """What the process that runs such a task brings along."""

    def __init__(self) -> None:
        self.complete: Callable[[Any], Any] = lambda value: value
        """Awaits a value that is a coroutine."""

        self.failed: Callable[[BaseException, Callable[..., Any], Sequence[Any]], Failed] | None = None
        """Describes what a call has raised; raises it again if it is none of the call's: an interrupt."""


runner = _Runner()


def call_each(
    function: Callable[..., Any], rows: Sequence[Sequence[Any]], retries: int = 0, retry_on: Sequence[str] = ()
) -> tuple[Any, ...]:
    """Call ``function`` with the arguments in each row; return the parts of ``Outcomes``, which are plain data.

    A call that raises is made again, ``retries`` times at most, if one of its error's classes is named in ``retry_on``.
    """
    values: list[Any] = []
    failures: dict[int, Failed] = {}
    complete = runner.complete
    for row in rows:
        try:
            for retry in range(1, retries + 1):
                try:
                    values.append(complete(function(*row)))
                    break
                except BaseException as error:
                    if not _is_among(error, retry_on):
                        raise
                    words = f"{type(error).__name__}: {error}".rstrip(": ").partition("\n")[0]
                    sys.stderr.write(f"\n[retry {retry} of {retries} after {words}]\n")
            else:
                values.append(complete(function(*row)))
        except BaseException as error:
            if runner.failed is None:
                raise
            failures[len(values)] = runner.failed(error, function, row)
            values.append(None)
    return values, failures


def _is_among(error: BaseException, names: Sequence[str]) -> bool:
    return any(f"{cls.__module__}.{cls.__qualname__}" in names for cls in type(error).__mro__)
