"""A slot as its worker sees it: tasks in, outputs and results out, one task at a time.

Implementations: ``worker/slots.py`` (a runner, a process of its own) and ``rehearsal/slot.py`` (a shipped fake, in
this process).

All methods and callbacks belong to one event loop; none of them blocks it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.task_frames import Output, Progress, Result, ResultChunk, Task
from p2p_ipython.sandbox.launch import Death
from p2p_ipython.worker.cache import Source

__all__ = ["Death", "SlotListener", "SlotState", "TaskSlot", "Used"]


class SlotState(enum.Enum):
    """Where a slot stands. The value is what people read."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    CLOSED = "closed"


class Used(NamedTuple):
    """What a task has used: seconds of processors, and the most bytes seen at a time; -1 where that isn't known."""

    cpu: float = -1.0
    memory: int = -1


UNKNOWN = Used()


class SlotListener(Protocol):
    """The user of a slot. Its methods are called on the event loop and must not block."""

    def on_output(self, slot: TaskSlot, output: Output | Progress, body: Buffer) -> None:
        """Take what the task that runs has printed, or says of itself, as it came. ``body`` is the listener's own."""

    def on_chunk(self, slot: TaskSlot, chunk: ResultChunk, body: Buffer) -> None:
        """Take the next bytes of a large segment of the result that will follow."""

    def on_result(self, slot: TaskSlot, result: Result, body: Buffer) -> None:
        """Note that the task is over; the slot is free again, also for a ``run`` from within this call."""

    def on_died(self, slot: TaskSlot, task_id: str | None, death: Death) -> None:
        """Note that the runner is gone, and with it the task that it had. The slot starts another runner by itself.

        Not called for a runner that ends before the task which the slot has been given could be sent to it: the task
        waits for the next one. Only when several end like that, the task is given up.
        """

    def on_dropped(self, slot: TaskSlot, refs: Sequence[str]) -> None:
        """Note that the slot's runner no longer holds these large buffers."""

    def on_preparing(self, slot: TaskSlot, words: str) -> None:
        """Note what comes before the task begins, for people; "" when it begins."""

    def on_ready(self, slot: TaskSlot) -> None:
        """Note that the slot has a fresh runner and no task: at first, or after the last runner ended."""


class ResultListener:
    """A ``SlotListener`` that waits for the end of its tasks only: a class of it has ``on_result`` and ``on_died``."""

    def on_ready(self, slot: TaskSlot) -> None:
        pass

    def on_output(self, slot: TaskSlot, output: Output | Progress, body: Buffer) -> None:
        pass

    def on_chunk(self, slot: TaskSlot, chunk: ResultChunk, body: Buffer) -> None:
        pass

    def on_dropped(self, slot: TaskSlot, refs: Sequence[str]) -> None:
        pass

    def on_preparing(self, slot: TaskSlot, words: str) -> None:
        pass


class TaskSlot(Protocol):
    """One place where tasks run, one at a time."""

    async def start(self) -> None:
        """Get ready; returns after ``on_ready``. Raises what keeps it from being."""

    def run(self, task: Task, body: Buffer, buffers: Sequence[Source] = (), *, owner: str = "") -> None:
        """Have a task executed; ``body`` holds its inline segments, ``buffers`` are its large ones.

        Returns at once; the end is told by ``on_result`` or ``on_died``. Raises ``RuntimeError`` when the slot is
        busy or closed.
        """

    def cancel(self, task_id: str) -> None:
        """Interrupt a task; its end is told as any other. Nothing happens when it isn't here (any more)."""

    def holds(self, ref: str) -> bool:
        """Whether the slot has all bytes of a large buffer; ``on_dropped`` tells when it hasn't any more."""
        ...

    def used(self) -> Used:
        """Return what has been used since the last call: ask once, at the end of each task. Takes a millisecond."""
        ...

    def pause(self) -> None:
        """Take nothing from the task for now."""

    def resume(self) -> None:
        """Take from it again."""

    async def close(self) -> None:
        """End the task and the slot; nothing is told any more. Idempotent."""
