"""One QEMU, from its start to its end, and what the machine in it says on its port for orders.

Outside the machine; used by its guard, and to try a new disk out. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import socket
import stat
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2p_ipython.sandbox import processes
from p2p_ipython.sandbox.mechanisms import machine_state
from p2p_ipython.sandbox.mechanisms.machine_command import KVM, PROGRAM, Shape, command
from p2p_ipython.sandbox.scratch import in_memory

_ANSWER = 60.0
"""Seconds that a machine which is up may take to answer."""

_ENTROPY = 64
_LONGEST = 64 << 10
_LAST_WORDS = 2048
_NEW_MOUNTS, _BIND, _PRIVATE, _NOSUID, _NOEXEC = 0x20000, 4096, 0x44000, 2, 8
_NO_NEW_PRIVILEGES = 38


class DoesNotStart(Exception):
    """A machine that isn't up in time; its words are the last ones of its kernel's, or of QEMU's."""

    def __str__(self) -> str:
        return f"it is not up in time, or not at all. {super().__str__()}"


@dataclass(frozen=True)
class Plan:
    """What machines are made of. ``folder``: of the disk. ``user``: that QEMU is to be, and its group; None for us."""

    folder: Path
    shape: Shape
    user: int | None

    def state(self) -> machine_state.State:
        """Return the state of such machines. Raises ``OSError`` if QEMU isn't there."""
        program = shutil.which(PROGRAM)
        if program is None:
            raise OSError(f"{PROGRAM} is not installed")
        found = os.stat(program)
        key = self.shape.key(f"{program} {found.st_size} {found.st_mtime_ns}")
        return machine_state.State(self.folder / f"{machine_state.PREFIX}{key}")


class Machine:
    """One QEMU, from its start to its end."""

    def __init__(
        self,
        plan: Plan,
        frames: tuple[int, int],
        accounts: int,
        saved: int | None = None,
        *,
        controlled: bool = False,
    ) -> None:
        self._close = contextlib.ExitStack()
        self._rest = b""
        self._words = bytearray()
        self.control: socket.socket | None = None
        try:
            files = {name: self._copied(plan.folder / name) for name in ("kernel", "initrd")}
            files["disk"] = os.open(plan.folder / "disk", os.O_RDONLY)
            self._close.callback(os.close, files["disk"])
            sockets = {"accounts": accounts}
            self._orders, sockets["orders"] = self._pair()
            self._console, sockets["console"] = self._pair()
            if controlled:
                self.control, sockets["control"] = self._pair()
            inherited = [*files.values(), *sockets.values(), *([] if saved is None else [saved])]
            parent = os.getpid()
            user: dict[str, Any] = {}
            if plan.user is not None:
                user = {"user": plan.user, "group": plan.user, "extra_groups": []}
            self._process = subprocess.Popen(
                command(plan.shape, files, sockets, saved),
                stdin=frames[0],
                stdout=frames[1],
                stderr=sockets["console"],
                pass_fds=inherited,
                env={"PATH": os.environ.get("PATH", os.defpath)},
                cwd="/",
                preexec_fn=lambda: _restrict(parent),  # noqa: PLW1509 - the other thread only waits
                **user,
            )
            self._close.callback(self.end)
            for name in ("orders", "console", "control"):
                if name in sockets:
                    os.close(sockets[name])
            threading.Thread(target=self._listen, daemon=True).start()
        except BaseException:
            self._close.close()
            raise

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    def takes(self, order: dict[str, Any]) -> bool:
        """Give the machine its order, and wait until it says so; return whether it does."""
        told = order | {"time": time.time(), "entropy": secrets.token_hex(_ENTROPY)}
        with contextlib.suppress(OSError):
            self._orders.sendall(json.dumps(told).encode() + b"\n")
            begun = self.says("begun", _ANSWER)
            # The port for frames is open now, which QEMU's loop may not have noticed: it waits until something comes in
            # at another one. Without this a task's frame can lie in the pipe until then.
            self._orders.sendall(b"\n")
            return begun
        return False

    def says(self, what: str, within: float) -> bool:
        """Wait until the machine says something; return whether it does."""
        said = self.said(within)
        return said is not None and what in said

    def said(self, within: float | None) -> dict[str, Any] | None:
        """Return the next thing that the machine says; None if it ends, or says nothing in time, or nonsense."""
        until = None if within is None else time.monotonic() + within
        with contextlib.suppress(OSError, ValueError, RecursionError):
            while b"\n" not in self._rest and len(self._rest) < _LONGEST:
                self._orders.settimeout(None if until is None else max(0.001, until - time.monotonic()))
                piece = self._orders.recv(4096)
                if not piece:
                    return None
                self._rest += piece
            line, _, self._rest = self._rest.partition(b"\n")
            found = json.loads(line)
            return found if isinstance(found, dict) else None
        return None

    def end(self) -> int:
        """Kill QEMU, if it hasn't ended; return its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.1)
        self._process.kill()
        return self._process.wait()

    def last_words(self) -> str:
        """Return what the machine, and QEMU, said last."""
        return bytes(self._words).decode("utf-8", "replace").strip()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._console.recv(4096):
                self._words += piece
                del self._words[:-_LAST_WORDS]

    def _copied(self, file: Path) -> int:
        """Return a descriptor of a copy without a place, which QEMU may open as any user."""
        descriptor = in_memory(file.name, file.read_bytes())
        self._close.callback(os.close, descriptor)
        return descriptor

    def _pair(self) -> tuple[socket.socket, int]:
        """Return two ends of a socket: ours, which is closed with us, and one to be inherited."""
        ours, theirs = socket.socketpair()
        self._close.enter_context(ours)
        return ours, theirs.detach()


def save(plan: Plan, target: int, within: float) -> bool:
    """Boot a machine, write its state to ``target``, and end it; return whether that went well.

    Raises ``DoesNotStart``, ``OSError``.
    """
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as stack:
        for number in (reading, writing):
            stack.callback(os.close, number)
        for each in (ours, theirs):
            stack.enter_context(each)
        machine = stack.enter_context(Machine(plan, (reading, writing), theirs.fileno(), controlled=True))
        if not machine.says("up", within):
            raise DoesNotStart(machine.last_words())
        assert machine.control is not None
        return machine_state.save(machine.control, target)


def _restrict(parent: int) -> None:
    """In QEMU's process, before it: end with the guard, and gain no right. It is another user already."""
    processes.die_with_parent(parent)
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def share_kvm(folder: Path, user: int) -> None:
    """Let ``user`` open KVM's device, of processes below this one: for these, another file is in its place.

    ``folder`` is made for it. Raises ``OSError``.
    """
    device = os.stat(KVM)
    if device.st_mode & (stat.S_IROTH | stat.S_IWOTH) == stat.S_IROTH | stat.S_IWOTH:
        return
    library = ctypes.CDLL(None, use_errno=True)

    def check(failed: int) -> None:
        if failed:
            raise OSError(ctypes.get_errno(), "a file for KVM")

    check(library.unshare(_NEW_MOUNTS))
    check(library.mount(b"none", b"/", None, ctypes.c_ulong(_PRIVATE), None))
    folder.mkdir()
    check(library.mount(b"kvm", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(_NOSUID | _NOEXEC), b"size=64k,mode=755"))
    os.mknod(folder / "kvm", 0o600 | stat.S_IFCHR, device.st_rdev)
    os.chown(folder / "kvm", user, user)
    check(library.mount(os.fsencode(folder / "kvm"), os.fsencode(KVM), None, ctypes.c_ulong(_BIND), None))
