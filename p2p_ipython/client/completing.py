"""Futures and values as they are ready, for loops and for ``async for``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_NOTHING: Any = object()


class Completed(Generic[T]):
    """See ``as_completed``: an iterator, and an asynchronous one."""

    def __init__(self, futures: Iterable[concurrent.futures.Future[T]], timeout: float | None) -> None:
        self._futures = list(futures)
        self._timeout = timeout
        self._each: Iterator[concurrent.futures.Future[T]] | None = None

    def __iter__(self) -> Iterator[concurrent.futures.Future[T]]:
        return self

    def __next__(self) -> concurrent.futures.Future[T]:
        if self._each is None:
            self._each = concurrent.futures.as_completed(self._futures, self._timeout)
        return next(self._each)

    async def __aiter__(self) -> AsyncIterator[concurrent.futures.Future[T]]:
        loop, news, ready = asyncio.get_running_loop(), asyncio.Event(), deque[concurrent.futures.Future[T]]()

        def over(future: concurrent.futures.Future[T]) -> None:
            ready.append(future)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(news.set)

        over.__module__ = asyncio.wrap_future.__module__  # it only wakes a loop: see ``future.ASYNCIOS``
        left = set(self._futures)
        for future in left:
            future.add_done_callback(over)
        end = None if self._timeout is None else loop.time() + self._timeout
        for number in range(len(left)):
            while not ready:
                news.clear()
                if ready:
                    break
                try:
                    async with asyncio.timeout_at(end):
                        await news.wait()
                except TimeoutError:
                    raise TimeoutError(f"{len(left) - number} (of {len(left)}) futures unfinished") from None
            yield ready.popleft()


def as_completed(futures: Iterable[concurrent.futures.Future[T]], timeout: float | None = None) -> Completed[T]:
    """Return an iterator over futures, of clusters or of other executors, as they are over.

    Each comes once, in ``for`` and in ``async for``. Raises ``TimeoutError`` when some aren't over ``timeout`` seconds
    after the first was asked for.

    >>> futures = [cluster.submit(abs, -3), cluster.submit(abs, -4)]
    >>> sorted(future.result() for future in as_completed(futures))
    [3, 4]
    """
    return Completed(futures, timeout)


class Values(Generic[T]):
    """The values of a map: an iterator with ``close``, and an asynchronous one. One loop at a time takes them."""

    def __init__(self, values: Generator[T, None, None], cancel: Callable[[], object]) -> None:
        """``cancel`` makes a ``next(values)`` that waits end."""
        self._values = values
        self._cancel = cancel

    def __iter__(self) -> Iterator[T]:
        return self._values  # the generator itself: a call more for each value would be a tenth of a short one's time

    def __next__(self) -> T:
        return next(self._values)

    def close(self) -> None:
        """Cancel what is left."""
        self._values.close()

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield the values as they are ready, without blocking the loop; each is waited for in a thread."""
        taker = _Taker(self._values, asyncio.get_running_loop())
        try:
            while (value := await taker.next()) is not _NOTHING:
                yield value
        finally:
            taker.end()
            self._cancel()


class _Taker:
    """Takes values in a daemon thread, one when it is asked for. Made for one asynchronous loop."""

    def __init__(self, values: Generator[Any, None, None], loop: asyncio.AbstractEventLoop) -> None:
        self._values = values
        self._loop = loop
        self._asked = threading.Semaphore(0)
        self._answer: asyncio.Future[Any] = loop.create_future()
        self._ended = False
        threading.Thread(target=self._take, name="p2p-values", daemon=True).start()

    async def next(self) -> Any:
        """Return the next value, or ``_NOTHING`` at the end. Raises what the values do."""
        self._answer = self._loop.create_future()
        self._asked.release()
        return await self._answer

    def end(self) -> None:
        """Take nothing more."""
        self._ended = True
        self._asked.release()

    def _take(self) -> None:
        while self._asked.acquire() and not self._ended:
            value, error = _NOTHING, None
            try:
                value = next(self._values, _NOTHING)
            except BaseException as raised:
                error = raised
            try:
                self._loop.call_soon_threadsafe(self._say, self._answer, value, error)
            except RuntimeError:  # the loop is closed
                return

    @staticmethod
    def _say(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(value)
