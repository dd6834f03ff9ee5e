"""A peer's frame that breaks the protocol ends its link, once, and leaves nothing; all else goes on.

Each kind of frame is sent with fields that are missing, of wrong types or beyond their bounds, as hypothesis draws them
(tests/strange_frames.py): to a worker and to a client, over the link in memory and over TLS; and by a runner to its
slot. Fields and kinds of a later version are ignored.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_support import servers
from strange_frames import Said, each_way, examples, said

from p2p_ipython import loop as loops
from p2p_ipython.link.base import Linker, LinkState
from p2p_ipython.link.rendezvous import Role
from p2p_ipython.link.session import Frame
from p2p_ipython.link.tls import TLSLinker
from p2p_ipython.protocol.task_frames import FRAMES, BufferChunk, Recall, ResultChunk, Sender, Task
from p2p_ipython.rehearsal import Rehearsal, run
from p2p_ipython.rehearsal.cluster import Participant


@contextmanager
def warnings() -> Iterator[list[str]]:
    """The warnings that are logged meanwhile, in words: a record would keep the link that it names."""
    found: list[str] = []

    class Words(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(self.format(record))

    logger, handler = logging.getLogger("p2p_ipython"), Words(logging.WARNING)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


def say(link: Any, frame: Said) -> None:
    """Send a frame as it is, past all that would check it here."""
    link._outbox.queue(Frame(frame.head, frame.body, len(frame.head) + len(frame.body), bulk=False))
    link.send({"t": "have"})  # which everybody ignores; it only has the link look into its outbox


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for what nobody is told of, for at most a minute of the cluster's own time."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)


def gone(*things: Any) -> Callable[[], bool]:
    """A question: whether nothing refers to these any more."""
    kept = [weakref.ref(thing) for thing in things]

    def answer() -> bool:
        gc.collect()
        return not any(ref() for ref in kept)

    return answer


@contextmanager
def quick_collections() -> Iterator[None]:
    """Have the collector look at nothing that is here already."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def check_warnings(found: list[str], frame: Said) -> None:
    """One end has given up its link because of what was wrong; and none because of what was right."""
    assert not [words for words in found if "Traceback" in words]
    assert len([words for words in found if "given up" in words]) == bool(frame.wrong), found


async def to_a_worker(cluster: Rehearsal, frame: Said) -> Callable[[], bool]:
    """Have a client say it to the only worker of a cluster, some times, while the worker waits for a buffer.

    Return whether all is gone that has to go.
    """
    friend = await cluster.add_client("bob")
    assert await cluster.submit(pow, 2, 3) == await friend.submit(pow, 2, 3) == 8
    agent = cluster.agents[0]
    (end,), (friends,) = cluster.client.links.values(), friend.client.links.values()
    ends = {agent.machine.owner_of(number).sid: one for number, one in agent._links.items()}  # type: ignore[union-attr]
    theirs = ends[cluster.client._session.sid]
    assert theirs.link is not None
    end.send(Task("half", 1, "call", ((9, "r"),), coming=("r",)).header())
    end.send(BufferChunk("r", 9, 0).header(), b"abc")
    for _ in range(3):
        say(end.link, frame)
    if frame.wrong:
        await eventually(lambda: theirs not in agent._links.values() and end not in cluster.client.links.values())
        assert theirs.link.state is LinkState.LOST
        assert not agent._arrived
        assert not agent._wanted
        assert not agent._cache._buffers
        assert not agent.machine.busy()
        assert not theirs.link.pending
    else:
        end.send(Recall("half", 1).header())
        if frame.header["t"] == "task":  # whose buffers would be waited for
            say(end.link, Said({**frame.header, "t": Recall.kind}, b""))
        assert await cluster.submit(pow, 2, 4) == 16
        assert set(agent._links.values()) == set(ends.values())
        assert not agent._arrived
    assert await friend.submit(pow, 2, 4) == 16
    assert list(friend.client.links.values()) == [friends]
    return gone(end, end.link, theirs, theirs.link) if frame.wrong else lambda: True


async def to_a_client(cluster: Rehearsal, frame: Said) -> Callable[[], bool]:
    """Have the only worker of a cluster say it to its client, some times, while a result is on its way.

    What is wrong is said about the task that runs. Return whether all is gone that has to go.
    """
    assert await cluster.submit(pow, 2, 3) == 8
    future = cluster.submit(asyncio.sleep, 3600)
    await eventually(lambda: cluster.agents[0].machine.busy())
    (end,), (theirs,) = cluster.client.links.values(), cluster.agents[0]._links.values()
    assert end.link is not None
    theirs.send(ResultChunk(future.task_id, 1, "r", 9, 0).header(), b"abc")
    for _ in range(3):
        say(theirs.link, frame.about(id=future.task_id, attempt=1) if frame.wrong else frame)
    if frame.wrong:
        entry = cluster.client.records.journal.entries[future.task_id]
        await eventually(lambda: end not in cluster.client.links.values() and entry.attempt > 1)
        assert end.link.state is LinkState.LOST
        assert not end.link.pending
        future.cancel()
    else:
        await eventually(lambda: end._incoming)
        future.cancel()
        assert await cluster.submit(pow, 2, 4) == 16
        assert list(cluster.client.links.values()) == [end]
    assert not end._incoming
    return gone(end, end.link, theirs, theirs.link) if frame.wrong else lambda: True


async def said_in(cluster: Rehearsal, sender: Sender, frame: Said) -> None:
    """Have it said in a cluster, and see that the cluster works on."""
    left = await (to_a_worker if sender == "client" else to_a_client)(cluster, frame)
    await eventually(left)
    assert await cluster.submit(pow, 2, 5) == 32, "the client comes back by a new link"


QUICK = {"request_every": 0.5, "presence": 1.0}
PEERS: tuple[Sender, ...] = ("client", "worker")


@pytest.mark.parametrize(("sender", "kind"), [(sender, kind) for sender in PEERS for kind in FRAMES[sender]])
def test_a_frame_that_is_wrong_ends_its_link_and_one_of_a_later_version_is_ignored(sender: Sender, kind: str) -> None:
    def one(frame: Said) -> None:
        async def work() -> None:
            async with Rehearsal(workers=1, **QUICK) as cluster, asyncio.timeout(600):
                await said_in(cluster, sender, frame)

        with warnings() as found:
            run(work())
        check_warnings(found, frame)

    with quick_collections():
        each_way(sender, kind, 2, one)


# --- over the real link -----------------------------------------------------------------------------------------------


class OverTLS(Rehearsal):
    """A cluster on real time, whose links are those of friends; only its board and its slots are in memory."""

    def __init__(self, mailbox: str) -> None:
        super().__init__(workers=1, lease=0.5, request_every=0.1, presence=0.2)
        self._mailbox = mailbox

    def linker(self, role: Role) -> Linker:
        return TLSLinker(role, settings=self.settings, listen_host="127.0.0.1", force="direct")

    async def _open(self, participant: Participant, member: str) -> None:
        await super()._open(participant, member)
        participant.client.mailbox = self._mailbox


@pytest.mark.parametrize("sender", PEERS)
def test_over_the_real_link_a_frame_that_is_wrong_ends_it_too(sender: Sender) -> None:
    @examples(8)
    @given(st.sampled_from(list(FRAMES[sender])).flatmap(lambda kind: said(sender, kind)))
    def one(frame: Said) -> None:
        async def work() -> None:
            async with servers() as there, OverTLS(there.mailbox) as cluster, asyncio.timeout(60):
                await said_in(cluster, sender, frame)

        with warnings() as found:
            loops.background().run(work())
        check_warnings(found, frame)

    with quick_collections():
        one()
