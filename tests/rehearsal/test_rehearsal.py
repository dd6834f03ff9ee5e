"""Faults on virtual time: everything of a cluster but its sockets and processes, hours of it in moments."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import psutil
import pytest

from p2p_ipython.client.task_options import USUAL
from p2p_ipython.errors import UsageError, WorkerLost
from p2p_ipython.link.base import LinkState
from p2p_ipython.protocol.identity import MAX_LIFE
from p2p_ipython.rehearsal import NothingWillHappen, Rehearsal, run
from p2p_ipython.rehearsal.board import Faults
from p2p_ipython.task.task import make_call


def now() -> float:
    return asyncio.get_running_loop().time()


async def naps(seconds: float, value: int) -> int:
    await asyncio.sleep(seconds)
    return value


def test_time_passes_only_when_all_wait() -> None:
    async def work() -> float:
        await asyncio.sleep(3600)
        return now()

    assert run(work()) == pytest.approx(3600)


def test_waiting_for_what_cant_come_is_an_error() -> None:
    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingWillHappen):
        run(work())


@pytest.mark.parametrize("seed", range(8))
def test_over_a_bad_board_and_links_that_are_cut_every_task_is_done_once(seed: int) -> None:
    faults = Faults(drop=0.2, duplicate=0.2, cut=0.1, late=0.3, delay=2.0, latency=0.05)

    async def work() -> None:
        async with Rehearsal(workers=3, slots=2, seed=seed, board_faults=faults, cut_rate=0.02) as cluster:
            futures = [cluster.submit(naps, n % 5, n) for n in range(100)]
            async with asyncio.timeout(3600):
                assert await asyncio.gather(*futures) == list(range(100))

    run(work())


def test_tasks_of_a_worker_whose_link_is_lost_go_to_another() -> None:
    async def work() -> None:
        async with Rehearsal(workers=2) as cluster:
            futures = [cluster.submit(naps, 1000, n) for n in range(2)]
            await asyncio.sleep(10)
            assert all(future.running() for future in futures)
            lost = next(iter(cluster.client.links.values()))
            assert lost.link is not None
            cluster.links.lose(lost.link)
            assert await asyncio.gather(*futures) == [0, 1]
            assert 1010 < now() < 2200  # on the worker that is left, or on the same one over a new link

    run(work())


def test_a_task_that_begins_anew_says_so_where_its_output_stands() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            future = cluster.submit(naps, 1000, 1)
            await asyncio.sleep(10)
            header = {"t": "output", "id": future.task_id, "attempt": 1, "kind": "stream", "name": "stdout"}
            some_link(cluster).on_frame(header, b"half")
            cluster.kill_runner(0)
            assert await future == 1
            texts = [message["text"] for message in future.outputs]
            assert texts[0] == "half"
            assert [text for text in texts if "begins anew" in text] == [texts[1]]

    run(work())


def test_a_runner_that_is_killed_three_times_loses_the_task_with_the_reason() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            future = cluster.submit(naps, 1000, 1)
            for _ in range(3):
                await asyncio.sleep(10)
                assert not future.done()
                cluster.kill_runner(0)
            await asyncio.sleep(10)
            with pytest.raises(WorkerLost, match="3 times"):
                future.result(0)

    run(work())


def test_options_hold_on_virtual_time() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            number = await cluster.add_worker("bob", tags=("gpu",))
            for options in ({"tags": "gpu"}, {"on": "bob"}):
                assert await cluster.submit_with(USUAL.changed(options), naps, 100, 1) == 1
            waits = cluster.submit_with(USUAL.changed({"tags": "gpu,home"}), naps, 1, 1)
            await asyncio.sleep(1000)
            assert waits.state_text == (
                "waiting for a worker with tags gpu, home; here: me (worker-1) (no tags), bob (worker-2) (tags: gpu)"
            )
            lazy = cluster.submit_with(USUAL.changed({"lazy": True, "on": "bob"}), naps, 100, 2)
            await asyncio.sleep(1000)
            assert not lazy.done()
            assert await lazy == 2
            again = cluster.submit_with(USUAL.changed({"retries": 2, "retry_on": ZeroDivisionError}), divide, 0)
            with pytest.raises(ZeroDivisionError):
                await again
            assert [text for m in again.outputs if "retry" in (text := m["text"])] == [
                "\n[retry 1 of 2 after ZeroDivisionError: division by zero]\n",
                "\n[retry 2 of 2 after ZeroDivisionError: division by zero]\n",
            ]
            await cluster.remove_worker(number)

    run(work())


def divide(by: int) -> float:
    return 1 / by


def test_a_future_waits_for_a_worker_and_says_so_and_one_that_comes_late_is_found() -> None:
    async def work() -> None:
        async with Rehearsal(workers=0) as cluster:
            future = cluster.submit(pow, 2, 2)
            await asyncio.sleep(1000)
            assert future.state_text == "waiting for a worker: none is here (no member has answered on the board yet)"
            await cluster.add_worker()
            async with asyncio.timeout(60):
                assert await future == 4

    run(work())


def test_while_the_board_is_down_tasks_go_on_over_the_links_there_are() -> None:
    async def work() -> None:
        async with Rehearsal(workers=2) as cluster:
            assert await cluster.submit(pow, 2, 2) == 4
            cluster.board.down()
            async with asyncio.timeout(100):
                assert await asyncio.gather(*(cluster.submit(naps, 1, n) for n in range(20))) == list(range(20))
            cluster.board.up()
            await asyncio.sleep(60)
            await cluster.add_worker()
            await asyncio.sleep(60)
            assert len(cluster.client.machine.workers) == 3

    run(work())


def test_a_session_that_lives_longer_than_its_certificate_is_still_heard() -> None:
    """Certificates are checked by the wall clock, so this one is not virtual: the renewal itself is."""

    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            assert await cluster.submit(pow, 2, 2) == 4
            session = cluster.agents[0]._session
            before = session.certificate
            session.renew(before.until - MAX_LIFE + 300)  # as five minutes later
            await asyncio.sleep(cluster.settings.presence + 1)
            assert session.certificate.until > before.until
            voice = cluster.client.membership._voice
            assert voice is not None
            heard = voice.reader._sessions[session.sid].certificate
            assert heard.until == session.certificate.until
            assert await cluster.submit(pow, 2, 2) == 4

    run(work())


def test_closing_cancels_what_waits() -> None:
    async def work() -> Any:
        async with Rehearsal(workers=1) as cluster:
            futures = [cluster.submit(naps, 1000, n) for n in range(3)]
            await asyncio.sleep(1)
        return futures

    futures = run(work())
    assert all(future.cancelled() for future in futures)


def test_a_task_that_is_cancelled_in_the_moment_in_which_it_is_to_be_sent_never_leaves() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            assert await cluster.submit(pow, 2, 2) == 4
            whole, ran = cluster.client._send, list[int]()

            def cancelled_just_before(action: Any) -> None:
                assert future.cancel()
                whole(action)

            cluster.client._send = cancelled_just_before  # type: ignore[method-assign]
            future = cluster.submit(ran.append, 1)
            with pytest.raises(asyncio.CancelledError):
                await future
            await asyncio.sleep(0)
            cluster.client._send = whole  # type: ignore[method-assign]
            loop = asyncio.get_running_loop()
            begun = loop.time()
            assert await cluster.submit(pow, 2, 3) == 8
            assert loop.time() - begun < 1, "no slot waits for the end of what never began"
            assert set(cluster.client.machine.counts().values()) == {0}
            assert ran == []

    run(work())


def test_leaving_hands_waiting_tasks_to_others() -> None:
    async def work() -> None:
        async with Rehearsal(workers=2) as cluster:
            futures = [cluster.submit(naps, 5, n) for n in range(6)]
            await asyncio.sleep(1)
            await cluster.remove_worker(0)
            assert await asyncio.gather(*futures) == list(range(6))

    run(work())


def some_link(cluster: Rehearsal) -> Any:
    return next(iter(cluster.client.links.values()))


def test_a_task_with_a_label_that_isnt_text_ends_its_link_and_the_worker_works_on() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            assert await cluster.submit(pow, 2, 2) == 4
            task = {"t": "task", "id": "x", "attempt": 1, "kind": "call", "segments": [[1, None]], "label": 5}
            broken = some_link(cluster)
            broken.send(task, b"x")
            async with asyncio.timeout(120):
                assert await cluster.submit(pow, 2, 3) == 8
            assert broken.link is not None
            assert broken.link.state is LinkState.LOST
            assert not cluster.agents[0]._arrived

    run(work())


def test_a_slot_that_cant_take_a_task_is_free_for_the_next_one() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            slot = cluster.slots[0][0]
            whole, failures = slot.run, []

            def fails_once(*args: Any, **kwargs: Any) -> None:
                if not failures:
                    failures.append(1)
                    raise ValueError("no")
                whole(*args, **kwargs)

            slot.run = fails_once  # type: ignore[method-assign]
            async with asyncio.timeout(60):
                assert await cluster.submit(pow, 2, 2) == 4
            assert failures

    run(work())


def test_a_flood_of_empty_output_is_bounded() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1, output_limit=10_000) as cluster:
            future = cluster.submit(naps, 1000, 1)
            await asyncio.sleep(1)
            handler = some_link(cluster)
            header = {"t": "output", "id": future.task_id, "attempt": 1, "kind": "stream", "name": "stdout"}
            for _ in range(100_000):
                handler.on_frame(header, b"")
            assert len(future.outputs) < 10_000
            future.cancel()

    run(work())


def test_what_has_come_of_a_result_is_let_go_with_its_task() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            future = cluster.submit(naps, 1000, 1)
            await asyncio.sleep(1)
            handler = some_link(cluster)
            chunk = {"t": "chunk", "id": future.task_id, "attempt": 1, "ref": "r0", "size": 10 << 20, "off": 0}
            assert handler.buffer_for(chunk, 1 << 20) is not None
            assert handler._incoming
            future.cancel()
            await asyncio.sleep(1)
            assert not handler._incoming

    run(work())


def test_a_result_that_doesnt_fit_here_is_a_memory_error_and_the_next_one_arrives() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            future = cluster.submit(naps, 1000, 1)
            await asyncio.sleep(1)
            handler, head = some_link(cluster), {"id": future.task_id, "attempt": 1}
            chunk = {"t": "chunk", **head, "ref": "r0", "size": 1 << 36, "off": 0}
            assert handler.buffer_for(chunk, 1 << 20) is None
            handler.on_frame(chunk, bytes(1 << 20))
            handler.on_frame({"t": "result", **head, "ok": True, "segments": [[1 << 36, "r0"]]}, b"")
            with pytest.raises(MemoryError, match="no room"):
                await future
            assert not handler._incoming
            cluster.kill_runner(0)
            async with asyncio.timeout(60):
                assert await cluster.submit(pow, 2, 3) == 8

    run(work())


def test_what_a_worker_has_announced_and_not_sent_counts_against_what_it_may_announce_next() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            future = cluster.submit(naps, 1000, 1)
            await asyncio.sleep(1)
            handler, head = some_link(cluster), {"id": future.task_id, "attempt": 1}
            size = int(psutil.virtual_memory().available * 0.6)
            taken = [
                handler.buffer_for({"t": "chunk", **head, "ref": ref, "size": size, "off": 0}, 1 << 20) is not None
                for ref in ("r0", "r1", "r2")
            ]
            assert taken == [True, False, False]
            future.cancel()
            await asyncio.sleep(1)

    run(work())


def test_one_tasks_trouble_doesnt_keep_the_others_in_the_inbox() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            task = make_call(pow, (2, 2), {}, cluster.store)
            first, again = cluster.submit_task(task), cluster.submit_task(task)
            last = cluster.submit(pow, 2, 3)
            async with asyncio.timeout(60):
                assert await first == 4
                assert await last == 8
            with pytest.raises(UsageError, match="submitted before"):
                again.result(0)

    run(work())


def test_a_new_members_first_task_does_not_wait_for_a_worker_that_has_not_heard_of_him() -> None:
    async def work() -> None:
        async with Rehearsal(workers=2, presence=1000) as cluster:
            assert await cluster.submit(pow, 2, 2) == 4
            friend = await cluster.add_client("bob")
            before = asyncio.get_running_loop().time()
            assert await friend.submit(pow, 2, 3) == 8
            assert asyncio.get_running_loop().time() - before < cluster.settings.meet / 4

    run(work())


RUNS: Counter[int] = Counter()


async def counted(seconds: float, value: int) -> int:
    RUNS[value] += 1
    return await naps(seconds, value)


@pytest.mark.parametrize("seed", range(4))
def test_workers_that_pause_and_go_on_under_load_lose_no_task_and_run_none_twice(seed: int) -> None:
    """The board is bad: that a worker pauses, and that it goes on, may be heard late, twice or not at all."""
    faults = Faults(drop=0.2, duplicate=0.2, late=0.3, delay=2.0, latency=0.05)
    RUNS.clear()

    async def work() -> None:
        async with Rehearsal(workers=2, slots=2, seed=seed, board_faults=faults) as cluster:
            futures = [cluster.submit(counted, n % 5, n) for n in range(100)]

            async def pauses() -> None:
                rng = random.Random(seed)
                while True:
                    agent = rng.choice(cluster.agents)
                    agent.pause()
                    await asyncio.sleep(rng.uniform(0, 10))
                    agent.resume()
                    await asyncio.sleep(rng.uniform(0, 5))

            pausing = asyncio.create_task(pauses())
            async with asyncio.timeout(3600):
                assert await asyncio.gather(*futures) == list(range(100))
            pausing.cancel()

    run(work())
    assert dict(RUNS) == dict.fromkeys(range(100), 1)


def test_a_paused_worker_ends_what_runs_and_takes_nothing_until_it_goes_on() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            first = cluster.submit(naps, 100, 1)
            await asyncio.sleep(10)
            cluster.agents[0].pause()
            second = cluster.submit(naps, 1, 2)
            assert await first == 1
            assert now() == pytest.approx(100, abs=5)
            await asyncio.sleep(1000)
            assert second.state_text == "waiting for a worker: those that are here are paused"
            cluster.agents[0].resume()
            async with asyncio.timeout(10):
                assert await second == 2

    run(work())
