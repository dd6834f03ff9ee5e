"""The client's large buffers, frozen as they were when a task was made, and called by the hash of their bytes.

A buffer that is sent again is found by its hash, so that neither its copy nor its bytes on the way are needed twice.

Imports blake3 only to hash: the runner imports this module inside the sandbox, and has no use for a store.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any

from p2p_ipython.memory import fresh
from p2p_ipython.protocol.frames import Buffer

STEP = 4 << 20
"""Bytes that are copied and hashed at a time: enough for several threads, and still near the cache."""


class _Entry:
    __slots__ = ("pins", "sample", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.pins = 0
        self.sample = 0


class BufferStore:
    """The client's large buffers by the hash of their bytes; thread-safe.

    Buffers in use are pinned. Unpinned ones are kept, because the same array is likely to be sent again. Together
    they stay within ``limit`` bytes: the least recently used goes first.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._samples: Counter[int] = Counter()
        self._idle = 0
        self._lock = threading.Lock()

    def freeze(self, buffer: Buffer, *, ours: bool = False) -> tuple[str, memoryview]:
        """Take ``buffer``'s bytes as they are now; return (ref, read-only view), pinned once.

        The bytes are copied unless they are here already, are a ``bytes`` object, or the caller says with
        ``ours`` that nobody else can change them.
        """
        view = memoryview(buffer).cast("B")
        frozen = ours or type(view.obj) is bytes
        if frozen or self._maybe_here(view):
            # Cheap where it is likely to be all: for what can't change, and for what was sent before.
            ref = _hash(view)
            if (known := self._pinned(ref)) is not None:
                return ref, known
            if frozen:
                return ref, self._add(ref, view)
        ref, copy = _copy_and_hash(view)
        return ref, self._add(ref, copy.toreadonly())

    def get(self, ref: str) -> memoryview:
        """Return the bytes of ``ref``. Raises ``KeyError`` if they are not here, or no longer."""
        with self._lock:
            return self._entries[ref].view

    def pin(self, refs: Iterable[str]) -> None:
        """Keep ``refs`` until they are unpinned as often as they were pinned.

        Raises ``KeyError`` if one isn't there; none is pinned then.
        """
        pinned: list[str] = []
        for ref in refs:
            if self._pinned(ref) is None:
                self.unpin(pinned)
                raise KeyError(ref)
            pinned.append(ref)

    def unpin(self, refs: Iterable[str]) -> None:
        """Unpin each of ``refs`` once; those that ``clear`` has forgotten are passed over."""
        with self._lock:
            for ref in refs:
                entry = self._entries.get(ref)
                if entry is None:
                    continue
                assert entry.pins > 0, "unpinned more often than pinned"
                entry.pins -= 1
                if entry.pins == 0:
                    self._idle += entry.view.nbytes
            self._evict()

    def clear(self) -> None:
        """Forget every buffer, pinned or not."""
        with self._lock:
            self._entries.clear()
            self._samples.clear()
            self._idle = 0

    def __contains__(self, ref: object) -> bool:
        with self._lock:
            return ref in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def idle(self) -> int:
        """Bytes that are kept though no task needs them."""
        return self._idle

    def __repr__(self) -> str:
        return f"<BufferStore {len(self)} buffers, {self._idle} of {self.limit} bytes idle>"

    def _maybe_here(self, view: memoryview) -> bool:
        sample = _sample(view)
        with self._lock:
            return sample in self._samples

    def _pinned(self, ref: str) -> memoryview | None:
        with self._lock:
            entry = self._entries.get(ref)
            if entry is None:
                return None
            if entry.pins == 0:
                self._idle -= entry.view.nbytes
            entry.pins += 1
            self._entries.move_to_end(ref)
            return entry.view

    def _add(self, ref: str, view: memoryview) -> memoryview:
        with self._lock:
            entry = self._entries.get(ref)
            if entry is None:
                entry = self._entries[ref] = _Entry(view)
                entry.sample = _sample(view)
                self._samples[entry.sample] += 1
            elif entry.pins == 0:
                self._idle -= entry.view.nbytes
            entry.pins += 1
            self._entries.move_to_end(ref)
            return entry.view

    def _evict(self) -> None:
        if self._idle <= self.limit:
            return
        for ref, entry in list(self._entries.items()):
            if entry.pins == 0:
                del self._entries[ref]
                self._samples[entry.sample] -= 1
                if not self._samples[entry.sample]:
                    del self._samples[entry.sample]
                self._idle -= entry.view.nbytes
                if self._idle <= self.limit:
                    return


_PID = os.getpid()
_BLOCK = 4096


def _hasher() -> Any:
    import blake3  # heavy

    # Its threads don't survive a fork: a forked child would wait for them for ever.
    threads = blake3.blake3.AUTO if os.getpid() == _PID else 1
    return blake3.blake3(max_threads=threads)


def _sample(view: memoryview) -> int:
    """Hash the size and some blocks: a guess, at a thousandth of a full hash's cost, at whether the bytes are known."""
    step = max(_BLOCK, view.nbytes // 16)
    return hash((view.nbytes, *(bytes(view[start : start + _BLOCK]) for start in range(0, view.nbytes, step))))


def _hash(view: memoryview) -> str:
    hasher = _hasher()
    hasher.update(view)
    return str(hasher.hexdigest())


def _copy_and_hash(view: memoryview) -> tuple[str, memoryview]:
    """Copy, and hash the copy: what another thread changes meanwhile can't come apart from its hash."""
    copy = fresh(view.nbytes)
    hasher = _hasher()
    for start in range(0, view.nbytes, STEP):
        step = copy[start : start + STEP]
        step[:] = view[start : start + STEP]
        hasher.update(step)
    return str(hasher.hexdigest()), copy
