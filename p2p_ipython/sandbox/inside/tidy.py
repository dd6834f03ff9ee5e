"""Put the runner's process back as it was before a task: nothing leaks into the next one.

What can't be put back (a module that a task imported or patched, memory it lost, a thread it left) stays, which
is why a runner serves one owner, and is replaced for another. For what a call can set, see process_state.py.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import builtins
import getpass
import os
import signal
import sys
import threading

# signal's own looks for the answer in an enum, which takes longer than the rest of ``restore``.
from _signal import getsignal  # type: ignore[import-not-found]
from operator import is_
from typing import TextIO

from p2p_ipython.sandbox import processes
from p2p_ipython.sandbox.inside.interrupts import Interrupts
from p2p_ipython.sandbox.inside.library_state import forget_helpers
from p2p_ipython.sandbox.inside.process_state import ProcessState
from p2p_ipython.sandbox.inside.threads import Left, left_by_task

_NEEDED = frozenset({"builtins", "sys", "os", "io", "signal", "codecs", "IPython", "p2p_ipython"})
"""Modules by whose loss nothing works any more as it should, and nothing needs to say so."""

_LAST = frozenset({"last_type", "last_value", "last_traceback", "last_exc"})
"""What ``sys`` keeps of the last exception that nobody caught."""


class Baseline:
    """The process as it is now; ``restore`` puts it back. Both in the main thread."""

    def __init__(self, streams: tuple[TextIO, TextIO], interrupts: Interrupts) -> None:
        self._streams = streams
        self._interrupts = interrupts
        self._handler = interrupts._on_signal
        self._folder = os.getcwd()
        self._environ = dict(os.environ)
        self._encoded = dict(_encoded_environ())
        self._variables = os.environ
        self._main = sys.modules["__main__"]
        self._threads = threading.active_count()
        builtins.input = no_input
        self._builtins = dict(builtins.__dict__)
        self._workers = [each for each in threading.enumerate() if each.name.startswith("p2p-")]
        self._modules = sys.modules
        self._own = {name: module for name, module in sys.modules.items() if name in _NEEDED}
        getpass.getpass = no_input
        self._streams_back()
        self._state = ProcessState()

    def restore_builtins(self) -> None:
        """Put back what each name of ``builtins`` meant. It needs none of these names itself."""
        builtins.__dict__.update(self._builtins)

    def restore(self) -> None:
        """Undo what a task did to the process, and end the processes it left. Quick when it did nothing.

        Raises ``RuntimeError`` when modules that the runner itself needs are other ones, or its threads have ended.
        """
        if sys.modules is not self._modules or not all(map(is_, map(sys.modules.get, self._own), self._own.values())):
            raise RuntimeError("modules that the runner needs are gone")
        if not all(each.is_alive() for each in self._workers):
            raise RuntimeError("threads that the runner needs have ended")
        if processes.has_children():
            forget_helpers()  # before, so that no thread of a pool writes to one that has ended
            processes.end_descendants()
            forget_helpers()
        self._streams_back()
        sys.modules["__main__"] = self._main
        if getsignal(signal.SIGINT) != self._handler:
            self._interrupts.install()
        if _folder_now() != self._folder:
            os.chdir(self._folder)
        os.environ = self._variables  # noqa: B003 - the same object
        if _encoded_environ() != self._encoded:
            os.environ.clear()
            os.environ.update(self._environ)
        self._state.restore()
        for name in _LAST:
            if name in vars(sys):
                delattr(sys, name)

    def threads_left(self) -> dict[int, Left]:
        """Return the threads that are amid the work of the task that has just ended, by identifier."""
        return left_by_task() if threading.active_count() > self._threads else {}

    def _streams_back(self) -> None:
        sys.stdout, sys.stderr = self._streams
        sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[misc,assignment]


def no_input(prompt: object = "", *_: object, **__: object) -> str:
    """Take the place of ``input``: nobody sits at a worker."""
    raise EOFError("input() can't ask anybody: this code runs on a worker. Give it the value as a variable instead.")


def _encoded_environ() -> dict[bytes, bytes]:
    """Return what ``os.environ`` holds. Comparing ``os.environ`` itself decodes each value, which takes longer."""
    return os.environ._data  # type: ignore[attr-defined,no-any-return]


def _folder_now() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return ""
