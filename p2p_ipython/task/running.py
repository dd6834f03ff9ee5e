"""Whether this code runs in a task, and what a cluster is there: the one slot that the task has.

A task submits no tasks to others. So a ``connect()`` in it, and a cluster among its values, give a cluster that runs
what it gets in the task's own process, one task at a time: never the network, and never a cluster in a cluster.

Both sides import this module, the runner inside the sandbox: standard library only.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from importlib import import_module
from typing import Any

from p2p_ipython.errors import CaptureError

_VARIABLE = "P2P_IN_TASK"
"""Says it to the processes that a task starts."""

_in_runner = False

inline: ContextVar[bool] = ContextVar("p2p_inline", default=False)
"""Whether a task runs in this thread, in the process of its client."""


def is_runner() -> None:
    """Note that this process runs nothing but tasks."""
    global _in_runner  # noqa: PLW0603 - a process is a runner for good
    _in_runner = True
    os.environ[_VARIABLE] = "1"


def in_task() -> bool:
    """Whether the caller is the code of a task, or of a process that a task has started."""
    return _in_runner or inline.get() or _VARIABLE in os.environ


def cluster_here() -> Any:
    """Return the cluster in a task that stands for the one that was sent. Raises ``CaptureError`` elsewhere."""
    if not in_task():
        raise CaptureError(
            "a cluster can't be copied, and can't come back from a task",
            hint="Let the task return what its own tasks gave.",
        )
    return import_module("p2p_ipython.client.inline.cluster").nested()
