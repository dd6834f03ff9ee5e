"""A slot with a real runner, and what came back from it, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from p2p_ipython.config import Settings
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.task_frames import Output, Progress, Result, ResultChunk, Task, TaskFailure
from p2p_ipython.sandbox.launch import START_DEADLINES, LaunchOptions, mechanism
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.payload import Packed, pack_task, unpack
from p2p_ipython.worker.cache import Inbound, Source
from p2p_ipython.worker.environments import Environments
from p2p_ipython.worker.slot_base import Death
from p2p_ipython.worker.slots import Slot

DEADLINE = 30.0


def needs(name: str) -> None:
    """Skip a test where the mechanism ``name`` can't be used."""
    if (missing := mechanism(name).available()) is not None:
        pytest.skip(f"{name}: {missing.why}")


@dataclass
class Outcome:
    """How one task ended, and its output."""

    frame: Result | None
    value: Any = None
    death: Death | None = None
    outputs: list[tuple[Output, bytes]] = field(default_factory=list)
    chunk_bytes: int = 0

    @property
    def result(self) -> Result:
        assert self.frame is not None, self.death
        return self.frame

    @property
    def error(self) -> TaskFailure:
        assert self.result.failure is not None
        return self.result.failure

    def text(self, name: str = "stdout") -> str:
        """The text of a stream; warnings are in that of stderr, as they are shown."""
        texts = []
        for frame, body in self.outputs:
            if frame.what == "warning" and name == "stderr":
                texts.append(str(json.loads(body)["text"]))
            elif frame.stream == name:
                texts.append(body.decode())
        return "".join(texts)

    def displays(self) -> list[tuple[str, dict[str, Any]]]:
        found, body = [], b""
        for frame, piece in self.outputs:
            if frame.what != "stream":
                body += piece
                if not frame.more:
                    found.append((frame.what, json.loads(body)))
                    body = b""
        return found

    def order(self) -> list[str]:
        """Streams' texts and displays' kinds, as they came; neighbours of one stream are one."""
        parts: list[tuple[str, str]] = []
        for frame, body in self.outputs:
            if frame.what != "stream":
                parts.append((frame.what, frame.what))
            elif parts and parts[-1][0] == frame.stream:
                parts[-1] = (frame.stream, parts[-1][1] + body.decode())
            else:
                parts.append((frame.stream, body.decode()))
        return [text for _, text in parts]


class Worker:
    """Runs tasks in one slot, one after the other; listens to it."""

    def __init__(
        self,
        settings: Settings,
        options: LaunchOptions,
        mechanism: str = "process",
        environments: Environments | None = None,
    ) -> None:
        self.slot = Slot(options, self, settings, mechanism=mechanism, environments=environments)
        self.prepared: list[str] = []
        self.ready = asyncio.Event()
        self.deaths: list[Death] = []
        self.dropped: list[str] = []
        self.store = BufferStore(1 << 30)
        self._numbers = itertools.count()
        self._more = asyncio.Event()
        self._outputs: list[tuple[Output, bytes]] = []
        self._chunks: dict[str, bytearray] = {}
        self._over: asyncio.Future[Outcome] | None = None

    # What the slot calls

    def on_output(self, slot: Slot, output: Output | Progress, body: Buffer) -> None:
        if isinstance(output, Output):
            self._outputs.append((output, bytes(body)))
        self._more.set()

    def on_chunk(self, slot: Slot, chunk: ResultChunk, body: Buffer) -> None:
        self._chunks.setdefault(chunk.ref, bytearray()).extend(body)

    def on_result(self, slot: Slot, result: Result, body: Buffer) -> None:
        outcome = self._outcome(result)
        if result.segments and result.codec != "safe":
            outcome.value = unpack(result.segments, result.inline(body), self._chunks)
        self._end(outcome)

    def on_died(self, slot: Slot, task_id: str | None, death: Death) -> None:
        self.ready.clear()
        self.deaths.append(death)
        if task_id is not None:
            outcome = self._outcome(None)
            outcome.death = death
            self._end(outcome)

    def on_dropped(self, slot: Slot, refs: Sequence[str]) -> None:
        self.dropped += refs

    def on_preparing(self, slot: Slot, words: str) -> None:
        self.prepared.append(words)

    def on_ready(self, slot: Slot) -> None:
        self.ready.set()

    # What tests call

    async def cell(self, source: str, names: Mapping[str, Any] | None = None, **more: Any) -> Outcome:
        self.begin(dict(names or {}), run="cell", source=source, **more)
        return await self.over()

    async def call(self, function: Any, *arguments: Any, **keywords: Any) -> Outcome:
        self.begin((function, arguments, keywords))
        return await self.over()

    def begin(self, payload: Any, *, owner: str = "", **more: Any) -> str:
        """Start a task; return its id. ``more`` are fields of its frame."""
        packed = pack_task(payload, self.store)
        sources: list[Source] = [arrived(ref, view) for ref, view in packed.large.items()]
        return self.begin_packed(packed, sources, owner, **more)

    def begin_packed(self, packed: Packed, sources: list[Source], owner: str = "", **more: Any) -> str:
        task = f"task-{next(self._numbers)}"
        self._outputs, self._chunks = [], {}
        self._over = asyncio.get_running_loop().create_future()
        frame = Task(task, 1, more.pop("run", "call"), packed.segments, **more)
        self.slot.run(frame, packed.inline, sources, owner=owner)
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

    def _outcome(self, frame: Result | None) -> Outcome:
        return Outcome(frame, outputs=self._outputs, chunk_bytes=sum(map(len, self._chunks.values())))

    def _end(self, outcome: Outcome) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(outcome)


def arrived(ref: str, data: Any) -> Inbound:
    """A large buffer that has come over the network already."""
    inbound = Inbound(ref, len(data))
    inbound.feed(data)
    return inbound


@contextlib.asynccontextmanager
async def worker(
    settings: Settings | None = None,
    *,
    mechanism: str = "process",
    environments: Environments | None = None,
    **options: Any,
) -> AsyncIterator[Worker]:
    """A slot that is ready; closed at the end."""
    one = Worker(settings or Settings(cancel_grace=20.0), LaunchOptions(**options), mechanism, environments)
    try:
        async with asyncio.timeout(max(DEADLINE, START_DEADLINES.get(mechanism, 0))):
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
