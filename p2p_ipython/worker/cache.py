"""The agent's large buffers: as they arrive from the network, and afterwards, to be used again.

Buffers of different owners never meet, even if they say they hold the same bytes. All methods belong to the
agent's event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import psutil

from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.memory import LARGE, fresh

STALLED = 120.0
"""Seconds without a byte of any buffer of its owner's after which a reader gives a buffer up, or twice as long at most.
The reader keeps a slot. Bytes count when their frame is here: one of 1 MiB may take long on a slow line."""


class SourceFailed(Exception):
    """A buffer will not become whole; the message says why."""


class Source(Protocol):
    """A buffer that can be read from its beginning while its end is still on the way."""

    @property
    def ref(self) -> str: ...

    @property
    def size(self) -> int:
        """Bytes in all."""
        ...

    @property
    def failed(self) -> str:
        """Why it won't become whole; "" while it may."""
        ...

    def __aiter__(self) -> AsyncIterator[memoryview]:
        """All bytes in order, each time as many as have arrived. Raises ``SourceFailed``."""
        ...


class Flow:
    """Counts the bytes that have come of all of an owner's buffers."""

    def __init__(self) -> None:
        self.bytes = 0


class Inbound:
    """A buffer that arrives, or has arrived; a ``Source``. Any number may read it. ``flow`` is its owner's."""

    def __init__(self, ref: str, size: int, flow: Flow | None = None) -> None:
        self.ref = ref
        self.size = size
        self.failed = ""
        self.received = 0
        self.elsewhere = False
        self._flow = flow or Flow()
        self._memory = fresh(size)
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def complete(self) -> bool:
        return self.received == self.size

    def buffer_at(self, offset: int, size: int) -> memoryview:
        """Where ``size`` bytes at ``offset`` belong.

        Raises ``RemoteProtocolError`` unless they follow what has been received and stay within the buffer.
        """
        if offset != self.received or size < 0 or offset + size > self.size:
            raise RemoteProtocolError("bytes of a buffer are out of turn, or more than announced")
        return self._memory[offset : offset + size]

    def advance(self, count: int) -> None:
        """Count the bytes that have landed. Raises ``RemoteProtocolError`` if they are more than announced."""
        if count < 0 or self.received + count > self.size:
            raise RemoteProtocolError("more bytes of a buffer than announced")
        self.received += count
        self._flow.bytes += count
        self._wake()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Copy the next bytes in. Raises ``RemoteProtocolError`` if they are more than announced."""
        self.buffer_at(self.received, len(data))[:] = data
        self.advance(len(data))

    def fail(self, reason: str) -> None:
        """Note that the rest won't come: readers get ``SourceFailed``. A complete buffer stays as it is."""
        if not self.complete and not self.failed:
            self.failed = reason
            self._wake()

    def hand_over(self) -> None:
        """Drop the bytes: the runner holds all of them now."""
        self._memory = memoryview(b"")
        self.elsewhere = True

    def take_back(self) -> None:
        """Make room for the bytes again: the runner has lost them, so they have to arrive once more."""
        self._memory = fresh(self.size)
        self.elsewhere, self.received = False, 0

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        if self.elsewhere:
            raise SourceFailed("its bytes are not here any more")
        read = 0
        while read < self.size:
            while read == self.received:
                if self.failed:
                    raise SourceFailed(self.failed)
                await self._more()
            start, read = read, self.received
            yield self._memory[start:read]

    async def _more(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            before = -1
            while not waiter.done():
                if before == self._flow.bytes:
                    raise SourceFailed(f"its client has sent nothing for {STALLED:g} s")
                before = self._flow.bytes
                await asyncio.wait([waiter], timeout=STALLED)
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


Key = tuple[str, str]
"""Owner and ref."""


class BufferCache:
    """Buffers by owner and ref; keeps complete ones that nobody needs while they are within ``limit`` bytes.

    ``on_evict(owner, refs)`` tells which of an owner's buffers are no longer here. Pinned ones are never evicted, and
    don't count: how much may be pinned is the agent's to decide, who asks ``pinned``. What has begun to arrive and
    nobody needs is forgotten: nobody could say whether it will ever be whole.
    """

    def __init__(self, limit: int, on_evict: Callable[[str, Sequence[str]], None] | None = None) -> None:
        self._limit = limit
        self._on_evict = on_evict
        self._buffers: OrderedDict[Key, Inbound] = OrderedDict()  # least recently used first
        self._pins: dict[Key, int] = {}
        self._pinned: Counter[str] = Counter()  # bytes, by owner
        self._flows: dict[str, Flow] = {}  # of the owners who have buffers, or had some and aren't forgotten

    def begin(self, owner: str, ref: str, size: int) -> Inbound:
        """Make room for a buffer that is to arrive; ``size`` bytes.

        Raises ``RemoteProtocolError`` for one that is here already, or is of no size that a buffer can have.
        """
        if type(size) is not int or size < 0:
            raise RemoteProtocolError("a buffer's size is not a whole number", peer=owner)
        if (owner, ref) in self._buffers:
            raise RemoteProtocolError("a buffer that is here already is sent again", peer=owner)
        try:
            if size > LARGE and size > psutil.virtual_memory().available:  # asking for it would succeed, filling not
                raise MemoryError
            inbound = Inbound(ref, size, self._flows.setdefault(owner, Flow()))
        except (OSError, MemoryError, OverflowError, ValueError) as error:
            raise RemoteProtocolError(f"there is no room for a buffer of {size} bytes", peer=owner) from error
        self._buffers[owner, ref] = inbound
        return inbound

    def get(self, owner: str, ref: str) -> Inbound | None:
        """Return the buffer, complete or arriving, and mark it as used now; None when it isn't here."""
        inbound = self._buffers.get((owner, ref))
        if inbound is not None:
            self._buffers.move_to_end((owner, ref))
        return inbound

    def pin(self, owner: str, ref: str) -> None:
        """Keep a buffer until it is unpinned as often. Raises ``KeyError`` when it isn't here."""
        key = owner, ref
        if key not in self._buffers:
            raise KeyError(ref)
        if key not in self._pins:
            self._pinned[owner] += self._buffers[key].size
        self._pins[key] = self._pins.get(key, 0) + 1

    def is_pinned(self, owner: str, ref: str) -> bool:
        """Return whether a task needs this buffer."""
        return (owner, ref) in self._pins

    def pinned(self, owner: str) -> int:
        """Return the bytes of an owner's pinned buffers, those that are still to come included."""
        return self._pinned[owner]

    def unpin(self, owner: str, ref: str) -> None:
        """Undo one ``pin``; evicts what is over the limit then. Ignores what was aborted or forgotten."""
        key = owner, ref
        if key in self._pins:
            self._pins[key] -= 1
            if not self._pins[key]:
                self._unpinned(key)
                if not self._buffers[key].complete:
                    self._buffers.pop(key).fail("nobody needs it")
                    if self._on_evict is not None:
                        self._on_evict(owner, [ref])
                self._evict()

    def hand_over(self, owner: str, ref: str) -> None:
        """Drop the bytes of a complete buffer, which the runner holds, too. Does nothing while it is pinned."""
        inbound = self._buffers.get((owner, ref))
        if inbound is not None and inbound.complete and (owner, ref) not in self._pins:
            inbound.hand_over()

    def lost(self, ref: str) -> list[str]:
        """Note that handed-over bytes are gone. Return the owners whose tasks need them: they must send again.

        ``on_evict`` is called for other owners.
        """
        needed = []
        for key in [key for key, each in self._buffers.items() if key[1] == ref and each.elsewhere]:
            if key in self._pins:
                self._buffers[key].take_back()
                needed.append(key[0])
            else:
                del self._buffers[key]
                if self._on_evict is not None:
                    self._on_evict(key[0], [ref])
        return needed

    def abort(self, owner: str, ref: str, reason: str) -> None:
        """Forget a buffer that won't become whole; nothing happens to a complete one."""
        inbound = self._buffers.get((owner, ref))
        if inbound is not None and not inbound.complete:
            self._unpinned((owner, ref))
            del self._buffers[owner, ref]
            inbound.fail(reason)

    def forget(self, owner: str, reason: str = "its owner has left") -> None:
        """Forget all of an owner's buffers, without telling ``on_evict``."""
        for key in [key for key in self._buffers if key[0] == owner]:
            self._unpinned(key)
            self._buffers.pop(key).fail(reason)
        self._flows.pop(owner, None)

    def _unpinned(self, key: Key) -> None:
        """Count a buffer no longer as pinned, if it is; it is still here."""
        if self._pins.pop(key, None) is not None:
            owner, _ = key
            self._pinned[owner] -= self._buffers[key].size
            if not self._pinned[owner]:
                del self._pinned[owner]

    @property
    def idle(self) -> int:
        """Bytes of the complete buffers that nobody needs."""
        return sum(inbound.size for _, inbound in self._idle())

    def refs(self, owner: str) -> list[str]:
        """Return the refs of an owner's complete buffers."""
        return [ref for (who, ref), inbound in self._buffers.items() if who == owner and inbound.complete]

    def _idle(self) -> list[tuple[Key, Inbound]]:
        return [
            (key, each)
            for key, each in self._buffers.items()
            if each.complete and not each.elsewhere and key not in self._pins
        ]

    def _evict(self) -> None:
        over = self.idle - self._limit
        gone: dict[str, list[str]] = {}
        for key, inbound in self._idle():
            if over <= 0:
                break
            over -= inbound.size
            del self._buffers[key]
            gone.setdefault(key[0], []).append(key[1])
        if self._on_evict is not None:
            for owner, refs in gone.items():
                self._on_evict(owner, refs)
