"""The large buffers that a runner keeps: received once, given to each task as a copy of its own.

A very large buffer lives in an anonymous file. Each task maps it privately: it reads the same pages, and a page
that it writes to becomes its own, so that the next task finds the bytes as they were sent. Smaller ones are
copied: that is as quick, and a file costs one of the runner's limited descriptors.

Bytes reach the file by ``write``, from a scratch buffer that stays in the processor's cache: landing them in a
mapping of the file took twice as long, for the page faults.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterable

from p2p_ipython.protocol.frames import MAX_BODY, FrameError

MAPPED = 8 << 20
"""From this size on a buffer is mapped rather than copied, bytes."""

_FILES = 256
"""Buffers that are mapped at a time; the others are copied whatever their size. A quarter of limits.OPEN_FILES."""


class _Stored:
    """One buffer: how much of it has come, and where it is, in memory or in a file."""

    def __init__(self, size: int, *, mapped: bool) -> None:
        self.size = size
        self.filled = 0
        self.fd = _anonymous_file() if mapped else -1
        self.memory = memoryview(b"" if mapped else bytearray(size))

    def append(self, data: memoryview) -> None:
        """Take the next bytes; those in memory have landed there already."""
        if self.fd >= 0:
            done = 0
            while done < len(data):
                done += os.pwrite(self.fd, data[done:], self.filled + done)
        self.filled += len(data)

    def private(self) -> memoryview:
        if self.fd < 0:
            return memoryview(bytearray(self.memory))
        return memoryview(mmap.mmap(self.fd, self.size, access=mmap.ACCESS_COPY))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Buffers:
    """By reference; filled in the runner's reading thread, given out in its main thread.

    The agent drops no buffer that a task which it has sent needs.
    """

    def __init__(self) -> None:
        self._stored: dict[str, _Stored] = {}
        self._scratch = memoryview(bytearray(MAX_BODY))

    def begin(self, ref: str, size: int) -> None:
        """Make room for a buffer of ``size`` bytes. Raises ``OSError`` or ``MemoryError`` when there is none."""
        self.drop([ref])
        mapped = size >= MAPPED and sum(stored.fd >= 0 for stored in self._stored.values()) < _FILES
        self._stored[ref] = _Stored(size, mapped=mapped)

    def land(self, ref: str, size: int) -> memoryview:
        """Where to read the next ``size`` bytes of a buffer to. Raises ``FrameError`` if it has no such room.

        ``landed`` must follow, before anything else lands.
        """
        stored = self._stored.get(ref)
        if stored is None or stored.filled + size > stored.size:
            raise FrameError("a chunk of a buffer that was not announced, or is longer than announced")
        if stored.fd >= 0:
            return self._scratch[:size]
        return stored.memory[stored.filled : stored.filled + size]

    def landed(self, ref: str, data: memoryview) -> None:
        """Take note that the bytes which ``land`` made room for are there.

        Raises ``OSError`` when the file has no room for them.
        """
        self._stored[ref].append(data)

    def get(self, ref: str) -> memoryview | None:
        """Return a buffer for one use in one task, writable and its own; None if it isn't there."""
        stored = self._stored.get(ref)
        return stored.private() if stored is not None else None

    def drop(self, refs: Iterable[str]) -> None:
        """Forget buffers, whole or not; unknown ones are ignored."""
        for ref in refs:
            stored = self._stored.pop(ref, None)
            if stored is not None:
                stored.close()


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):  # a wall refuses it, because no limit counts it: the scratch folder's does
            return os.memfd_create("p2p-buffer")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
