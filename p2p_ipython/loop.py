"""The event loop of a process, shared by asyncio and Twisted.

Magic Wormhole and its servers are written for Twisted, everything else here for asyncio. Twisted's asyncio
reactor lets both live on one loop; a process has one reactor, so it has one such loop:

* in a program of ours (board, worker) it is the main thread's: ``adopt()`` inside ``asyncio.run``;
* in a kernel it is a background thread's, because IPython and the user own the main thread's loop:
  ``background()``. It is started once per process and never stopped.

A peer can make either library complain. In a kernel whose user has set up no logging, what they print would stand
in the output of the cell that happens to run. So there all complaints go to our loggers, and those of the parts that
talk with peers print nothing by themselves.

``Deferred``s become awaitable by ``await deferred.asFuture(asyncio.get_running_loop())``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import Future as ConcurrentFuture
from typing import Any, TypeVar

from p2p_ipython.errors import UsageError

log = logging.getLogger(__name__)

T = TypeVar("T")

ADDRESS_DELAY = 0.25
"""Between the attempts on two addresses of a name, s, unless the earlier one fails before."""

_ABOUT_PEERS = "board", "client.bridge", "jobs", "link", "loop", "protocol", "rehearsal"
"""Parts whose loggers say what peers have provoked. Others warn the user, who hears it even without a handler."""

_lock = threading.Lock()
_background: BackgroundLoop | None = None
_adopted: asyncio.AbstractEventLoop | None = None
_pid = 0
"""The process that has adopted it."""


def adopt() -> None:
    """Make the running loop this process's Twisted reactor, unless it already is.

    Call it before anything imports ``twisted.internet.reactor`` (the wormhole servers do on import).
    Raises ``UsageError`` when the process has another reactor.
    """
    global _adopted, _pid
    loop = asyncio.get_running_loop()
    if _adopted is loop:
        return
    if _adopted is not None and _pid != os.getpid():  # a fork: the reactor is the parent's, whose loop isn't here
        del sys.modules["twisted.internet.reactor"]
    if "twisted.internet.reactor" in sys.modules:
        raise UsageError(
            "another Twisted reactor is installed in this process",
            hint="Load p2p_ipython before the program that starts Twisted, or use a kernel of its own.",
        )
    # Late: Twisted is heavy, and its reactor must be installed before anything imports it.
    from twisted.internet import asyncioreactor

    _log_as_python_does()
    if loop.get_exception_handler() is None:
        loop.set_exception_handler(_log_failure)
    asyncioreactor.install(loop)
    from twisted.internet import reactor

    # What reactor.run() does, less running the loop, which runs already, and less the signal handlers.
    reactor.startRunning(installSignalHandlers=False)
    _adopted, _pid = loop, os.getpid()


def _log_as_python_does() -> None:
    """Send Twisted's failures, which it would print, to Python's logging, unless the program has said where.

    Nothing else of its log: servers of Magic Wormhole write nameplates to it.
    """
    from twisted.logger import (
        FilteringLogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        STDLibLogObserver,
        globalLogBeginner,
    )

    if getattr(globalLogBeginner, "_temporaryObserver", None) is None:
        return
    logging.getLogger("twisted").addHandler(logging.NullHandler())
    show = warnings.showwarning
    failures = FilteringLogObserver(STDLibLogObserver(), [LogLevelFilterPredicate(LogLevel.critical)])
    globalLogBeginner.beginLoggingTo([failures], discardBuffer=True, redirectStandardIO=False)
    warnings.showwarning = show  # the program's warnings are none of Twisted's


def disown() -> None:
    """End the threads that Twisted has started, before a program of ours ends: they would keep it from ending."""
    pool = getattr(sys.modules.get("twisted.internet.reactor"), "threadpool", None)
    if pool is not None:
        pool.stop()


async def in_thread(name: str, work: Callable[[], T]) -> T:
    """Run ``work`` in a daemon thread of its own and wait for it; when cancelled, the thread is left to itself.

    For what may block for long: asyncio's own threads would be waited for when the program ends.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, failure = None, None
        try:
            value = work()
        except BaseException as error:  # handed to the one who waits
            failure = error
        try:
            loop.call_soon_threadsafe(settle, value, failure)
        except RuntimeError:  # the loop is closed
            pass

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done


class BackgroundLoop:
    """A thread that runs the loop which asyncio and Twisted share."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop: asyncio.AbstractEventLoop
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, name="p2p-loop", daemon=True)
        self._thread.start()
        self._started.wait()

    def _main(self) -> None:
        # A selector loop everywhere: on Windows, Twisted's asyncio reactor can't use the proactor.
        self.loop = asyncio.SelectorEventLoop()
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(_log_failure)
        for part in _ABOUT_PEERS:
            logging.getLogger(f"p2p_ipython.{part}").addHandler(logging.NullHandler())
        self.loop.call_soon(self._started.set)
        self.loop.run_forever()

    def is_current(self) -> bool:
        """Whether the caller is on the loop's own thread, where waiting for the loop would never end."""
        return threading.current_thread() is self._thread

    def start(self, work: Coroutine[Any, Any, T]) -> ConcurrentFuture[T]:
        """Start ``work`` on the loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run ``work`` on the loop and wait for it; a timeout or an interrupt cancels it there.

        Raises what ``work`` raises, ``TimeoutError`` after ``timeout`` seconds, and ``UsageError`` on the
        loop's own thread.
        """
        if self.is_current():
            work.close()
            raise UsageError(
                "this call waits for the cluster, on the very thread that serves it",
                hint="Start a thread, or await it elsewhere.",
            )
        future = self.start(work)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise


def _log_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what went wrong in a callback, or in a task that nobody awaits.

    Nothing else of the context: asyncio would log what the callback was called with, which may be a secret.
    """
    words = "an exception in a callback" if "handle" in context else context.get("message")
    log.error("%s", words, exc_info=context.get("exception"))


def background() -> BackgroundLoop:
    """Return the process's background loop, started on first use.

    After a fork the child has none of its parent's threads: it gets a loop and a reactor of its own.
    """
    global _background  # noqa: PLW0603 - one loop a process, like the reactor that it serves
    with _lock:
        if _background is None or _background.pid != os.getpid():
            _background = BackgroundLoop()
        return _background


def running_background() -> BackgroundLoop | None:
    """Return the process's background loop if it has been started in this process; None otherwise."""
    with _lock:
        return _background if _background is not None and _background.pid == os.getpid() else None
