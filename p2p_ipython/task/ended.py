"""Files, pools, generators and the like: open ones stay where they are, those that are over travel as what they are.

``with open(…) as file`` and ``with ThreadPoolExecutor() as pool`` leave a name behind that is of no more use. A cell
that does so must be able to run elsewhere, and the name to come back: a closed file has its name, mode and encoding, a
pool that was shut down refuses tasks, a generator that has ended yields nothing. So it is with a thread and a process
that have ended, and with a database that was closed.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import CoroutineType, GeneratorType, SimpleNamespace
from typing import Any

FILES = (io.TextIOWrapper, io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom)
_ONCE = (GeneratorType, CoroutineType)
_POOLS = {"ThreadPoolExecutor": "concurrent.futures.thread", "ProcessPoolExecutor": "concurrent.futures.process"}
"""By name, and not imported here: that of processes takes a while."""

Reduced = tuple[Any, tuple[Any, ...]]


def refuse_open_file(value: object) -> None:
    """Raise ``TypeError`` for an open file. cloudpickle would send a copy of what the file holds."""
    standard = value is sys.stdout or value is sys.stderr  # on the worker they are its own
    if isinstance(value, FILES) and not standard and not value.closed:
        raise TypeError("it is an open file")


def may_be_over(kind: type) -> bool:
    """Whether ``kind`` is one of files, pools, generators, coroutines and others."""
    return kind in FILES or kind in _ONCE or _POOLS.get(kind.__name__) == kind.__module__ or _name(kind) in _OTHERS


def taken_apart(value: Any) -> Reduced | None:
    """Return how to make one elsewhere that is over, too; None for one that isn't."""
    kind = type(value)
    if (other := _OTHERS.get(_name(kind))) is not None:
        return other(value)
    if kind in _ONCE:
        over = value.gi_frame is None if kind is GeneratorType else value.cr_frame is None
        return (ended_once, (kind is CoroutineType, value.__name__, value.__qualname__)) if over else None
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
    return (ended_pool, (kind.__name__, value._max_workers)) if over else None


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


def closed_database() -> Any:
    """Make a connection to a database that is closed.

    >>> closed_database().execute("SELECT 1")
    Traceback (most recent call last):
    sqlite3.ProgrammingError: Cannot operate on a closed database.
    """
    import sqlite3

    made = sqlite3.connect(":memory:")
    made.close()
    return made


def cursor_of_closed() -> Any:
    """Make a cursor whose connection is closed."""
    import sqlite3

    connection = sqlite3.connect(":memory:")
    made = connection.cursor()
    connection.close()
    return made


def ended_thread(name: str, daemon: bool) -> threading.Thread:
    """Make a thread that has ended.

    >>> ended_thread("worker", False).is_alive()
    False
    """
    made = threading.Thread(target=int, name=name, daemon=daemon)
    made.start()
    made.join()
    return made


def ended_process(attributes: Mapping[str, Any]) -> Any:
    """Make a ``Popen`` whose process has ended: nobody waits for it any more."""
    import subprocess

    made = object.__new__(subprocess.Popen)
    vars(made).update(attributes, _waitpid_lock=threading.Lock(), _child_created=False)
    return made


def ended_workers(name: str) -> Any:
    """Make a pool of ``multiprocessing`` that was closed or terminated; none is begun for it."""
    from multiprocessing import pool

    made = object.__new__(getattr(pool, name))
    over = SimpleNamespace(join=int)
    vars(made).update(_state="TERMINATE", _pool=[], _processes=0, _terminate=int, _cache={})
    vars(made).update(_worker_handler=over, _task_handler=over, _result_handler=over)
    return made


def _thread(value: threading.Thread) -> Reduced | None:
    over = value.ident is not None and not value.is_alive()
    return (ended_thread, (value.name, value.daemon)) if over else None


def _process(value: Any) -> Reduced | None:
    attributes = {name: each for name, each in vars(value).items() if name not in ("_waitpid_lock", "_child_created")}
    return (ended_process, (attributes,)) if value.returncode is not None else None


def _workers(value: Any) -> Reduced | None:
    return (ended_workers, (type(value).__name__,)) if value._state in ("CLOSE", "TERMINATE") else None


def _database(value: Any) -> Reduced | None:
    return (closed_database, ()) if _is_closed(value) else None


def _cursor(value: Any) -> Reduced | None:
    return (cursor_of_closed, ()) if _is_closed(value.connection) else None


def _is_closed(connection: Any) -> bool:
    try:
        return int(connection.total_changes) < 0
    except Exception as error:  # another thread's connection says another thing
        return "closed database" in str(error)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


_OTHERS: Mapping[str, Callable[[Any], Reduced | None]] = {
    "threading.Thread": _thread,
    "subprocess.Popen": _process,
    "multiprocessing.pool.Pool": _workers,
    "multiprocessing.pool.ThreadPool": _workers,
    "sqlite3.Connection": _database,
    "sqlite3.Cursor": _cursor,
}
"""How objects of these classes are taken apart, by the class's module and name; none of it is imported here."""
