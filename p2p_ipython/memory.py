"""Memory for large buffers.

Fresh memory is slow: the system clears each page before it hands it out, and on a virtual machine may have to get
it from its host first. Filling 100 MB of it took 135 ms as a ``bytearray`` and 40 ms in huge pages, memory that was
used before 20 ms; and each process that a buffer passes through pays. So huge pages are asked for, and blocks that
nothing refers to any longer are kept, up to ``KEEP`` bytes a process, and used again.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from collections import deque

LARGE = 4 << 20
"""From this size on memory comes in blocks of its own, bytes."""

KEEP = 128 << 20
"""Bytes of unused blocks that a process keeps."""

_HUGE_PAGE = 2 << 20

_returned: deque[mmap.mmap] = deque()
_lock = threading.Lock()


def fresh(size: int) -> memoryview:
    """Writable memory of ``size`` bytes, the caller's alone until its last view is gone.

    It is not cleared: show nobody a byte of it that you haven't written.
    """
    if size < LARGE:
        return memoryview(bytearray(size))
    block = _take(size) or _new(size)
    lease = (ctypes.c_char * size).from_buffer(block)
    weakref.finalize(lease, _give, block).atexit = False
    return memoryview(lease).cast("B")


def _new(size: int) -> mmap.mmap:
    rounded = -(-size // _HUGE_PAGE) * _HUGE_PAGE
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return mmap.mmap(-1, rounded)
    block = mmap.mmap(-1, rounded, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        block.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without them
        pass
    return block


def _take(size: int) -> mmap.mmap | None:
    """Return the kept block that fits best, and wastes at most a quarter of itself."""
    with _lock:
        kept = list(_returned)
        fitting = [block for block in kept if size <= len(block) <= size + size // 3 + _HUGE_PAGE]
        if not fitting:
            return None
        best = min(fitting, key=len)
        try:
            _returned.remove(best)
        except ValueError:  # pushed out by one that came back just now
            return None
        return best


def _give(block: mmap.mmap) -> None:
    # A finalizer runs in any thread at any time, also in one that holds the lock: it takes none.
    while _returned and sum(map(len, list(_returned))) + len(block) > KEEP:
        try:
            _returned.popleft()
        except IndexError:
            break
    if len(block) <= KEEP:
        _returned.append(block)
