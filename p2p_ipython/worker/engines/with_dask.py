"""A client of dask's scheduler, for the host of an engine.

A worker of dask's that can't run tasks (no p2p_ipython, another version, another Python than the others) gets none.
When a worker of dask's ends, dask gives its jobs to others, and gives up those that have ended several workers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import warnings
from collections.abc import Mapping
from typing import Any

from p2p_ipython.worker.engines import entry
from p2p_ipython.worker.engines.choice import Dask
from p2p_ipython.worker.engines.client import EngineFailed, JobLost, Size, fitting

CONNECT = 15.0
"""Seconds that a scheduler may take to answer."""

_LOOK = 0.1
_HINT = "Install the same version of p2p_ipython on the machines of dask's workers as here."


async def opened(choice: Dask, slots: int) -> DaskClient:
    """Connect to a scheduler. Raises ``EngineFailed``."""
    try:
        from distributed import Client
    except ImportError:
        raise EngineFailed(
            "dask's client isn't installed beside p2p_ipython", "Install it: pip install distributed"
        ) from None
    warnings.simplefilter("ignore")  # about large arguments: they are bounded
    try:
        client = await Client(
            choice.address, asynchronous=True, set_as_default=False, timeout=CONNECT, name="p2p_ipython"
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise EngineFailed(
            f"no scheduler of dask's answers at {choice.address} ({error})",
            "Start it (dask scheduler), or look for its address in its log.",
        ) from error
    found = DaskClient(client, choice.address, slots)
    try:
        await found.look()
    except BaseException:
        await found.close()
        raise
    return found


class DaskClient:
    """See ``client.Client``. ``slots``: how many tasks it gets at a time; 0: as many as its workers have threads."""

    def __init__(self, client: Any, address: str, slots: int) -> None:
        self._client = client
        self._address = address
        self._slots = slots
        self._fit: dict[str, Mapping[str, Any]] = {}
        self._unfit: dict[str, str] = {}
        self._said: Mapping[str, Any] | None = None
        self._futures: dict[str, Any] = {}
        self._stopped: set[str] = set()

    def about(self) -> Mapping[str, Any]:
        """See ``client.Client``. While there is no worker, it is said of this process."""
        self._said = self._said or next(iter(self._fit.values()), entry.about())
        return self._said

    async def look(self) -> Size:
        """See ``client.Client``."""
        threads = await self._threads()
        await self._meet([each for each in threads if each not in self._fit and each not in self._unfit])
        for known in (self._fit, self._unfit):
            for gone in known.keys() - threads.keys():
                del known[gone]
        if self._unfit and not self._fit:
            raise EngineFailed(f"no worker of dask's can run tasks: {next(iter(self._unfit.values()))}", _HINT)
        memory = sum(each["memory"] for each in self._fit.values())
        return Size(self._slots or sum(threads[each] for each in self._fit), memory)

    async def _threads(self) -> dict[str, int]:
        if self._client.status != "running":
            raise self._lost()
        try:
            return dict(await asyncio.wait_for(self._client.scheduler.ncores(), CONNECT))
        except (OSError, TimeoutError) as error:
            raise self._lost() from error

    def _lost(self) -> EngineFailed:
        return EngineFailed(f"dask's scheduler at {self._address} has gone")

    async def _meet(self, workers: list[str]) -> None:
        """Ask new workers what they are."""
        if not workers:
            return
        answers = await self._client.run(entry.about, workers=workers, on_error="return")
        for worker, about in answers.items():
            if isinstance(about, OSError):
                continue  # it has ended meanwhile
            first = self._said or next(iter(self._fit.values()), None)
            if isinstance(about, BaseException):
                why = f"p2p_ipython can't be imported on {worker} ({about})"
            elif unfit := fitting(about):
                why = f"{unfit} (on {worker})"
            elif first is not None and about["python"] != first["python"]:
                why = f"{worker} has Python {about['python']}, and not {first['python']}"
            else:
                self._fit[worker] = about
                continue
            self._unfit[worker] = why

    async def result(self, job: bytes, key: str) -> bytes:
        """See ``client.Client``."""
        where = list(self._fit) if self._unfit else None
        future = self._futures[key] = self._client.submit(entry.run, job, key=key, pure=False, workers=where)
        try:
            return bytes(await future)
        except concurrent.futures.CancelledError:
            if self._client.status != "running":
                raise self._lost() from None
            while await self._asked_to_stop(key):  # noqa: ASYNC110 - it had just begun
                await asyncio.sleep(_LOOK)
            raise JobLost("dask has cancelled it", never=key in self._stopped) from None
        except Exception as error:
            raise JobLost(f"dask has given it up: {type(error).__name__}: {error}") from error
        finally:
            del self._futures[key]
            self._stopped.discard(key)
            future.release()

    async def stop(self, key: str) -> bool:
        """See ``client.Client``: dask itself doesn't end what runs, but ``entry.stop`` does."""
        future = self._futures.get(key)
        if future is not None and not await self._asked_to_stop(key):
            self._stopped.add(key)
            await future.cancel()
        return True

    async def _asked_to_stop(self, key: str) -> bool:
        """Stop a job on the worker of dask's that has it; return whether there is one."""
        answers = await self._client.run(entry.stop, key, workers=list(self._fit), on_error="return")
        return any(answer is True for answer in answers.values())

    async def close(self) -> None:
        """See ``client.Client``. What still runs is given up with the client."""
        await self._client.close()
