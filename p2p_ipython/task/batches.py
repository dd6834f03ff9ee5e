"""A batch of joblib's calls, in one task: what its backend "p2p" sends.

A slot is one core, so joblib's calls inside these calls stay where they are: in threads if they ask for some, one after
the other further inside, and never on the cluster. The worker needs no joblib for functions that don't use it.

Both sides import this module, the runner inside the sandbox: standard library only. joblib is imported on need.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

Call = tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]

_made: list[Call] = []
"""The call that is made now."""


Plan = Sequence[tuple[int, Sequence[int], Mapping[str, int]]]


def taken_apart(calls: Sequence[Call]) -> tuple[tuple[Callable[..., Any], ...], Plan, tuple[Any, ...]]:
    """Return the functions of ``calls``, each once, what to call with what, and the values, each once.

    A value is an argument of the task then. So plain ones can travel beside the code, and a lender knows this again.
    """
    functions, values = _Once(), _Once()
    plan = [
        (
            functions.place(function),
            [values.place(each) for each in arguments],
            {name: values.place(each) for name, each in keywords.items()},
        )
        for function, arguments, keywords in calls
    ]
    return tuple(functions.items), plan, tuple(values.items)


class _Once:
    """Objects in order, the same one once."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._places: dict[int, int] = {}

    def place(self, item: Any) -> int:
        """Return where it is."""
        place = self._places.setdefault(id(item), len(self.items))
        if place == len(self.items):
            self.items.append(item)
        return place


def call_batch(
    functions: Sequence[Callable[..., Any]], plan: Plan, level: int, threads: int | None, *values: Any
) -> list[Any]:
    """Make the calls that ``taken_apart`` has taken apart, one after the other; return their values.

    ``level``: how many of joblib's calls this one is inside of. ``threads``: how many threads libraries such as BLAS
    may have meanwhile; None for those that a task has.
    """
    made = []
    with _nested(level), _limited(threads):
        for number, places, named in plan:
            call = functions[number], [values[each] for each in places], {key: values[n] for key, n in named.items()}
            _made[:] = [call]
            made.append(call[0](*call[1], **call[2]))
    _made.clear()
    return made


def failed_call(function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Call:
    """Return the call in which a task has failed: of a batch, one of its own."""
    return _made.pop() if function is call_batch and _made else (function, arguments, keywords)


@contextlib.contextmanager
def _nested(level: int) -> Iterator[None]:
    """Have joblib's calls in the block stay in this process, also those that ask for the cluster by its name."""
    try:
        parallel: Any = import_module("joblib.parallel")
    except ImportError:
        yield
        return
    before = parallel.BACKENDS.get("p2p", _inside)
    parallel.BACKENDS["p2p"] = _inside
    try:
        with parallel.parallel_config(backend=_inside(level), n_jobs=None):
            yield
    finally:
        parallel.BACKENDS["p2p"] = before


def _inside(nesting_level: int | None = None, **_options: object) -> Any:
    """Return the backend of joblib's calls inside a task."""
    parallel: Any = import_module("joblib.parallel")
    kind = parallel.ThreadingBackend if (nesting_level or 0) <= 1 else parallel.SequentialBackend
    return kind(nesting_level=nesting_level)


@contextlib.contextmanager
def _limited(threads: int | None) -> Iterator[None]:
    """Let libraries have ``threads`` threads in the block, and as many as before after it."""
    if threads is None:
        yield
        return
    try:
        limits: Any = import_module("threadpoolctl").threadpool_limits
    except ImportError:
        warnings.warn("inner_max_num_threads needs threadpoolctl, which is not installed there", stacklevel=3)
        yield
        return
    try:
        limits(limits=threads)
        yield
    finally:
        limits(limits=int(os.environ.get("OMP_NUM_THREADS") or 1))  # of those that were loaded meanwhile, too
