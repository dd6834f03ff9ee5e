"""The states of a task for its client, what may become of it, and the actions of the client's machine.

Pure: values and a table. client_machine.py decides.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2p_ipython.errors import P2PError
    from p2p_ipython.protocol.identity import Certificate
    from p2p_ipython.protocol.messages import Message
    from p2p_ipython.protocol.task_frames import ClientFrame, Result


class TaskState(enum.Enum):
    """Where a task stands."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and is asked for ten times a task

    WAITING = "waiting"
    SENT = "sent"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: Mapping[TaskState, Mapping[str, frozenset[TaskState]]] = {
    TaskState.WAITING: {
        "room": frozenset({TaskState.SENT}),
        "cancel": frozenset({TaskState.CANCELLED}),
        "close": frozenset({TaskState.CANCELLED}),
        "hopeless": frozenset({TaskState.FAILED}),
    },
    TaskState.SENT: {
        "started": frozenset({TaskState.RUNNING}),
        "nack": frozenset({TaskState.WAITING}),
        "refused": frozenset({TaskState.WAITING}),
        "result": frozenset({TaskState.DONE, TaskState.FAILED}),
        "retry": frozenset({TaskState.WAITING}),
        "lost": frozenset({TaskState.WAITING, TaskState.FAILED}),
        "cancel": frozenset({TaskState.STOPPING}),
        "unsent": frozenset({TaskState.CANCELLED}),
        "close": frozenset({TaskState.CANCELLED}),
        "overdue": frozenset({TaskState.FAILED}),
        "hopeless": frozenset({TaskState.FAILED}),
    },
    TaskState.RUNNING: {
        "result": frozenset({TaskState.DONE, TaskState.FAILED}),
        "retry": frozenset({TaskState.WAITING}),
        "lost": frozenset({TaskState.WAITING, TaskState.FAILED}),
        "cancel": frozenset({TaskState.STOPPING}),
        "close": frozenset({TaskState.CANCELLED}),
        "overdue": frozenset({TaskState.FAILED}),
        "hopeless": frozenset({TaskState.FAILED}),
    },
    TaskState.STOPPING: {
        "stopped": frozenset({TaskState.CANCELLED}),
        "lost": frozenset({TaskState.CANCELLED}),
        "close": frozenset({TaskState.CANCELLED}),
        "overdue": frozenset({TaskState.CANCELLED}),
        "hopeless": frozenset({TaskState.CANCELLED}),
    },
}
"""What may become of a task: state → event → next states. Those that aren't here are over.

``room``: a worker has room for it. ``refused``: its lender's policy doesn't take it. ``lost``: its attempt came to
nothing and may have run; a nack that contradicts a ``started``, or that refuses this very task without a reason of
policy, counts as one. ``stopped``: the worker has said, by whatever ends an attempt, that it has ended. ``unsent``: it
was cancelled in the moment in which it was to be sent. ``overdue``: its worker hasn't said in time what it was to say
(patience.py). ``retry``: it has raised an error after which it may run again. ``close``: the client leaves.
``hopeless``: no worker can run it, or we are no member any more.
"""


ASKED = "its cancel() was called"
"""Why a task was cancelled, in words, unless the client has left."""


# --- actions ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """Post a message on the board."""

    message: Message


@dataclass(frozen=True)
class Meet:
    """Make a link to this worker; answer with ``link_up`` or ``meet_failed``."""

    worker: Certificate


@dataclass(frozen=True)
class Send:
    """Send the task to the worker, with those of its large buffers that the worker doesn't have."""

    sid: bytes
    task: str
    attempt: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class SendBuffers:
    """Send buffers of a task that the worker turned out not to have."""

    sid: bytes
    task: str
    refs: tuple[str, ...]


@dataclass(frozen=True)
class Tell:
    """Send the worker a frame without a body."""

    sid: bytes
    frame: ClientFrame


@dataclass(frozen=True)
class Settle:
    """The task is over: with the result that has come, with ``error``, or (neither) cancelled; ``why`` says by what.

    ``why`` is "" if the client leaves.
    """

    task: str
    result: Result | None = None
    error: P2PError | None = None
    why: str = ""


@dataclass(frozen=True)
class Note:
    """The task has entered a state; ``detail`` is for people. ``retry`` says why it runs again after an error."""

    task: str
    state: TaskState
    detail: str = ""
    retry: str = ""


@dataclass(frozen=True)
class Changed:
    """The state of a worker has changed, or it is gone; for people."""

    sid: bytes


Action = Say | Meet | Send | SendBuffers | Tell | Settle | Note | Changed
