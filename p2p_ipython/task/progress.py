"""``p2p_ipython.progress``: a loop that says how far it is, inside a task and at home.

Inside a task its worker tells the notebook, at most ten times a second: the loop pays for looking at the clock. At home
it is an ordinary bar, of tqdm where that is installed.

Both sides import this module, the runner inside the sandbox: standard library only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

EVERY = 0.1
"""Seconds between two reports, at least."""

_AT_HOME = 0.5
"""Seconds between two lines of a bar without tqdm."""

Report = Callable[[float, "float | None", str, float], object]
"""Takes how much is done, of how much (None: not known), what it is called, and the seconds that it has taken."""


class _Runner:
    """What the process that runs a task brings along."""

    def __init__(self) -> None:
        self.report: Report | None = None
        """None at home."""


runner = _Runner()


def progress(iterable: Iterable[T], total: float | None = None, label: str = "") -> Iterator[T]:
    """Yield what ``iterable`` does, and show how far the loop is.

    Inside a task it is shown under the cell, in the panel and as ``future.progress``; elsewhere as an ordinary bar.
    ``total`` is how many there are, unless ``len`` says so; ``label`` is what is shown before the bar.

    >>> sum(p2p_ipython.progress([1, 2, 3], label="adding"))
    6
    """
    if total is None:
        try:
            total = len(iterable)  # type: ignore[arg-type]
        except TypeError:
            pass
    report = runner.report
    return _at_home(iterable, total, label) if report is None else _reported(iterable, total, label, report)


def _reported(iterable: Iterable[T], total: float | None, label: str, report: Report) -> Iterator[T]:
    clock = time.monotonic
    begun = due = clock()
    done = 0
    try:
        for item in iterable:
            if (now := clock()) >= due:
                due = now + EVERY
                report(done, total, label, now - begun)
            yield item
            done += 1
    finally:
        report(done, total, label, clock() - begun)


def _at_home(iterable: Iterable[T], total: float | None, label: str) -> Iterator[T]:
    try:
        from tqdm.auto import tqdm  # optional
    except ImportError:
        return _reported(iterable, total, label, _Line())
    return iter(tqdm(iterable, total=total, desc=label or None))


class _Line:
    """A bar as a line of text on standard error, which is drawn over."""

    def __init__(self) -> None:
        self._due = 0.0

    def __call__(self, done: float, total: float | None, label: str, seconds: float) -> None:
        if seconds >= self._due or done == total:
            self._due = seconds + _AT_HOME
            of = f"/{total:g}" if total is not None else ""
            sys.stderr.write(f"\r{label and label + ': '}{done:g}{of}" + ("\n" if done == total else ""))
            sys.stderr.flush()
