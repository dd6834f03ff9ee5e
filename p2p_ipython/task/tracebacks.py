"""Tracebacks of an error and of those that are shown with it: causes, contexts, and the errors of groups.

Frames of this package are taken out of each. A traceback with a group in it is formatted here, because IPython leaves
that to Python: in Python's layout, but with the names of cells that people know.

Standard library only: the runner imports this inside the sandbox.
"""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

_MAX_ERRORS = 1000
"""Errors of a tree that are looked at."""

_MAX_FRAMES = 40
"""Frames at each end of a traceback that are shown."""

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_SHELL = "interactiveshell.py"

Named = Callable[[str], tuple[str, str] | None]
"""How people know a file of code, as ``("Cell", "In[3]")``; None for a file."""


def tree_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and the errors that are shown with it, each once."""
    seen: set[int] = set()
    waiting = deque([error])
    while waiting and len(seen) < _MAX_ERRORS:
        each = waiting.popleft()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        below = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        waiting += [below] if below is not None else []
        waiting += each.exceptions[:_MAX_ERRORS] if isinstance(each, BaseExceptionGroup) else ()


def has_group(error: BaseException) -> bool:
    """Whether a group is among the errors that are shown."""
    return any(isinstance(each, BaseExceptionGroup) for each in tree_of(error))


def tidy(error: BaseException) -> None:
    """Take our frames out of the tracebacks of an error and of those that are shown with it, and cut long ones.

    IPython looks at each frame of them among all modules, and then shows few. It would take seconds.
    """
    for each in tree_of(error):
        frames = list(_frames(own_frames(each.__traceback__)))
        if len(frames) > 2 * _MAX_FRAMES:
            frames[_MAX_FRAMES - 1].tb_next = frames[-_MAX_FRAMES]
        set_traceback(each, frames[0] if frames else None)


def set_traceback(error: BaseException, trace: TracebackType | None) -> None:
    """Give an error another traceback. Its class may forbid that attributes are set, as a frozen dataclass does."""
    BaseException.__dict__["__traceback__"].__set__(error, trace)


def own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without our frames and without the shell's that executes a cell. Changes ``trace``."""
    kept: list[TracebackType] = []
    after_ours = True
    for each in _frames(trace):
        after_ours = _is_ours(each, after_ours)
        if not after_ours:
            kept.append(each)
    if kept and os.path.basename(kept[0].tb_frame.f_code.co_filename) == _SHELL:
        del kept[0]
    for each, following in zip(kept, (*kept[1:], None), strict=False):
        if each.tb_next is not following:
            each.tb_next = following
    return kept[0] if kept else None


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        following = trace.tb_next
        yield trace
        trace = following


def _is_ours(trace: TracebackType, after_ours: bool) -> bool:
    """Whether a frame is ours, or one of the library that pickles for us."""
    frame = trace.tb_frame
    pickles = after_ours and str(frame.f_globals.get("__name__")).partition(".")[0] == "cloudpickle"
    return pickles or frame.f_code.co_filename.startswith(_OURS)


def lines_with_groups(
    error: BaseException, named: Named, shown_as: Callable[[BaseException], list[str] | None] = lambda _: None
) -> list[str]:
    """Return the lines of a traceback as Python has them; ``shown_as`` returns those of an error that has its own."""
    top = traceback.TracebackException(type(error), error, error.__traceback__)
    waiting: list[tuple[Any, Any]] = [(top, error)]
    while waiting:
        shown, each = waiting.pop()
        if shown is None or each is None:
            continue
        if lines := shown_as(each):
            shown.stack = shown.exceptions = shown.__cause__ = shown.__context__ = None
            shown.format_exception_only = _Lines(lines)
            continue
        shown.stack = _Stack(shown.stack, named)
        waiting += (shown.__cause__, each.__cause__), (shown.__context__, each.__context__)
        waiting += zip(shown.exceptions or (), getattr(each, "exceptions", ()), strict=False)
    return "".join(top.format()).splitlines()


class _Lines:
    """Lines in the place of an error's class and words."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def __call__(self, **_: Any) -> list[str]:
        return [f"{line}\n" for line in self._lines]


class _Stack(traceback.StackSummary):
    """Frames of a traceback, by the names that people know."""

    def __init__(self, frames: traceback.StackSummary, named: Named) -> None:
        super().__init__(frames)
        self._named = named

    def format_frame_summary(self, frame_summary: traceback.FrameSummary, **keywords: Any) -> str:
        """Return a frame's lines."""
        head, _, below = super().format_frame_summary(frame_summary, **keywords).partition("\n")
        if name := self._named(frame_summary.filename):
            function = "" if frame_summary.name.startswith("<") else f", in {frame_summary.name}"
            head = f"  {' '.join(name)}, line {frame_summary.lineno}{function}"
        return f"{head}\n{below}"
