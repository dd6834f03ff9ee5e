"""Whether a task that has raised runs again: decided by the names of classes that the worker says.

A worker may be a stranger's, so nothing is unpickled, imported or looked up for this. All that a forged name can do is
to have the task run again, as often as its user allows.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection

from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.task_frames import TaskFailure

ANY_ERROR = ("builtins.Exception",)
"""The class, in the form of its name in failures, of the errors after which a task runs again unless it says more."""

_OURS = {
    "died": ("p2p_ipython.errors.TaskDied",),
    "interrupted": ("p2p_ipython.errors.TaskDied",),
    "missing": ("p2p_ipython.errors.NameMissing",),
    "packages": ("p2p_ipython.errors.NotInstalled",),
    "stopped": ("p2p_ipython.errors.StoppedByLender",),
    "timeout": ("p2p_ipython.errors.TaskTimeout", "builtins.TimeoutError"),
    "task_time": ("p2p_ipython.errors.TaskTimeout", "builtins.TimeoutError"),
    "unpicklable": ("p2p_ipython.errors.ResultNotPicklable",),
}
"""The classes of the error that ``result()`` raises for each other kind of failure."""


def is_among(failure: TaskFailure, classes: Collection[str]) -> bool:
    """Return whether a failure is of one of these classes, or of a subclass.

    A kind of failure that no exception of the task's is counts only under its own class, never as an ``Exception``.
    """
    if failure.what != "exception":
        return any(name in classes for name in (*_OURS.get(failure.what, ()), "p2p_ipython.errors.TaskError"))
    return failure.class_name in classes or any(base in classes for base in failure.bases)


def error_words(failure: TaskFailure) -> str:
    """Return ``ValueError: no such thing``: one plain line, of a worker's words."""
    name = plain(failure.class_name.rpartition(".")[2], 100)
    message = plain(failure.message.strip().partition("\n")[0], 200)
    return f"{name}: {message}" if message else name
