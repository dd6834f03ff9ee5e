"""A look, again and again, at what a slot's task takes: memory, and what nothing else holds.

Nothing is looked at while no task runs. Memory has a pace of its own: the nearer a task is to its limit, the sooner is
the next look, so that no task fills much more than it may between two. The other looks, at files and processes, may
take long, and memory doesn't wait for them.

All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time

from p2p_ipython.sandbox.scratch import OVER
from p2p_ipython.worker.runner_life import RunnerLife
from p2p_ipython.worker.slot_base import Death

log = logging.getLogger(__name__)

GIB = 1 << 30

_LOOK = 0.1
"""Seconds between two looks, at most for memory and at least for the rest."""

_SOON = 0.01
"""Seconds between two looks at a task that is near its limit of memory."""

_QUICKEST = 8 * GIB
"""Bytes a second that processes may take: two or three cores that write to new pages, measured at 2–4 GiB/s."""

_SHARE = 20
"""The pause between two looks is at least so many times what one takes; at memory, only as long as it isn't near."""


class Watch:
    """Ends the tasks of one runner that take more than ``memory`` bytes, 0 for any number, or too much of the rest."""

    def __init__(self, runner: RunnerLife, memory: int) -> None:
        self._runner = runner
        self._memory = memory
        self.peak = -1
        """The most bytes at which the task was seen; -1: it was not looked at."""
        self._task: object = None
        self._begun = asyncio.Event()

    def begin(self, task: object) -> None:
        """Look at ``task`` from now on."""
        self._task, self.peak = task, -1
        self._begun.set()

    def end(self) -> None:
        """Look no more: the task is over."""
        self._task = None
        self._begun.clear()

    async def run(self) -> None:
        """Look until cancelled. A runner that can't be looked at is stopped."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._look_at_the_rest(), name="p2p-limits")
                if self._memory:
                    group.create_task(self._look_at_memory(), name="p2p-memory")
        except ExceptionGroup as group_of:
            log.exception("what a task takes can't be told")
            why = group_of.exceptions[0]
            words = f"Its worker could not tell what it takes ({type(why).__name__}: {why}), and ended it."
            self._runner.stop(Death("exit", 0, words))

    async def _look_at_memory(self) -> None:
        pause = _LOOK
        while True:
            await self._begun.wait()
            await asyncio.sleep(pause)
            task, began = self._task, time.monotonic()
            if task is None:
                continue
            used = self._runner.usage()
            self.peak = max(self.peak, used)
            room = self._memory - used
            pause = max(_SOON, min(_LOOK, room / _QUICKEST))
            if room < 0:  # at first sight: what is shared counts once in the second look, which takes longer
                used = await asyncio.to_thread(self._runner.usage, shared_once=True)
                if used > self._memory:
                    words = f"It used {used / GIB:.2f} of the {self._memory / GIB:.2f} GiB of memory that it may have."
                    self._stop(task, Death("memory", 0, f"{OVER} {words}"))
            elif pause == _LOOK:
                pause = max(_LOOK, _SHARE * (time.monotonic() - began))

    async def _look_at_the_rest(self) -> None:
        pause = _LOOK
        while True:
            await self._begun.wait()
            await asyncio.sleep(pause)
            task, began = self._task, time.monotonic()
            if task is not None and (death := await asyncio.to_thread(self._runner.excess)) is not None:
                self._stop(task, death)
            pause = max(_LOOK, _SHARE * (time.monotonic() - began))

    def _stop(self, task: object, death: Death) -> None:
        if self._task is task:  # else it has ended meanwhile
            self._runner.stop(death)
