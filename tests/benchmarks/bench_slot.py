"""What a slot costs: start, a task that does nothing, 100 MB in and out. Run by hand: prints medians.

python tests/benchmarks/bench_slot.py
"""

from __future__ import annotations

import asyncio
import statistics
import time

import numpy as np

from p2p_ipython.config import Settings
from p2p_ipython.protocol.frames import Buffer, Header
from p2p_ipython.sandbox.launch import LaunchOptions
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.payload import Packed, pack_result, pack_task
from p2p_ipython.worker.cache import Inbound
from p2p_ipython.worker.slots import Death, Slot

SIZE = 100_000_000
REPEATS = 15


class Listener:
    """Keeps the end of one task at a time."""

    def __init__(self) -> None:
        self.over: asyncio.Future[Header] | None = None
        self.received = 0

    def on_output(self, slot: Slot, header: Header, body: Buffer) -> None: ...

    def on_chunk(self, slot: Slot, header: Header, body: Buffer) -> None:
        self.received += len(body)

    def on_result(self, slot: Slot, header: Header, body: Buffer) -> None:
        assert self.over is not None
        assert header["ok"], header
        self.over.set_result(header)

    def on_died(self, slot: Slot, task_id: str | None, death: Death) -> None:
        raise AssertionError(death.detail)

    def on_preparing(self, slot: Slot, words: str) -> None: ...

    def on_dropped(self, slot: Slot, refs: list[str]) -> None: ...

    def on_ready(self, slot: Slot) -> None: ...


async def one(slot: Slot, listener: Listener, packed: Packed, sources: list[Inbound]) -> float:
    """Run one task; return its seconds."""
    listener.over = asyncio.get_running_loop().create_future()
    header: Header = {"t": "task", "id": "bench", "kind": "call", "segments": packed.segments}
    begun = time.perf_counter()
    slot.run(header, packed.inline, sources)
    await listener.over
    return time.perf_counter() - begun


def inbound(ref: str, data: memoryview) -> Inbound:
    """A buffer that has arrived."""
    buffer = Inbound(ref, len(data))
    buffer.feed(data)
    return buffer


async def main() -> None:
    listener = Listener()
    slot = Slot(LaunchOptions(), listener, Settings())
    begun = time.perf_counter()
    await slot.start()
    ready = time.perf_counter() - begun
    nothing = pack_result((pow, (2, 10), {}))
    await one(slot, listener, nothing, [])
    print(f"start: ready {ready * 1e3:.0f} ms, first result {(time.perf_counter() - begun) * 1e3:.0f} ms")

    trips = [await one(slot, listener, nothing, []) for _ in range(3000)]
    print(
        f"no-op round trip: median {statistics.median(trips) * 1e6:.0f} us, "
        f"p99 {statistics.quantiles(trips, n=100)[98] * 1e6:.0f} us"
    )

    store = BufferStore(2 * SIZE)
    incoming, again, outgoing = [], [], []
    for number in range(REPEATS):
        packed = pack_task((len, (np.full(SIZE, number, dtype=np.uint8),), {}), store)
        ((ref, view),) = packed.large.items()
        sources = [inbound(ref, view)]
        incoming.append(SIZE / 1e6 / await one(slot, listener, packed, sources))
        again.append(await one(slot, listener, packed, sources))
        store.unpin(packed.large)
    big = pack_result((np.ones, (SIZE // 8,), {}))
    for _ in range(REPEATS):
        listener.received = 0
        outgoing.append(SIZE / 1e6 / await one(slot, listener, big, []))
        assert listener.received == SIZE
    print(
        f"100 MB in: {statistics.median(incoming):.0f} MB/s, again {statistics.median(again) * 1e3:.2f} ms; "
        f"out: {statistics.median(outgoing):.0f} MB/s  (medians of {REPEATS})"
    )
    await slot.close()


asyncio.run(main())
