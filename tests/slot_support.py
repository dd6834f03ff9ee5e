"""A slot with a real runner, and what came back from it, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from p2p_ipython.config import Settings
from p2p_ipython.protocol.frames import Buffer, Header
from p2p_ipython.sandbox.launch import LaunchOptions
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.payload import Packed, pack_task, unpack
from p2p_ipython.worker.cache import Inbound, Source
from p2p_ipython.worker.slot_base import Death
from p2p_ipython.worker.slots import Slot

DEADLINE = 30.0


@dataclass
class Outcome:
    """How one task ended, and its output."""

    header: Header
    value: Any = None
    death: Death | None = None
    outputs: list[tuple[Header, bytes]] = field(default_factory=list)
    chunk_bytes: int = 0

    @property
    def error(self) -> dict[str, Any]:
        return self.header["error"]  # type: ignore[no-any-return]

    def text(self, name: str = "stdout") -> str:
        return b"".join(body for header, body in self.outputs if header.get("name") == name).decode()

    def displays(self) -> list[tuple[str, dict[str, Any]]]:
        found, body = [], b""
        for header, piece in self.outputs:
            if header["kind"] != "stream":
                body += piece
                if not header.get("more"):
                    found.append((header["kind"], json.loads(body)))
                    body = b""
        return found

    def order(self) -> list[str]:
        """Streams' texts and displays' kinds, as they came; neighbours of one stream are one."""
        parts: list[tuple[str, str]] = []
        for header, body in self.outputs:
            if header["kind"] != "stream":
                parts.append((header["kind"], header["kind"]))
            elif parts and parts[-1][0] == header["name"]:
                parts[-1] = (header["name"], parts[-1][1] + body.decode())
            else:
                parts.append((header["name"], body.decode()))
        return [text for _, text in parts]


class Worker:
    """Runs tasks in one slot, one after the other; listens to it."""

    def __init__(self, settings: Settings, options: LaunchOptions) -> None:
        self.slot = Slot(options, self, settings)
        self.ready = asyncio.Event()
        self.deaths: list[Death] = []
        self.dropped: list[str] = []
        self.store = BufferStore(1 << 30)
        self._numbers = itertools.count()
        self._more = asyncio.Event()
        self._outputs: list[tuple[Header, bytes]] = []
        self._chunks: dict[str, bytearray] = {}
        self._over: asyncio.Future[Outcome] | None = None

    # What the slot calls

    def on_output(self, slot: Slot, header: Header, body: Buffer) -> None:
        self._outputs.append((header, bytes(body)))
        self._more.set()

    def on_chunk(self, slot: Slot, header: Header, body: Buffer) -> None:
        self._chunks.setdefault(header["ref"], bytearray()).extend(body)

    def on_result(self, slot: Slot, header: Header, body: Buffer) -> None:
        outcome = self._outcome(header)
        if header["segments"]:
            outcome.value = unpack(header["segments"], body, self._chunks)
        self._end(outcome)

    def on_died(self, slot: Slot, task_id: str | None, death: Death) -> None:
        self.ready.clear()
        self.deaths.append(death)
        if task_id is not None:
            outcome = self._outcome({})
            outcome.death = death
            self._end(outcome)

    def on_dropped(self, slot: Slot, refs: Sequence[str]) -> None:
        self.dropped += refs

    def on_ready(self, slot: Slot) -> None:
        self.ready.set()

    # What tests call

    async def cell(self, source: str, names: Mapping[str, Any] | None = None, **more: Any) -> Outcome:
        self.begin({"kind": "cell", "source": source, **more}, dict(names or {}))
        return await self.over()

    async def call(self, function: Any, *arguments: Any, **keywords: Any) -> Outcome:
        self.begin({"kind": "call"}, (function, arguments, keywords))
        return await self.over()

    def begin(self, header: Header, payload: Any, *, owner: str = "") -> str:
        """Start a task; return its id."""
        packed = pack_task(payload, self.store)
        return self.begin_packed(header, packed, [arrived(ref, view) for ref, view in packed.large.items()], owner)

    def begin_packed(self, header: Header, packed: Packed, sources: list[Source], owner: str = "") -> str:
        task = f"task-{next(self._numbers)}"
        self._outputs, self._chunks = [], {}
        self._over = asyncio.get_running_loop().create_future()
        header = {"t": "task", "id": task, "segments": packed.segments, **header}
        self.slot.run(header, packed.inline, sources, owner=owner)
        return task

    async def over(self) -> Outcome:
        assert self._over is not None
        return await asyncio.wait_for(self._over, DEADLINE)

    async def printed(self, text: str) -> None:
        """Wait until the task has printed ``text``."""
        async with asyncio.timeout(DEADLINE):
            while text.encode() not in b"".join(body for _, body in self._outputs):
                self._more.clear()
                await self._more.wait()

    async def wait_ready(self) -> None:
        await asyncio.wait_for(self.ready.wait(), DEADLINE)

    def _outcome(self, header: Header) -> Outcome:
        return Outcome(header, outputs=self._outputs, chunk_bytes=sum(map(len, self._chunks.values())))

    def _end(self, outcome: Outcome) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(outcome)


def arrived(ref: str, data: Any) -> Inbound:
    """A large buffer that has come over the network already."""
    inbound = Inbound(ref, len(data))
    inbound.feed(data)
    return inbound


@contextlib.asynccontextmanager
async def worker(settings: Settings | None = None, **options: Any) -> AsyncIterator[Worker]:
    """A slot that is ready; closed at the end."""
    one = Worker(settings or Settings(cancel_grace=20.0), LaunchOptions(**options))
    try:
        async with asyncio.timeout(DEADLINE):
            await one.slot.start()
        yield one
    finally:
        await one.slot.close()


async def until(condition: Any, what: str) -> None:
    """Wait until ``condition()`` holds; for what has no event: another process's state."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE
    while not condition():
        assert loop.time() < end, f"in vain: {what}"
        await asyncio.sleep(0.02)
