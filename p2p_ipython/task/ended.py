"""Files, pools and generators: those in use stay where they are, those that are over travel as what they are.

``with open(…) as file`` and ``with ThreadPoolExecutor() as pool`` leave a name behind that is of no more use. A cell
that does so must be able to run elsewhere, and the name to come back: a closed file has its name, mode and encoding, a
pool that was shut down refuses tasks, a generator that has ended yields nothing.

A pool with nothing to do is as good as a new one, so it travels as one. unstarted.py has generators before they begin.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import CoroutineType, GeneratorType
from typing import Any

from p2p_ipython.task import unstarted

FILES = (io.TextIOWrapper, io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom)
_ONCE = (GeneratorType, CoroutineType)
_POOLS = {"ThreadPoolExecutor": "concurrent.futures.thread", "ProcessPoolExecutor": "concurrent.futures.process"}
"""By name, and not imported here: that of processes takes a while."""

Reduced = tuple[Any, ...]


def refuse_open_file(value: object) -> None:
    """Raise ``TypeError`` for an open file. cloudpickle would send a copy of what the file holds."""
    standard = value is sys.stdout or value is sys.stderr  # on the worker they are its own
    if isinstance(value, FILES) and not standard and not value.closed:
        raise TypeError("it is an open file")


def may_be_over(kind: type) -> bool:
    """Whether ``kind`` is one of files, pools, generators or coroutines."""
    return kind in FILES or kind in _ONCE or _POOLS.get(kind.__name__) == kind.__module__


def taken_apart(value: Any) -> Reduced | None:
    """Return how to make one elsewhere that is over, too; None for one that isn't."""
    kind = type(value)
    if kind in _ONCE:
        over = value.gi_frame is None if kind is GeneratorType else value.cr_frame is None
        if not over:
            return unstarted.taken_apart(value)
        return ended_once, (kind is CoroutineType, value.__name__, value.__qualname__)
    if kind in FILES:
        if not value.closed:
            return None
        try:
            name = getattr(value, "name", None)
            name = name if isinstance(name, str | bytes | int) else None
            mode = getattr(value, "mode", "r")
            encoding, errors = getattr(value, "encoding", None), getattr(value, "errors", None)
        except ValueError:  # a buffer that was taken away
            return None
        return closed_file, (FILES.index(kind), name, str(mode), encoding, errors)
    over = getattr(value, "_shutdown", False) or getattr(value, "_shutdown_thread", False)
    return (ended_pool, (kind.__name__, value._max_workers)) if over else _idle_taken_apart(value)


def _idle_taken_apart(pool: Any) -> Reduced | None:
    """Return how to make a pool like ``pool``; None if it works, or if it isn't known how it was made."""
    ways = vars(pool)
    if "_initializer" not in ways:
        return None
    settings = {"max_workers": pool._max_workers, "initializer": pool._initializer, "initargs": pool._initargs}
    if isinstance(pool, ThreadPoolExecutor):
        idle = pool._work_queue.empty() and pool._idle_semaphore._value >= len(pool._threads)
        settings["thread_name_prefix"] = pool._thread_name_prefix
    else:
        from multiprocessing import get_context

        idle = not pool._pending_work_items and pool._mp_context is get_context()
        settings["max_tasks_per_child"] = pool._max_tasks_per_child
    return (idle_pool, (type(pool).__name__, settings)) if idle and not pool._broken else None


def closed_file(kind: int, name: str | bytes | int | None, mode: str, encoding: str | None, errors: str | None) -> Any:
    """Make a file that is closed, as ``open`` would have made it.

    >>> closed_file(0, "a.txt", "w", "utf-8", "strict")
    <_io.TextIOWrapper name='a.txt' mode='w' encoding='utf-8'>
    """
    asked = "r" if "r" in mode else "a" if "a" in mode else "w"
    both = "+" if "+" in mode else ""
    raw = io.FileIO(os.devnull, asked + both)
    raw.name = name
    if FILES[kind] is io.FileIO:
        raw.close()
        return raw
    whole: Any = io.BufferedReader if asked == "r" else io.BufferedWriter
    buffer: Any = (io.BufferedRandom if both else whole)(raw)
    made: Any = buffer
    if FILES[kind] is io.TextIOWrapper:
        made = io.TextIOWrapper(buffer, encoding, errors)
        made.mode = mode
    made.close()
    return made


def ended_once(waited: bool, name: str, qualname: str) -> Any:
    """Make a generator, or a coroutine that was ``waited`` for, that has ended.

    >>> list(ended_once(False, "countdown", "countdown"))
    []
    """

    async def nothing() -> None:
        pass

    made: Any = nothing() if waited else (each for each in list[int]())
    made.close()
    made.__name__, made.__qualname__ = name, qualname
    return made


def idle_pool(name: str, settings: dict[str, Any]) -> Any:
    """Make a pool that has nothing to do yet. It begins its threads or processes once it has.

    >>> with idle_pool("ThreadPoolExecutor", {"max_workers": 1}) as pool:
    ...     pool.submit(pow, 2, 3).result()
    8
    """
    if name == "ThreadPoolExecutor":
        return ThreadPoolExecutor(**settings)
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(**settings)


def ended_pool(name: str, workers: int) -> Any:
    """Make a pool that was shut down. One of processes is not begun for it: that would start some.

    >>> ended_pool("ThreadPoolExecutor", 2).submit(print)
    Traceback (most recent call last):
    RuntimeError: cannot schedule new futures after shutdown
    """
    if name == "ThreadPoolExecutor":
        pool = ThreadPoolExecutor(workers)
        pool.shutdown()
        return pool
    from concurrent.futures import ProcessPoolExecutor

    made = object.__new__(ProcessPoolExecutor)
    gone = ("_executor_manager_thread", "_executor_manager_thread_wakeup", "_call_queue", "_result_queue", "_processes")
    vars(made).update(dict.fromkeys(gone), _max_workers=workers, _shutdown_lock=threading.Lock(), _broken=False)
    vars(made).update(_shutdown_thread=True, _cancel_pending_futures=False, _pending_work_items={})
    return made
