"""Hands the records of tasks' loggers to the same loggers here, in a thread of its own: a handler may block.

How many come is bounded for each task; of those that come faster than the handlers here take them, some are dropped,
and it is said how many.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from p2p_ipython.client.aside import Aside
from p2p_ipython.protocol.plain import plain
from p2p_ipython.task.relayed import read

log = logging.getLogger(__name__)

MOST = 10_000
"""Records of one task, at most."""

BEHIND = 1_000
"""Records that wait for handlers here, at most."""

relays = Aside("p2p-log")


class Relayed:
    """The records of one task; on the loop's thread."""

    def __init__(self, loggers: tuple[str, ...], label: str) -> None:
        self._loggers = loggers
        self._label = label
        self._came = self._lost = 0

    def take(self, content: dict[str, Any], worker: str) -> None:
        """Have a record handled that has come."""
        found = read(content, self._loggers, worker)
        if found is None:
            return
        self._came += 1
        if self._came > MOST or relays.waiting >= BEHIND:
            self._lost += 1
        else:
            relays.call(partial(_handle, *found))

    def over(self) -> None:
        """Say what was lost."""
        lost, self._lost = self._lost, 0
        if lost:
            words = "%s: %d records of its loggers were dropped; they came faster than they are handled, or too many"
            relays.call(partial(log.warning, words, plain(self._label, 40), lost))


def _handle(logger: logging.Logger, record: logging.LogRecord) -> None:
    try:
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    except Exception:
        log.exception("a handler has failed")
