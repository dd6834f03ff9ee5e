"""Databases, threads, processes and their pools: those that are over travel as what they are, as files do.

``conn.close()``, ``thread.join()`` and ``with Pool() as pool`` leave a name behind that is of no more use. A cell that
does so must be able to run elsewhere, and the name to come back. Those that are open or run stay where they are.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

Reduced = tuple[Any, tuple[Any, ...]]


def may_be_closed(kind: type) -> bool:
    """Whether ``kind`` is one of those."""
    return _name(kind) in _WAYS


def taken_apart(value: Any) -> Reduced | None:
    """Return how to make one elsewhere that is over, too; None for one that isn't."""
    return _WAYS[_name(type(value))](value)


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


def ended_workers(name: str, size: int) -> Any:
    """Make a pool of ``multiprocessing`` that was closed or terminated; none is begun for it."""
    from multiprocessing import pool

    made = object.__new__(getattr(pool, name))
    over = SimpleNamespace(join=int)
    vars(made).update(_state="TERMINATE", _pool=[over] * size, _processes=size, _terminate=int, _cache={})
    vars(made).update(_worker_handler=over, _task_handler=over, _result_handler=over)
    return made


def _thread(value: threading.Thread) -> Reduced | None:
    over = value.ident is not None and not value.is_alive()
    return (ended_thread, (value.name, value.daemon)) if over else None


def _process(value: Any) -> Reduced | None:
    attributes = {name: each for name, each in vars(value).items() if name not in ("_waitpid_lock", "_child_created")}
    return (ended_process, (attributes,)) if value.returncode is not None else None


def _workers(value: Any) -> Reduced | None:
    return (ended_workers, (type(value).__name__, len(value._pool))) if value._state in ("CLOSE", "TERMINATE") else None


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


_WAYS: Mapping[str, Callable[[Any], Reduced | None]] = {
    "threading.Thread": _thread,
    "subprocess.Popen": _process,
    "multiprocessing.pool.Pool": _workers,
    "multiprocessing.pool.ThreadPool": _workers,
    "sqlite3.Connection": _database,
    "sqlite3.Cursor": _cursor,
}
"""How objects of these classes are taken apart, by the class's module and name; none of it is imported here."""
