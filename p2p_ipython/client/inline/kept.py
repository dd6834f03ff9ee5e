"""What a task that runs in this process finds as it was when it began, and what is put back when it is over.

Its folder, the environment, ``__main__``, the random generators, warnings' filters and the options of pandas and
matplotlib are the notebook's again afterwards. Context variables are, too: a task runs in a copy of the context. A
module that the task was the first to import stays as it was left.
"""

from __future__ import annotations

import copy
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from weakref import WeakValueDictionary

from cloudpickle import cloudpickle

from p2p_ipython.task import by_value

Classes = WeakValueDictionary[str, type]
"""The classes that pickles find, by the name under which they travel."""


@contextmanager
def put_back() -> Iterator[None]:
    """Put back what the block changes; in it, random generators are nobody's."""
    with ExitStack() as undo:
        for keep in (_streams, _folder, _environment, _main, _generators, _filters, _tables, _plots, _referents):
            undo.callback(keep())
        random.seed(int.from_bytes(os.urandom(16)))
        if (numpy := sys.modules.get("numpy.random.mtrand")) is not None:
            numpy.seed()
        yield


@contextmanager
def classes_of(classes: Classes | None) -> Iterator[None]:
    """Let pickles in the block find these classes, and no others, unless it is None."""
    if classes is None:
        yield
        return
    before = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID
    cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID = classes
    try:
        yield
    finally:
        cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID = before


Undo = Callable[[], object]


def _streams() -> Undo:
    before = sys.stdout, sys.stderr

    def undo() -> None:
        sys.stdout, sys.stderr = before

    return undo


def _folder() -> Undo:
    before = os.getcwd()

    def undo() -> None:
        with suppress(OSError):
            if os.getcwd() == before:
                return
        os.chdir(before)

    return undo


def _environment() -> Undo:
    encoded: Any = os.environ
    before, values = dict(encoded._data), dict(os.environ)

    def undo() -> None:
        if encoded._data != before:
            os.environ.clear()
            os.environ.update(values)

    return undo


def _main() -> Undo:
    before = sys.modules["__main__"]

    def undo() -> None:
        sys.modules["__main__"] = before

    return undo


def _generators() -> Undo:
    state, module = random.getstate(), sys.modules.get("numpy.random.mtrand")
    arrays = module.get_state() if module is not None else None
    torch: Any = sys.modules.get("torch")
    tensors = torch.get_rng_state() if torch is not None else None

    def undo() -> None:
        random.setstate(state)
        if module is not None:
            module.set_state(arrays)
        if torch is not None:
            torch.set_rng_state(tensors)

    return undo


def _filters() -> Undo:
    before = list(warnings.filters)

    def undo() -> None:
        if warnings.filters != before:
            warnings.filters[:] = before  # type: ignore[index]
            with warnings.catch_warnings():  # has the module notice, in all versions
                warnings.simplefilter("default", _Never)

    return undo


class _Never(Warning):
    """No warning is of this class."""


_tables_before: list[Any] = []
"""pandas' options as they were the last time: most of the time they are the same."""


def _tables() -> Undo:
    options: Any = getattr(sys.modules.get("pandas._config.config"), "_global_config", None)
    if options is None:
        return lambda: None
    if not _tables_before or _tables_before[0] != options:
        _tables_before[:] = [copy.deepcopy(options)]
    before = _tables_before[0]

    def undo() -> None:
        if options != before:
            options.clear()
            options.update(copy.deepcopy(before))

    return undo


def _plots() -> Undo:
    settings: Any = getattr(sys.modules.get("matplotlib"), "rcParams", None)
    if settings is None:
        return lambda: None
    before = dict(dict.items(settings))

    def undo() -> None:
        for name, value in before.items():
            if dict.get(settings, name) is not value:
                dict.__setitem__(settings, name, value)

    return undo


def _referents() -> Undo:
    before = by_value._held
    by_value.hold_referents()

    def undo() -> None:
        by_value._held = before

    return undo
