"""What a link costs: time to open, round trips, small frames a second, bulk MB/s; direct and by a relay.

Run by hand: ``python tests/benchmarks/bench_link.py [--repeats 5] [--profile]``. Client and worker are two
processes; mailbox and relay are a third. Figures are medians of the repeats; the best one is beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import multiprocessing
import pstats
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from link_support import servers

from p2p_ipython import loop as loops
from p2p_ipython.config import Settings
from p2p_ipython.link.base import LinkState, Meeting, Secret
from p2p_ipython.link.rendezvous import new_code
from p2p_ipython.link.tls import TLSLinker
from p2p_ipython.link.tls_link import TLSLink

MIB = 1 << 20
SMALL = 20_000
BULK = 100
TRIPS = 2000


class Handler:
    """Answers what it is asked, and counts."""

    def __init__(self) -> None:
        self.link: TLSLink
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.count = 0
        self.memory = memoryview(bytearray(BULK * MIB))
        self.closed = asyncio.Event()

    def on_frame(self, header: dict[str, Any], body: Any) -> None:
        match header["t"]:
            case "ping":
                self.link.send({"t": "pong"}, body)
            case "count" | "chunk":
                self.count += len(body) if header["t"] == "chunk" else 1
                if self.count == header["of"]:
                    self.count = 0
                    self.link.send({"t": "pong", "cpu": time.process_time()})
            case "pong":
                self.answer.set_result(header)

    def buffer_for(self, header: dict[str, Any], size: int) -> memoryview | None:
        return self.memory[header["offset"] : header["offset"] + size] if "offset" in header else None

    def on_link(self, state: LinkState, detail: str) -> None:
        if state in (LinkState.CLOSED, LinkState.LOST):
            self.closed.set()

    def on_drain(self) -> None:
        pass

    async def ask(self) -> dict[str, Any]:
        self.answer = asyncio.get_running_loop().create_future()
        return await self.answer  # type: ignore[no-any-return]


def meeting(code: str, mailbox: str, relay: str) -> Meeting:
    return Meeting(Secret(code), mailbox, relay, 30, lambda verifier: b"proof", lambda verifier, proof: None)


async def worker(pipe: Any, force: Any) -> None:
    linker = TLSLinker("worker", settings=Settings(), listen_host="127.0.0.1", force=force)
    loop = asyncio.get_running_loop()
    while (order := await loop.run_in_executor(None, pipe.recv)) is not None:
        handler = Handler()
        handler.link = await linker.open(meeting(*order), handler)
        await handler.closed.wait()
    await linker.close()
    loops.disown()


async def client(pipe: Any, force: Any, mailbox: str, relay: str) -> dict[str, float]:
    linker = TLSLinker("client", settings=Settings(), listen_host="127.0.0.1", force=force)
    handler = Handler()
    code = new_code().reveal()
    pipe.send((code, mailbox, relay))
    start = time.perf_counter()
    link = handler.link = await linker.open(meeting(code, mailbox, relay), handler)
    figures = {"open_ms": (time.perf_counter() - start) * 1e3}
    trips = []
    for _ in range(TRIPS):
        start = time.perf_counter()
        link.send({"t": "ping"}, bytes(1000))
        await handler.ask()
        trips.append((time.perf_counter() - start) * 1e3)
    figures["rtt_ms"] = statistics.median(trips)
    figures["rtt_p99_ms"] = sorted(trips)[int(0.99 * TRIPS)]
    start, before = time.perf_counter(), time.process_time()
    for number in range(SMALL):
        link.send({"t": "count", "of": SMALL, "task": "0123456789abcdef", "n": number}, b"x" * 50)
    await handler.ask()
    figures["small_per_s"] = SMALL / (time.perf_counter() - start)
    figures["small_us_cpu_sender"] = (time.process_time() - before) / SMALL * 1e6
    data = memoryview(bytes(BULK * MIB))
    for _ in range(2):  # the first touches the memory
        start = time.perf_counter()
        for number in range(BULK):
            at = number * MIB
            link.send({"t": "chunk", "of": BULK * MIB, "offset": at}, data[at : at + MIB], bulk=True)
        await handler.ask()
        figures["bulk_MB_per_s"] = BULK * MIB / 1e6 / (time.perf_counter() - start)
    link.cut()
    start = time.perf_counter()
    link.send({"t": "ping"})
    await handler.ask()
    figures["reconnect_ms"] = (time.perf_counter() - start) * 1e3
    await link.close()
    await linker.close()
    return figures


def client_main(pipe: Any, worker_pipe: Any, force: Any, mailbox: str, relay: str, repeats: int) -> None:
    async def repeat() -> list[dict[str, float]]:
        runs = [await client(worker_pipe, force, mailbox, relay) for _ in range(repeats)]
        loops.disown()
        return runs

    pipe.send(asyncio.run(repeat()))


def worker_main(pipe: Any, force: Any, profile: bool) -> None:
    with cProfile.Profile() if profile else _Nothing() as measured:
        asyncio.run(worker(pipe, force))
    if measured is not None:
        pstats.Stats(measured).sort_stats("tottime").print_stats(18)


def servers_main(pipe: Any) -> None:
    async def serve() -> None:
        async with servers() as running:
            pipe.send((running.mailbox, running.relay))
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        loops.disown()

    asyncio.run(serve())


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="profile the worker (and slow it down)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    serving = spawn.Process(target=servers_main, args=(theirs,))
    serving.start()
    mailbox, relay = ours.recv()
    results: dict[str, dict[str, list[float]]] = {}
    for force in ("direct", "relay"):
        here, there = spawn.Pipe()
        process = spawn.Process(target=worker_main, args=(there, force, options.profile))
        process.start()

        client_end, client_there = spawn.Pipe()
        client = spawn.Process(target=client_main, args=(client_there, here, force, mailbox, relay, options.repeats))
        client.start()
        runs = client_end.recv()
        client.join()
        here.send(None)
        process.join()
        results[force] = {name: [run[name] for run in runs] for name in runs[0]}
    ours.send(None)
    serving.join()
    if options.json:
        print(json.dumps({k: {n: statistics.median(v) for n, v in f.items()} for k, f in results.items()}))
        return
    print(f"{'median (best)':22}" + "".join(f"{force:>24}" for force in results))
    for name in results["direct"]:
        best = max if name.endswith("per_s") else min
        cells = (f"{statistics.median(f[name]):.2f} ({best(f[name]):.2f})" for f in results.values())
        print(f"{name:22}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
