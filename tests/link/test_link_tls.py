"""The things that only the real link has: certificates, strangers, a relay, heartbeats, a wormhole."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import re
import tempfile
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from link_support import PATIENCE, Recorder, World, eventually, world

from p2p_ipython.config import Settings
from p2p_ipython.errors import (
    LinkLost,
    LinkTimeout,
    MailboxUnreachable,
    RelayUnreachable,
    RemoteProtocolError,
    WrongPeer,
)
from p2p_ipython.link import attempts, dial, half, handshake, idle, listener, session, tls, tls_link
from p2p_ipython.link.base import LinkState, Meeting
from p2p_ipython.link.certificate import Certificate
from p2p_ipython.link.handshake import Terms
from p2p_ipython.link.hints import Hint
from p2p_ipython.link.pace import MOST
from p2p_ipython.link.rendezvous import AT_ONCE, AT_ONCE_WITH_ONE, Rendezvous, new_code
from p2p_ipython.link.tls import TLSLinker
from p2p_ipython.link.tls_link import TLSLink
from p2p_ipython.protocol.frames import Buffer, Header, encode


@contextmanager
def no_exception_in_the_loop() -> Iterator[None]:
    loop = asyncio.get_running_loop()
    seen: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: seen.append(context))
    try:
        yield
        gc.collect()  # a future whose exception nobody has read says so when it goes
    finally:
        loop.set_exception_handler(before)
    assert seen == []


async def send_raw(link: Any, data: bytes) -> None:
    link._connection.write([data])


# Certificates


@pytest.mark.parametrize("kind", ["direct", "relay"])
@pytest.mark.parametrize("swapped", ["client", "worker"])
async def test_a_swapped_certificate_is_refused_by_both(kind: Any, swapped: str) -> None:
    """Somebody in between, who knows the tokens and the proofs, but holds another key than was agreed on."""
    async with world(kind) as here:
        code = new_code()
        linkers = {"client": here.linker("client"), "worker": here.linker("worker")}
        _swap_after_meeting(linkers[swapped])
        with no_exception_in_the_loop():
            results = await asyncio.gather(
                *(linker.open(here.meeting(code), Recorder()) for linker in linkers.values()), return_exceptions=True
            )
        assert [type(result) for result in results] == [WrongPeer, WrongPeer]


def _swap_after_meeting(linker: Any) -> None:
    meet = linker._rendezvous.meet

    async def swapping(*arguments: Any) -> Any:
        met = await meet(*arguments)
        linker._certificate = Certificate()
        return met

    linker._rendezvous.meet = swapping


def test_a_key_is_never_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine, theirs = Certificate(), Certificate()
    context = mine.context(theirs.der, server=True)
    assert context.cert_store_stats()["x509"] == 1
    assert list(tmp_path.iterdir()) == []
    assert repr(mine) == "<Certificate>"


def test_bytes_that_are_no_certificate_are_a_wrong_peer() -> None:
    with pytest.raises(WrongPeer):
        Certificate().context(b"nonsense", server=False)


@pytest.mark.parametrize(
    "offer",
    [
        {},
        {"cert": 1, "hints": []},
        {"cert": "ä", "hints": []},
        {"cert": "A" * 20_000, "hints": []},
        {"cert": base64.b64encode(b"x").decode(), "hints": 7},
        {"cert": base64.b64encode(b"x").decode(), "hints": [], "relay": "ssh:host:22"},
        {"cert": base64.b64encode(b"x").decode(), "hints": [], "relay": 4},
    ],
)
def test_an_offer_of_nonsense_is_a_wrong_peer(offer: dict[str, Any]) -> None:
    with pytest.raises(WrongPeer) as caught:
        tls._parse_offer(offer, local=True)
    assert caught.value.hint


# Strangers


@asynccontextmanager
async def stranger(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass


async def dropped(reader: asyncio.StreamReader) -> bytes:
    """What a stranger reads until it is dropped."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(500), b"p2p-link/1 " + b"0" * 64 + b"\n", b"x" * 100_000],
    ids=["http", "tls", "unknown token", "flood"],
)
async def test_a_stranger_with_garbage_is_dropped_without_an_answer_and_disturbs_nobody(data: bytes) -> None:
    async with world("direct") as here:
        ends = await here.join()
        with no_exception_in_the_loop():
            async with stranger(ends.worker_linker.listener.port) as (reader, writer):
                writer.write(data)
                assert await dropped(reader) == b""
        ends.client.send({"t": "a"})
        await ends.worker_hears.until(lambda heard: heard.frames)
        assert ends.client_hears.states == ends.worker_hears.states == []


async def test_a_stranger_that_says_nothing_is_dropped_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "GREETING_LIMIT", 0.1)
    async with world("direct") as here:
        ends = await here.join()
        async with stranger(ends.worker_linker.listener.port) as (reader, _):
            assert await dropped(reader) == b""


async def test_too_many_strangers_are_dropped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_STRANGERS", 1)
    async with world("direct") as here:
        ends = await here.join()
        port = ends.worker_linker.listener.port
        async with stranger(port), stranger(port) as (reader, _):
            assert await dropped(reader) == b""


async def test_an_overheard_greeting_does_not_end_a_link_that_works() -> None:
    async with world("direct") as here:
        ends = await here.join()
        for link, linker, hears in (
            (ends.client, ends.client_linker, ends.worker_hears),
            (ends.worker, ends.worker_linker, ends.client_hears),
        ):
            with no_exception_in_the_loop():
                async with stranger(linker.listener.port) as (reader, writer):
                    writer.write(link._ways.tokens.dialled + b"\n")
                    assert await reader.readline() == link._ways.tokens.answer + b"\n"
                    writer.write(bytes(1000))
                    link.send({"t": "a"})
                    await hears.until(lambda heard: heard.frames)
        assert ends.client_hears.states == ends.worker_hears.states == []


async def test_greetings_that_are_overheard_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "CANDIDATE_LIMIT", 0.01)
    async with world("direct") as here:
        ends = await here.join()
        offered = []
        offer = attempts.Attempts._offer
        monkeypatch.setattr(attempts.Attempts, "_offer", lambda *a: offered.append(weakref.ref(a[1])) or offer(*a))
        for _ in range(3):
            async with stranger(ends.client_linker.listener.port) as (reader, writer):
                writer.write(ends.client._ways.tokens.dialled + b"\n")
                assert await dropped(reader) == ends.client._ways.tokens.answer + b"\n"
        await eventually(lambda: gc.collect() is not None and all(connection() is None for connection in offered))
        assert len(offered) == 3
        assert ends.client_hears.states == []


# A peer that breaks the protocol


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 100,
        encode({"t": "link.ack", "n": 1}),
        encode({"t": "link.ack", "n": -1}),
        encode({"t": "link.ping", "n": (1 << 53) + 1}),
        encode({"t": "link.pong", "n": -1}),
        encode({"t": "link.ping", "n": "one"}),
        encode({"t": "link.ack", "n": True}),
        encode({"t": "link.pong"}),
        (5).to_bytes(4, "big") + bytes(4) + b"hello",
    ],
    ids=[
        "sizes over the bounds",
        "ack of nothing",
        "ack below nothing",
        "huge ping",
        "pong below nothing",
        "ping of text",
        "ack of a truth",
        "pong of none",
        "no JSON",
    ],
)
async def test_a_peer_that_sends_garbage_is_lost_and_nothing_reaches_the_loop(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with world("direct") as here:
        ends = await here.join()
        with no_exception_in_the_loop():
            await send_raw(ends.client, data)
            await ends.worker_hears.until_state(LinkState.LOST)
        assert ends.worker.state is LinkState.LOST
        assert any(record.levelno == logging.WARNING for record in caplog.records)


async def test_control_frames_of_a_later_version_are_passed_over() -> None:
    async with world("direct") as here:
        ends = await here.join()
        for frame in ({"t": "link.later"}, {"t": "link.later", "n": "one"}, {"t": "link.pong", "n": 77}):
            await send_raw(ends.client, encode(frame))
        ends.client.send({"t": "a"})
        await ends.worker_hears.until(lambda heard: heard.frames)
        assert ends.worker_hears.frames == [({"t": "a"}, b"")]


async def test_a_peer_that_pings_and_does_not_read_makes_nobody_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "AT_ONCE", 1 << 60)  # nothing slows it down
    async with world("direct") as here:
        ends = await here.join(heartbeat=1000.0)
        await eventually(lambda: ends.client.rtt is not None and ends.worker.rtt is not None)
        connection = ends.client._connection
        connection._transport.pause_reading()
        pings = b"".join(encode({"t": "link.ping", "n": number}) for number in range(1000))
        sent = 0
        while ends.worker._connection.writable and sent < 5_000:
            connection.write([pings])
            sent += 1
            await asyncio.sleep(0)
        for _ in range(50):
            connection.write([pings])
        ends.client.send({"t": "last"})
        await ends.worker_hears.until(lambda heard: heard.frames)
        assert not ends.worker._connection.writable
        assert ends.worker._connection.unsent < 2 * MOST + 1000
        connection._transport.resume_reading()
        ends.worker.send({"t": "still here"})
        await ends.client_hears.until(lambda heard: heard.frames)
        await eventually(lambda: ends.worker._pong is None)
        assert ends.client_hears.states == ends.worker_hears.states == []


async def test_a_client_that_asks_and_does_not_read_loses_its_link(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(half, "MOST_WAITING", 2_000_000)
    async with world("direct") as here:
        ends = await here.join()
        for link, peer in ((ends.client, ends.worker_hears), (ends.worker, ends.client_hears)):
            link.cut()  # what was queued while there is no connection can't be read
            for _ in range(3):
                link.send({"t": "a"}, bytes(1_000_000))
            if link is ends.client:
                await peer.until(lambda heard: len(heard.frames) == 3)
        await ends.worker_hears.until_state(LinkState.LOST)
        assert "doesn't read" in ends.worker_hears.states[-1][1]
        with pytest.raises(LinkLost):
            ends.worker.send({"t": "a"})


@pytest.mark.parametrize("role", ["client", "worker"])
@pytest.mark.parametrize("way", ["reads nothing", "acknowledges nothing"])
async def test_a_peer_that_takes_nothing_loses_its_link(way: str, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (session, tls_link):
        monkeypatch.setattr(module, "PATIENCE", 0.5)
    async with world("direct") as here:
        ends = await here.join(heartbeat=0.05)
        end, peer = (ends.client, ends.worker) if role == "client" else (ends.worker, ends.client)
        hears = ends.client_hears if role == "client" else ends.worker_hears
        if way == "reads nothing":
            peer._connection._transport.pause_reading()
        else:
            peer._acknowledge = lambda: None
        peer._set_timer = lambda: None
        busy = asyncio.create_task(_ping_on(peer))  # it lives, and says so
        for _ in range(64):
            end.send({"t": "bulk"}, bytes(1 << 20), bulk=True)
        await hears.until_state(LinkState.LOST)
        assert "has read nothing" in hears.states[-1][1]
        assert end.pending == 0
        busy.cancel()


async def _ping_on(link: TLSLink) -> None:
    number = 0
    while True:
        number += 1
        link._control({"t": "link.ping", "n": number})
        await asyncio.sleep(0.05)


async def test_a_connection_whose_control_frames_pile_up_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world("direct") as here:
        ends = await here.join()
        monkeypatch.setattr(tls_link, "_MOST_UNSENT", -1)
        ends.worker._control({"t": "link.ping", "n": 1})
        monkeypatch.undo()
        await ends.worker_hears.until_state(LinkState.UP)
        assert ends.worker_hears.states[0] == (LinkState.RECONNECTING, "the other end does not read")


# Versions of the protocol


@pytest.mark.parametrize("newer", ["client", "worker"])
async def test_ends_of_two_versions_say_which_one_to_upgrade(newer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _speak(monkeypatch, newer, 2)
    async with world("direct") as here:
        code = new_code()
        results = await here.fail(here.meeting(code), here.meeting(code))
    said = {role: str(result) for role, result in zip(("client", "worker"), results, strict=True)}
    assert [type(result) for result in results] == [WrongPeer, WrongPeer]
    older = "worker" if newer == "client" else "client"
    assert "version 1 of the protocol, and this end version 2" in said[newer]
    assert "Upgrade p2p_ipython at the other end." in said[newer]
    assert "version 2 of the protocol, and this end version 1" in said[older]
    assert "Upgrade p2p_ipython at this end." in said[older]


async def test_both_ends_say_the_version_in_their_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    parse = handshake._parse_hello
    monkeypatch.setattr(handshake, "_parse_hello", lambda header, *rest: said.append(header) or parse(header, *rest))
    async with world("direct") as here:
        await here.join()
    assert [header["version"] for header in said] == [1, 1]


@pytest.mark.parametrize("header", [{}, {"version": 1}])
def test_a_hello_without_a_version_is_of_the_first_one(header: dict[str, Any]) -> None:
    handshake._check_version(header, SimpleNamespace(version=1))  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [0, -1, True, "1", None, 1.0, 1 << 63])
def test_a_version_of_nonsense_breaks_the_protocol(version: object) -> None:
    with pytest.raises(RemoteProtocolError):
        handshake._check_version({"version": version}, SimpleNamespace(version=1))  # type: ignore[arg-type]


def _speak(monkeypatch: pytest.MonkeyPatch, role: str, version: int) -> None:
    """Have the ends of a role be of another version."""
    make = TLSLink.make

    async def make_other(link: Any, terms: Terms) -> None:
        await make(link, replace(terms, version=version) if link.role == role else terms)

    monkeypatch.setattr(TLSLink, "make", make_other)


# The relay, and the network


async def test_a_relay_that_is_down_is_named_when_there_is_no_other_way() -> None:
    async with world("relay") as here:
        here.relay = "tcp:127.0.0.1:9"
        code = new_code()
        results = await here.fail(here.meeting(code), here.meeting(code))
        assert [type(result) for result in results] == [RelayUnreachable, RelayUnreachable]
        assert "tcp:127.0.0.1:9" in str(results[0])


async def test_the_relay_joins_when_no_address_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "RELAY_AFTER", 0.1)
    monkeypatch.setattr(tls, "own_hints", lambda *_, **__: [Hint("127.0.0.1", 1025)])
    async with world("direct") as here:
        code = new_code()
        linkers = [TLSLinker(role, settings=Settings(), listen_host="127.0.0.1") for role in ("client", "worker")]
        links = await asyncio.gather(*(linker.open(here.meeting(code), Recorder()) for linker in linkers))
        assert [link.kind for link in links] == ["relay", "relay"]
        for linker in linkers:
            await linker.close()


async def test_without_any_way_it_is_said_that_none_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_link, "SETUP_LIMIT", 0.5)
    monkeypatch.setattr(tls, "own_hints", lambda *_, **__: [])
    async with world("direct") as here:
        here.relay = None
        code = new_code()
        results = await here.fail(here.meeting(code), here.meeting(code))
        assert [type(result) for result in results] == [LinkTimeout, LinkTimeout]


async def test_a_connection_that_has_gone_silent_is_replaced() -> None:
    async with world("relay") as here:
        ends = await here.join(heartbeat=0.2)
        for connection in list(here.relayed):  # a router that has forgotten the connection says nothing
            connection.transport.pauseProducing()
        ends.client.send({"t": "a", "n": 1})
        await ends.client_hears.until_state(LinkState.UP)
        await ends.worker_hears.until(lambda heard: heard.frames)
        assert ends.client_hears.states[0] == (LinkState.RECONNECTING, "the other end has gone silent")
        assert ends.worker_hears.numbers == [1]


async def test_an_idle_link_stays_up_and_measures_its_round_trip() -> None:
    async with world("direct") as here:
        ends = await here.join(heartbeat=0.5)  # after a stand-still of the machine, an answer has as long to come
        await eventually(lambda: ends.client._liveness._number >= 5)
        assert ends.client.rtt < PATIENCE
        assert ends.client_hears.states == []


async def test_delivered_frames_are_released_soon() -> None:
    async with world("direct") as here:
        ends = await here.join()
        for number in range(10):
            ends.client.send({"t": "a", "n": number}, bytes(100_000))
        assert ends.client._outbox.pending
        await eventually(lambda: ends.client._outbox.written == 10 and not ends.client._outbox.unacknowledged)


async def test_a_peer_whose_frames_come_to_nothing_is_read_slower_and_loses_nothing() -> None:
    async with world("direct") as here:
        ends = await here.join()
        heard = ends.worker_hears.on_frame
        count = idle.AT_ONCE + 300

        def for_nothing(header: Header, body: Buffer) -> bool:
            heard(header, body)
            return header["t"] == "nobody's"

        ends.worker_hears.on_frame = for_nothing  # type: ignore[method-assign,assignment]
        for number in range(2 * count):
            ends.client.send({"t": "somebody's", "n": number})
        await ends.worker_hears.until(lambda heard: len(heard.frames) == 2 * count)
        assert ends.worker._idle._left > idle.AT_ONCE - 100  # acknowledgements count, and nothing else
        for number in range(count):
            ends.client.send({"t": "nobody's", "n": number})
        await eventually(lambda: ends.worker._connection._intake.held)
        await ends.worker_hears.until(lambda heard: len(heard.frames) == 3 * count)
        assert ends.worker_hears.numbers[-count:] == list(range(count))
        ends.worker.send({"t": "a", "n": 1})
        await ends.client_hears.until(lambda heard: heard.frames)


def test_frames_that_come_to_nothing_are_few_for_ever_or_many_at_once() -> None:
    peer = idle.Idle()
    assert not any(peer.came(100, number / idle.A_SECOND) for number in range(3 * idle.AT_ONCE))
    peer, now = idle.Idle(), 1e6
    assert [peer.came(0, now) for _ in range(idle.AT_ONCE + 2)].index(True) == idle.AT_ONCE
    assert not peer.came(0, now + idle.PAUSE)
    assert [peer.came(1 << 20, now + 1e6) for _ in range(200)].index(True) == idle.AT_ONCE // 33


async def test_a_process_that_is_gone_is_noticed_before_the_lease_is_over() -> None:
    async with world("direct") as here:
        ends = await here.join(lease=1000.0)
        await ends.worker_linker.close()
        await ends.client_hears.until_state(LinkState.LOST)
        assert "process is gone" in ends.client_hears.states[-1][1]


async def test_a_link_that_ended_here_is_noticed_by_the_peer_although_the_process_lives() -> None:
    async with world("direct") as here:
        ends = await here.join(lease=1000.0)
        ends.worker.abort()
        await ends.client_hears.until_state(LinkState.LOST)


# The wormhole


def test_a_code_is_a_nameplate_of_39_digits_and_128_random_bits() -> None:
    codes = {new_code().reveal() for _ in range(100)}
    assert len(codes) == 100
    assert all(re.fullmatch(r"\d{39}-[0-9a-f]{32}", code) for code in codes)


async def test_a_mailbox_that_is_no_mailbox_is_named() -> None:
    async with world("relay") as here:
        port = (here.relay or "").rpartition(":")[2]
        here.mailbox = f"ws://127.0.0.1:{port}/v1"
        with pytest.raises(MailboxUnreachable, match=port):
            await here.linker("client").open(here.meeting(new_code(), deadline=3), Recorder())


async def test_a_mailbox_that_never_answers_is_named() -> None:
    callers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: callers.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    here = World("direct", f"ws://127.0.0.1:{port}/v1", None)
    with pytest.raises(MailboxUnreachable, match=str(port)):
        await here.linker("client").open(here.meeting(new_code(), deadline=0.5), Recorder())
    await here.close()
    for caller in callers:
        caller.close()
    server.close()
    await server.wait_closed()


async def test_a_linker_that_is_closed_ends_its_meetings() -> None:
    async with world("direct") as here:
        linker = here.linker("client")
        opening = asyncio.create_task(linker.open(here.meeting(new_code()), Recorder()))
        rendezvous: Rendezvous = linker._rendezvous  # type: ignore[attr-defined]
        await eventually(lambda: any(visit.welcome for visit in rendezvous._visits))
        await linker.close()
        with pytest.raises(LinkLost):
            await opening


async def test_meetings_to_which_a_members_workers_dont_come_leave_room_for_those_with_others() -> None:
    async with world("direct") as here:
        rendezvous, other = Rendezvous(), Rendezvous()
        silent = [
            asyncio.create_task(rendezvous.meet(replace(here.meeting(new_code()), peer="mallory"), "client", {}))
            for _ in range(2 * AT_ONCE)
        ]
        await eventually(lambda: sum(visit.welcome for visit in rendezvous._visits) == AT_ONCE_WITH_ONE)
        meeting = replace(here.meeting(new_code()), peer="carol")
        await asyncio.gather(rendezvous.meet(meeting, "client", {}), other.meet(meeting, "worker", {}))
        assert not any(one.done() for one in silent)
        for one in silent:
            one.cancel()
        await asyncio.gather(*silent, return_exceptions=True)
        await rendezvous.close()
        await other.close()


async def test_both_ends_get_the_same_keys_and_a_key_for_each_purpose() -> None:
    async with world("direct") as here:
        first, second = Rendezvous(), Rendezvous()
        meeting: Meeting = here.meeting(new_code())
        one, two = await asyncio.gather(first.meet(meeting, "client", {"a": 1}), second.meet(meeting, "worker", {}))
        assert one.key_for("x") == two.key_for("x") != one.key_for("y")
        assert one.verifier == two.verifier
        assert two.offer == {"role": "client", "a": 1}
        assert one.verifier.hex() not in repr(one)
        await first.close()
        await second.close()
