"""Groups of tasks that belong together: those of one sweep, one map or one call of a library. Each has counts.

A group is one row in the panel, with a bar, an estimate and buttons. ``core.groups.new(label, total)`` begins one; its
owner notes each element that is over. The estimate is made of what tasks took, and of how fast they come back.
"""

from __future__ import annotations

import threading
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from p2p_ipython.protocol.plain import count, plain

MOST = 20
"""Groups that are kept for people, at most: beyond that the oldest that is over goes, else the oldest."""

LABEL = 80
"""Characters of a group's label."""

Action = Callable[[], object]


@dataclass(frozen=True)
class Standing:
    """How far a group is. ``total``: None if that isn't known. Times are Unix seconds; ``ended`` is 0.0 until then.

    ``left``: seconds that the rest takes, about; None while that isn't known.
    """

    label: str
    total: int | None
    done: int
    failed: int
    cancelled: int
    began: float
    ended: float = 0.0
    left: float | None = None

    @property
    def over(self) -> int:
        """Elements that are over, however they ended."""
        return self.done + self.failed + self.cancelled

    @property
    def part(self) -> float | None:
        """The part of it that is over, from 0 to 1; None if that isn't known."""
        return min(1.0, self.over / self.total) if self.total else None

    @property
    def state(self) -> str:
        """One of the words of ``TaskState``: "running" until it has ended."""
        if not self.ended:
            return "running"
        return "failed" if self.failed else "cancelled" if self.cancelled else "done"

    @property
    def words(self) -> str:
        """Return it for people: "7 of 20 done, 2 failed, about 40 s"."""
        of = f" of {self.total:,}" if self.total is not None else ""
        parts = [f"{self.done:,}{of} done"]
        parts += [
            f"{number:,} {word}" for number, word in ((self.failed, "failed"), (self.cancelled, "cancelled")) if number
        ]
        if not self.ended and self.left is not None and self.over != self.total:
            parts.append(f"about {rough(self.left)}")
        return ", ".join(parts)


def remaining(left: int, over: int, each: float | None, slots: int, elapsed: float) -> float | None:
    """Estimate how many seconds ``left`` elements take; None while there is nothing to estimate it by.

    ``over`` elements came back in ``elapsed`` seconds. Each ran for ``each`` seconds (None: not known), on ``slots``.
    What the tasks took says it from the first one on. How fast they come back says more once each slot has had one:
    it counts what travels, and what others have the workers do.
    """
    if not left:
        return 0.0
    if not over or each is None:
        return None
    slots = max(1, slots)
    by_work = each * left / min(slots, left)
    return max(by_work, elapsed / over * left) if over >= slots else by_work


def rough(seconds: float) -> str:
    """Return a time for people in steps that grow, as "40 s"; each step is a message to the front end."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 58:
        return f"{round(seconds / 5) * 5} s"
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 100 else count(round(minutes / 60), "hour")


class Group:
    """One group; from any thread. Make it by ``Groups.new``."""

    def __init__(
        self, groups: Groups, label: str, total: int | None, cancel: Action | None, again: Action | None
    ) -> None:
        self.id = uuid.uuid4().hex
        self.label = plain(label, LABEL)
        self.began = groups.clock()
        self.ended = 0.0
        self._groups = groups
        self._lock = threading.Lock()
        self._total = total
        self._done = self._failed = self._cancelled = 0
        self._timed, self._seconds = 0, 0.0
        self._since = self.began  # of the pace
        self._paced = 0
        self._cancel, self._again = _weakly(cancel), _weakly(again)
        self._changed: tuple[Action, ...] = ()

    def follow(self, changed: Action) -> None:
        """Call ``changed`` after each change, on the thread of whoever makes it; it must be cheap."""
        self._changed = (*self._changed, changed)

    # -- for its owner --

    def over(self, elements: int = 1, *, failed: int = 0, cancelled: int = 0, seconds: float | None = None) -> None:
        """Note that elements are over: so many ``failed``, or were ``cancelled``; ``seconds`` that all of them ran."""
        with self._lock:
            self._done += elements - failed - cancelled
            self._failed += failed
            self._cancelled += cancelled
            self._paced += elements - cancelled
            if seconds is not None:
                self._timed += elements
                self._seconds += seconds
            if self._total is not None and self._over >= self._total:
                self.ended = self.ended or self._groups.clock()
        self._tell()

    def more(self, elements: int) -> None:
        """Note that there are more elements than was known."""
        with self._lock:
            self._total = (self._total or 0) + elements
            self.ended = 0.0
        self._tell()

    def anew(self, *, failed: int = 0, cancelled: int = 0) -> None:
        """Note that elements that had failed, or were cancelled, run again."""
        with self._lock:
            self._failed -= failed
            self._cancelled -= cancelled
            self.ended, self._since, self._paced = 0.0, self._groups.clock(), 0
        self._tell()

    def fail(self, elements: int = 1) -> None:
        """Note that elements that counted as done have failed, as it turns out."""
        with self._lock:
            self._done -= elements
            self._failed += elements
        self._tell()

    def end(self) -> None:
        """Note that nothing more comes, however many there should have been."""
        with self._lock:
            if self.ended:
                return
            self.ended = self._groups.clock()
        self._tell()

    # -- for people --

    @property
    def standing(self) -> Standing:
        """How far it is now."""
        now = self._groups.clock()
        with self._lock:
            each = self._seconds / self._timed if self._timed else None
            left = None
            if self._total is not None:
                rest = max(0, self._total - self._over)
                left = remaining(rest, self._paced, each, self._groups.slots(), now - self._since)
            return Standing(
                self.label, self._total, self._done, self._failed, self._cancelled, self.began, self.ended, left
            )

    @property
    def may_cancel(self) -> bool:
        """Whether ``cancel`` does something now."""
        return not self.ended and self._cancel() is not None

    @property
    def may_again(self) -> bool:
        """Whether ``again`` does something now."""
        return bool(self.ended and self._failed + self._cancelled) and self._again() is not None

    def cancel(self) -> None:
        """Cancel what isn't over, if its owner is still there."""
        if (cancel := self._cancel()) is not None:
            cancel()

    def again(self) -> None:
        """Run those again that have failed or were cancelled, if its owner can. Raises what that raises."""
        if (again := self._again()) is not None:
            again()

    @property
    def _over(self) -> int:
        return self._done + self._failed + self._cancelled

    def _tell(self) -> None:
        for changed in self._changed:
            changed()
        self._groups.touched(self)


Line = Callable[[Group], object]

default_line: Callable[[], Line] = lambda: _no_line  # noqa: E731 - a setting; the magics put the cell's line here
"""Makes what shows the group of a map, once that takes long; called where the map begins."""


def _no_line(_group: Group) -> None:
    """Show nothing: nobody has asked for it."""


class Groups:
    """The groups of a cluster; from any thread. ``slots``: how many tasks its workers run at a time."""

    def __init__(
        self, touched: Callable[[str], object], slots: Callable[[], int], clock: Callable[[], float] = time.time
    ) -> None:
        """``touched`` is called with the id of a group that is shown and has changed, on the thread that changed it."""
        self.slots = slots
        self.clock = clock
        self._touched = touched
        self._lock = threading.Lock()
        self._shown: OrderedDict[str, Group] = OrderedDict()

    def new(
        self,
        label: str,
        total: int | None,
        *,
        cancel: Action | None = None,
        again: Action | None = None,
        shown: bool = True,
    ) -> Group:
        """Begin a group of ``total`` elements (None: not known). Methods among the actions keep no object alive.

        ``shown``: whether people see it at once; else with ``show``.
        """
        group = Group(self, label, total, cancel, again)
        if shown:
            self.show(group)
        return group

    def show(self, group: Group) -> None:
        """Let people see a group."""
        with self._lock:
            self._shown[group.id] = group
            gone = self._too_many()
        for id in (group.id, *gone):
            self._touched(id)

    def get(self, id: str) -> Group | None:
        """Return a group that is shown; None if it isn't any more."""
        return self._shown.get(id)

    def all(self) -> list[Group]:
        """Return those that are shown, the oldest first."""
        with self._lock:
            return list(self._shown.values())

    def touched(self, group: Group) -> None:
        """For a group: it has changed."""
        if group.id in self._shown:
            self._touched(group.id)

    def _too_many(self) -> list[str]:
        gone = []
        while len(self._shown) > MOST:
            over = (id for id, group in self._shown.items() if group.ended)
            gone.append(next(over, next(iter(self._shown))))
            del self._shown[gone[-1]]
        return gone


def _weakly(action: Action | None) -> Callable[[], Any]:
    """Return what gives an action as long as its object is there: a row of the panel must keep no values alive."""
    if action is None:
        return lambda: None
    return weakref.WeakMethod(action) if hasattr(action, "__self__") else lambda: action
