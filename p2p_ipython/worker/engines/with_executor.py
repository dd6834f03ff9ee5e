"""An executor that a factory has made, for the host of an engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from importlib import import_module
from pathlib import Path
from typing import Any

from p2p_ipython.worker.engines import entry
from p2p_ipython.worker.engines.choice import Factory
from p2p_ipython.worker.engines.client import EngineFailed, JobLost, Size, fitting

START = 120.0
"""Seconds that an executor may take to run its first function."""


async def opened(choice: Factory, slots: int, folder: str) -> ExecutorClient:
    """Have the factory make its executor. Raises ``EngineFailed``."""
    name = f"{choice.module}:{choice.name}"
    sys.path.append(os.getcwd())  # the factory is usually there
    try:
        executor = getattr(import_module(choice.module), choice.name)()
    except Exception as error:
        words = "".join(traceback.format_exception(error, limit=-5)).strip()
        raise EngineFailed(f"{name} has failed: {words[-4000:]}") from error
    if not isinstance(executor, Executor):
        raise EngineFailed(f"{name} returned a {type(executor).__name__}, and no Executor of concurrent.futures")
    found = ExecutorClient(executor, slots, Path(folder))
    try:
        await found.look()
        await found.begin()
    except BaseException:
        await found.close()
        raise
    return found


class ExecutorClient:
    """See ``client.Client``. ``folder`` is where running jobs that see it look whether they are to stop."""

    def __init__(self, executor: Executor, slots: int, folder: Path) -> None:
        self._executor = executor
        self._slots = slots
        self._folder = folder
        self._about: Mapping[str, Any] = {}
        self._sees = False
        self._broken = ""
        self._futures: dict[str, Future[bytes]] = {}

    async def begin(self) -> None:
        """Ask the executor's workers what they are. Raises ``EngineFailed``."""
        try:
            async with asyncio.timeout(START):
                self._about = await asyncio.wrap_future(self._executor.submit(entry.about))
                self._sees = await asyncio.wrap_future(self._executor.submit(entry.sees, str(self._folder)))
        except TimeoutError:
            raise EngineFailed(f"the executor has run nothing within {START:g} s") from None
        except Exception as error:
            raise EngineFailed(f"the executor can't run tasks: {type(error).__name__}: {error}") from error
        if unfit := fitting(self._about):
            raise EngineFailed(unfit, "Install the same version in both places.")

    def about(self) -> Mapping[str, Any]:
        """See ``client.Client``."""
        return self._about

    async def look(self) -> Size:
        """See ``client.Client``."""
        if self._broken:
            raise EngineFailed(self._broken)
        slots = self._slots or getattr(self._executor, "_max_workers", None)
        if type(slots) is not int:
            raise EngineFailed("the executor doesn't say how many tasks it runs at a time", "Say it: --slots N")
        return Size(slots)

    async def result(self, job: bytes, key: str) -> bytes:
        """See ``client.Client``."""
        try:
            future = self._futures[key] = self._executor.submit(entry.run, job)
            return await asyncio.wrap_future(future)
        except BrokenExecutor as error:
            self._broken = f"the executor is broken: {error}"
            raise EngineFailed(self._broken) from error
        except (CancelledError, asyncio.CancelledError):
            if self._futures[key].cancelled():
                raise JobLost("it was cancelled before it had begun", never=True) from None
            raise
        except Exception as error:
            raise JobLost(f"the executor has failed: {type(error).__name__}: {error}") from error
        finally:
            self._futures.pop(key, None)
            (self._folder / key).unlink(missing_ok=True)

    async def stop(self, key: str) -> bool:
        """See ``client.Client``: what runs stops if it sees the host's folder; else nothing reaches it."""
        future = self._futures.get(key)
        if future is None or future.cancel():
            return True
        (self._folder / key).touch()
        return self._sees

    async def close(self) -> None:
        """See ``client.Client``: wait until what runs has ended."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(closed.set)

        threading.Thread(target=shut_down, daemon=True).start()  # it may take as long as a task
        await closed.wait()
