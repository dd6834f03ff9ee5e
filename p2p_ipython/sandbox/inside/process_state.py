"""The state of the process that a task can change by a call, and that the next task would find: read, and put back.

A *piece* is a way to read a part of the state, and a way to put it back. ``ProcessState`` reads all pieces once, before
the first task. After each task it reads them again, which takes microseconds, and puts back those that differ. Each is
then looked at once more. One that can't be put back, such as a hard limit, raises ``NotPutBack``, and the runner is
renewed.

Some calls leave nothing that can be read, as ``atexit.register``. Those are noted when a task's own code makes them;
what a library does when it is imported stays, as the library itself does.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import _locale
import _signal  # type: ignore[import-not-found]
import _socket
import asyncio.events
import atexit
import builtins
import codecs
import contextlib
import faulthandler
import functools
import gc
import locale
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
from _signal import getsignal  # signal's own looks in an enum, which takes longer
from collections.abc import Callable, Iterator
from operator import itemgetter
from types import ModuleType
from typing import Any, NamedTuple

_LOOPS = frozenset({"asyncio", "concurrent", "threading"})
"""Packages whose objects in ``builtins`` stay: pools and loops have threads, which stay, too."""

_LIMITS = tuple(
    getattr(resource, f"RLIMIT_{name}")
    for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK")
    if hasattr(resource, f"RLIMIT_{name}")
)
_TIMERS = tuple(map(int, (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)))
_SIGNALS = tuple(sorted(int(number) for number in signal.valid_signals() if number < 32 and number != signal.SIGINT))


class NotPutBack(Exception):
    """The task has changed something of the process that can't be put back."""


class Piece(NamedTuple):
    """A part of the process's state. ``read`` returns a value that can be compared; ``write`` takes it."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]


class ProcessState:
    """The process as it is now; ``restore`` puts it back. Both in the main thread."""

    def __init__(self) -> None:
        self._before = [(piece.read, piece.read(), piece) for piece in _pieces()]
        self._noted = _Noted()

    def restore(self) -> None:
        """Put back what differs. Raises ``NotPutBack``, and whatever putting back raises."""
        for read, before, piece in self._before:
            if read() != before:
                piece.write(before)
                if read() != before:
                    raise NotPutBack(f"the task has changed the {piece.name}, which can't be put back")
        if self._noted.calls:
            self._noted.undo()
        _filters_changed()  # so that each task is warned anew


def _pieces() -> Iterator[Piece]:
    yield _list_of(sys, "path")
    yield _list_of(sys, "argv")
    yield Piece("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit)
    yield Piece("trace function", sys.gettrace, sys.settrace)
    yield Piece("profile function", sys.getprofile, sys.setprofile)
    yield _attributes(threading, "_trace_hook", "_profile_hook", "excepthook")
    yield _attributes(sys, "excepthook", "displayhook", "unraisablehook", "breakpointhook")
    yield _attributes(sys, "stdin", "__stdin__", "dont_write_bytecode", "meta_path", "path_hooks", "ps1", "ps2")
    yield Piece("traceback limit", lambda: vars(sys).get("tracebacklimit"), _set_traceback_limit)
    yield _own_entries("list of finders", sys.meta_path)
    yield _own_entries("list of path hooks", sys.path_hooks)
    yield Piece("switch interval", sys.getswitchinterval, sys.setswitchinterval)
    yield Piece("longest number as text", sys.get_int_max_str_digits, sys.set_int_max_str_digits)
    yield Piece(
        "hooks of asynchronous generators", sys.get_asyncgen_hooks, lambda hooks: sys.set_asyncgen_hooks(*hooks)
    )
    depth = sys.get_coroutine_origin_tracking_depth, sys.set_coroutine_origin_tracking_depth
    yield Piece("tracking of coroutines", *depth)
    yield Piece("stack size of threads", threading.stack_size, threading.stack_size)
    yield from _signals()
    yield Piece("file mode mask", _umask, os.umask)
    yield Piece("resource limits", lambda: list(map(resource.getrlimit, _LIMITS)), _set_limits)
    yield Piece("priority", lambda: os.getpriority(os.PRIO_PROCESS, 0), lambda n: os.setpriority(os.PRIO_PROCESS, 0, n))
    if hasattr(os, "sched_getaffinity"):
        yield Piece("choice of processors", lambda: os.sched_getaffinity(0), lambda cpus: os.sched_setaffinity(0, cpus))
    yield Piece("locale", functools.partial(_locale.setlocale, locale.LC_ALL, None), _set_locale)
    yield Piece("time zone", lambda: (time.timezone, time.altzone, time.tzname), lambda _: time.tzset())
    yield Piece("event loop policy", _policy, _forget_policy)
    yield Piece("default timeout of sockets", _socket.getdefaulttimeout, _socket.setdefaulttimeout)
    yield from _collector()
    yield _attributes(warnings, "showwarning", "formatwarning", "_showwarnmsg_impl", "_showwarning_orig")
    yield _list_of(warnings, "filters")
    yield Piece("warnings shown once", lambda: len(warnings.onceregistry), lambda _: warnings.onceregistry.clear())  # type: ignore[attr-defined]
    yield from _logs()
    yield Piece("fault handler", faulthandler.is_enabled, lambda _: None)
    yield Piece("tracing of memory", tracemalloc.is_tracing, lambda _: tracemalloc.stop())
    yield _temporary()
    yield _builtins()


# --- single pieces ----------------------------------------------------------------------------------------------------


def _attributes(module: ModuleType, *names: str) -> Piece:
    """Return a piece for attributes that a module has had from the beginning."""
    names = tuple(name for name in names if hasattr(module, name))
    read, space = itemgetter(*names), vars(module)

    def found() -> Any:
        try:
            return read(space)
        except KeyError:
            return None

    return Piece(
        f"attributes of {module.__name__}", found, lambda before: space.update(zip(names, before, strict=True))
    )


def _list_of(module: ModuleType, name: str) -> Piece:
    """Return a piece for a list of a module's, which may be another list by now."""
    space = vars(module)

    def write(before: list[Any]) -> None:
        space[name][:] = before

    return Piece(f"list {module.__name__}.{name}", lambda: list(space[name]), write)


def _own_entries(name: str, entries: list[Any]) -> Piece:
    """Return a piece for a list that libraries add to, for good; entries of a task's own code are removed."""

    kept = list(entries)

    def write(_before: Any) -> None:
        entries[:] = kept[:] = [entry for entry in entries if not is_of_task(entry)]

    return Piece(name, lambda: entries != kept and any(map(is_of_task, entries)), write)


def is_of_task(value: object) -> bool:
    """Whether ``value``, or its class, was made by a task's own code."""
    module = getattr(value, "__module__", None) or type(value).__module__
    return bool(module == "__main__")


def _set_traceback_limit(before: int | None) -> None:
    if before is None:
        del sys.tracebacklimit
    else:
        sys.tracebacklimit = before


def _signals() -> Iterator[Piece]:
    def handlers() -> list[Any]:
        return list(map(getsignal, _SIGNALS))

    def write(before: list[Any]) -> None:
        for number, handler, now in zip(_SIGNALS, before, handlers(), strict=True):
            if handler is not now:
                signal.signal(number, handler)

    yield Piece("signal handlers", handlers, write)

    real, virtual, profile = _TIMERS
    ring = _signal.getitimer

    def timers() -> bool:
        return bool(ring(real)[0] or ring(virtual)[0] or ring(profile)[0])

    def stop(_before: bool) -> None:
        for timer in _TIMERS:
            signal.setitimer(timer, 0)

    yield Piece("timers", timers, stop)
    mask = functools.partial(_signal.pthread_sigmask, signal.SIG_BLOCK, ())
    yield Piece("blocked signals", mask, lambda before: signal.pthread_sigmask(signal.SIG_SETMASK, before))
    # Reading it removes it, which is what putting it back would do.
    yield Piece("wakeup descriptor", lambda: _signal.set_wakeup_fd(-1) and None, lambda _: None)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _set_limits(before: list[tuple[int, int]]) -> None:
    for kind, limit in zip(_LIMITS, before, strict=True):
        resource.setrlimit(kind, limit)


def _set_locale(before: str) -> None:
    _locale.setlocale(locale.LC_ALL, before)


def _policy() -> Any:
    """Return the event loop policy if it isn't the one that asyncio makes, or if it has had a loop, else None."""
    policy = asyncio.events._event_loop_policy  # type: ignore[attr-defined]
    if policy is None or (type(policy).__module__.startswith("asyncio.") and not vars(policy._local)):
        return None
    return policy


def _forget_policy(_before: None) -> None:
    asyncio.events._event_loop_policy = None  # type: ignore[attr-defined] # asyncio makes a new one on need


def _collector() -> Iterator[Piece]:
    yield Piece("collector's state", gc.isenabled, lambda on: gc.enable() if on else gc.disable())
    yield Piece("collector's thresholds", gc.get_threshold, lambda before: gc.set_threshold(*before))
    yield Piece("collector's debugging", gc.get_debug, gc.set_debug)
    yield Piece("collector's frozen objects", lambda: gc.get_freeze_count() > 0, lambda _: gc.unfreeze())
    yield _own_entries("collector's callbacks", gc.callbacks)


def _temporary() -> Piece:
    usual = (None, os.environ.get("TMPDIR"))
    space = vars(tempfile)
    return Piece(
        "folder of temporary files", lambda: space["tempdir"] in usual, lambda _: setattr(tempfile, "tempdir", None)
    )


def _builtins() -> Piece:
    space = vars(builtins)
    kept = dict(space)

    def added() -> list[str]:
        """Return the names that a task has added and that don't stay."""
        names = space.keys() - kept.keys()
        return [name for name in names if type(space[name]).__module__.partition(".")[0] not in _LOOPS]

    def differ() -> bool:
        return space != kept and bool(
            added() or any(space.get(name, kept) is not value for name, value in kept.items())
        )

    def write(_before: bool) -> None:
        for name in added():
            del space[name]
        space.update(kept)

    return Piece("builtins", differ, write)


# --- logging and warnings ---------------------------------------------------------------------------------------------


def _logs() -> Iterator[Piece]:
    yield _attributes(
        logging, "raiseExceptions", "_loggerClass", "_logRecordFactory", "lastResort", "_warnings_showwarning"
    )
    for table in (logging._levelToName, logging._nameToLevel):
        yield Piece("names of levels", functools.partial(dict, table), functools.partial(_refill, table))
    manager = logging.root.manager
    yield Piece("level of all loggers", lambda: manager.disable, functools.partial(setattr, manager, "disable"))
    root = logging.root
    yield Piece("root logger", lambda: (list(root.handlers), list(root.filters), root.level, root.disabled), _set_root)


def _refill(table: Any, before: dict[Any, Any]) -> None:
    table.clear()
    table.update(before)


def _set_root(before: tuple[list[Any], list[Any], int, bool]) -> None:
    root = logging.root
    root.handlers[:], root.filters[:], level, root.disabled = before
    root.setLevel(level)  # other loggers keep what they have found there


def _filters_changed() -> None:
    """Forget which warnings have been shown."""
    warnings._filters_mutated()  # type: ignore[attr-defined]


if not hasattr(warnings, "_filters_mutated"):  # Python 3.14

    def _filters_changed() -> None:
        with warnings._lock:  # type: ignore[attr-defined]
            warnings._filters_mutated_lock_held()  # type: ignore[attr-defined]


# --- calls that leave nothing to read ---------------------------------------------------------------------------------


class _Noted:
    """Notes calls that a task's own code makes, to undo them after it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Callable[..., Any] | None, tuple[Any, ...]]] = []
        environment = dict(os.environb)
        self._watch(atexit, "register", atexit.unregister)
        self._watch(codecs, "register", codecs.unregister)
        self._watch(codecs, "register_error", None)
        self._watch(os, "register_at_fork", None)
        self._watch(sys, "addaudithook", None)
        for name in ("putenv", "unsetenv"):
            self._watch(os, name, functools.partial(_environment_back, os.putenv, os.unsetenv, environment))

    def undo(self) -> None:
        """Undo them. Raises ``NotPutBack`` if one can't be undone."""
        calls, self.calls = self.calls, []
        for name, undo, arguments in reversed(calls):
            if undo is None:
                raise NotPutBack(f"the task has called {name}, which can't be undone")
            undo(*arguments[:1])

    def _watch(self, module: ModuleType, name: str, undo: Callable[..., Any] | None) -> None:
        original = getattr(module, name)

        @functools.wraps(original)
        def noting(*arguments: Any, **keywords: Any) -> Any:
            result = original(*arguments, **keywords)
            if sys._getframe(1).f_globals.get("__name__") == "__main__":
                self.calls.append((f"{module.__name__}.{name}", undo, arguments))
            return result

        noting.__module__ = module.__name__
        setattr(module, name, noting)


def _environment_back(
    putenv: Callable[..., None], unsetenv: Callable[..., None], before: dict[bytes, bytes], name: str | bytes
) -> None:
    """Give a variable the value that it had for other processes."""
    name = os.fsencode(name)
    with contextlib.suppress(OSError, ValueError):
        if name in before:
            putenv(name, before[name])
        else:
            unsetenv(name)
