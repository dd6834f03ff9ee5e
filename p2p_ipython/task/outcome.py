"""What came back from a worker, as a value or as the exception to raise.

``decode`` unpickles: it is for workers of one's own, whose pickles are as good as the user's. What it does
with words alone (``raised``) trusts nobody, and is all that may be done with a result of somebody else's
worker.

An exception of the task is raised here as the same class, where that class is built in or can be imported,
with the remote traceback: as a notebook's own (``_render_traceback_``) in IPython, as its cause elsewhere.
"""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import contextlib
import functools
import re
import sys
from collections.abc import Mapping
from typing import Any

from p2p_ipython.errors import (
    NameMissing,
    RemoteError,
    RemoteProtocolError,
    ResultNotPicklable,
    TaskDied,
    TaskError,
)
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.task.payload import PayloadError, unpack

_MAX_TEXT = 1 << 18
_MAX_NAME = 500

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


def decode(header: Mapping[str, Any], inline: Buffer, large: Mapping[str, Buffer], *, worker: str = "") -> Any:
    """Return the task's value, or raise what the task raised (or a ``TaskError``).

    ``header`` is that of the result frame, ``inline`` its body, ``large`` its other segments by ref. Unpickles
    what the worker sent. Raises ``RemoteProtocolError`` for a result that makes no sense.
    """
    if header.get("ok") is True:
        return _unpacked(header, inline, large, worker)
    description = Description(header.get("error"), worker)
    raise raised(description, _exception(header, inline, large, description))


class Description:
    """An error in a worker's words, checked and cut to size. Raises ``RemoteProtocolError``."""

    def __init__(self, error: object, worker: str) -> None:
        if not isinstance(error, Mapping):
            raise RemoteProtocolError(
                f"{worker or 'a worker'} sent a failed task without its error", peer=worker, hint="Submit it again."
            )
        self.worker = worker
        self.kind = _text(error.get("kind"), _MAX_NAME)
        self.class_name = _text(error.get("class"), _MAX_NAME) or "unknown"
        self.message = _text(error.get("message"), _MAX_TEXT)
        self.traceback = _text(error.get("traceback"), _MAX_TEXT)
        self.missing = _text(error.get("name"), _MAX_NAME)
        bases = error.get("bases")
        self.bases = [_text(base, _MAX_NAME) for base in bases[:50]] if isinstance(bases, list) else []

    @property
    def where(self) -> str:
        return f"on {self.worker}" if self.worker else "on its worker"

    def __str__(self) -> str:
        short = self.class_name.removeprefix("builtins.")
        return f"{short}: {self.message}" if self.message else short


def raised(description: Description, original: BaseException | None = None) -> BaseException:
    """The exception that tells what happened; ``original`` is the task's own, if it is at hand and trusted."""
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
                hint="The package they belong to may have another version there.",
            )
        case "died":
            error = TaskDied(
                f"the task ended {d.where}: {d.message}",
                hint="It would do so again elsewhere, so it was not given to another worker.",
            )
        case "interrupted":
            error = TaskDied(f"the task was interrupted {d.where}", hint="Submit it again.")
        case _:
            error = original if original is not None and _may_be_raised(original) else _rebuilt(d)
    return with_remote_traceback(error, d.traceback)


def with_remote_traceback(error: BaseException, text: str) -> BaseException:
    """Make ``error`` show ``text``, a coloured traceback, as its own. Returns ``error``."""
    if not text:
        return error
    with contextlib.suppress(Exception):  # a class may refuse new attributes: it then shows as any other exception
        error.__cause__ = RemoteTraceback(_COLOUR.sub("", text))
        # A partial of a module's function: the exception can still be pickled.
        error._render_traceback_ = functools.partial(_lines, text)  # type: ignore[attr-defined]
    return error


def _lines(text: str) -> list[str]:
    return text.splitlines()


def _unpacked(header: Mapping[str, Any], inline: Buffer, large: Mapping[str, Buffer], worker: str) -> Any:
    try:
        return unpack(_segments(header), inline, large)
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
            hint="Its package may have another version on the worker; return plain data.",
        ) from error


def _exception(
    header: Mapping[str, Any], inline: Buffer, large: Mapping[str, Buffer], description: Description
) -> BaseException | None:
    if not header.get("segments") or description.kind != "exception":
        return None
    try:
        error = unpack(_segments(header), inline, large)
    except Exception:  # e.g. a class that isn't importable here, or whose __init__ takes more than a message
        return None
    return error if isinstance(error, BaseException) else None


def _segments(header: Mapping[str, Any]) -> list[Any]:
    segments = header.get("segments")
    if not isinstance(segments, list | tuple):
        raise PayloadError("it has no list of segments")
    return list(segments)


def _may_be_raised(error: BaseException) -> bool:
    """Whether raising it means here what it meant there: these end an iteration or a wait of the reader's."""
    control = (
        StopIteration,
        StopAsyncIteration,
        GeneratorExit,
        asyncio.CancelledError,
        concurrent.futures.CancelledError,
    )
    return not isinstance(error, control)


def _rebuilt(d: Description) -> BaseException:
    """The exception from its words: of its own class if that is loaded here, of a built-in base, or a stand-in."""
    for name in [d.class_name, *d.bases]:
        module, _, attribute = name.rpartition(".")
        own = name == d.class_name
        if not own and module != "builtins":
            continue
        cls = getattr(builtins if module == "builtins" else sys.modules.get(module), attribute, None)
        error = _instance(cls, d.message if own else str(d))
        if error is not None and _may_be_raised(error):
            return error
    return RemoteError(
        f"the task raised {d} {d.where}",
        class_name=d.class_name,
        hint="Its class can't be used here; the remote traceback says where it was raised.",
    )


def _instance(cls: object, message: str) -> BaseException | None:
    """An exception of ``cls`` that says ``message``; made around its ``__init__``, which may want anything."""
    if not (isinstance(cls, type) and issubclass(cls, BaseException)) or cls in (Exception, BaseException):
        return None
    try:
        error = cls.__new__(cls)
        error.args = (message,)
        return error if str(error) and repr(error) else None
    except Exception:
        return None


def _missing(d: Description) -> NameMissing:
    if d.missing:
        package = d.missing.partition(".")[0]
        return NameMissing(
            f"the task needs {d.missing!r}, which is not there {d.where}",
            hint=f"Install it where the worker runs (pip install {package}); a file beside the notebook is not sent.",
        )
    return NameMissing(
        f"the task needs something that is not there {d.where}: {d.message}",
        hint="The package may have another version there; a module beside your notebook is not sent.",
    )


def _text(value: object, limit: int) -> str:
    return _UNSAFE.sub("", value[:limit]) if isinstance(value, str) else ""
