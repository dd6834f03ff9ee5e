"""What members notice when strangers attack their board: ``python tests/benchmarks/bench_strangers.py [--seconds 60]``.

A board in a process of its own has 500 half-open connections, 4,000 idle ones, and one client that does the worst it
can (tests/board_attack.py). Meanwhile members join, one after the other, and a worker of the board runs tasks: each
computes for about 0.2 s. A process without a board does the same, to tell how busy the machine is. Processes of the
attack and of the board have a lower priority, because they would be on other machines. Reported are how long joining
took, how much slower tasks were than before, and how large the board became.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from attacked_board import Attack, Board, join_once
from board_support import make_key

import p2p_ipython


def work(steps: int) -> int:
    """Compute for a while."""
    total = 0
    for number in range(steps):
        total += number * number % 7
    return total


def tasks_for(cluster: Any, control: Any, seconds: float, steps: int) -> list[tuple[float, float]]:
    """Run tasks for so long, and after each the same work in a process that has no board; return how long both took."""
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        both = []
        for place in (cluster, control):
            began = time.perf_counter()
            place.submit(work, steps).result(60)
            both.append(time.perf_counter() - began)
        times.append((both[0], both[1]))
    return times


def slower(before: list[tuple[float, float]], during: list[tuple[float, float]]) -> float:
    """Return how much slower tasks have become, in percent, beyond what the machine itself has become slower."""
    was, now = (statistics.median(task / alone for task, alone in times) for times in (before, during))
    return 100 * (now / was - 1)


async def joins_for(board: Board, folder: Path, seconds: float, key: Any) -> list[float]:
    """Have members join for so long, about one a second."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(await join_once(board, folder, key, len(times)))
        await asyncio.sleep(max(0.0, 1 - times[-1]))
    return times


async def measure(folder: Path, *, half_open: int, idle: int, seconds: float) -> dict[str, Any]:
    """Return the figures."""
    board = Board(folder)
    key = make_key(folder)
    where = f"{board.addresses.host}:{board.addresses.port}"
    shared = ["--accept-host-key", board.addresses.fingerprint, "--identity", str(key.path)]
    worker = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [sys.executable, "-m", "p2p_ipython.cli", "worker", "--board", where, "--cluster", "bench", *shared],
        env={**os.environ, "P2P_DATA": str(folder / "worker")}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    control = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    os.environ["P2P_DATA"] = str(folder / "client")
    cluster = await asyncio.to_thread(
        p2p_ipython.connect, where, cluster="bench", accept_host_key=board.addresses.fingerprint, identity=key.path
    )
    try:
        await asyncio.to_thread(tasks_for, cluster, control, 1, 10)  # what starts at the first has started then
        first = await asyncio.to_thread(tasks_for, cluster, control, 3, 500_000)
        steps = int(500_000 * 0.2 / statistics.median(alone for _, alone in first))
        quiet, before = await asyncio.gather(
            joins_for(board, folder, min(10, seconds), key),
            asyncio.to_thread(tasks_for, cluster, control, min(10, seconds), steps),
        )
        attack = await asyncio.to_thread(lambda: Attack(board, half_open=half_open, idle=idle))
        assert attack.ready
        full = board.memory()
        attack.begin()
        most = full
        began, cpu = time.perf_counter(), sum(board.usage.cpu_times()[:2])

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, board.memory())
                await asyncio.sleep(0.1)

        watching = asyncio.ensure_future(watch())
        joins, during = await asyncio.gather(
            joins_for(board, folder, seconds, key), asyncio.to_thread(tasks_for, cluster, control, seconds, steps)
        )
        watching.cancel()
        busy = (sum(board.usage.cpu_times()[:2]) - cpu) / (time.perf_counter() - began)
        did = await asyncio.to_thread(attack.end)
        return {
            "join, s: median": round(statistics.median(joins), 2),
            "join, s: most": round(max(joins), 2),
            "joins": len(joins),
            "join before, s: median": round(statistics.median(quiet), 2),
            "join before, s: most": round(max(quiet), 2),
            "a task, s: before": round(statistics.median(task for task, _ in before), 3),
            "a task, s: during": round(statistics.median(task for task, _ in during), 3),
            "lost by tasks, %": round(slower(before, during), 1),
            "board, MB: with connections": round(full),
            "board, MB: most": round(most),
            "board, processors": round(busy, 2),
            "log lines": board.log.read_bytes().count(b"\n"),
            "attacks": did,
        }
    finally:
        control.shutdown()
        await asyncio.to_thread(cluster.close)
        worker.terminate()
        worker.communicate()
        board.end()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half-open", type=int, default=500)
    parser.add_argument("--idle", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end what was started
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(
            measure(Path(folder), half_open=options.half_open, idle=options.idle, seconds=options.seconds)
        )
    for name, value in found.items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
