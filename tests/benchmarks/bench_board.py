"""How many lines a board delivers: ``python tests/benchmarks/bench_board.py [--readers 100] [--repeats 3]``.

One author, lines of 512 B, readers with asyncssh in a process of their own; all on this machine. *paced*: 20 lines
at a time, the next when every reader has them; *burst*: as fast as they are taken.
Figures are medians of the repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time

import asyncssh

from p2p_ipython.board.server.options import ServerOptions
from p2p_ipython.board.server.serve import serve

LINE = b"\n" + b"x" * 510 + b"\n"


async def _reader(port: int, readers: int) -> None:
    """Connect ``readers`` sessions and count what comes; tell the totals on standard output when asked."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    total = 0
    changed = asyncio.Event()

    class Session(asyncssh.SSHClientSession[bytes]):
        def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
            nonlocal total
            total += len(data)
            changed.set()

    connections = []
    for _ in range(readers):
        connection = await asyncssh.connect("127.0.0.1", port, known_hosts=None, client_keys=[key], config=None)
        await connection.create_session(Session, "sub public/bench -k", encoding=None)
        connections.append(connection)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while want := await loop.run_in_executor(None, sys.stdin.readline):
        while total < int(want):
            changed.clear()
            await changed.wait()
        print(total, flush=True)
    for connection in connections:
        connection.abort()


async def _measure(readers: int, lines: int, rounds: int) -> float:
    """Deliveries per second of ``lines`` lines to each of ``readers``, in so many rounds."""
    options = ServerOptions(port=0, rate=1 << 40, burst=1 << 40, queue=64 << 20, sessions=readers + 8)
    server = await serve(options)
    load = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--load", str(server.addresses.port), str(readers),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert load.stdin
    assert load.stdout
    await load.stdout.readline()
    key = asyncssh.generate_private_key("ssh-ed25519")
    author = await asyncssh.connect(
        "127.0.0.1", server.addresses.port, known_hosts=None, client_keys=[key], config=None
    )
    stdin, _, _ = await author.open_session("pipe public/bench", encoding=None)
    began, per_round = time.perf_counter(), lines // rounds
    for done in range(1, rounds + 1):
        for _ in range(per_round):
            stdin.write(LINE)
            await asyncio.sleep(0)
        load.stdin.write(b"%d\n" % (done * per_round * len(LINE) * readers))
        await load.stdout.readline()
    took = time.perf_counter() - began
    load.stdin.close()
    author.abort()
    await load.wait()
    await server.close()
    return lines * readers / took


async def _main(readers: int, repeats: int) -> None:
    print(f"{readers} readers, lines of {len(LINE)} B, medians of {repeats}")
    for name, lines, rounds in (("paced", 1000, 50), ("burst", 2000, 1)):
        figures = [await _measure(readers, lines, rounds) for _ in range(repeats)]
        print(f"{name:6} {statistics.median(figures):10,.0f} deliveries/s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        asyncio.run(_reader(int(sys.argv[2]), int(sys.argv[3])))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--readers", type=int, default=100)
        parser.add_argument("--repeats", type=int, default=3)
        given = parser.parse_args()
        asyncio.run(_main(given.readers, given.repeats))
