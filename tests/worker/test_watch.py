"""How a worker looks at what its task takes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

from p2p_ipython.worker.slot_base import Death
from p2p_ipython.worker.watch import GIB, Watch

PATIENCE = 20


class Runner:
    """Says what it is told to say of its processes."""

    def __init__(self) -> None:
        self.used = self.used_once = 0
        self._looks = {"memory": threading.Semaphore(0), "rest": threading.Semaphore(0)}
        self.leftover: Death | None = None
        self.slow = threading.Event()
        self.slow.set()
        self.death: asyncio.Future[Death] = asyncio.get_running_loop().create_future()

    def usage(self, *, shared_once: bool = False) -> int:
        self._looks["memory"].release()
        if self.used < 0:
            raise PermissionError("/proc is hidden")
        return self.used_once if shared_once else self.used

    def excess(self) -> Death | None:
        self._looks["rest"].release()
        found = self.leftover
        assert self.slow.wait(PATIENCE)
        return found

    async def looked(self, at: str, times: int = 1) -> None:
        for _ in range(times):
            assert await asyncio.to_thread(self._looks[at].acquire, timeout=PATIENCE), at

    def stop(self, death: Death) -> None:
        if not self.death.done():
            self.death.set_result(death)


@contextlib.asynccontextmanager
async def watched(runner: Runner) -> AsyncIterator[Watch]:
    watch = Watch(runner, GIB)  # type: ignore[arg-type]
    looking = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        looking.cancel()
        runner.slow.set()
        await asyncio.wait([looking])


async def test_memory_does_not_wait_for_a_look_at_files_that_takes_long() -> None:
    runner = Runner()
    runner.slow.clear()
    async with watched(runner) as watch:
        watch.begin("a task")
        await runner.looked("rest")
        runner.used = runner.used_once = 3 * GIB // 2
        death = await asyncio.wait_for(runner.death, PATIENCE)
    assert death.kind == "memory"
    assert "1.50 of the 1.00 GiB" in death.detail


async def test_what_processes_share_counts_once() -> None:
    runner = Runner()
    runner.used, runner.used_once = 2 * GIB, GIB // 2
    async with watched(runner) as watch:
        watch.begin("a task")
        await runner.looked("memory", 6)
        assert not runner.death.done()
        runner.used_once = 2 * GIB
        assert (await asyncio.wait_for(runner.death, PATIENCE)).kind == "memory"


async def test_a_task_is_not_ended_for_what_the_last_one_took() -> None:
    runner = Runner()
    async with watched(runner) as watch:
        watch.begin("one")
        await runner.looked("memory", 2)
        runner.slow.clear()
        runner.leftover = Death("disk", 0, "It wrote too much.")
        await runner.looked("rest", 2)  # the second one is about to return it
        watch.end()
        watch.begin("two")
        runner.slow.set()
        runner.leftover = None
        await runner.looked("rest", 2)
        assert not runner.death.done()


async def test_a_runner_that_cannot_be_looked_at_is_ended() -> None:
    runner = Runner()
    runner.used = -1
    async with watched(runner) as watch:
        watch.begin("a task")
        death = await asyncio.wait_for(runner.death, PATIENCE)
    assert "/proc is hidden" in death.detail
