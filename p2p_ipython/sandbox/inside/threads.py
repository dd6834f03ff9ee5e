"""Threads that outlive a task: which of them are amid the task's own work, and which are a library's that waits.

What the first kind prints later belongs to a task that is over. A library's thread (a pool's, an event loop's, the
one that IPython keeps for ``%%bash``) stays for whoever has work for it, and then prints for the task that runs. The
stack tells them apart: the task's code is on it, or nothing but ``threading`` is, as with a timer.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import sys
import threading
import weakref
from types import CodeType, FrameType
from typing import NamedTuple


class Left(NamedTuple):
    """A thread that is amid a task's work at the task's end. ``code``: what of the task it runs, outermost.

    ``counts``: whether its user should hear of it. Daemon threads are libraries' as a rule, and end by themselves.
    """

    thread: weakref.ref[threading.Thread]
    code: CodeType
    counts: bool

    def still_calls(self, frame: FrameType | None) -> bool:
        """Whether ``frame``, of the calling thread, belongs to that very work."""
        if self.thread() is not threading.current_thread():
            return False  # it has ended, and another one has its identifier
        while frame is not None and frame.f_code is not self.code:
            frame = frame.f_back
        return frame is not None


def left_by_task() -> dict[int, Left]:
    """Return the threads that are amid a task's work now, by identifier. Call it in the main thread, between tasks."""
    frames, main = sys._current_frames(), threading.main_thread()
    left = {}
    for thread in threading.enumerate():
        if thread is not main and thread.ident is not None and not thread.name.startswith("p2p-"):
            code = _work_of_task(frames.get(thread.ident))
            if code is not None:
                left[thread.ident] = Left(weakref.ref(thread), code, not thread.daemon)
    return left


def _work_of_task(frame: FrameType | None) -> CodeType | None:
    """Return the outermost code of a task on a stack; None for a library's thread that runs none."""
    work = outermost = None
    library = False
    while frame is not None:
        module, outermost = frame.f_globals.get("__name__"), frame.f_code
        if module == "__main__":
            work = outermost
        elif module != "threading":
            library = True
        frame = frame.f_back
    return work or (None if library else outermost)
