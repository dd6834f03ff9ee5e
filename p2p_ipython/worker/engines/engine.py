"""An engine as an agent has it: its host's life, how many slots there are, and which slot has which job.

::

    EngineSlot ── bytes of a task ──► Engine ── frames ──► host (a child process) ──► the engine
        ▲                               │
        └── part, over, comes, goes ◄───┘

When the host ends, or has lost its engine, the tasks that the slots have are lost, and all slots go; the host is
started again, later and later. ``on_change`` hears of each such change.

POSIX only. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError, RemoteProtocolError
from p2p_ipython.protocol.frames import MAX_BODY, Buffer, FrameError, Header, encode
from p2p_ipython.protocol.task_frames import MAX_SLOTS, Frame, Task
from p2p_ipython.sandbox.launch import Death, LaunchOptions
from p2p_ipython.sandbox.mechanisms.environment import is_passed
from p2p_ipython.sandbox.mechanisms.process import ProcessLaunch
from p2p_ipython.sandbox.scratch import sweep
from p2p_ipython.worker.engines.frames import (
    FROM_HOST,
    Asked,
    Close,
    Failed,
    Go,
    Halt,
    Open,
    Over,
    Part,
    Space,
    Stays,
    Up,
    read,
)
from p2p_ipython.worker.engines.slot import EngineSlot
from p2p_ipython.worker.runner_life import RunnerLife
from p2p_ipython.worker.slot_base import SlotListener

log = logging.getLogger(__name__)

MOST_SLOTS = 256
"""Slots that are offered unless the lender gives a number: each may keep a task's bytes."""

START_DEADLINE = 180.0
"""Seconds that an engine may take to be there."""

SILENCE = 60.0
"""Seconds after which a host that says nothing is given up; it speaks every second."""

CLOSING = 7.0
"""Seconds that a host may take to leave its engine."""

_BACKOFF_MAX = 60.0

_PASSED = ("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "KUBECONFIG", "SLURM_CONF", "DASK_CONFIG")
_PASSED_PREFIXES = ("DASK_DISTRIBUTED__", "KUBERNETES_SERVICE_")
"""Beside what runners get: where a client of an engine finds the engine and its settings."""


class Condition(NamedTuple):
    """How an engine stands. ``slots`` is 0 while it can take nothing; ``words`` say why, if it is lost."""

    slots: int = 0
    memory: int = 0
    python: str = ""
    platform: str = ""
    words: str = ""


class HostLaunch(ProcessLaunch):
    """How a host is started: as a runner without a wall, but for its command, its environment and where it is."""

    def __init__(self) -> None:
        super().__init__(LaunchOptions(disk=0, processes=0))
        self.watched = None
        self.command = [sys.executable, "-P", "-m", "p2p_ipython.worker.engines.host", str(self._scratch.path)]
        self.env = {
            name: value
            for name, value in os.environ.items()
            if is_passed(name) or name in _PASSED or name.startswith(_PASSED_PREFIXES)
        }
        # By it ``clean`` finds what a factory has started, also when the warden was killed.
        self.env["TMPDIR"] = str(self._scratch.path / "tmp")
        self.folder = Path.cwd()

    def death(self, code: int, words: str) -> Death:
        """Say how the host has ended, which has no task of its own."""
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        return Death("engine", code, f"its client has ended ({how}) {words}".strip())

    @property
    def notes(self) -> str:
        """The folder in which running jobs look whether they are to stop."""
        return str(self._scratch.path)


class Engine:
    """See the module. ``slots``: how many the lender gives; 0: as many as the engine says, ``MOST_SLOTS`` at most."""

    def __init__(self, engine: str, slots: int, settings: Settings) -> None:
        self._engine = engine
        self._given = slots
        self._settings = settings
        self._slots: list[EngineSlot] = []
        self._jobs: dict[int, EngineSlot] = {}
        self._count = 0
        self._sending = asyncio.Lock()
        self._runner: RunnerLife | None = None
        self._notes = self._nonce = ""
        self._first: asyncio.Future[None] | None = None
        self._failed: Failed | None = None
        self._heard = 0.0
        self._failures = 0
        self._life: asyncio.Task[None] | None = None
        self._closed = False
        self.condition = Condition()
        self.on_change: Callable[[Condition], None] = lambda _condition: None

    async def open(self) -> None:
        """Start the host; returns when the engine is there. Raises ``ConfigError``."""
        await asyncio.to_thread(sweep)
        self._first = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live(), name="p2p-engine")
        try:
            await asyncio.shield(self._first)
        except BaseException:
            await self.close()
            raise

    @property
    def most(self) -> int:
        """How many slots there can be at a time."""
        return min(self._given or MOST_SLOTS, MAX_SLOTS)

    def slot(self, listener: SlotListener) -> EngineSlot:
        """Return one more slot, for a listener."""
        slot = EngineSlot(self, len(self._slots), listener, self._settings.output_limit)
        self._slots.append(slot)
        return slot

    async def close(self) -> None:
        """Leave the engine and end the host. Idempotent."""
        if self._life is None or self._closed:
            return
        self._closed = True
        if self._runner is not None and not self._runner.over.done():
            self._say(Close())
            await asyncio.wait([self._runner.over], timeout=CLOSING)
        self._life.cancel()
        await asyncio.wait([self._life])

    # -- for slots --

    def settle(self) -> None:
        """Have as many slots as the engine has room for; one that runs something stays until that is over."""
        slots = min(self.condition.slots, len(self._slots))
        here = sum(slot.here for slot in self._slots)
        for slot in reversed(self._slots):
            if here > slots and slot.here and not slot.busy:
                here -= 1
                slot.goes("The engine has room for fewer tasks now.")
        for slot in self._slots:
            if here < slots and not slot.here:
                here += 1
                slot.comes()

    def number(self, slot: EngineSlot) -> int:
        """Return the number of a new job of a slot's."""
        self._count += 1
        self._jobs[self._count] = slot
        return self._count

    def _key(self, job: int) -> str:
        """Return a job's name in the engine, which no other host's job has. It begins with that of its slot."""
        return f"p2p-{self._nonce}-{self._jobs[job].place}-{job}"

    def asked(self, job: int, task: Task, owner: str, refs: Sequence[str]) -> Asked:
        """Return how a job is to be run."""
        settings = self._settings
        return Asked(
            self._key(job),
            task.id,
            task.attempt,
            owner,
            settings.cancel_grace,
            settings.output_limit,
            settings.task_time,
            task.timeout,  # its client's, where a task frame has one
            task.once,
            tuple(refs),
            self._notes,
        )

    async def send(self, job: int, head: bytes, body: Buffer = b"") -> None:
        """Send the next bytes of a job, no faster than the host takes them."""
        for data in (head, body):
            view = memoryview(data)
            for start in range(0, len(view), MAX_BODY):
                async with self._sending:
                    self._say(Part(job), view[start : start + MAX_BODY])
                    if self._runner is not None:
                        await self._runner.writer.drain()

    def go(self, job: int) -> None:
        """Have a job run whose bytes are all sent."""
        self._say(Go(job, self._key(job)))

    def halt(self, job: int) -> None:
        """Have a job stopped."""
        self._say(Halt(job))

    def forget(self, job: int) -> None:
        """Note that a slot is done with a job."""
        self._jobs.pop(job, None)

    def _say(self, frame: Frame, body: Buffer = b"") -> None:
        if self._runner is not None and not self._runner.over.done():
            self._runner.writer.write_encoded(encode(frame.header(), len(body)), body)

    # -- the host's life --

    async def _live(self) -> None:
        while True:
            try:
                await self._one_life()
            except Exception as error:
                log.exception("an engine's host was lost sight of; another one is started")
                self._lost(f"{type(error).__name__}: {error}")
            pause = min(_BACKOFF_MAX, 2.0 ** min(self._failures, 10))
            self._failures += 1
            await asyncio.sleep(pause)

    async def _one_life(self) -> None:
        loop = asyncio.get_running_loop()
        launch = HostLaunch()
        self._failed, self._notes, self._nonce = None, launch.notes, secrets.token_hex(8)
        runner = self._runner = RunnerLife(launch, self._on_frame, room=0, on_dropped=lambda _refs: None)
        self._heard = loop.time()
        self._say(Open(self._engine, self.most if self._given else 0))
        watch = loop.create_task(self._watch(runner), name="p2p-watch")
        death = Death("start", 0, "")
        try:
            await runner.over
        finally:
            watch.cancel()
            ending = asyncio.create_task(runner.ended(), name="p2p-end")
            try:
                death = await asyncio.shield(ending)
            except asyncio.CancelledError:
                await asyncio.wait([ending])
                raise
            finally:
                self._runner = None
        words = death.detail.replace("The runner", "its client", 1)  # of one that was never ready
        self._lost(self._failed.words if self._failed is not None else words)

    async def _watch(self, runner: RunnerLife) -> None:
        """Give up a host that says nothing."""
        loop = asyncio.get_running_loop()
        while True:
            most = SILENCE if runner.pid is not None else START_DEADLINE
            left = self._heard + most - loop.time()
            if left <= 0:
                runner.stop(Death("engine", 0, f"its client has said nothing for {most:g} s"))
                return
            await asyncio.sleep(left)

    def _lost(self, words: str) -> None:
        """Note that there is no engine now."""
        if self._first is not None and not self._first.done():
            hint = self._failed.hint if self._failed is not None else ""
            self._first.set_exception(ConfigError(f"the engine can't be had: {words}", hint=hint))
            return
        if self._closed:
            return
        log.warning("the engine is lost: %s", words)
        self._change(self.condition._replace(slots=0, words=words))
        for slot in self._slots:
            if slot.here:
                slot.goes(f"The engine is lost: {words}")

    def _change(self, condition: Condition) -> None:
        if condition != self.condition:
            self.condition = condition
            self.on_change(condition)

    def _on_frame(self, runner: RunnerLife, header: Header, body: Buffer) -> None:
        self._heard = asyncio.get_running_loop().time()
        try:
            self._take(runner, read(FROM_HOST, header), body)
        except (RemoteProtocolError, FrameError) as error:
            runner.stop(Death("protocol", 0, f"its client broke the worker's protocol: {error}"))

    def _take(self, runner: RunnerLife, frame: Frame | None, body: Buffer) -> None:
        match frame:
            case Up(python=python, platform=platform):
                runner.pid = runner.process.pid
                self.condition = self.condition._replace(python=python, platform=platform)
            case Space(slots=slots, memory=memory) if runner.pid is not None:
                self._failures = 0
                self._change(self.condition._replace(slots=min(slots, self.most), memory=memory, words=""))
                if self._first is not None and not self._first.done():
                    self._first.set_result(None)
                self.settle()
            case Part(job=job):
                if (slot := self._jobs.get(job)) is not None:
                    slot.part(body)
            case Over(job=job, lost=lost, never=never):
                if (slot := self._jobs.get(job)) is not None:
                    slot.over(lost, never=never)
            case Stays(job=job):
                if job in self._jobs:
                    log.warning("a task that was cancelled can't be reached by the engine: its slot is busy until then")
            case Failed() as failed:
                self._failed = failed
            case _:
                raise RemoteProtocolError("a frame of an unknown kind, or out of turn")


def conditions(condition: Condition) -> dict[str, Any]:
    """Return what an offer says of an engine, by the names of ``Terms``."""
    return {
        "memory": condition.memory,
        "cores": condition.slots,
        "python": condition.python,
        "platform": condition.platform,
    }
