"""The synchronous face of what happens on the loop: run it there, wait for it with a deadline, fail in words."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from p2p_ipython.errors import BoardUnreachable, UsageError
from p2p_ipython.loop import background

T = TypeVar("T")

FORK_HINT = "Call p2p_ipython.connect() in this process; what the other one has connected stays its own."


def wait_for(work: Coroutine[Any, Any, T], seconds: float, what: str, *, pid: int) -> T:
    """Run ``work`` on the loop, and return or raise what comes of it.

    ``what`` says in words what is done, and ``pid`` which process has begun it. Raises ``BoardUnreachable`` after
    ``seconds``, and ``UsageError`` in a fork of that process or on the loop's own thread, which would wait for ever.
    """
    if pid != os.getpid():
        work.close()
        raise UsageError(f"{what} is for the process that began it, of which this one is a fork", hint=FORK_HINT)
    if background().is_current():
        work.close()
        raise UsageError(f"{what} would wait for the loop on its own thread", hint="Call it from another thread.")
    try:
        return background().run(work, seconds)
    except concurrent.futures.TimeoutError:
        raise BoardUnreachable(
            f"{what} took longer than {seconds:g} s", hint="Try again; p2p doctor says which hop fails."
        ) from None
