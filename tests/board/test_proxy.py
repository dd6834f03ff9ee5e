"""The PROXY protocol: headers of both versions, in pieces, and nonsense; and a board behind a proxy."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from contextlib import suppress

import asyncssh
import pytest
from board_support import PATIENCE, make_key, running, until
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.opening import Speaks
from p2p_ipython.board.server.proxy import SIGNATURE, Nonsense, ProxyHeader

MOST = Bounds.proxy_header


def binary(address: str, *, command: int = 1, more: bytes = b"") -> bytes:
    """A header of version 2."""
    packed = ipaddress.ip_address(address).packed
    body = packed + bytes(len(packed)) + struct.pack("!HH", 40000, 22) + more
    family = 0x11 if len(packed) == 4 else 0x21
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(body)) + body


HEADERS = {
    b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 22\r\n": "192.0.2.7",
    b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 22\r\n": "2001:db8::7",
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN anything 1 2 3\r\n": None,
    binary("192.0.2.7"): "192.0.2.7",
    binary("2001:db8::7", more=b"\x04\0\x01x"): "2001:db8::7",
    binary("192.0.2.7", command=0): None,
    SIGNATURE + b"\x21\x00\0\0": None,
}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_header_in_pieces_names_the_client_and_gives_the_rest_back(header, step):
    reader, data, rest = ProxyHeader(MOST), header + b"SSH-2.0-x\r\n", None
    while rest is None:
        rest = reader.feed(data[:step])
        data = data[step:]
    assert rest + data == b"SSH-2.0-x\r\n"
    assert reader.address == HEADERS[header]


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n",
        b"PROXY TCP4 nobody 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n",
        SIGNATURE + b"\x31\x11\0\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\0\x04" + bytes(4),
    ],
)
def test_what_is_no_header_is_refused(data):
    with pytest.raises(Nonsense):
        ProxyHeader(MOST).feed(data)


@pytest.mark.parametrize("data", [b"PROXY TCP4 " + b"1" * 200, SIGNATURE + b"\x21\x11\xff\xff"])
def test_a_header_that_does_not_end_is_refused(data):
    with pytest.raises(Nonsense):
        ProxyHeader(MOST).feed(data)


@given(st.binary(max_size=64), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21"]))
def test_whatever_comes_is_read_waited_for_or_refused(data, start):
    reader = ProxyHeader(MOST)
    try:
        rest = reader.feed(start + data)
    except Nonsense:
        return
    assert rest is None or (start + data).endswith(rest)
    assert reader.address is None or ipaddress.ip_address(reader.address)


@pytest.mark.parametrize("separate", [{}, {"mailbox_port": 0, "relay_port": 0}])
async def test_ssh_mailbox_and_relay_read_it_from_the_proxys_address_only(separate):
    header = b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 22\r\n"
    options = {"proxy": "127.0.0.2", "half_open_each": 1, **separate}
    async with asyncio.timeout(PATIENCE), running(**options) as server:
        ports = (server.addresses.port, server.ports[Speaks.MAILBOX], server.ports[Speaks.RELAY])
        hellos = (b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"please relay nonsense\n")
        answers = (b"SSH-2.0-", b"HTTP/1.1 404", b"bad handshake")
        for port, hello, answer in zip(ports, hellos, answers, strict=True):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
            writer.write(header[:9])
            await writer.drain()
            writer.write(header[9:] + hello)
            assert (await reader.readline()).startswith(answer)
            if hello.startswith(b"SSH-"):
                await until(lambda: server.arrivals._half_open.keys() == {"192.0.2.7"})
            writer.close()
            # Others can't claim an address by it, and the proxy must.
            for source, data in (("127.0.0.1", header + b"\n\r\n\r\n"), ("127.0.0.2", hello)):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
                writer.write(data)
                with suppress(ConnectionError):
                    said = await reader.read()
                    assert hello.startswith(b"SSH-") or answer not in said or source == "127.0.0.1"
                writer.close()


async def test_a_session_behind_a_proxy_is_listed_with_its_clients_address(tmp_path):
    key = make_key(tmp_path)
    async with asyncio.timeout(PATIENCE), running(proxy="127.0.0.2", users_inline={"alice": key.line}) as server:
        proxied = socket.create_connection(("127.0.0.1", server.addresses.port), source_address=("127.0.0.2", 0))
        proxied.sendall(binary("2001:db8::7"))
        connection = await asyncssh.connect(
            sock=proxied, known_hosts=None, client_keys=[key.key], config=None, agent_path=None
        )
        await connection.create_process("pipe t -r", encoding=None)
        listed = await connection.run("ls")
        assert "(alice@[2001:db8::7]:" in str(listed.stdout)
        assert server.is_here("2001:db8::/64")
        connection.abort()
        await connection.wait_closed()
