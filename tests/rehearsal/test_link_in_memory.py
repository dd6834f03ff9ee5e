"""The link in memory beyond what every link does: faults to order, and the same ones for the same seed."""

from __future__ import annotations

import asyncio

import pytest
from link_support import Recorder, World

from p2p_ipython.config import Settings
from p2p_ipython.errors import LinkLost
from p2p_ipython.link.base import LinkState, Meeting
from p2p_ipython.link.rendezvous import new_code
from p2p_ipython.rehearsal.hub import MemoryHub
from p2p_ipython.rehearsal.link import MemoryLinker


async def test_a_link_that_is_cut_for_good_stays_away_until_it_is_restored() -> None:
    here = World("memory", "memory:", None)
    ends = await here.join()
    here.hub.cut(ends.client, away=float("inf"))
    ends.client.send({"t": "a", "n": 1})
    for _ in range(10):
        await asyncio.sleep(0)
    assert ends.worker_hears.frames == []
    here.hub.restore(ends.worker)
    await ends.worker_hears.until(lambda heard: heard.frames)
    assert [state for state, _ in ends.client_hears.states] == [LinkState.RECONNECTING, LinkState.UP]
    await here.close()


async def test_a_link_that_is_lost_on_purpose_is_lost_at_both_ends() -> None:
    here = World("memory", "memory:", None)
    ends = await here.join()
    here.hub.lose(ends.worker)
    assert ends.client_hears.states == ends.worker_hears.states == [(LinkState.LOST, "lost on purpose")]
    with pytest.raises(LinkLost):
        ends.worker.send({"t": "a"})
    await here.close()


async def test_the_same_seed_gives_the_same_run() -> None:
    runs = [await _run(seed) for seed in (5, 5, 6)]
    assert runs[0] == runs[1] != runs[2]
    assert any(entry == LinkState.RECONNECTING for entry in runs[0])
    assert [entry for entry in runs[0] if isinstance(entry, int)] == list(range(300))


async def _run(seed: int) -> list[object]:
    hub = MemoryHub(seed=seed, cut_rate=0.02, away=0)
    linkers = [MemoryLinker(role, hub=hub, settings=Settings()) for role in ("client", "worker")]
    log: list[object] = []

    class Log(Recorder):
        def on_frame(self, header, body) -> None:  # type: ignore[no-untyped-def]
            log.append(header["n"])
            super().on_frame(header, body)

        def on_link(self, state: LinkState, detail: str) -> None:
            log.append(state)
            super().on_link(state, detail)

    hears = Log()
    code = new_code()
    meeting = Meeting(code, "memory:", None, 10, lambda verifier: b"", lambda verifier, proof: None)
    client, _ = await asyncio.gather(linkers[0].open(meeting, Recorder()), linkers[1].open(meeting, hears))
    for number in range(300):
        client.send({"t": "a", "n": number}, bytes(100_000 if number % 50 == 0 else 10))
    await hears.until(lambda heard: len(heard.frames) == 300)
    for linker in linkers:
        await linker.close()
    return log
