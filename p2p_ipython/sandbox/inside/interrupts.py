"""Interrupt the task that was meant, and never the machinery around it.

The runner's reading thread hears ``cancel`` and signals the main thread, which runs the task. The handler
raises ``KeyboardInterrupt`` there only while that very task runs, and not while a frame is being written:
half a frame would end the conversation with the agent. An interrupt that comes then is raised a moment later.

A signal is lost on a call that is about to block, because Python has looked for signals just before. So the agent
cancels again and again. What comes after the ``KeyboardInterrupt`` is ignored: the task clears up then. So is what
comes again to a task that has a handler of its own.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """The runner's one; made and installed in the main thread."""

    def __init__(self) -> None:
        self._main = threading.get_ident()
        self._running: str | None = None
        self._asked: str | None = None
        self._held = 0
        self._late = False
        self.raised = False
        """Whether the task that runs, or ran last, was interrupted by us."""

    def install(self) -> None:
        """(Re)take SIGINT; a task may have taken it."""
        signal.signal(signal.SIGINT, self._on_signal)

    def expect(self) -> None:
        """Prepare for a task that has come and will begin. Call it in the thread that also calls ``request``.

        What was asked before was about an earlier one, also if that had the same name: it comes again when it is
        attempted again. Only the order in which the two arrive tells; when each begins or ends doesn't.
        """
        self._asked = None

    def begin(self, task: str) -> None:
        """``task`` runs from now on. Raises ``KeyboardInterrupt`` if it has been cancelled already."""
        self.raised = False
        self._running = task
        self._raise_if_asked()

    def end(self) -> None:
        """Nothing runs any more: after this returns, nothing is raised."""
        self._running = None

    def request(self, task: str) -> None:
        """Interrupt ``task`` if it runs or when it begins; in the thread that calls ``expect``."""
        heeded = self.raised and self._running == task
        if heeded or (self._asked == task and signal.getsignal(signal.SIGINT) != self._on_signal):
            return
        self._asked = task
        signal.pthread_kill(self._main, signal.SIGINT)

    def guard(self, lock: Any) -> Guard:
        """Return a block under ``lock`` that is never interrupted half way."""
        return Guard(self, lock)

    def hold(self) -> None:
        """Put interrupts of the calling thread off until ``release``."""
        if threading.get_ident() == self._main:
            self._held += 1

    def release(self) -> None:
        """Undo one ``hold``; raises the ``KeyboardInterrupt`` that was put off."""
        if threading.get_ident() == self._main:
            self._held -= 1
            if self._late and not self._held:
                self._late = False
                self._raise_if_asked()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._held:
            self._late = True
        else:
            self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self._asked is not None and self._asked == self._running and not self.raised:
            self.raised = True
            raise KeyboardInterrupt


class Guard:
    """See ``Interrupts.guard``. Re-entrant when its lock is."""

    __slots__ = ("_hold", "_release", "lock")

    def __init__(self, interrupts: Interrupts, lock: Any) -> None:
        self._hold, self._release = interrupts.hold, interrupts.release
        self.lock = lock

    def __enter__(self) -> None:
        self._hold()
        self.lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lock.release()
        self._release()
