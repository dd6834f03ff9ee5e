"""The lender's side of an arena: a process with secrets, and slots with real runners, as a worker has them.

Started by ``arena.py`` with the arena's own Python, as the user who lends. It reads commands and writes events, each a
line of JSON. Values of tasks pass through here packed, as they pass through a worker: nothing is unpickled.
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from p2p_ipython.config import Settings
from p2p_ipython.errors import P2PError
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.messages import NO_WALL
from p2p_ipython.protocol.task_frames import Output, Progress, Result, ResultChunk, Task
from p2p_ipython.sandbox.launch import Death, LaunchOptions, mechanism
from p2p_ipython.sandbox.mechanisms import internet
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.payload import pack_task
from p2p_ipython.worker.hardening import harden
from p2p_ipython.worker.mounts import own_folder, read_mounts
from p2p_ipython.worker.slots import Slot

KEPT = 1 << 20
"""Bytes of a task's output, and of its result, that are passed on; the rest is only counted."""


class Agent:
    """Listens to the slots, and tells the arena."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.secret = bytearray(told["secret"].encode())
        self.buffer = ctypes.create_string_buffer(b"the agent's own", 64)
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.file.write(told["file_secret"].encode())
        self.file.flush()
        options = LaunchOptions(
            memory=told["memory"],
            output_limit=told["output_limit"],
            scratch=Path(told["scratch"]),
            mounts=read_mounts(told["mounts"]) + (own_folder(told["own"]) if told["own"] else ()),
            network=told["network"],
        )
        if told["mechanism"] == NO_WALL:  # a look at what a task takes, ten times a second, is no wall
            options = replace(options, disk=0, processes=0)
        settings = Settings(cancel_grace=0.5)
        self.mechanism: str = told["mechanism"]
        self.network: bool = told["network"]
        self.slots = [Slot(options, self, settings, mechanism=told["mechanism"]) for _ in range(2)]
        self._store = BufferStore(1 << 30)
        self._came = [self._nothing() for _ in self.slots]

    def tell(self, event: str, **more: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
        sys.stdout.flush()

    # What the slots call

    def on_output(self, slot: Slot, output: Output | Progress, body: Buffer) -> None:
        came = self._came[self.slots.index(slot)]
        came["output"] += len(body)
        if came["output"] <= KEPT:
            self.tell("output", slot=self.slots.index(slot), text=bytes(body).decode("utf-8", "replace"))

    def on_chunk(self, slot: Slot, chunk: ResultChunk, body: Buffer) -> None:
        self._came[self.slots.index(slot)]["chunks"] += len(body)

    def on_result(self, slot: Slot, result: Result, body: Buffer) -> None:
        header = result.header()
        packed = base64.b64encode(bytes(result.inline(body)[:KEPT])).decode()
        self._over(slot, result.id, ok=result.ok, codec=result.codec, error=header.get("error"),
                   segments=[list(each) for each in result.segments], body=packed)  # fmt: skip

    def on_died(self, slot: Slot, task_id: str | None, death: Death) -> None:
        if task_id is not None:
            self._over(slot, task_id, ok=False, death=f"{death.kind}: {death.detail}")

    def on_preparing(self, _slot: Slot, words: str) -> None:
        pass

    def on_dropped(self, slot: Slot, refs: Sequence[str]) -> None:
        pass

    def on_ready(self, slot: Slot) -> None:
        pass

    # What the arena asks for

    def run(self, slot: int, id: str, owner: str, source: str, names: dict[str, Any]) -> None:
        packed = pack_task(names, self._store)
        self._came[slot] = self._nothing()
        task = Task(id, 1, "cell", packed.segments, source=source, reply="safe")
        self.slots[slot].run(task, packed.inline, owner=owner)

    def cancel(self, slot: int, id: str) -> None:
        self.slots[slot].cancel(id)

    def look(self) -> None:
        """Tell what of this process somebody may have changed, and which commands the slots have started."""
        lives = [slot._runner for slot in self.slots]
        commands = [life.process.pid if life is not None else None for life in lives]
        self.tell("looked", buffer=self.buffer.value.decode("latin-1"), commands=commands)

    def _over(self, slot: Slot, task: str, **more: Any) -> None:
        number = self.slots.index(slot)
        self.tell("over", slot=number, id=task, **self._came[number], **more)

    @staticmethod
    def _nothing() -> dict[str, int]:
        return {"output": 0, "chunks": 0}


async def main() -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    agent = Agent(json.loads(await reader.readline()))
    try:
        missing = mechanism(agent.mechanism).available()
        if missing is None and agent.network:
            missing = internet.lacks()
        if missing is not None:
            agent.tell("refused", words=missing.why)
            return
        try:
            for slot in agent.slots:
                await slot.start()
        except P2PError as error:
            agent.tell("refused", words=str(error))
            return
        agent.tell("ready", pid=os.getpid(), address=ctypes.addressof(agent.buffer), file=agent.file.fileno())
        while line := await reader.readline():
            command = json.loads(line)
            getattr(agent, command.pop("do"))(**command)
    finally:
        for slot in agent.slots:
            await slot.close()


if __name__ == "__main__":
    harden()
    asyncio.run(main())
