"""The kernel's interrupt of a cell that waits for a task.

The first interrupt of ``%%p2p --wait`` has the task stopped, and waits until its worker has said that it has ended. A
second one ends that wait, too. One of ``future.result()`` ends the wait only, as for any executor; what it raises says
that the task goes on, and how to stop it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from p2p_ipython.notebook.lines import Interrupted
from p2p_ipython.protocol.plain import plain

if TYPE_CHECKING:
    from p2p_ipython.client.future import Future

MORE = 3.0
"""Seconds, beyond ``cancel_grace``, that an interrupted cell waits for its task's end: its process may be killed."""


def stopped(future: Future[Any], cancel_grace: float) -> Interrupted:
    """Stop a task and wait for its end, until the next interrupt; return what its cell raises."""
    over = threading.Event()
    future._promise.when_done(lambda _future: over.set())
    if not future.cancel():
        return Interrupted("the task was over already")
    try:
        over.wait(cancel_grace + MORE)
    except KeyboardInterrupt:
        pass
    if future.cancelled():
        return Interrupted("the task was cancelled")
    return Interrupted(f"the task is {plain(future.state_text, 200)}, and cancelled once it has ended there")


def goes_on(future: Future[Any]) -> Interrupted | None:
    """Return what an interrupted wait for a task raises; None if that is nothing of its own."""
    if future.done():
        return None
    return Interrupted(f"{plain(future.label, 80)} goes on ({plain(future.state_text, 200)}); its cancel() stops it")
