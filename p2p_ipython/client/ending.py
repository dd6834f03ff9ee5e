"""The one ending of what the client's side has started, in order, when the interpreter ends.

A script's end finishes the tasks of its clusters, as ``ProcessPoolExecutor`` does. A notebook kernel's end cancels
them: its front end has asked it to end, and kills a kernel that takes its time. If a program executes the notebook, the
kernel waits a moment for them. What is lent and hosted here goes on until the tasks are over.

This isn't ``atexit``: by then the interpreter lets no thread be started any more, and leaving a board needs some.
``concurrent.futures`` ends its pools by the same call, the last registered first. Its module is imported above the
registration, because asyncio's threads must live until all is over here.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from enum import IntEnum

log = logging.getLogger(__name__)


class Turn(IntEnum):
    """When something ends, the first first."""

    CLUSTERS = 1
    KNOCKING = 2
    RECEPTIONS = 3
    LENDER = 4


kernel_waits = 0.0
"""Seconds that a kernel's end waits for unfinished tasks. The magics set it if a program executes the notebook."""

_calls: dict[Turn, Callable[[], None]] = {}


def at_end(turn: Turn, call: Callable[[], None]) -> None:
    """Have ``call`` made when the interpreter ends, in its turn. One call a turn."""
    _calls[turn] = call


def in_kernel() -> bool:
    """Return whether this process is a notebook's kernel."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return getattr(get_ipython(), "kernel", None) is not None


def was_interrupted() -> bool:
    """Return whether Ctrl-C has ended the program: nobody wants to wait for its tasks then."""
    return isinstance(getattr(sys, "last_value", None), KeyboardInterrupt) and not hasattr(sys, "ps1")


def _end_all() -> None:
    for _turn, call in sorted(_calls.items()):
        try:
            call()
        except Exception:
            log.exception("could not end everything")


threading._register_atexit(_end_all)  # type: ignore[attr-defined]
