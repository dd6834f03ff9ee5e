"""Describe what went wrong in a task, whatever the task raised, in bounded text.

User exceptions may raise from ``__str__``, from ``__reduce__``, from anything. Describing one never fails.

The runner imports it inside the sandbox: standard library and IPython only.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable
from types import TracebackType

from p2p_ipython.protocol.task_frames import TaskFailure
from p2p_ipython.task.loading import raised_in

Kind = str
"""exception, unpicklable, missing, interrupted or unloadable; see ``describe``."""

MAX_TEXT = 64 << 10
"""Longest text in a description, characters; JSON may make six bytes of one, and a header holds 1 MiB."""

_MAX_NAME = 500
_MAX_BASES = 50
_MAX_MISSING = 200
_MAX_FRAMES = 40
"""Frames at each end of a traceback that are shown."""

_MAX_CHAIN = 20
_OURS = os.path.dirname(os.path.abspath(__file__))
_PICKLING = os.path.join(os.path.dirname(os.path.dirname(_OURS)), "task")


def describe(error: BaseException, kind: Kind, render: Callable[[BaseException], str], note: str = "") -> TaskFailure:
    """Return what a result says of an error.

    ``kind`` is "exception" (the task raised it), "interrupted" (it was cancelled), "unpicklable" (its value
    can't travel), "missing" (its payload names a module or a name that isn't here) or "unloadable" (its
    payload can't be loaded for another reason). The name said is that of the module that isn't here, or of the one
    whose code raised the error while it was loaded. ``render`` makes the traceback's text. ``note`` is said after its
    end.
    """
    missing = getattr(error, "name", None) if kind == "missing" and isinstance(error, ImportError) else None
    if kind == "unloadable":
        missing = raised_in(error)
    below = f"\n{note}" if note else ""
    return TaskFailure(
        kind,
        class_name(type(error)),
        tuple(class_name(base) for base in type(error).__mro__[:_MAX_BASES]),
        shortened(text_of(error)) + below,
        shortened(_rendered(error, render)) + below,
        str(missing or "")[:_MAX_MISSING],
    )


def class_name(cls: type) -> str:
    """``package.module.Class``, for any class at all."""
    try:
        return f"{cls.__module__}.{cls.__qualname__}"[:_MAX_NAME]
    except Exception:  # a metaclass may do anything
        return str(type.__getattribute__(cls, "__name__"))[:_MAX_NAME]


def text_of(error: BaseException) -> str:
    """``str(error)``, or something in its place."""
    try:
        return str(error)
    except BaseException as another:
        return f"<its __str__ raised {class_name(type(another))}>"


def shortened(text: str) -> str:
    """At most ``MAX_TEXT`` characters of ``text``: its beginning and its end."""
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2 - 50
    return f"{text[:half]}\n… {len(text) - 2 * half} characters are left out …\n{text[-half:]}"


def own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without our frames, at its beginning and, when we raised the error for the task, at its end.

    Cuts the end off ``trace`` itself.
    """
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    last = each = trace
    while each is not None:
        if not _is_ours(each):
            last = each
        each = each.tb_next
    if last is not None:
        last.tb_next = None
    return trace


def cut_middle(error: BaseException) -> None:
    """Cut the middle out of long tracebacks of an error and of those that it comes from.

    IPython looks at each frame of them among all modules, and then shows few. It would take seconds.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen and len(seen) < _MAX_CHAIN:
        seen.add(id(each))
        frames = []
        trace = each.__traceback__
        while trace is not None:
            frames.append(trace)
            trace = trace.tb_next
        if len(frames) > 2 * _MAX_FRAMES:
            frames[_MAX_FRAMES - 1].tb_next = frames[-_MAX_FRAMES]
        each = each.__cause__ or each.__context__


def _is_ours(trace: TracebackType) -> bool:
    frame = trace.tb_frame
    if os.path.dirname(frame.f_code.co_filename) in (_OURS, _PICKLING):
        return True
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "cloudpickle"


def _rendered(error: BaseException, render: Callable[[BaseException], str]) -> str:
    for way in (render, _plain):
        with contextlib.suppress(BaseException):
            return way(error)
    return f"{class_name(type(error))}: {text_of(error)}"


def _plain(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, own_frames(error.__traceback__)))
