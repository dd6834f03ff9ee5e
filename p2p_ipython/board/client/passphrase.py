"""Asking this process's user for the passphrase of a key: on its terminal, or in its notebook.

Blocks, in a thread that isn't the event loop's. A question ends with its answer, after ``ANSWER_WITHIN``, or when who
asked has gone (``stop``), and the terminal echoes again whatever ended it. ``keys.py`` asks once for each key, at
most three times, and keeps what it opened.
"""

from __future__ import annotations

import getpass
import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from p2p_ipython.errors import NoKey

log = logging.getLogger(__name__)

ANSWER_WITHIN = 120.0
"""How long the user may take, s."""
LOOK_EVERY = 0.1
MAX_PASSPHRASE = 4096

Ask = Callable[[str, threading.Event], str | None]
"""Shows a text, and returns what was typed; None when nothing was before ``stop`` was set or time was up."""


_unattended: ContextVar[bool] = ContextVar("unattended", default=False)


@contextmanager
def unattended() -> Iterator[None]:
    """Nobody is asked for what is begun in here: it was wanted where no answer can be typed.

    That holds for what the loop does because of it, too, and for nothing else that goes on at the same time.
    """
    before = _unattended.set(True)
    try:
        yield
    finally:
        _unattended.reset(before)


def user_prompt(stop: threading.Event) -> Callable[[Path], str] | None:
    """Return what asks this process's user for a passphrase; None if nobody could answer."""
    if _unattended.get():
        return None
    kernel = _kernel()
    if kernel is not None:
        # Not its terminal, if it has one: that is where somebody started the notebook's server.
        return _Prompt(_of_kernel(kernel), stop) if getattr(kernel, "_allow_stdin", False) else None
    if not _has_terminal():
        return None
    return _Prompt(_ask_on_terminal if os.name == "posix" else _ask_on_console, stop)


class _Prompt:
    """Asks for the passphrase of a file. Raises ``NoKey`` when none is given."""

    def __init__(self, ask: Ask, stop: threading.Event) -> None:
        self._ask = ask
        self._stop = stop
        self._asked: set[Path] = set()

    def __call__(self, path: Path) -> str:
        again = "That is not it. " if path in self._asked else ""
        self._asked.add(path)
        typed = self._ask(f"{again}Passphrase of {path}: ", self._stop)
        if not typed:
            raise NoKey(
                f"no passphrase was given for {path}",
                hint=f"Try again, or give the key to the agent: `ssh-add {path}`.",
            )
        return typed


def _kernel() -> Any:
    """Return the Jupyter kernel that this process is, or None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None)


def _of_kernel(kernel: Any) -> Ask:
    def ask(text: str, stop: threading.Event) -> str | None:
        answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def wait() -> None:
            try:
                answers.put(kernel.getpass(text))
            except (NotImplementedError, EOFError) as error:
                log.info("the notebook can't be asked: %s", type(error).__name__)
                answers.put(None)

        # The kernel's question can't be called back. Once nobody waits for it, its thread stays until it is answered.
        threading.Thread(target=wait, name="p2p-passphrase", daemon=True).start()
        deadline = time.monotonic() + ANSWER_WITHIN
        while not stop.is_set() and time.monotonic() < deadline:
            try:
                return answers.get(timeout=LOOK_EVERY)
            except queue.Empty:
                continue
        return None

    return ask


def _has_terminal() -> bool:
    """Whether somebody sits there: in the background, a process that asks its terminal is stopped."""
    try:
        if sys.stdin is None or not sys.stdin.isatty():
            return False
        return os.name != "posix" or os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


def _ask_on_console(text: str, stop: threading.Event) -> str | None:
    return getpass.getpass(text)


def _ask_on_terminal(text: str, stop: threading.Event) -> str | None:
    """Ask without an echo. ``getpass`` would wait for ever, and leave the echo off when it is abandoned."""
    import termios  # there is none on Windows

    terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    try:
        before = termios.tcgetattr(terminal)
        silent = before[:]
        silent[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        try:
            os.write(terminal, text.encode())
            typed = _line(terminal, stop)
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
            os.write(terminal, b"\n")
    except (OSError, termios.error) as error:
        log.info("the terminal can't be asked: %s", error)
        return None
    finally:
        os.close(terminal)
    return None if typed is None else typed.decode("utf-8", "surrogateescape")


def _line(terminal: int, stop: threading.Event) -> bytes | None:
    deadline = time.monotonic() + ANSWER_WITHIN
    while not stop.is_set() and time.monotonic() < deadline:
        if select.select([terminal], [], [], LOOK_EVERY)[0]:
            return os.read(terminal, MAX_PASSPHRASE).rstrip(b"\r\n")  # a terminal gives a line at a time
    return None
