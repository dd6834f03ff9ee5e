"""Describe what went wrong in a task, whatever the task raised, in bounded text.

User exceptions may raise from ``__str__``, from ``__reduce__``, from anything. Describing one never fails.

The runner imports it inside the sandbox: standard library and IPython only.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable

from p2p_ipython.protocol.task_frames import TaskFailure
from p2p_ipython.task.loading import raised_in
from p2p_ipython.task.tracebacks import own_frames

Kind = str
"""exception, unpicklable, missing, interrupted or unloadable; see ``describe``."""

MAX_TEXT = 64 << 10
"""Longest text in a description, characters; JSON may make six bytes of one, and a header holds 1 MiB."""

_MAX_NAME = 500
_MAX_BASES = 50
_MAX_MISSING = 200


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


def _rendered(error: BaseException, render: Callable[[BaseException], str]) -> str:
    for way in (render, _plain):
        with contextlib.suppress(BaseException):
            return way(error)
    return f"{class_name(type(error))}: {text_of(error)}"


def _plain(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, own_frames(error.__traceback__)))
