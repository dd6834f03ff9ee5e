"""More connections than a board can have, at each of its ports: a real board, few descriptors, real sockets."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from board_support import PATIENCE, AsyncsshTalk, make_key, running

from p2p_ipython.board.server.limits import DESCRIPTORS, MAX_CONNECTIONS, PORTS, Seldom, connections_each

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors are not limited there")

EACH = 20
LIMIT = DESCRIPTORS + PORTS * EACH

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


async def crowd(port: int, size: int, hello: bytes = b"") -> tuple[list[StreamWriter], int]:
    """Make connections; return those that the board has kept, and how many it has closed."""
    kept, closed = [], 0
    for _ in range(size):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if hello:
            writer.write(hello)
        if await _answered(reader):
            kept.append(writer)
        else:
            closed += 1
            writer.close()
    return kept, closed


async def _answered(reader: StreamReader) -> bool:
    try:
        return bool(await reader.readline())
    except ConnectionError:
        return False


UPGRADE = (
    b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize("soft", [LIMIT, LIMIT - 60])
@pytest.mark.parametrize(("name", "hello"), [("SSH", b""), ("mailbox", UPGRADE)])
async def test_a_crowd_at_one_port_is_refused_once_its_share_is_used_and_the_others_stay_open(
    tmp_path, name, hello, soft
):
    async with board(soft, LIMIT) as (process, ports):
        pair = [await asyncio.open_connection("127.0.0.1", ports["relay"]) for _ in range(2)]
        kept, closed = await crowd(ports[name], EACH + 15, hello)
        assert (len(kept), closed) == (EACH, 15)
        token = secrets.token_hex(32)
        for side, (_, writer) in zip(("a" * 16, "b" * 16), pair, strict=True):
            writer.write(f"please relay {token} for side {side}\n".encode())
        for reader, _ in pair:
            assert await reader.readline() == b"ok\n"
        if name != "SSH":
            talk = await AsyncsshTalk.start(ports["SSH"], make_key(tmp_path), "user")
            assert (await talk.end()).status == 0
            await talk.hang_up()
        log = await said(process)
        assert log.count("refused") == 1, log
        assert f"{name} connections refused: 1; there are {EACH} already" in log
        for writer in (*kept, *(writer for _, writer in pair)):
            writer.close()


async def test_a_crowd_at_the_relay_leaves_those_that_are_there_and_the_other_ports_alone(tmp_path):
    async with board(LIMIT, LIMIT) as (process, ports):
        token = secrets.token_hex(32)
        ends = [await asyncio.open_connection("127.0.0.1", ports["relay"]) for _ in range(EACH)]
        kept, closed = await crowd(ports["relay"], 30)
        assert (kept, closed) == ([], 30)
        for side, (_, writer) in zip(("a" * 16, "b" * 16), ends, strict=False):
            writer.write(f"please relay {token} for side {side}\n".encode())
        for reader, _ in ends[:2]:
            assert await reader.readline() == b"ok\n"
        talk = await AsyncsshTalk.start(ports["SSH"], make_key(tmp_path), "user")
        assert (await talk.end()).status == 0
        await talk.hang_up()
        assert (await said(process)).count("refused") == 1
        for _, writer in ends:
            writer.close()


async def test_when_descriptors_are_used_up_all_the_same_the_log_says_so_once():
    async with board(LIMIT, LIMIT, "used up") as (process, ports):
        assert process.stderr
        _, writer = await asyncio.open_connection("127.0.0.1", ports["SSH"])
        line = await process.stderr.readline()
        assert b"SSH connections can't be accepted: Too many open files" in line
        process.terminate()
        assert await process.stderr.read() == b""
        await process.wait()
        writer.close()


def test_a_ports_share_is_below_what_the_process_may_open():
    for descriptors in (64, 256, 1024, 20_000, 1 << 30):
        each = connections_each(descriptors)
        assert 1 <= each <= MAX_CONNECTIONS
        assert PORTS * each + DESCRIPTORS <= max(descriptors, PORTS + DESCRIPTORS)


def test_a_warning_that_keeps_coming_is_said_once_a_minute_with_how_often_it_came():
    seldom = Seldom()
    assert [seldom.say(now=float(now)) for now in (0, 1, 59, 60, 61)] == [1, 0, 0, 3, 0]


# The mailbox and the relay


async def test_a_connection_to_the_relay_that_says_nothing_is_cut(monkeypatch):
    from p2p_ipython.board.server import relay  # it takes the process's Twisted reactor

    monkeypatch.setattr(relay, "RELAY_TOKEN_WITHIN", 0.1)
    async with asyncio.timeout(PATIENCE), running() as server:
        _, host, port = server.addresses.relay.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert not await _answered(reader)
        writer.close()


@asynccontextmanager
async def websocket(url: str) -> AsyncIterator[Any]:
    """A client of the mailbox that sends what it likes: ``send``, and ``closed``, an event."""
    from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
    from twisted.internet import reactor

    opened, closed = asyncio.Event(), asyncio.Event()

    class Client(WebSocketClientProtocol):  # type: ignore[misc]
        def onOpen(self) -> None:
            opened.set()

        def onClose(self, *reason: Any) -> None:
            closed.set()

    factory = WebSocketClientFactory(url)
    factory.protocol = Client
    protocols: list[Any] = []
    build = factory.buildProtocol
    factory.buildProtocol = lambda address: protocols.append(build(address)) or protocols[-1]
    reactor.connectTCP(urlsplit(url).hostname, urlsplit(url).port, factory)
    await opened.wait()
    (client,) = protocols
    client.closed = closed
    yield client
    client.dropConnection(abort=True)
    await closed.wait()


@pytest.mark.parametrize("message", [b"[]", b"{", b"\xff", b"[" * 100_000, b'{"type": "bind", "appid": [], "side": 1}'])
async def test_what_the_mailbox_does_not_understand_ends_a_connection_without_a_traceback(capfd, message):
    async with asyncio.timeout(PATIENCE), running() as server, websocket(server.addresses.mailbox) as client:
        client.sendMessage(message)
        await client.closed.wait()
    assert "Traceback" not in capfd.readouterr().err


async def test_a_client_that_floods_the_mailbox_is_cut(monkeypatch):
    async with asyncio.timeout(PATIENCE), running() as server, websocket(server.addresses.mailbox) as client:
        message = json.dumps({"type": "ping", "ping": "x" * 100_000}).encode()
        sent = 0
        while not client.closed.is_set():
            client.sendMessage(message)
            await asyncio.sleep(0)
            sent += 1
        assert sent > 10


async def test_the_mailbox_keeps_so_much_for_all_and_refuses_more(monkeypatch, caplog):
    from p2p_ipython.board.server import mailbox  # it takes the process's Twisted reactor

    monkeypatch.setattr(mailbox, "MAILBOX_KEEPS", 1 << 19)
    monkeypatch.setattr(mailbox, "_full", Seldom())
    async with asyncio.timeout(PATIENCE), running() as server:
        for number in range(2):
            async with websocket(server.addresses.mailbox) as client:
                for message in (
                    {"type": "bind", "appid": "test", "side": "s"},
                    {"type": "open", "mailbox": f"m{number}"},
                    *({"type": "add", "phase": str(phase), "body": "00" * 50_000} for phase in range(8)),
                ):
                    client.sendMessage(json.dumps(message).encode())
                await client.closed.wait()
    assert [record.message[:19] for record in caplog.records].count("the mailbox is full") == 1


async def test_the_mailboxs_port_takes_no_bodies():
    async with asyncio.timeout(PATIENCE), running() as server:
        host, port = server.addresses.mailbox.split("/")[2].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 1000)
        assert await reader.read() == b""
        writer.close()
