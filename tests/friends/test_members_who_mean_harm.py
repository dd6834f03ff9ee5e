"""Members who mean harm, with a client or workers of their own: others lose little by it, and remember little."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from p2p_ipython.link.base import Link, Linker, LinkHandler, Meeting
from p2p_ipython.link.end import MEETING_SPARE
from p2p_ipython.link.rendezvous import Role
from p2p_ipython.protocol.placement import WorkerState
from p2p_ipython.rehearsal import Rehearsal, run


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for what nobody is told of, for at most an hour of the cluster's own time."""
    async with asyncio.timeout(3600):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)


# --- meetings ---------------------------------------------------------------------------------------------------------


class _Stumbling:
    """A linker that goes wrong in its own way at the first meetings of a process."""

    def __init__(self, linker: Linker, times: int, way: Callable[[], object]) -> None:
        self._linker = linker
        self._left = times
        self._way = way

    async def open(self, meeting: Meeting, handler: LinkHandler) -> Link:
        if self._left:
            self._left -= 1
            if self._way() is None:
                await asyncio.get_running_loop().create_future()
        return await self._linker.open(meeting, handler)

    async def close(self) -> None:
        await self._linker.close()


def _raise() -> object:
    raise RuntimeError("an error occurred")


@pytest.mark.parametrize("role", ["client", "worker"])
@pytest.mark.parametrize("way", [lambda: None, _raise], ids=["hangs", "raises"])
def test_a_meeting_that_goes_wrong_in_any_way_ends_and_another_one_comes(way: Callable[[], object], role: Role) -> None:
    class Stumbles(Rehearsal):
        def linker(self, of: Role) -> Linker:
            there = super().linker(of)
            return _Stumbling(there, 1, way) if of == role else there

    async def work() -> None:
        async with Stumbles(workers=1) as cluster:
            await eventually(lambda: cluster.client.machine.workers)
            (worker,) = cluster.client.machine.workers.values()
            future = cluster.submit(pow, 2, 3)
            async with asyncio.timeout(2 * (cluster.settings.meet + MEETING_SPARE)):
                await eventually(lambda: worker.state is WorkerState.KNOWN)
                assert await future == 8
                await eventually(lambda: not cluster.agents[0].machine._meeting)

    run(work())
