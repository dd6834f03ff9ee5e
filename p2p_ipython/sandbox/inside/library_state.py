"""The settings of libraries that a task can change, and that the next task would find: put back to what they were.

A library that a task has imported stays. Its settings are looked at when it is first seen, which is after that task:
so what they were before is what the library itself says that they are by default. From then on they are compared,
which takes microseconds.

Random generators aren't put back but seeded anew: two tasks must not be alike because a third one chose a seed.

Standard library only; nothing is imported here that the tasks haven't imported. The runner imports it inside the
sandbox.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import random
import sys
from collections.abc import Callable
from operator import attrgetter
from typing import Any

Settings = Callable[[Any], "tuple[Any, Any, Callable[[Any], object]]"]
"""Takes a library's module. Returns its settings (live), their defaults, and a function that sets the latter."""


class LibraryState:
    """The settings of the libraries that are loaded; ``restore`` puts them back. In the main thread."""

    def __init__(self) -> None:
        self._waiting = dict(_LIBRARIES)
        self._loggers = Loggers()
        self._known: list[tuple[Callable[[], Any], Any, Callable[[Any], object]]] = []

    def restore(self) -> None:
        """Put back the settings that differ. Raises whatever that raises."""
        for name in [name for name in self._waiting if name in sys.modules]:
            module, find = sys.modules[name], self._waiting[name]
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                continue
            del self._waiting[name]
            try:
                self._known.append(find(module))
            except (AttributeError, KeyError, ImportError):  # a version without these settings
                continue
        for read, defaults, write in self._known:
            if read() != defaults:
                write(defaults)
        self._loggers.restore()
        random.seed(int.from_bytes(os.urandom(16)))
        _numpy_anew()


_TRACKERS = (
    "multiprocessing.resource_tracker",
    "joblib.externals.loky.backend.resource_tracker",
    "loky.backend.resource_tracker",
)
_POOLS = ("joblib.externals.loky.reusable_executor", "loky.reusable_executor")


def forget_helpers() -> None:
    """Have libraries start their helping processes anew: those of the last task end with it."""
    for name in _TRACKERS:
        tracker = getattr(sys.modules.get(name), "_resource_tracker", None)
        if tracker is not None and tracker._fd is not None:
            tracker._send = functools.partial(_send_to_one_that_knows, tracker)
            fd, tracker._fd, tracker._pid = tracker._fd, None, None
            os.close(fd)
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    if server is not None and server._forkserver_pid is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None
    for name in _POOLS:
        pools: Any = sys.modules.get(name)
        if pools is not None and pools._executor is not None:
            pools._executor = pools._executor_kwargs = None


def _send_to_one_that_knows(tracker: Any, command: str, name: str, kind: str) -> None:
    """Send a command to a resource tracker. One that isn't running knows of nothing, and isn't started to forget it.

    Locks of a pool unregister themselves when they are collected, which may be while its processes are being ended, or
    in the next task.
    """
    if command != "UNREGISTER" or tracker._fd is not None:
        type(tracker)._send(tracker, command, name, kind)


def _numpy_anew() -> None:
    """Seed numpy's global generator anew if it has been used."""
    module = sys.modules.get("numpy.random.mtrand")
    if module is None:
        return
    generator = module._rand._bit_generator
    state = generator.state["state"]
    if state["pos"] != _seen["pos"] or state["key"][0] != _seen["key"]:
        module.seed()
        state = generator.state["state"]
        _seen.update(pos=state["pos"], key=state["key"][0])


_seen: dict[str, Any] = {"pos": -1, "key": -1}


class Loggers:
    """The loggers, each as it was when it was first seen. There may be hundreds.

    A new one that is called as a loaded module belongs to that library, and is kept as it has set it up. Any other one
    is a task's own, and becomes as new: the next task may give it handlers again.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, ...]] = {}
        self.restore()

    def restore(self) -> None:
        """Put back what differs."""
        known = self._known
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if isinstance(logger, logging.PlaceHolder):
                continue
            now = (logger.level, logger.propagate, logger.disabled, logger.handlers, logger.filters)
            before = known.get(name)
            if before is None:
                library = name.partition(".")[0] in sys.modules
                before = (*now[:3], list(now[3]), list(now[4])) if library else (0, True, False, [], [])
                known[name] = before
            if now != before:
                logger.setLevel(before[0])
                logger.propagate, logger.disabled = before[1:3]
                logger.handlers[:], logger.filters[:] = before[3:]


Found = tuple[Callable[[], Any], Any, Callable[[Any], object]]


def _pandas(config: Any) -> Found:
    options, values = config._registered_options, config._global_config
    clean: dict[str, Any] = {}

    def write(_defaults: object) -> None:
        _reset(config, options)
        clean.clear()
        clean.update(copy.deepcopy(values))

    _reset(config, options)
    clean.update(copy.deepcopy(values))
    return (lambda: values), clean, write


def _reset(config: Any, options: dict[str, Any]) -> None:
    for key, option in options.items():
        if config.get_option(key) is not option.defval and config.get_option(key) != option.defval:
            config.set_option(key, option.defval)


def _attribute(path: str, default: Any) -> Callable[[Any], Found]:
    """Return how to find an attribute below a module; ``default`` is its value as long as nobody sets it."""
    parent, _, name = path.rpartition(".")

    def find(module: Any) -> Found:
        owner = attrgetter(parent)(module) if parent else module
        getattr(owner, name)
        return (lambda: getattr(owner, name)), default, lambda value: setattr(owner, name, copy.copy(value))

    return find


def _sklearn(module: Any) -> Found:
    defaults = dict(module._global_config)

    def write(before: dict[str, Any]) -> None:
        now = module._get_threadlocal_config()
        now.clear()
        now.update(before)

    module._get_threadlocal_config()
    return module._get_threadlocal_config, defaults, write


def _decimals(module: Any) -> Found:
    """Find the context that new contexts are copies of; a task's own one is its own, see ``execute``."""
    names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
    template = module.DefaultContext
    defaults = (28, "ROUND_HALF_EVEN", -999999, 999999, 1, 0)

    def write(before: tuple[Any, ...]) -> None:
        for name, value in zip(names, before, strict=True):
            setattr(template, name, value)

    read = attrgetter(*names)
    return (lambda: read(template)), defaults, write


def _old_numpy(module: Any) -> Found:
    """Find the settings of numpy before version 2, which later ones have in the context of each task."""
    numpy = sys.modules["numpy"]
    if numpy.__version__.partition(".")[0] >= "2":
        raise AttributeError
    options = module._format_options
    defaults = {
        "edgeitems": 3, "threshold": 1000, "floatmode": "maxprec", "precision": 8, "suppress": False, "linewidth": 75,
        "nanstr": "nan", "infstr": "inf", "sign": "-", "formatter": None, "legacy": sys.maxsize, "override_repr": None,
    }  # fmt: skip
    errors = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}

    def write(_defaults: object) -> None:
        options.update({name: value for name, value in defaults.items() if name in options})
        numpy.seterr(**errors)

    expected = {name: value for name, value in defaults.items() if name in options}, errors
    return (lambda: (options, numpy.geterr())), expected, write


_LIBRARIES: dict[str, Callable[[Any], Found]] = {
    "pandas._config.config": _pandas,
    "sklearn._config": _sklearn,
    "decimal": _decimals,
    "numpy.core.arrayprint": _old_numpy,
    "multiprocessing.context": _attribute("_default_context._actual_context", None),
    "sympy.printing.printer": _attribute("Printer._global_settings", {}),
}
"""Module → how its settings are found. matplotlib's are with the shell's: see shell_state.py."""
