"""More connections than a board can have, at each of its ports: a real board, few descriptors, real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from board_support import PATIENCE, AsyncsshTalk, make_key, running

from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.limits import SHARES, Seldom, connections_each

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors are not limited there")

EACH = 20
LIMIT = Bounds.descriptors + SHARES * EACH

PROGRAM = """
import asyncio, logging, os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
from p2p_ipython.board.server.main import board_command
from p2p_ipython.board.server.options import ServerOptions

def say(text):
    if sys.argv[3] == "used up":
        while True:
            try:
                os.open(os.devnull, os.O_RDONLY)
            except OSError:
                break
    print(text, flush=True)

asyncio.run(board_command(ServerOptions(port=0), json=True, out=say, until_eof=True))
"""


@asynccontextmanager
async def board(soft: int, hard: int, descriptors: str = "") -> AsyncIterator[tuple[Process, dict[str, int]]]:
    """A board in a process of its own; its ports by name."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", PROGRAM, str(soft), str(hard), descriptors,
        stdin=PIPE, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    try:
        async with asyncio.timeout(PATIENCE):
            where = json.loads(await process.stdout.readline())
            ports = (where["ssh"]["port"], where["mailbox"].split(":")[-1].split("/")[0], where["relay"].split(":")[-1])
            yield process, dict(zip(("SSH", "mailbox", "relay"), map(int, ports), strict=True))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process.stdin.close()


async def said(process: Process) -> str:
    """End the board, and return what it has logged."""
    assert process.stdin
    assert process.stderr
    process.stdin.close()
    log = await process.stderr.read()
    await process.wait()
    return log.decode()


async def crowd(port: int, size: int, hello: bytes) -> tuple[list[StreamWriter], int]:
    """Make connections; return those that the board has kept, and how many it has closed."""
    kept, closed = [], 0
    for _ in range(size):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(hello)
        if await _answered(reader):
            kept.append(writer)
        else:
            closed += 1
            writer.close()
    return kept, closed


async def _answered(reader: StreamReader) -> bool:
    """Whether somebody is let in: what the port says then, and not the word with which it refuses."""
    try:
        said = await reader.readline()
    except ConnectionError:
        return False
    return said.startswith((b"HTTP/1.1 101", b"SSH-2.0-", b"ok"))


UPGRADE = (
    b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HELLO = b"SSH-2.0-x\r\n"


def wish(token: str, side: str) -> bytes:
    """What a client says to the relay."""
    return f"please relay {token} for side {side * 16}\n".encode()


@pytest.mark.parametrize("soft", [LIMIT, LIMIT - 60])
@pytest.mark.parametrize(("name", "hello"), [("SSH", HELLO), ("mailbox", UPGRADE)])
async def test_a_crowd_at_one_port_is_refused_once_its_share_is_used_and_the_others_stay_open(
    tmp_path, name, hello, soft
):
    async with board(soft, LIMIT) as (process, ports):
        kept, closed = await crowd(ports[name], EACH + 15, hello)
        assert (len(kept), closed) == (EACH, 15)
        pair = [await asyncio.open_connection("127.0.0.1", ports["relay"]) for _ in range(2)]
        token = secrets.token_hex(32)
        for side, (_, writer) in zip("ab", pair, strict=True):
            writer.write(wish(token, side))
        for reader, _ in pair:
            assert await reader.readline() == b"ok\n"
        if name != "SSH":
            talk = await AsyncsshTalk.start(ports["SSH"], make_key(tmp_path), "user")
            assert (await talk.end()).status == 0
            await talk.hang_up()
        log = await said(process)
        assert log.count("refused") == 1, log
        assert re.search(rf"{name} connections refused: 1(, the last .*)?; there are {EACH} already", log)
        for writer in (*kept, *(writer for _, writer in pair)):
            writer.close()


async def test_a_crowd_at_the_relay_leaves_those_that_are_there_and_the_other_ports_alone(tmp_path):
    async with board(LIMIT, LIMIT) as (process, ports):
        token = secrets.token_hex(32)
        ends = [await asyncio.open_connection("127.0.0.1", ports["relay"]) for _ in range(EACH)]
        for number, (_, writer) in enumerate(ends):
            writer.write(wish(token if number < 2 else secrets.token_hex(32), "ab"[number % 2]))
        for reader, _ in ends[:2]:
            assert await reader.readline() == b"ok\n"
        kept, closed = await crowd(ports["relay"], 30, wish(secrets.token_hex(32), "a"))
        assert (kept, closed) == ([], 30)
        ends[0][1].write(b"still there\n")
        assert await ends[1][0].readline() == b"still there\n"
        talk = await AsyncsshTalk.start(ports["SSH"], make_key(tmp_path), "user")
        assert (await talk.end()).status == 0
        await talk.hang_up()
        assert (await said(process)).count("refused") == 1
        for _, writer in ends:
            writer.close()


async def test_when_descriptors_are_used_up_all_the_same_newcomers_are_turned_away_and_nothing_spins():
    async with board(LIMIT, LIMIT, "used up") as (process, ports):
        assert process.stderr
        for port in (*[ports["SSH"]] * 20, ports["mailbox"], ports["relay"]):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        times = psutil.Process(process.pid).cpu_times()
        await asyncio.sleep(0.5)  # it has nothing to do meanwhile, and does nothing
        assert psutil.Process(process.pid).cpu_times().user - times.user < 0.25
        process.terminate()
        log = (await process.stderr.read()).decode()
        assert log.count("connections are refused: Too many open files") == 1, log
        assert log.count("\n") == 1
        await process.wait()


def test_a_ports_share_is_below_what_the_process_may_open():
    for descriptors in (64, 256, 1024, 20_000, 1 << 30):
        each = connections_each(descriptors, Bounds.connections, Bounds.descriptors)
        assert 1 <= each <= Bounds.connections
        assert SHARES * each + Bounds.descriptors <= max(descriptors, SHARES + Bounds.descriptors)


def test_a_warning_that_keeps_coming_is_said_once_a_minute_with_how_often_it_came():
    seldom = Seldom()
    assert [seldom.say(now=float(now)) for now in (0, 1, 59, 60, 61)] == [1, 0, 0, 3, 0]


# The mailbox and the relay


async def test_a_connection_to_the_relay_that_says_nothing_is_cut():
    async with asyncio.timeout(PATIENCE), running(relay_token_within=0.1, relay_port=0) as server:
        _, host, port = server.addresses.relay.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert not await _answered(reader)
        writer.close()


@asynccontextmanager
async def websocket(url: str) -> AsyncIterator[Any]:
    """A client of the mailbox that sends what it likes: ``closed`` is an event, ``said`` what it was told."""
    from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
    from twisted.internet import reactor

    opened, closed = asyncio.Event(), asyncio.Event()

    class Client(WebSocketClientProtocol):  # type: ignore[misc]
        def onOpen(self) -> None:
            opened.set()

        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            self.said.append(payload)

        def onClose(self, *reason: Any) -> None:
            closed.set()

    factory = WebSocketClientFactory(url)
    factory.protocol = Client
    protocols: list[Any] = []
    build = factory.buildProtocol

    def made(address: Any) -> Any:
        protocols.append(build(address))
        protocols[0].said = []
        return protocols[0]

    factory.buildProtocol = made
    reactor.connectTCP(urlsplit(url).hostname, urlsplit(url).port, factory)
    await opened.wait()
    (client,) = protocols
    client.closed = closed
    yield client
    client.dropConnection(abort=True)
    await closed.wait()


@pytest.mark.parametrize("message", [b"[]", b"{", b"\xff", b"[" * 100_000, b'{"id": []}'])
async def test_what_the_mailbox_does_not_understand_ends_a_connection_without_a_traceback(capfd, message):
    async with asyncio.timeout(PATIENCE), running() as server, websocket(server.addresses.mailbox) as client:
        client.sendMessage(message)
        await client.closed.wait()
    assert "Traceback" not in capfd.readouterr().err


async def test_a_client_that_floods_the_mailbox_is_cut():
    async with asyncio.timeout(PATIENCE), running() as server, websocket(server.addresses.mailbox) as client:
        message = json.dumps({"type": "ping", "ping": "x" * 100_000}).encode()
        sent = 0
        while not client.closed.is_set():
            client.sendMessage(message)
            await asyncio.sleep(0)
            sent += 1
        assert sent > 10


async def test_the_mailboxs_port_takes_no_bodies():
    async with asyncio.timeout(PATIENCE), running() as server:
        host, port = server.addresses.mailbox.split("/")[2].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 1000)
        assert await reader.read() == b""
        writer.close()
