"""What a task needs of its worker, and the queue of tasks that need the same.

All tasks with the same needs wait for the same workers, so they share a queue, a reason and a look at the workers: how
many tasks wait costs nothing. Needs are matched with offers before a task is sent.

Pure.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from p2p_ipython.protocol.messages import Terms

MAX_KEY = 100
"""Characters of the key of needs; panels have it in each row."""


class Needs(NamedTuple):
    """The needs of a task: ``python`` is a minor version, ``on`` names of members or of workers, one of which runs it.

    ``tags`` are words that the offer has, all of them. ``memory``: bytes that the task may use. ``gpus``: graphics
    cards. ``packages`` are to be installed for it. ``pin``: the only worker that may run it, by its session. "", (), 0
    and None need nothing.
    """

    python: str = ""
    on: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    memory: int = 0
    gpus: int = 0
    packages: tuple[str, ...] = ()
    pin: bytes | None = None

    def key(self) -> str:
        """Return a short text that differs where needs do: a Python's version alone is itself, "" needs nothing."""
        if self == Needs(self.python):
            return self.python
        pin = self.pin.hex() if self.pin is not None else ""
        named = map(",".join, (self.on, self.tags, self.packages))
        text = "; ".join(map(str, (self.python, *named, self.memory, self.gpus, pin)))
        return text if len(text) <= MAX_KEY else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

    def met(self, terms: Terms) -> bool:
        """Return whether an offer has all that is needed, whosever it is. Packages depend on that: ``fits``."""
        return (
            (not self.python or terms.python == self.python)
            and all(tag in terms.tags for tag in self.tags)
            and not 0 < terms.task_memory < self.memory  # an offer of an earlier version doesn't say
            and (not self.gpus or terms.cards_each >= self.gpus)
        )


ANY = Needs()
"""The needs of most tasks: none."""


class Queue:
    """Tasks that wait and need the same: the higher priority first, those of one priority in their order.

    Each change is one step, wherever in the queue the task is.
    """

    def __init__(self) -> None:
        self._levels: dict[int, OrderedDict[str, int]] = {}
        self._priorities: list[int] = []  # the lowest first

    def add(self, task: str, priority: int = 0, number: int = 0, *, first: bool = False) -> None:
        """Add a task behind those of its priority, or before them. ``number``: its place among those of all needs."""
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = OrderedDict()
            insort(self._priorities, priority)
        level[task] = number
        level.move_to_end(task, last=not first)

    def remove(self, task: str, priority: int = 0) -> None:
        """Take a task out, if it is there."""
        level = self._levels.get(priority)
        if level is not None:
            level.pop(task, None)
            if not level:
                del self._levels[priority]
                self._priorities.remove(priority)

    def first(self) -> str:
        """Return the task whose turn it is. Raises ``IndexError`` if none waits."""
        return next(iter(self._levels[self._priorities[-1]]))

    def top(self) -> int:
        """Return the highest priority. Raises ``IndexError`` if none waits."""
        return self._priorities[-1]

    def turn(self) -> tuple[int, int]:
        """Return what is greatest for the queue whose turn it is: the first task's priority, and how early it came.

        Raises ``IndexError`` if none waits.
        """
        priority = self._priorities[-1]
        level = self._levels[priority]
        return priority, -level[next(iter(level))]

    def __bool__(self) -> bool:
        return bool(self._priorities)

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def __iter__(self) -> Iterator[str]:
        return (task for priority in reversed(self._priorities) for task in self._levels[priority])
