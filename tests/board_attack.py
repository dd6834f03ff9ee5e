"""A hostile client of a board, in a process of its own: ``python tests/board_attack.py '{"ssh": 2222, …}'``.

It makes half-open and idle connections from addresses of loopback that members don't have, says "ready", and at a line
on standard input begins to do the worst it can, by every way at once, until standard input ends. All that it draws is
seeded. Standard output then has how often it did what.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import secrets
import sys
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import asyncssh
from asyncssh.constants import MSG_IGNORE
from asyncssh.packet import String

SOURCES = [f"127.0.0.{number}" for number in range(2, 10)]
GONE = (OSError, asyncssh.Error, asyncio.IncompleteReadError, TimeoutError)


class Attacker:
    """The hostile client. ``where`` has the ports; see ``main``."""

    def __init__(self, where: dict[str, Any]) -> None:
        self.where = where
        self.chance = random.Random(where["seed"])
        self.did: Counter[str] = Counter()
        self.keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(64)]
        self.kept: list[Any] = []
        self._sources = itertools.cycle(SOURCES)

    async def tcp(self, port: str) -> tuple[StreamReader, StreamWriter]:
        """Connect to a port."""
        source = (next(self._sources), 0)
        return await asyncio.open_connection("127.0.0.1", self.where[port], local_addr=source)

    async def log_in(self, key: asyncssh.SSHKey) -> asyncssh.SSHClientConnection:
        """Log in to the board."""
        return await asyncssh.connect(
            "127.0.0.1", self.where["ssh"], known_hosts=None, client_keys=[key], config=None, agent_path=None,
            local_addr=(next(self._sources), 0), keepalive_interval=0,
        )  # fmt: skip

    async def half_open(self) -> None:
        """Keep a connection that never logs in; make it anew when it is cut."""
        while True:
            try:
                reader, writer = await self.tcp("ssh")
                writer.write(self.chance.choice([b"", b"SSH-2.0-slow\r\n", b"SSH"]))
                self.did["half-open"] += 1
                self.kept.append(None)
                while await reader.read(4096):
                    pass
                writer.close()
            except GONE:
                pass
            await asyncio.sleep(1 + self.chance.random())

    async def idle(self, number: int) -> None:
        """Make a connection that is logged in, on a topic of its own, and does nothing."""
        try:
            connection = await self.log_in(self.keys[number % len(self.keys)])
            await connection.create_process(f"pipe idle{number} -c", encoding=None)
            self.kept.append(connection)
            self.did["idle"] += 1
        except GONE:
            self.did["idle refused"] += 1

    # The worst

    async def small_packets(self) -> None:
        connection = await self.log_in(self.keys[0])
        await connection.create_process("pipe packets -c", encoding=None)
        while connection._transport is not None:
            for _ in range(500):
                connection.send_packet(MSG_IGNORE, String(b""))
            self.did["small packets"] += 500
            await self.sent(connection)

    async def new_keys(self) -> None:
        connection = await self.log_in(self.keys[1])
        await connection.create_process("pipe keys -c", encoding=None)
        for _ in range(100):
            connection._send_kexinit()
            self.did["key exchanges"] += 1
            await connection._make_global_request(b"nobody-knows-this@example.org")  # it is answered when that is done

    async def channels(self) -> None:
        connection = await self.log_in(self.keys[2])
        loop = asyncio.get_running_loop()
        while True:
            channel: Any = asyncssh.SSHClientChannel(connection, loop, False, None, "strict", 1 << 16, 1 << 15)
            self.did["channels"] += 1
            await channel._open(b"session")

    async def deaf_readers(self) -> None:
        reading, writing = await self.log_in(self.keys[3]), await self.log_in(self.keys[4])
        for _ in range(20):
            await reading.create_process("sub deaf -p -k", encoding=None, window=0)
        process = await writing.create_process("pipe deaf -p -c", encoding=None)
        while not process.channel.is_closing():
            process.stdin.write(b"x" * 30_000 + b"\n")
            self.did["bytes for the deaf"] += 30_001
            await process.stdin.drain()

    async def publishers(self) -> None:
        connection = await self.log_in(self.keys[5])
        for number in range(60):
            process = await connection.create_process(f"pub wait{number}", encoding=None)
            process.stdin.write(b"x" * 100_000)
            self.did["waiting publishers"] += 1
        await asyncio.sleep(1)
        connection.abort()

    async def logins(self) -> None:
        connection = await self.log_in(asyncssh.generate_private_key("ssh-ed25519"))
        self.did["log-ins"] += 1
        connection.abort()

    async def garbage(self) -> None:
        for port in ("ssh", "mailbox", "relay"):
            _, writer = await self.tcp(port)
            writer.write(self.chance.randbytes(10_000))
            self.did["garbage"] += 1
            writer.close()

    async def mailboxes(self) -> None:
        _, writer = await self.tcp("mailbox")
        writer.write(
            b"GET /v1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        app = secrets.token_hex(8)
        messages = [{"type": "bind", "appid": app, "side": "s"}, {"type": "open", "mailbox": app}]
        messages += [{"type": "add", "phase": str(number), "body": "x" * 200_000} for number in range(9)]
        for message in messages:
            data = json.dumps(message).encode()
            writer.write(b"\x81\xff" + len(data).to_bytes(8, "big") + bytes(4) + data)
            self.did["mailbox messages"] += 1
        await asyncio.sleep(1)  # the echoes stay unread
        writer.transport.abort()

    async def relayed(self) -> None:
        token = secrets.token_hex(32)
        ends = [await self.tcp("relay") for _ in range(2)]
        for side, (_, writer) in zip("ab", ends, strict=True):
            writer.write(f"please relay {token} for side {side * 16}\n".encode())
        for _ in range(20):
            _, waiting = await self.tcp("relay")
            waiting.write(f"please relay {secrets.token_hex(32)} for side {'a' * 16}\n".encode())
            self.did["relay waits"] += 1
            waiting.close()
        ends[0][1].write(bytes(1 << 20))
        self.did["relayed bytes"] += 1 << 20
        await asyncio.wait_for(ends[1][0].readexactly(1 << 20), 5)
        for _, writer in ends:
            writer.close()

    @staticmethod
    async def sent(connection: Any) -> None:
        """Wait until most of what was written has gone."""
        while connection._transport is not None and connection._transport.get_write_buffer_size() > 1 << 16:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)

    async def again_and_again(self, attack: Callable[[], Awaitable[None]]) -> None:
        """Repeat an attack until the end."""
        while True:
            self.did[f"{attack.__name__} begun"] += 1
            try:
                await asyncio.wait_for(attack(), 20)
            except GONE:
                self.did[f"{attack.__name__} ended"] += 1
            await asyncio.sleep(0.01)


async def main() -> None:
    """``half_open`` and ``idle`` are how many of these; ``ssh``, ``mailbox`` and ``relay`` are ports."""
    where = json.loads(sys.argv[1])
    attacker = Attacker(where)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    starter = asyncio.ensure_future(lines.readline())
    starter.add_done_callback(lambda line: os._exit(1) if not line.result() else None)
    for start in range(0, where["idle"], 20):
        await asyncio.gather(*(attacker.idle(number) for number in range(start, min(start + 20, where["idle"]))))
    tasks = [asyncio.ensure_future(attacker.half_open()) for _ in range(where["half_open"])]
    while attacker.did["half-open"] < where["half_open"]:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    print("ready", flush=True)
    await starter
    os.nice(5)  # as the board, and unlike members: it would be on another machine, which has processors of its own
    kinds = [
        "small_packets",
        "new_keys",
        "channels",
        "deaf_readers",
        "publishers",
        "garbage",
        "mailboxes",
        "relayed",
    ]
    tasks += [asyncio.ensure_future(attacker.again_and_again(getattr(attacker, kind))) for kind in kinds]
    tasks += [asyncio.ensure_future(attacker.again_and_again(attacker.logins)) for _ in range(8)]
    await lines.read()
    print(json.dumps(attacker.did), flush=True)
    os._exit(0)  # thousands of connections, each of which would say good-bye


if __name__ == "__main__":
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    asyncio.run(main())
