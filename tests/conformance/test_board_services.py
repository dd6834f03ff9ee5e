"""A board's wormhole mailbox and transit relay, used by Magic Wormhole itself."""

from __future__ import annotations

import asyncio
import secrets
import socket

from board_support import PATIENCE, running, until

from p2p_ipython.board.server.opening import Speaks


async def test_two_wormholes_meet_at_the_boards_mailbox():
    from twisted.internet import reactor
    from wormhole import create

    loop = asyncio.get_running_loop()
    code = f"{secrets.randbelow(10**30)}-{secrets.token_hex(16)}"
    async with asyncio.timeout(PATIENCE), running() as server:
        ends = [create("p2p.test", server.addresses.mailbox, reactor) for _ in range(2)]
        for end in ends:
            end.set_code(code)
        ends[0].send_message(b"hello")
        assert await ends[1].get_message().asFuture(loop) == b"hello"
        ends[1].send_message(b"hello yourself")
        assert await ends[0].get_message().asFuture(loop) == b"hello yourself"
        for end in ends:
            await end.close().asFuture(loop)


async def test_the_relay_joins_two_who_name_the_same_token_without_delay():
    async with asyncio.timeout(PATIENCE), running() as server:
        _, host, port = server.addresses.relay.split(":")
        token = secrets.token_hex(32)
        ends = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        for side, (_, writer) in zip(("a" * 16, "b" * 16), ends, strict=True):
            writer.write(f"please relay {token} for side {side}\n".encode())
        for reader, _ in ends:
            assert await reader.readline() == b"ok\n"
        relay = server._services._factories[Speaks.RELAY]
        sockets = [wrapper.transport.socket for wrapper in relay.protocols]
        assert all(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for s in sockets)
        ends[0][1].write(b"through the relay\n")
        assert await ends[1][0].readline() == b"through the relay\n"
        for _, writer in ends:
            writer.close()
        await until(lambda: not relay.protocols)


async def test_the_services_end_with_the_board():
    async with asyncio.timeout(PATIENCE):
        async with running() as server:
            _, host, port = server.addresses.relay.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"please relay {secrets.token_hex(32)} for side {'a' * 16}\n".encode())
            await until(lambda: server._services._factories[Speaks.RELAY].protocols)
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass
        writer.close()
        for port in (server.ports[Speaks.MAILBOX], server.ports[Speaks.RELAY]):
            with socket.socket() as probe:
                assert probe.connect_ex((host, port)) != 0
