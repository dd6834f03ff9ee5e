"""How many files and connections a board's process may have open, and what it says when there are too many."""

from __future__ import annotations

import asyncio
import errno
import logging
import sys
from typing import Any

from p2p_ipython.board.server.limits import DESCRIPTORS, MAX_CONNECTIONS, PORTS, Seldom

log = logging.getLogger(__name__)

_USED_UP = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_WINDOWS = 512
"""The files that a selector takes on Windows, where no limit can be asked for."""


def limit() -> int:
    """Return how many files this process may have open."""
    if sys.platform == "win32":
        return _WINDOWS
    import resource  # there is none on Windows

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_limit() -> None:
    """Raise the soft limit of open files to what a board can use, or to the hard limit if that is lower."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS + PORTS * MAX_CONNECTIONS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:  # macOS has another limit below the one that it tells
            log.info("at most %d files can be open: %s", soft, error)


def log_seldom(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop log that connections can't be accepted once a minute. asyncio does so 100 times a second."""
    seldom = Seldom()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _USED_UP and "socket" in context):
            loop.default_exception_handler(context)
        elif seldom.say(loop.time()):
            log.error("SSH connections can't be accepted: %s; the limit is %d files", error.strerror, limit())

    loop.set_exception_handler(handle)
