"""What runs in an engine's workers: bytes in, bytes out, so that engines need to know nothing of tasks.

``run`` has a task executed by a runner, a process of its own, as on any worker: cells and calls, what they print and
display, errors with their traceback, files. The bytes are as frames.py says. p2p_ipython has to be installed there.

A job stops when it is no longer wanted: ``stop`` is called for it, its host's folder says so where that is seen, or
dask has given it up, as it does when the client or the scheduler has gone. An engine's own limits hold; of dask's
memory a task gets the share of a thread.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from p2p_ipython.protocol.frames import PREFIX, decode_header, encode, sizes
from p2p_ipython.worker.engines.frames import Asked, Ran
from p2p_ipython.worker.engines.inner import End, Runners

_runners = Runners()
_running: dict[str, threading.Event] = {}

AGAIN = "A worker of the engine ended while it ran the task, which may be run once only: so it isn't begun again."


def run(job: bytes) -> bytes:
    """Run one job; return what became of it. Raises nothing but what is wrong with the engine itself."""
    header_size, _ = sizes(job)
    asked = Asked.read(decode_header(job[PREFIX : PREFIX + header_size]))
    stopped = _running[asked.key] = threading.Event()
    try:
        if asked.once and not _is_first(asked.key):
            return _told(End("engine", 0, AGAIN))
        given_up = _given_up(asked)
        frames = memoryview(job)[PREFIX + header_size :]
        outcome = _runners.perform(asked, frames, lambda: stopped.is_set() or given_up(), _memory())
    finally:
        del _running[asked.key]
    if outcome.death is not None:
        return _told(outcome.death)
    return b"".join((encode(Ran(cpu=outcome.cpu).header()), *outcome.pieces))


def stop(key: str) -> bool:
    """Stop a job; return whether it runs in this very process."""
    stopped = _running.get(key)
    if stopped is not None:
        stopped.set()
    return stopped is not None


def about(dask_worker: Any = None) -> dict[str, Any]:
    """Return what runs here: the versions of Python and of this package, and the platform."""
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "version": version("p2p-ipython"),
        "platform": f"{platform.system()} {platform.machine()}",
        "memory": _limit_of(dask_worker) if dask_worker is not None else 0,
    }


def _told(death: End) -> bytes:
    return encode(Ran(death.kind, min(abs(death.code), 255), death.detail).header())


def _given_up(asked: Asked) -> Callable[[], bool]:
    """Return what says whether the job's host or its engine no longer wants it."""
    folder, note = asked.folder, os.path.join(asked.folder, asked.key)
    seen = bool(folder) and os.path.isdir(folder)
    worker, key = _dask()

    def given_up() -> bool:
        if seen and (os.path.exists(note) or not os.path.isdir(folder)):
            return True
        if worker is None:
            return False
        task = worker.state.tasks.get(key)
        return task is None or task.state not in ("executing", "long-running")

    return given_up


def _dask() -> tuple[Any, str]:
    """Return the worker of dask's whose task this is, and the task's key; None and "" outside of dask."""
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        with contextlib.suppress(ValueError, AttributeError):
            worker = distributed.get_worker()
            return worker, worker.get_current_task()
    return None, ""


def _memory() -> int:
    """Return the bytes that a task may use, as far as dask says it; 0 for no limit."""
    worker, _ = _dask()
    return _limit_of(worker) // max(1, worker.state.nthreads) if worker is not None else 0


def _limit_of(worker: Any) -> int:
    manager = getattr(worker, "memory_manager", None)
    return int(getattr(manager, "memory_limit", None) or 0)


def _is_first(key: str) -> bool:
    """Return whether the job has not begun anywhere yet, and note that it has now. Only dask begins one again."""
    worker, _ = _dask()
    if worker is None:
        return True
    from distributed.utils import sync

    names = ["p2p", key.rpartition("-")[0]]  # its slot's: so there is one note a slot, and no more
    if sync(worker.loop, worker.scheduler.get_metadata, keys=names, default=None) == key:
        return False
    sync(worker.loop, worker.scheduler.set_metadata, keys=names, value=key)
    return True


def sees(folder: str) -> bool:
    """Return whether a host's folder can be seen here, so that jobs stop when it says so."""
    return os.path.isdir(folder)
