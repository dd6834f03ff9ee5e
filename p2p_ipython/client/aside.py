"""Threads that make calls in order, aside from the loop that serves the links.

Printing may block for as long as nobody reads, and a function of the user's for as long as it likes. A loop that
waited for them would miss the heartbeats of its links, and its workers' tasks would be started a second time.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

LINGER = 5.0
"""Seconds without a call after which the thread ends."""


class Aside:
    """Makes calls in a daemon thread of its own, one after the other. The thread is started on need."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._queue: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting = 0

    def call(self, make: Callable[[], Any]) -> None:
        """Make a call soon; returns at once. The call must handle its own exceptions."""
        if self._pid != os.getpid():  # a fork: what waits here is the parent's to do
            self._begin()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._make_all, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            self._waiting += 1
            self._queue.put(make)

    @property
    def waiting(self) -> int:
        """How many calls are still to be made."""
        return self._waiting

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all calls so far are over, at most ``timeout`` seconds; return whether they are.

        On the thread itself it returns at once.
        """
        if not self._waiting or self._thread is threading.current_thread():
            return True
        over = threading.Event()
        self.call(over.set)
        return over.wait(timeout)

    def _make_all(self) -> None:
        while True:
            try:
                make = self._queue.get(timeout=LINGER)
            except queue.Empty:
                with self._lock:
                    if not self._waiting:
                        self._thread = None
                        return
                continue
            try:
                make()
            finally:
                del make  # what it holds is the user's, and may be large
                with self._lock:
                    self._waiting -= 1
