"""One port for SSH, mailbox and relay: what the first bytes decide, purely; and a board with all sorts of clients."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import paramiko
import psutil
import pytest
from board_support import PATIENCE, AsyncsshTalk, make_key, running, until
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.opening import STARTS, Opened, Opening, Speaks, Undecided
from p2p_ipython.board.server.proxy import Nonsense, ProxyHeader
from p2p_ipython.board.server.server import BoardServer
from p2p_ipython.loop import in_thread

ALL = frozenset(Speaks)
BOUNDS = Bounds()
HELLOS = {
    Speaks.SSH: b"SSH-2.0-x\r\n",
    Speaks.MAILBOX: b"GET /v1 HTTP/1.1\r\nHost: x\r\n\r\n",
    Speaks.RELAY: b"please relay nonsense\n",
}
ANSWERS = {Speaks.SSH: b"SSH-2.0-", Speaks.MAILBOX: b"HTTP/1.1 ", Speaks.RELAY: b"bad handshake"}


# The decision


@pytest.mark.parametrize("speaks", Speaks)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_the_first_bytes_tell_the_protocol_however_they_come(speaks, step):
    opening, hello = Opening(ALL, BOUNDS, 0.0), HELLOS[speaks]
    opened, read = None, 0
    while opened is None:
        opened = opening.feed(hello[read : read + step], 0.0)
        read += step
    assert opened == Opened(speaks, hello[:read])


@given(st.binary(max_size=40), st.sampled_from([b"", *STARTS]), st.integers(0, 20), st.booleans())
def test_any_bytes_are_known_waited_for_or_refused_and_none_is_lost(data, start, cut, proxied):
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n" if proxied else b""
    said = header + start + data
    opening = Opening(ALL, BOUNDS, 0.0, ProxyHeader(BOUNDS.proxy_header) if proxied else None)
    opened = None
    try:
        for piece in (said[:cut], said[cut:]):
            if opened is None:
                opened = opening.feed(piece, 0.0)
        if opened is None:
            opened = opening.late(BOUNDS.silence)
    except Nonsense:
        assert not any((start + data).startswith(each) for each in STARTS)
        return
    if opened is None:
        assert any(each.startswith(start + data) for each in STARTS)
        with pytest.raises(Nonsense):
            opening.late(BOUNDS.opening)
        return
    assert (start + data).startswith(opened.data)
    assert opened.address == ("192.0.2.7" if proxied else None)
    assert STARTS.get(start, opened.speaks) is opened.speaks


def test_silence_is_sshs_after_a_second_and_after_a_proxys_header_again():
    opening = Opening(ALL, BOUNDS, 10.0)
    assert opening.deadline == 11.0
    assert opening.late(10.9) is None
    assert opening.late(11.0) == Opened(Speaks.SSH)
    opening = Opening(ALL, BOUNDS, 10.0, ProxyHeader(BOUNDS.proxy_header))
    assert opening.deadline == 15.0
    assert opening.feed(b"PROXY UNKNOWN\r\n", 13.0) is None
    assert opening.deadline == 14.0
    assert opening.late(14.0) == Opened(Speaks.SSH)


@pytest.mark.parametrize("said", [b"S", b"GE", b"please relay"])
def test_a_first_word_that_is_not_ended_has_five_seconds(said):
    opening = Opening(ALL, BOUNDS, 0.0)
    assert opening.feed(said, 0.5) is None
    assert opening.deadline == 5.0
    assert opening.late(4.9) is None
    with pytest.raises(Nonsense):
        opening.late(5.0)


@pytest.mark.parametrize("said", [b"\x16\x03\x01", b"ssh-", b"\n", b"GET\t", b"pleased", b"PROXY TCP4 "])
def test_what_begins_like_nothing_is_refused_at_once(said):
    with pytest.raises(Nonsense):
        Opening(ALL, BOUNDS, 0.0).feed(said, 0.0)


@pytest.mark.parametrize("speaks", Speaks)
def test_a_port_of_one_protocol_waits_for_nothing(speaks):
    assert Opening({speaks}, BOUNDS, 0.0).feed(b"", 0.0) == Opened(speaks)


def test_a_port_without_ssh_gives_silence_to_nobody():
    opening = Opening({Speaks.MAILBOX, Speaks.RELAY}, BOUNDS, 0.0)
    assert opening.deadline == BOUNDS.opening


def test_the_largest_crowd_makes_room_for_a_newcomer():
    undecided: Undecided[int] = Undecided(Bounds(undecided_each=3, connections=5))
    assert [undecided.come(each, "a") for each in range(3)] == [None] * 3
    assert undecided.come(3, "a") == 0, "of its own address"
    assert [undecided.come(each, "b") for each in (4, 5)] == [None] * 2
    assert undecided.come(6, "c") == 1, "of the largest crowd"
    undecided.come(6, "b")  # the address that a proxy gives later
    for each in range(7):
        undecided.go(each)
    assert not undecided._crowds
    assert not len(undecided)


# A board


@asynccontextmanager
async def board(**options: Any) -> AsyncIterator[tuple[BoardServer, int]]:
    async with asyncio.timeout(PATIENCE), running(**options) as server:
        yield server, server.addresses.port
    assert not server._ports.undecided.all()


async def dial(port: int, said: bytes = b"", source: str = "127.0.0.1") -> tuple[StreamReader, StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    writer.write(said)
    return reader, writer


async def ended(reader: StreamReader) -> bool:
    with suppress(ConnectionError):
        return await reader.read() == b""
    return True


async def test_a_board_listens_on_one_port_and_its_addresses_say_so():
    async with board() as (server, port):
        here = {each.laddr.port for each in psutil.Process().net_connections("tcp") if each.status == "LISTEN"}
        assert port in here
        assert set(server.ports.values()) == {port}
        assert server.addresses.mailbox == f"ws://127.0.0.1:{port}/v1"
        assert server.addresses.relay == f"tcp:127.0.0.1:{port}"
        assert len(server._ports._servers) == 1


@pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH is not installed")
async def test_openssh_paramiko_and_asyncssh_log_in_at_it(tmp_path):
    key = make_key(tmp_path)
    async with board(users_inline={"alice": key.line}) as (_, port):
        words = ["-p", str(port), "-i", str(key.path), "-F", "none", "-o", "StrictHostKeyChecking=no"]
        words += ["-o", f"UserKnownHostsFile={tmp_path / 'hosts'}", "-o", "IdentitiesOnly=yes", "127.0.0.1", "user"]
        ssh = await asyncio.create_subprocess_exec("ssh", *words, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        out, err = await ssh.communicate()
        assert out.startswith(b"alice\n") or b"alice" in out, err

        def by_paramiko() -> bytes:
            client = paramiko.SSHClient()
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
            try:
                client.connect("127.0.0.1", port, key_filename=str(key.path), look_for_keys=False, allow_agent=False)
                said: bytes = client.exec_command("user")[1].read()
                return said
            finally:
                client.close()

        assert b"alice" in await in_thread("test-paramiko", by_paramiko)
        talk = await AsyncsshTalk.start(port, key, "user")
        assert b"alice" in (await talk.end()).out
        await talk.hang_up()


async def test_mailbox_and_relay_answer_at_it_however_slowly_their_first_word_comes():
    async with board() as (_, port):
        for speaks, hello in HELLOS.items():
            reader, writer = await dial(port)
            for byte in hello:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            assert (await reader.readline()).startswith(ANSWERS[speaks])
            writer.close()


async def test_a_client_that_is_silent_for_a_second_is_sshs():
    async with board(silence=0.05) as (_, port):
        reader, writer = await dial(port)
        assert (await reader.readline()).startswith(b"SSH-2.0-")
        writer.close()


async def test_a_client_that_stops_in_its_first_word_is_cut():
    async with board(opening=0.1) as (_, port):
        for said in (b"S", b"GET", b"please rel"):
            reader, writer = await dial(port, said)
            assert await ended(reader)
            writer.close()


async def test_garbage_is_cut_at_once_and_half_a_request_is_the_mailboxs_alone():
    async with board() as (server, port):
        for said in (b"\x16\x03\x01\x02\x00\x01", secrets.token_bytes(1 << 16).replace(b"S", b"T"), b"EHLO x\r\n"):
            reader, writer = await dial(port, b"\0" + said)
            assert await ended(reader)
            writer.close()
        _, writer = await dial(port, b"GET /v1 HTTP/1.1\r\nHost:")
        from_mailbox = server._services._factories[Speaks.MAILBOX].protocols  # type: ignore[union-attr]
        await until(lambda: len(from_mailbox) == 1)
        assert not server._ports.undecided.all()
        writer.close()
        await until(lambda: not from_mailbox)


async def test_a_crowd_that_says_nothing_loses_its_oldest_and_others_get_in(tmp_path):
    async with board(undecided_each=5, connections=8, opening=PATIENCE) as (server, port):
        crowds = [await dial(port, b"S", source) for source in ("127.0.0.2", "127.0.0.3") for _ in range(7)]
        await until(lambda: len(server._ports.undecided) == 8)
        for reader, _ in crowds[:2]:
            assert await ended(reader)
        talk = await AsyncsshTalk.start(port, make_key(tmp_path), "user")
        assert (await talk.end()).status == 0
        await talk.hang_up()
        reader, writer = await dial(port, HELLOS[Speaks.RELAY])
        assert (await reader.readline()).startswith(ANSWERS[Speaks.RELAY])
        for each in (writer, *(writer for _, writer in crowds)):
            each.close()
        await until(lambda: not server._ports.undecided.all())


async def test_a_client_that_resets_before_it_is_served_leaves_nothing():
    async with board() as (server, port):
        for said in (b"", b"S", *HELLOS.values()):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.sendall(said)
        reader, writer = await dial(port, HELLOS[Speaks.SSH])
        assert (await reader.readline()).startswith(b"SSH-2.0-")
        writer.close()
        await until(lambda: not server._ports.undecided.all() and not server.connections)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_all_addresses_are_those_of_ipv4_and_ipv6_and_none_looks_like_another(tmp_path):
    key = make_key(tmp_path)
    async with board(host="::", users_inline={"alice": key.line}) as (server, port):
        assert len(server._ports._servers) == 2
        talk = await AsyncsshTalk.start(port, key, "pipe t -r")
        await until(lambda: server.is_here("127.0.0.1"))
        await talk.hang_up()
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(HELLOS[Speaks.MAILBOX])
        assert (await reader.readline()).startswith(b"HTTP/1.1 ")
        writer.close()


async def test_log_ins_look_no_name_up(tmp_path, monkeypatch):
    asked = []

    def silent(*arguments: object) -> Any:
        asked.append(arguments)
        raise AssertionError("a silent resolver was asked")

    for name in ("getfqdn", "gethostbyaddr", "getnameinfo", "gethostbyname", "gethostbyname_ex"):
        monkeypatch.setattr(socket, name, silent)
    async with board() as (_, port):
        talk = await AsyncsshTalk.start(port, make_key(tmp_path), "user")
        assert (await talk.end()).status == 0
        await talk.hang_up()
    assert not asked
