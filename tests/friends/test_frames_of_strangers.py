"""A peer's frame that breaks the protocol ends its link, and leaves nothing; all else goes on.

Each kind of frame with each of its fields missing or wrong is sent over the link in memory, towards a worker and
towards a client; some of each over the real link, from one process to another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from frame_support import GOOD, mistakes
from friends_support import Village, eventually, lending, on_the_loop, soon, village

from p2p_ipython.link.base import LinkState
from p2p_ipython.protocol.frames import Header
from p2p_ipython.protocol.task_frames import FRAMES, Sender
from p2p_ipython.rehearsal import Rehearsal, run

TITLE = "alice/friends"
CONNECTED = f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r}, request_every=0.5, presence=1)"


def one_mistake_a_field(sender: Sender) -> list[Any]:
    """For each field of each kind a header in which it is missing, or else of a wrong type."""
    found = []
    for kind in FRAMES[sender]:
        seen = set()
        for name, header in mistakes(sender, kind):
            if name not in seen:
                seen.add(name)
                found.append(pytest.param(header, id=f"{kind} with a wrong {name}"))
    return found


COMING: Header = {**GOOD["client", "task"], "coming": [[]]}


def body_of(header: Header) -> bytes:
    return bytes(3) if header["t"] in ("task", "result") else b"x" * 9 if header["t"] == "chunk" else b""


def of_this_task(header: Header, task: str) -> Header:
    """The same header, about a task that runs."""
    return {**header, "id": task} if header.get("id") == "t" else header


@pytest.mark.parametrize("header", [*one_mistake_a_field("client"), pytest.param(COMING, id="coming [[]]")])
def test_what_no_client_may_say_ends_the_link_at_the_worker(header: Header, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            friend = await cluster.add_client("bob")
            assert await cluster.submit(pow, 2, 3) == await friend.submit(pow, 2, 3) == 8
            (end,) = cluster.client.links.values()
            agent = cluster.agents[0]
            assert len(agent._links) == 2
            for _ in range(20):
                end.send(header, body_of(header))
            await asyncio.sleep(1)
            assert len(agent._links) == 1
            assert not agent._arrived
            assert not agent._wanted
            assert not agent._cache._buffers
            assert not agent.machine.busy()
            assert await friend.submit(pow, 2, 4) == 16
            assert await cluster.submit(pow, 2, 5) == 32, "the client comes back by a new link"

    with caplog.at_level(logging.WARNING):
        run(work())
    assert "Traceback" not in caplog.text
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 2


@pytest.mark.parametrize("header", one_mistake_a_field("worker"))
def test_what_no_worker_may_say_ends_the_link_at_the_client(header: Header, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            assert await cluster.submit(pow, 2, 3) == 8
            future = cluster.submit(asyncio.sleep, 20)
            await asyncio.sleep(1)
            (end,) = cluster.client.links.values()
            (theirs,) = cluster.agents[0]._links.values()
            for _ in range(20):
                theirs.send(of_this_task(header, future.task_id), body_of(header))
            await asyncio.sleep(1)
            assert end.link is not None
            assert end.link.state is LinkState.LOST
            assert not end._incoming
            assert end not in cluster.client.links.values()
            await future  # by another attempt
            assert cluster.client.records.journal.entries[future.task_id].attempt == 2

    with caplog.at_level(logging.WARNING):
        run(work())
    assert "Traceback" not in caplog.text


LATER: list[Header] = [
    {"t": "applause", "loud": [1, {"much": "very"}]},
    {"t": "have", "refs": [[]]},
    {**GOOD["client", "recall"], "why": {"because": [None]}},
]


@pytest.mark.parametrize("header", LATER)
def test_kinds_and_fields_of_a_later_version_are_ignored_at_both_ends(header: Header) -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            assert await cluster.submit(pow, 2, 3) == 8
            (end,) = cluster.client.links.values()
            (theirs,) = cluster.agents[0]._links.values()
            end.send(header)
            theirs.send(header)
            await asyncio.sleep(1)
            assert await cluster.submit(pow, 2, 4) == 16
            assert list(cluster.client.links.values()) == [end]

    run(work())


# --- over the real link, between processes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    with village(tmp_path_factory.mktemp("strangers")) as made:
        yield made


def test_over_the_real_link_a_worker_drops_clients_that_talk_nonsense_and_keeps_nothing(here: Village) -> None:
    profile = here.found("bob")
    with on_the_loop(lending(profile, here.person("bob"))) as agent:
        client = here.person("alice").notebook(CONNECTED)
        client.run("c.trust('bob')")  # whose slot here knows pickles only
        wrong = [COMING, {**GOOD["client", "task"], "segments": 7}, {**GOOD["client", "recall"], "attempt": "1"}]
        for number, header in enumerate(wrong, 3):
            assert client.run(f"answer = c.submit(pow, 2, {number}).result(60)") == str(2**number)
            (before,) = agent._links
            client.run(f"end, = c._bridge.links.values(); end.send({header!r}, b'abc')")
            eventually(lambda before=before: before not in agent._links, "the end of the link")  # type: ignore[misc]
            soon(lambda: None)
            assert not agent._arrived
            assert not agent._cache._buffers
        assert client.run("answer = c.submit(pow, 2, 10).result(60)") == "1024"


def test_over_the_real_link_a_client_leaves_a_worker_that_talks_nonsense(here: Village) -> None:
    profile = here.found("bob")
    with on_the_loop(lending(profile, here.person("bob"))) as agent:
        client = here.person("alice").notebook(CONNECTED)
        client.run("c.trust('bob')")  # whose slot here knows pickles only
        for number, header in enumerate([{"t": "room", "free": "all"}, {"t": "evicted"}], 3):
            assert client.run(f"answer = c.submit(pow, 2, {number}).result(60)") == str(2**number)
            ((before, end),) = agent._links.items()
            soon(lambda end=end, header=header: end.send(header))  # type: ignore[misc]
            eventually(lambda before=before: before not in agent._links, "the end of the link")  # type: ignore[misc]
        assert client.run("answer = c.submit(pow, 2, 10).result(60)") == "1024"
