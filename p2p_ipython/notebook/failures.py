"""Failures of tasks, for terminals: a failed task is named at the next prompt, unless somebody has asked for its value.

A terminal has no line under a cell, and a console doesn't update one. So nothing else would say it.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any

from p2p_ipython.notebook.lines import say
from p2p_ipython.protocol.plain import plain

if TYPE_CHECKING:
    from p2p_ipython.client.future import Future

_COLOURS = re.compile(r"\x1b\[[\d;]*m")

MOST = 20
"""Failures that are named at one prompt, at most: the last ones."""


class Failures:
    """See the module. ``follow`` from any thread; they are named on the shell's."""

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        self._failed: deque[Future[Any]] = deque(maxlen=MOST)
        ip.events.register("post_run_cell", self._name_them)

    def close(self) -> None:
        """Stop listening."""
        self._ip.events.unregister("post_run_cell", self._name_them)

    def follow(self, future: Future[Any]) -> None:
        """Name the task at the prompt after it has failed."""
        future._promise.when_done(self._over)

    def _over(self, future: Future[Any]) -> None:
        if future._promise.failure and not future.cancelled():
            self._failed.append(future)

    def _name_them(self, _result: object) -> None:
        while self._failed:
            future = self._failed.popleft()
            if not future._asked:
                *_, last = ["", *_COLOURS.sub("", future.error_text).strip().splitlines()]
                say(f"{plain(future.label, 80)}: {future.state_text} – {plain(last, 200)} (its result() shows where)")
