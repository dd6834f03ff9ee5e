"""Members who mean harm, with a client or workers of their own: others lose little by it, and remember little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from p2p_ipython.link.base import Link, Linker, LinkHandler, Meeting
from p2p_ipython.link.end import MEETING_SPARE
from p2p_ipython.link.rendezvous import Role
from p2p_ipython.members.membership import Membership
from p2p_ipython.protocol.placement import WorkerState
from p2p_ipython.protocol.task_frames import BufferChunk, Recall, ResultChunk, Task
from p2p_ipython.rehearsal import Rehearsal, run
from p2p_ipython.task.safe import BUDGET
from p2p_ipython.worker import agent as worker_agent
from p2p_ipython.worker.cache import STALLED


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


# --- what waits for a member who doesn't read -------------------------------------------------------------------------


def test_what_waits_on_all_links_of_a_member_who_does_not_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_agent, "MOST_WAITING_FOR_ONE", 2 << 20)
    monkeypatch.setattr(worker_agent, "HIGH_WATER", 1 << 19)

    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            mallory = [await cluster.add_client("mallory") for _ in range(4)]
            for one in (cluster, *mallory):
                assert await one.submit(pow, 2, 3) == 8
            agent, signer = cluster.agents[0], mallory[0].client._session.certificate.signer
            ends = [next(iter(one.client.links.values())) for one in mallory]
            for number, end in agent._links.items():
                if agent._member(number) == signer:  # the other end reads nothing
                    monkeypatch.setattr(end.link, "_deliver", lambda bulk: False)
            asked, most = Task("x", 1, "call", ((1, None),)), 0
            for number in range(16_000):
                ends[number % 4].send(replace(asked, id=f"t{number}").header(), b"x")
                if number % 100 == 0:
                    await asyncio.sleep(0.01)
                    most = max(most, sum(end.pending for end in agent._links.values()))
            assert 1 << 20 < most < 3 << 20
            assert not [number for number in agent._links if agent._member(number) == signer]
            assert await cluster.submit(pow, 2, 4) == 16

    run(work())


# --- buffers that never end -------------------------------------------------------------------------------------------


def big(number: int, size: int) -> Task:
    ref = f"r{number}"
    return Task(f"t{number}", 1, "call", ((size, ref),), coming=(ref,))


def test_buffers_that_have_begun_and_never_end_stay_within_the_bound_of_their_member() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1, worker_cache=8 << 20) as cluster:
            mallory = [await cluster.add_client("mallory") for _ in range(2)]
            for one in (cluster, *mallory):
                assert await one.submit(pow, 2, 3) == 8
            cache = cluster.agents[0]._cache
            ends = [next(iter(one.client.links.values())) for one in mallory]
            for number in range(200):
                end = ends[number % 2]
                end.send(big(number, 1 << 20).header())
                end.send(BufferChunk(f"r{number}", 1 << 20, 0).header(), bytes(1 << 19), bulk=True)
                await asyncio.sleep(0)
            await eventually(lambda: not any(end.pending for end in ends))
            assert sum(buffer.size for buffer in cache._buffers.values()) <= 8 << 20
            for number in range(200):
                ends[number % 2].send(Recall(f"t{number}", 1).header())
            await eventually(lambda: not cache._buffers)
            async with asyncio.timeout(60):
                assert await cluster.submit(pow, 2, 4) == 16
            assert not cache._pinned

    run(work())


def test_a_task_whose_buffers_never_come_gives_its_slot_back_and_its_client_hears_of_it() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            mallory = await cluster.add_client("mallory")
            for one in (cluster, mallory):
                assert await one.submit(pow, 2, 3) == 8
            agent, heard = cluster.agents[0], []
            end = next(iter(mallory.client.links.values()))
            end.on_frame = lambda header, body: heard.append(header)
            loop = asyncio.get_running_loop()
            began = loop.time()
            end.send(big(0, 1 << 20).header())
            end.send(BufferChunk("r0", 1 << 20, 0).header(), bytes(1 << 19), bulk=True)
            async with asyncio.timeout(3600):
                assert await cluster.submit(pow, 2, 4) == 16
            assert STALLED <= loop.time() - began <= 2 * STALLED + 30
            (told,) = [header for header in heard if header["t"] == "result"]
            assert told["error"]["kind"] == "unloadable"
            assert "has sent nothing for 120 s" in told["error"]["message"]
            assert not agent._arrived
            assert not agent._cache._buffers

    run(work())


def test_a_buffer_that_waits_its_turn_behind_others_of_its_client_is_waited_for() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1, slots=2) as cluster:
            assert await cluster.submit(pow, 2, 3) == 8
            agent = cluster.agents[0]
            end = next(iter(cluster.client.links.values()))
            for number in range(2):
                end.send(big(number, 8).header())
            for offset in range(8):  # of the first, a byte a minute
                await asyncio.sleep(60)
                end.send(BufferChunk("r0", 8, offset).header(), b"x", bulk=True)
            await eventually(lambda: len(agent._arrived) == 1)
            end.send(BufferChunk("r1", 8, 0).header(), b"12345678", bulk=True)
            await eventually(lambda: not agent._arrived)
            assert len(agent._cache._buffers) == 2  # both are whole

    run(work())


def test_a_members_only_task_may_be_larger_than_the_bound() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1, worker_cache=1 << 20) as cluster:
            assert await cluster.submit(len, bytes(5 << 20)) == 5 << 20

    run(work())


# --- results that are too large ---------------------------------------------------------------------------------------


class Wary(Rehearsal):
    """A cluster whose members trust nobody's results but their own."""

    def _membership(self, role: str, member: str) -> Membership:
        made = super()._membership(role, member)
        made.trusted = frozenset()
        return made


@pytest.mark.parametrize("parts", [1, 3])
def test_a_result_of_somebody_who_is_not_trusted_is_refused_at_its_first_byte_over_the_limit(parts: int) -> None:
    async def work() -> None:
        async with Wary(workers=0) as cluster:
            await cluster.add_worker("bob")
            future = cluster.submit(asyncio.sleep, 3600)
            agent = cluster.agents[0]
            await eventually(agent.machine.busy)
            (theirs,), (end,) = agent._links.values(), cluster.client.links.values()
            size = BUDGET // parts + 1
            for number in range(parts):
                chunk = ResultChunk(future.task_id, 1, f"r{number}", size, 0)
                theirs.send(chunk.header(), bytes(1 << 20), bulk=True)
            async with asyncio.timeout(60):
                with pytest.raises(MemoryError, match="at most"):
                    await future
            await eventually(lambda: not agent.machine.busy())
            assert not end._incoming
            assert end.promised() == 0
            assert await cluster.submit(pow, 2, 3) == 8

    run(work())


def test_a_result_of_ones_own_worker_may_be_larger() -> None:
    async def work() -> None:
        async with Wary(workers=1) as cluster:
            future = cluster.submit(asyncio.sleep, 3600)
            await eventually(cluster.agents[0].machine.busy)
            (end,) = cluster.client.links.values()
            chunk = ResultChunk(future.task_id, 1, "r", BUDGET + 1, 0)
            assert end.buffer_for(chunk.header(), 1 << 20) is not None
            future.cancel()

    run(work())


# --- a clock that is wrong --------------------------------------------------------------------------------------------


def test_a_task_that_waits_because_of_a_clock_says_so() -> None:
    class Late(Rehearsal):
        def _membership(self, role: str, member: str) -> Membership:
            made = super()._membership(role, member)
            if role == "worker":  # 15 minutes ahead
                made.session.renew(time.time() + 900)
            return made

    async def work() -> None:
        async with Late(workers=1) as cluster:
            future = cluster.submit(pow, 2, 3)
            await eventually(lambda: "clock" in cluster.client.why(future.task_id))
            assert cluster.client.why(future.task_id) == (
                "waiting for a worker: this machine's clock is 15 minutes behind that of another machine of yours:"
                " set the wrong one (p2p doctor says which)"
            )
            cluster.agents[0].membership.session.renew(time.time())
            future.cancel()

    run(work())
