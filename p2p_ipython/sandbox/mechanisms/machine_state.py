"""Saved states of virtual machines: up, and before any member's data was in them. Starting from one takes no boot.

A state is a file beside the machine's disk, which its owner alone may read. QEMU writes it, by its control protocol
(QMP), when a machine is stopped; another QEMU reads it. It fits machines of one shape, on one processor and system, as
its name says. It is complete when it has its name.

Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from p2p_ipython.private_files import Lock

KEPT = 4
"""States of a disk that are kept: of shapes that were asked for last."""

PREFIX = "state-"
_BANDWIDTH = 1 << 40
_PATIENCE = 60.0
_OTHERS = 240.0
"""Seconds that another process may take to make a state."""

_LOOK = 0.01
_LONGEST = 1 << 20


class State:
    """The state of one name. ``save`` is called with the descriptor to write to; returns whether that went well."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextlib.contextmanager
    def opened(self, save: Callable[[int], bool]) -> Iterator[int | None]:
        """Open the state, which is made if there is none; None if it can't be. Raises ``OSError``."""
        descriptor = self._open()
        if descriptor is None:
            # Another process may be making it just now: its end is worth waiting for.
            lock = Lock.acquire(self._file.with_name("state.lock"), wait=_OTHERS)
            if lock is not None:
                with lock:
                    if not self._file.exists():
                        self._make(save)
            descriptor = self._open()
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def remove(self) -> None:
        """Remove a state that is of no use."""
        self._file.unlink(missing_ok=True)

    def _open(self) -> int | None:
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with contextlib.suppress(OSError):
                os.utime(self._file)
            return descriptor
        return None

    def _make(self, save: Callable[[int], bool]) -> None:
        new = self._file.with_name(f".{self._file.name}.new")
        new.unlink(missing_ok=True)
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                saved = save(descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if saved:
                os.replace(new, self._file)
                self._remove_oldest()
        except OSError as error:  # the disk is full, say: machines start without
            os.write(2, f"p2p: the machine's state can't be kept: {error}\n".encode())
        finally:
            new.unlink(missing_ok=True)

    def _remove_oldest(self) -> None:
        states = sorted(self._file.parent.glob(f"{PREFIX}*"), key=lambda each: each.stat().st_mtime)
        for state in states[:-KEPT]:
            state.unlink(missing_ok=True)


def save(control: socket.socket, target: int) -> bool:
    """Stop a machine, and have its state written to ``target``; return whether it was. Raises ``OSError``."""
    control.settimeout(_PATIENCE)
    answers = _answers(control)
    next(answers)  # QEMU's greeting

    def ask(what: str, pass_on: int | None = None, **arguments: Any) -> dict[str, Any]:
        told = json.dumps({"execute": what, "arguments": arguments}).encode() + b"\n"
        if pass_on is None:
            control.sendall(told)
        else:
            socket.send_fds(control, [told], [pass_on])
        answer = next(each for each in answers if "return" in each or "error" in each)
        if "error" in answer:
            raise OSError(f"{what}: {answer['error'].get('desc')}")
        found = answer["return"]
        return found if isinstance(found, dict) else {}

    ask("qmp_capabilities")
    ask("migrate-set-parameters", **{"max-bandwidth": _BANDWIDTH})
    ask("getfd", target, fdname="state")
    ask("migrate", uri="fd:state")
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        status = ask("query-migrate").get("status")
        if status in ("completed", "failed", "cancelled"):
            return bool(status == "completed")
        time.sleep(_LOOK)
    return False


def _answers(control: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield what QEMU says, events too. Raises ``OSError`` at its end."""
    rest = b""
    while True:
        while b"\n" in rest:
            line, _, rest = rest.partition(b"\n")
            yield json.loads(line)
        piece = control.recv(1 << 16)
        if not piece or len(rest) > _LONGEST:
            raise OSError("QEMU has ended")
        rest += piece
