"""How long a cancelled task's future takes to be done, on a personal cluster of one worker. Run by hand.

``python tests/benchmarks/bench_stopping.py [--repeats 20]``. Figures are medians, with the best and the worst.

* *a loop of Python*: computes, and heeds the interrupt
* *a sleep*: waits in the system
* *a loop that heeds nothing*: is killed after ``cancel_grace``, 2 s
* *the next task*: from ``cancel()`` of the first loop to the value of a task that waited behind it
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import p2p_ipython
from p2p_ipython.client.cluster import Cluster


def loops(mark: str) -> None:
    """Compute for ever."""
    Path(mark).touch()
    number = 0
    while True:
        number += 1


def sleeps(mark: str) -> None:
    """Wait for ever."""
    Path(mark).touch()
    time.sleep(3600)


def heeds_nothing(mark: str) -> None:
    """Compute for ever, whatever comes."""
    while True:
        try:
            loops(mark)
        except BaseException:
            pass


marks = itertools.count()


def stop(cluster: Cluster, function: Callable[[str], None], folder: str, *, follows: bool = False) -> float:
    """Return the seconds from ``cancel()`` of a running task to its end, or to the value of the task behind it."""
    mark = Path(folder) / str(next(marks))
    future = cluster.submit(function, str(mark))
    while not mark.exists():
        time.sleep(0.001)
    time.sleep(0.1)
    after = cluster.submit(pow, 2, 10) if follows else None
    begun = time.perf_counter()
    assert future.cancel()
    concurrent.futures.wait([future])
    if after is not None:
        after.result()
    return time.perf_counter() - begun


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    kinds: dict[str, tuple[Callable[[str], None], bool]] = {
        "a loop of Python": (loops, False),
        "a sleep": (sleeps, False),
        "the next task": (loops, True),
        "a loop that heeds nothing": (heeds_nothing, False),
    }
    with p2p_ipython.connect(workers=1) as cluster, tempfile.TemporaryDirectory() as folder:
        cluster.submit(pow, 2, 2).result()
        for name, (function, follows) in kinds.items():
            times = [stop(cluster, function, folder, follows=follows) for _ in range(repeats)]
            best, worst = min(times), max(times)
            print(f"{name}: {statistics.median(times) * 1e3:.0f} ms ({best * 1e3:.0f} to {worst * 1e3:.0f})")


if __name__ == "__main__":
    main()
