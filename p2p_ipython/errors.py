"""Every error that this package raises on purpose; each has a hint at the user's next step.

::

    P2PError                      any error below; .hint says what to do next
    ├── UsageError                the caller made a mistake: in the call, the cell or the settings
    │   ├── NotConnected          a task was submitted before %p2p_connect
    │   ├── ClusterClosed         a task was submitted after close() or shutdown(), or in a fork; a RuntimeError
    │   ├── TaskForgotten         a task should run again, and its arguments are no longer kept
    │   ├── NotAdmitted           the owner of a shared cluster has not admitted us yet, or has removed us
    │   ├── CaptureError          a cell or a call can't be shipped; nothing was sent
    │   │   └── NotPicklable      one of its names can't be pickled; .name says which; a PicklingError
    │   ├── NotKept               a name's value, or a file, did not come with the task's result; a KeyError
    │   └── ConfigError           a setting or a file of settings is not usable; a ValueError
    ├── BoardError                the message board can't be used as asked
    │   ├── BoardUnreachable      nothing answers at the board's address
    │   ├── HostKeyUnknown        the board's host key has not been accepted yet
    │   ├── HostKeyChanged        the board's host key is not the one that was accepted
    │   ├── KeyRefused            the board did not accept our key
    │   ├── NoKey                 no SSH key to offer, or the agent is locked
    │   └── BoardRefused          the board answered a command with an error
    ├── LinkError                 a link between a client and a worker could not be made, or is gone
    │   ├── MailboxUnreachable    the wormhole mailbox server does not answer
    │   ├── RelayUnreachable      the transit relay does not answer
    │   ├── LinkTimeout           nobody came to the other end in time
    │   ├── WrongPeer             the other end is not the expected one, or speaks another version
    │   └── LinkLost              a link that was up is gone for good
    ├── ProtocolError             bytes that break the protocol
    │   ├── LocalProtocolError    this end broke it, or was about to: a bug of ours
    │   └── RemoteProtocolError   a peer broke it; .peer names that peer
    └── TaskError                 the task itself failed, not the machinery around it
        ├── RemoteError           the task raised a class that can't be imported here
        ├── TaskDied              the task ended its process (os._exit, a crash); a BrokenExecutor
        ├── TaskTimeout           the task ran for as long as its timeout, or its lender, lets it; a TimeoutError
        ├── ResultNotPicklable    the task ran; its value can't travel; a PicklingError
        ├── NotTrusted            the result has come, as a pickle of a worker that isn't trusted
        ├── PythonMismatch        the task needs another Python minor version
        ├── NameMissing           a module or a name isn't there on the worker
        ├── StoppedByLender       the lender has stopped the task by hand; it was given to nobody else
        ├── InputFailed           a future among its arguments failed; that one's error is the cause
        └── WorkerLost            its worker went away, after every attempt; a BrokenExecutor

The built-in class after a semicolon is a base, too: code that is written for the executors of the standard library
catches these errors as it catches theirs. In a process that has a cluster, the BrokenExecutor is a BrokenProcessPool.

A task that raises an exception whose class can be imported here raises that same class from
``result()``; it is not wrapped in a ``TaskError``.
"""

from __future__ import annotations

import pickle
import re
import sys
import traceback
from concurrent.futures import BrokenExecutor

_COMMAND = re.compile(r"(?<![%\w])p2p (host|invite|join|members|revoke|leave)\b")


class P2PError(Exception):
    """Base of all errors of this package.

    ``hint`` says in a sentence what the user does next. It is part of ``str(error)``.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        words = f"{self.message}\n{self.hint}" if self.hint else self.message
        return as_calls(words) if _in_marimo() else words

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows: message and hint. The frames of this package would not help."""
        first, *rest = in_notebook(str(self)).split("\n")
        return [f"\x1b[31m{type(self).__name__}\x1b[39m: {first}", *rest]

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.__dict__.copy()))


def in_notebook(words: str) -> str:
    """Return ``words`` with magics in place of those commands that have one: ``p2p join`` is ``%p2p_join``."""
    return _COMMAND.sub(r"%p2p_\1", words)


_CALLS = (
    (r"%p2p_connect, or p2p_ipython\.connect\(\)", "p2p_ipython.connect()"),
    (r"%p2p_connect ([\w.-]+[/:][\w.-]*\w)", r'p2p_ipython.connect("\1")'),
    (r"%p2p_connect", "p2p_ipython.connect()"),
    (r"%p2p_trust (\w+)", r'cluster.trust("\1")'),
    (r"%p2p_status", "print(cluster.status())"),
    (r"%p2p_disconnect", "cluster.close()"),
    (r"%p2p_(\w+)", r"p2p \1"),
)


def _in_marimo() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return "marimo" in sys.modules and shell() is None


def as_calls(words: str) -> str:
    """Return ``words`` with calls, or commands, in place of magics: marimo's notebooks have none."""
    for magic, call in _CALLS:
        words = re.sub(magic, call, words)
    return words


def _rebuild(cls: type[P2PError], message: str, state: dict[str, object]) -> P2PError:
    """Unpickle an error without its ``__init__``: a subclass may take more arguments than the message."""
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class UsageError(P2PError):
    """The caller made a mistake: in the call, the cell or the settings."""


class NotConnected(UsageError):
    """A task was submitted before ``%p2p_connect``."""


class ClusterClosed(UsageError, RuntimeError):
    """A task was submitted to a cluster that is closed, is shut down, or belongs to the process that was forked."""


class TaskForgotten(UsageError):
    """A task should run again that has been over for so long that its arguments are no longer kept."""


class NotAdmitted(UsageError):
    """The owner of a shared cluster has not admitted us yet, or has removed us from it."""


class CaptureError(UsageError):
    """A cell or a call can't be shipped. Nothing was sent."""


class NotPicklable(CaptureError, pickle.PicklingError):
    """A name that a cell uses can't be pickled; ``name`` says which. Nothing was sent."""

    def __init__(self, message: str, *, name: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name


class NotKept(UsageError, KeyError):
    """The value of a name that a task has bound, or a file that it has left, did not come with its result."""


class ConfigError(UsageError, ValueError):
    """A setting, or a file that holds settings, is not usable."""


class BoardError(P2PError):
    """The message board can't be used as asked."""


class BoardUnreachable(BoardError):
    """Nothing answers at the board's address."""


class HostKeyUnknown(BoardError):
    """The board shows a host key that nobody has accepted yet."""


class HostKeyChanged(BoardError):
    """The board shows another host key than the one that was accepted."""


class KeyRefused(BoardError):
    """The board did not accept our key."""


class NoKey(BoardError):
    """There is no SSH key to offer, it can't be read, or the agent is locked."""


class BoardRefused(BoardError):
    """The board answered a command with an error; its words are in the message."""


class LinkError(P2PError):
    """A link between a client and a worker could not be made, or is gone."""


class MailboxUnreachable(LinkError):
    """The wormhole mailbox server does not answer."""


class RelayUnreachable(LinkError):
    """The transit relay does not answer."""


class LinkTimeout(LinkError):
    """Nobody came to the other end in time."""


class WrongPeer(LinkError):
    """The other end could not prove to be the expected one, or speaks another version. Never tried again."""


class LinkLost(LinkError):
    """A link that was up is gone for good: the other end did not come back within the lease."""


class ProtocolError(P2PError):
    """Bytes that break the protocol."""


class LocalProtocolError(ProtocolError):
    """This end broke the protocol, or was about to: a bug of this package, please report it."""

    def _render_traceback_(self) -> list[str]:
        return traceback.format_exception(self)


class RemoteProtocolError(ProtocolError):
    """A peer broke the protocol; ``peer`` names it if it is known."""

    def __init__(self, message: str, *, peer: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.peer = peer


class TaskError(P2PError):
    """The task itself failed, not the machinery around it."""


class RemoteError(TaskError):
    """The task raised an exception of a class that can't be imported here; ``class_name`` names it."""

    def __init__(self, message: str, *, class_name: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.class_name = class_name


class TaskDied(TaskError, BrokenExecutor):
    """The task ended the process that ran it: ``os._exit``, a crash in compiled code, too much memory."""


class TaskTimeout(TaskError, TimeoutError):
    """The task was ended because its time was up: its own ``timeout``, or what its lender gives to each task."""


class ResultNotPicklable(TaskError, pickle.PicklingError):
    """The task ran to its end, but its value can't be pickled; its output is kept on the future."""


class NotTrusted(TaskError):
    """The result has come, as a pickle, and its worker is not trusted; reading a pickle runs what is in it.

    ``worker`` names the worker, ``type_name`` the type that could not travel as plain data ("" if it is not known).
    The result is kept: trust the worker and ask for the result again; the task does not run again.
    """

    def __init__(self, message: str, *, worker: str = "", type_name: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.worker = worker
        self.type_name = type_name


class PythonMismatch(TaskError):
    """The task holds pickled functions, which need the same Python minor version on both sides."""


class NameMissing(TaskError):
    """A module or a name that the task needs is not there on the worker."""


class NotInstalled(TaskError):
    """The packages that the task asked for could not be installed on its worker. It has not run."""


class StoppedByLender(TaskError):
    """The lender has stopped the task by hand. It was given to nobody else: that is for its owner to say."""


class InputFailed(TaskError):
    """A future among the task's arguments failed, so the task did not run; ``__cause__`` is that future's error."""


class WorkerLost(TaskError, BrokenExecutor):
    """The task's worker went away, and no attempt is left (or running it again was not allowed).

    ``maybe_ran``: it was to run once at most, and nobody knows whether it has.
    """

    def __init__(self, message: str, *, hint: str = "", maybe_ran: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.maybe_ran = maybe_ran


def as_of_pools() -> None:
    """Make the errors of a pool's end those of ``ProcessPoolExecutor``, too.

    Its module takes long to load, for a ``p2p --help`` and for a runner, so only a process with a cluster does this.
    """
    from concurrent.futures.process import BrokenProcessPool

    for kind in (TaskDied, WorkerLost):
        kind.__bases__ = (TaskError, BrokenProcessPool)
