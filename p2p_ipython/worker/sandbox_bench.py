"""What sandboxes cost: ``p2p sandbox --bench``.

* ``start_ms``: from the start of a runner to its first word.
* ``first_task_ms``: from the start of a runner to the result of a first task that does nothing; it includes the imports
  of IPython, whose files each mechanism lets be opened in its own way.
* ``warm_ms``: such a task on a runner that is there, one after the other.
* ``open_us``: opening and closing a file, in a task.

A figure is the median of ``REPEATS`` runners, which take turns with those of ``process``. ``compared`` says which ones
meet their goal.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from p2p_ipython.config import Settings
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.messages import NO_WALL
from p2p_ipython.protocol.task_frames import Result, Task
from p2p_ipython.sandbox.launch import LaunchOptions
from p2p_ipython.task import safe
from p2p_ipython.worker.slot_base import Death, ResultListener, TaskSlot
from p2p_ipython.worker.slots import Slot

REPEATS = 5
TASKS = 300
DEADLINE = 60.0

_OPENS = """
import time
begun = time.perf_counter()
for _ in range(2000):
    open("/proc/self/stat", "rb").close()
(time.perf_counter() - begun) / 2000 * 1e6
"""


@dataclass(frozen=True)
class Cost:
    """What a mechanism costs; see the module for the figures."""

    name: str
    start_ms: float
    first_task_ms: float
    warm_ms: float
    open_us: float


GOALS = {
    ("bubblewrap", "start_ms"): 25.0,
    ("bubblewrap", "warm_ms"): 0.1,
    ("landlock", "start_ms"): 25.0,
    ("podman", "start_ms"): 400.0,
    ("qemu", "first_task_ms"): 1000.0,
}
"""What a mechanism may cost at most, in milliseconds: over ``process``, but for a virtual machine's first task."""

_WORDS = {"start_ms": "start-up", "warm_ms": "a warm task", "first_task_ms": "the first task"}


def compared(cost: Cost, base: Cost) -> list[str]:
    """Compare a mechanism's figures with their goals, a line each; ``base`` is what ``process`` costs."""
    lines = []
    for (name, figure), goal in GOALS.items():
        if name == cost.name:
            whole = figure == "first_task_ms"
            value = getattr(cost, figure) - (0 if whole else getattr(base, figure))
            digits = 2 if goal < 1 else 0
            over = "" if whole else " over process"
            met = "within" if value <= goal else "MISSES"
            lines.append(f"{_WORDS[figure]}: {value:.{digits}f} ms{over}, {met} the goal of {goal:g} ms")
    return lines


async def costs(names: Sequence[str]) -> list[Cost]:
    """Measure mechanisms in turns, and ``process`` beside them. Raises what ``Slot.start`` raises."""
    found: dict[str, list[Cost]] = {name: [] for name in dict.fromkeys((NO_WALL, *names))}
    for _ in range(REPEATS):
        for name, measured in found.items():
            measured.append(await _once(name))
    return [_median(name, measured) for name, measured in found.items()]


def _median(name: str, measured: list[Cost]) -> Cost:
    figures = ("start_ms", "first_task_ms", "warm_ms", "open_us")
    return Cost(name, *(median(getattr(one, figure) for one in measured) for figure in figures))


async def _once(name: str) -> Cost:
    results: asyncio.Queue[Any] = asyncio.Queue()
    slot = Slot(LaunchOptions(), _Listener(results), Settings(), mechanism=name)
    payload = pickle.dumps((int, (), {}))

    async def task(number: int) -> None:
        slot.run(Task(f"t{number}", 1, "call", ((len(payload), None),)), payload)
        await asyncio.wait_for(results.get(), DEADLINE)

    begun = time.perf_counter()
    await slot.start()
    try:
        start = time.perf_counter() - begun
        await task(0)
        first = time.perf_counter() - begun
        await task(1)
        times = []
        for number in range(2, TASKS):
            before = time.perf_counter()
            await task(number)
            times.append(time.perf_counter() - before)
        names = pickle.dumps({})
        slot.run(Task("opens", 1, "cell", ((len(names), None),), source=_OPENS, reply="safe"), names)
        opening = await asyncio.wait_for(results.get(), DEADLINE)
    finally:
        await slot.close()
    return Cost(name, start * 1e3, first * 1e3, median(times) * 1e3, float(opening))


class _Listener(ResultListener):
    """Puts each task's value into a queue; a plain one's is None."""

    def __init__(self, results: asyncio.Queue[Any]) -> None:
        self._results = results

    def on_result(self, slot: TaskSlot, result: Result, body: Buffer) -> None:
        plain = result.codec == "safe"
        self._results.put_nowait(safe.decode(result.segments, result.inline(body), {}) if plain else None)

    def on_died(self, slot: TaskSlot, task_id: str | None, death: Death) -> None:
        self._results.put_nowait(float("nan"))
