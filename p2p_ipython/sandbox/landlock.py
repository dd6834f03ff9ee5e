"""Landlock, as the kernel takes it: a process gives up all files but those named, the network, and signals to others.

See landlock(7) and the kernel's ``include/uapi/linux/landlock.h``. Rules only allow, and a rule for a folder holds for
all that is below it. Standard library only: the runner imports it inside.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

LEAST_ABI = 6
"""The one that holds signals and abstract sockets (Linux 6.12)."""

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""System calls, of every architecture."""

_ASK_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVS = 38  # of prctl(2)
_QUIET = 0b101
"""From ABI 7: refusals of this process, and of domains inside, are not written to the system's log."""

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_SOCK, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_ALL = (1 << 16) - 1
"""All rights over files of ABI 6."""

_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""Rights that there are over a file; the others are over folders."""

READ = _EXECUTE | _READ_FILE | _READ_DIR
"""Reading and running what is there."""

WRITE = _ALL & ~(_MAKE_CHAR | _MAKE_SOCK | _MAKE_BLOCK | _IOCTL_DEV)
"""That, and every change to files, folders, links and pipes."""

USE = _READ_FILE | _WRITE_FILE
"""Reading and writing a device."""

_NETWORK = 0b11
"""Binding and connecting TCP sockets."""

_SCOPES = 0b11
"""Abstract sockets and signals of processes outside."""


def abi() -> int:
    """Return the version of this kernel's Landlock; 0 if there is none."""
    return max(0, int(_library().syscall(_CREATE, None, ctypes.c_size_t(0), _ASK_VERSION)))


def restrict(rules: Iterable[tuple[str, int]]) -> list[int]:
    """Keep this process, and all that it starts, to the paths of ``rules``, each with its rights; others stay closed.

    A path that isn't there is left out. Returns the descriptors of what is in /proc: the kernel may make such a file
    anew, which no rule knows, unless it is held open. Raises ``OSError``, also if the kernel has no ``LEAST_ABI``.
    """
    library, held = _library(), []
    if abi() < LEAST_ABI:
        raise OSError(0, "this kernel's Landlock doesn't hold signals")
    wanted = struct.pack("=QQQ", _ALL, _NETWORK, _SCOPES)
    ruleset = _checked(library.syscall(_CREATE, wanted, ctypes.c_size_t(len(wanted)), 0))
    try:
        for path, rights in rules:
            try:
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            is_folder = stat.S_ISDIR(os.fstat(place).st_mode)
            rule = struct.pack("=Qi", rights if is_folder else rights & _OF_FILES, place)
            _checked(library.syscall(_ADD, ruleset, _PATH_BENEATH, rule, 0))
            if path.startswith("/proc/"):
                held.append(place)
            else:
                os.close(place)
        _checked(library.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(library.syscall(_RESTRICT, ruleset, _QUIET if abi() >= 7 else 0))
    finally:
        os.close(ruleset)
    return held


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
