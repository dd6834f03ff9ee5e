"""Outcomes: what came back from a worker, as a value or as the exception to raise.

``decode`` unpickles what a trusted worker sent: one of the user's own, or of a member whose pickles they trust. From
all others it takes plain data (task/safe) and words. Nothing that these send is unpickled, imported or looked up among
the classes that are loaded here.

An exception of the task is raised here as the same class, where that class is built in or (of trusted workers)
can be imported, with the remote traceback: as a notebook's own (``_render_traceback_``) in IPython, as its
cause elsewhere.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import re
import sys
from collections.abc import Mapping
from typing import Any

from p2p_ipython.errors import (
    NameMissing,
    NotInstalled,
    NotTrusted,
    P2PError,
    RemoteError,
    RemoteProtocolError,
    ResultNotPicklable,
    StoppedByLender,
    TaskDied,
    TaskError,
    TaskTimeout,
)
from p2p_ipython.protocol.frames import Buffer, Header
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.task_frames import Result, TaskFailure
from p2p_ipython.task import error_facts, safe
from p2p_ipython.task.error_facts import built_in
from p2p_ipython.task.loading import advice, advice_on_name, raised_in
from p2p_ipython.task.objects import chain_of
from p2p_ipython.task.payload import PayloadError, unpack
from p2p_ipython.task.tracebacks import set_traceback

_MAX_TEXT = 1 << 18
_MAX_NAME = 500
_MAX_FACTS = 16 << 20
"""Bytes of memory that what an error consists of may take."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_UNSAFE = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")
"""Escape sequences other than colours could move a terminal's cursor or change its title."""


class RemoteTraceback(Exception):
    """The cause of an exception that a task raised: what Python printed where it happened."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


def decode(
    result: Result | Header,
    inline: Buffer,
    large: Mapping[str, Buffer],
    *,
    worker: str = "",
    trusted: bool,
) -> Any:
    """Return the task's value, or raise what the task raised (or a ``TaskError``).

    ``result`` is its frame, or the header of one as a worker has written it, which may leave out whose it is.
    ``inline`` is the frame's body, ``large`` its other segments by ref. ``trusted``: what ``worker`` has pickled may be
    unpickled.

    Raises ``NotTrusted`` for a pickled value of one that isn't, ``RemoteProtocolError`` for a result that is nonsense.
    """
    if not isinstance(result, Result):
        result = Result.read({"id": "task", "attempt": 1, "segments": [], **result})
    if result.failure is None:
        match result.codec or "pickle":
            case "safe":
                budget = sys.maxsize if trusted else None
                return safe.decode(result.segments, inline, large, worker=worker, budget=budget)
            case "pickle" if trusted:
                return _unpacked(result, inline, large, worker)
            case "pickle":
                raise _not_trusted(result, worker)
        raise RemoteProtocolError(
            f"{worker or 'a worker'} sent a result of an unknown kind",
            peer=worker,
            hint="It may have another version of p2p_ipython there.",
        )
    description = Description(result.failure, worker, trusted=trusted)
    if result.codec == "safe":
        raise raised(description, facts=_facts(result, inline, large))
    raise raised(description, _exception(result, inline, large, description) if trusted else None)


class Description:
    """An error in a worker's words, cut to size and without what could move a terminal's cursor."""

    def __init__(self, failure: TaskFailure, worker: str, *, trusted: bool) -> None:
        self.worker = worker
        self.trusted = trusted
        self.kind = _text(failure.what, _MAX_NAME)
        self.class_name = _text(failure.class_name, _MAX_NAME) or "unknown"
        self.message = _text(failure.message, _MAX_TEXT)
        self.traceback = _text(failure.traceback, _MAX_TEXT)
        self.missing = _text(failure.missing, _MAX_NAME)
        self.bases = [_text(base, _MAX_NAME) for base in failure.bases[:50]]

    @property
    def where(self) -> str:
        return f"on {self.worker}" if self.worker else "on its worker"

    def __str__(self) -> str:
        short = self.class_name.removeprefix("builtins.")
        return f"{short}: {self.message}" if self.message else short


def raised(description: Description, original: BaseException | None = None, facts: object = None) -> BaseException:
    """Return the exception that tells what happened.

    ``original`` is the task's own, if it is at hand and trusted; ``facts`` are what it consists of (error_facts.py).
    """
    d = description
    error: BaseException
    match d.kind:
        case "unpicklable":
            error = ResultNotPicklable(
                f"the task ran {d.where}, but {d.message or 'its value can not be pickled'}",
                hint="End the cell with what you need of it, as plain data, or with `;` for no value at all.",
            )
        case "missing":
            error = _missing(d)
        case "unloadable":
            error = TaskError(
                f"the task's values could not be loaded {d.where}: {d}",
                hint=advice(d.class_name, d.missing, "there", named=d.trusted),
            )
        case "died":
            error = TaskDied(
                f"the task ended {d.where}: {d.message}",
                hint="It would do so again elsewhere, so it was not given to another worker.",
            )
        case "timeout":
            error = TaskTimeout(
                f"the task was ended {d.where}: {d.message}",
                hint="Give it a longer timeout, or less to do: several smaller tasks.",
            )
        case "task_time":
            error = TaskTimeout(
                f"the task was ended {d.where}: {d.message}",
                hint="Give it less to do: several smaller tasks. Or ask the lender for more time.",
            )
        case "stopped":
            error = StoppedByLender(
                f"the lender has stopped the task {d.where}, by hand",
                hint="It may have done part of its work, so it was given to nobody else."
                " future.again() submits it again.",
            )
        case "packages":
            error = NotInstalled(
                f"packages of the task could not be installed {d.where}: {d.message}",
                hint="The task has not run. Ask for other versions, or for packages that have wheels.",
            )
        case "interrupted":
            error = TaskDied(f"the task was interrupted {d.where}", hint="Submit it again.")
        case _:
            error = original if original is not None and may_be_raised(original) else _rebuilt(d, facts)
    return with_remote_traceback(error, d.traceback)


def with_remote_traceback(error: BaseException, text: str) -> BaseException:
    """Make ``error`` show ``text``, a coloured traceback, as its own. Returns ``error``."""
    if not text:
        return error
    with contextlib.suppress(Exception):  # a class may refuse new attributes: it then shows as any other exception
        *_, last = error, *chain_of(error)
        last.__cause__ = RemoteTraceback(_COLOUR.sub("", text))
        # A partial of a module's function: the exception can still be pickled.
        error._render_traceback_ = functools.partial(_lines, text)  # type: ignore[attr-defined]
    return error


def with_hint(error: BaseException, hint: str) -> BaseException:
    """Have ``error`` say what to do, wherever it is shown. Returns ``error``."""
    with contextlib.suppress(Exception):  # as above
        error.add_note(hint)
        if (text := _remote_text(error)) is not None:
            error._render_traceback_ = functools.partial(_lines, f"{text}\n{hint}")  # type: ignore[attr-defined]
    return error


def without_way(error: BaseException) -> BaseException:
    """Drop the frames of ours in which a task's error was made here. Returns ``error``."""
    if _remote_text(error) is not None:
        set_traceback(error, None)
    return error


def _remote_text(error: BaseException) -> str | None:
    """Return the coloured traceback that ``error`` shows, if it has a task's."""
    shown = getattr(error, "_render_traceback_", None)
    return str(shown.args[0]) if isinstance(shown, functools.partial) and shown.func is _lines else None


def _lines(text: str) -> list[str]:
    return text.splitlines()


def _unpacked(result: Result, inline: Buffer, large: Mapping[str, Buffer], worker: str) -> Any:
    try:
        return unpack(result.segments, inline, large)
    except PayloadError as error:
        raise RemoteProtocolError(
            f"{worker or 'a worker'} sent a result that makes no sense: {error}", peer=worker, hint="Submit it again."
        ) from None
    except ImportError as error:
        raise NameMissing(
            f"the result needs the module {error.name!r}, which is not installed here",
            hint=f"Install it here (pip install {(error.name or '').partition('.')[0]}), or return plain data.",
        ) from error
    except Exception as error:
        raise ResultNotPicklable(
            f"the result came, but can't be unpickled here: {type(error).__name__}: {error}",
            hint=advice(type(error).__name__, raised_in(error), "here"),
        ) from error


def _exception(
    result: Result, inline: Buffer, large: Mapping[str, Buffer], description: Description
) -> BaseException | None:
    if not result.segments or description.kind != "exception":
        return None
    try:
        error = unpack(result.segments, inline, large)
    except Exception:  # e.g. a class that isn't importable here, or whose __init__ takes more than a message
        return None
    return error if isinstance(error, BaseException) else None


def _facts(result: Result, inline: Buffer, large: Mapping[str, Buffer]) -> object:
    """Return what a failure says beside its words; None if that can't be read: the words will do."""
    if not result.segments:
        return None
    try:
        return safe.decode(result.segments, inline, large, budget=_MAX_FACTS)
    except (P2PError, ValueError):
        return None


def _not_trusted(result: Result, worker: str) -> NotTrusted:
    kind, at = plain(result.type_name, 200), plain(result.at, 200)
    name = plain(worker, 100)
    what = f"{kind or 'an object'}{f' at {at}' if at else ''}"
    return NotTrusted(
        f"the result of {name or 'that worker'} is here, but has {what}, which travels as a pickle: "
        "reading it would run whatever code is in it",
        worker=worker,
        type_name=kind,
        hint=f"If you trust {name or 'it'}: %p2p_trust {name or 'NAME'}, then ask for the result again; nothing runs "
        "again. Or let the task return plain data: numbers, text, lists, dicts, arrays, frames.",
    )


def may_be_raised(error: BaseException) -> bool:
    """Whether the error means here what it meant there: these end an iteration or a wait of the reader's."""
    control = (
        StopIteration,
        StopAsyncIteration,
        GeneratorExit,
        asyncio.CancelledError,
        concurrent.futures.CancelledError,
    )
    return not isinstance(error, control)


def _rebuilt(d: Description, facts: object = None) -> BaseException:
    """Make the exception from its words: of its own class if that is loaded here, of a built-in base, or a stand-in.

    In the words of a worker that isn't trusted only built-in classes count, and of them only errors: SystemExit would
    end the reader's program. A stand-in has the attributes.
    """
    for name in [d.class_name, *d.bases]:
        module, _, attribute = name.rpartition(".")
        own = name == d.class_name
        if module != "builtins" and not (own and d.trusted):
            continue
        cls = built_in(attribute) if module == "builtins" else getattr(sys.modules.get(module), attribute, None)
        error = _instance(cls, d, facts) if own or cls not in (Exception, BaseException) else None
        if error is not None and may_be_raised(error) and (d.trusted or isinstance(error, Exception)):
            return error
    stand_in = RemoteError(
        f"the task raised {d} {d.where}",
        class_name=d.class_name,
        hint="Its class can't be used here; the remote traceback says where it was raised.",
    )
    error_facts.set_attributes(stand_in, facts)
    return stand_in


def _instance(cls: object, d: Description, facts: object) -> BaseException | None:
    """Make an exception of ``cls``: of its facts if it is built in, or of its words, without its ``__init__``."""
    if not (isinstance(cls, type) and issubclass(cls, BaseException)):
        return None
    own = f"{cls.__module__}.{cls.__qualname__}" == d.class_name
    if not own:
        return error_facts.with_words(cls, str(d), facts)
    if cls.__module__ == "builtins":
        found = facts if facts is not None else error_facts.facts_in(cls, d.message)
        if (error := error_facts.with_facts(cls, found)) is not None:
            return error
    try:
        error = cls.__new__(cls)
        error.args = (d.message,) if d.message else ()
        if isinstance(error, SyntaxError):
            error.msg = error.args[0] if error.args else ""
        return error if (str(error) or not error.args) and repr(error) else None
    except Exception:
        return None


def _missing(d: Description) -> NameMissing:
    if d.missing and not d.trusted:  # a name to install that a stranger has chosen is no hint
        return NameMissing(
            f"the task needs {d.missing!r}, which is not there {d.where}",
            hint="Ask its owner whether it may be installed there, or do without it; a file beside the notebook is not "
            "sent.",
        )
    if d.missing:
        package = d.missing.partition(".")[0]
        return NameMissing(
            f"the task needs {d.missing!r}, which is not there {d.where}",
            hint=f"Install it where the worker runs (pip install {package}); a file beside the notebook is not sent.",
        )
    return NameMissing(
        f"the task needs something that is not there {d.where}: {d.message}",
        hint=advice_on_name(d.message, "there"),
    )


def _text(value: str, limit: int) -> str:
    return _UNSAFE.sub("", value[:limit])
