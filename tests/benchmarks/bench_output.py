"""How fast a task's output comes here, and how much it slows the task: lines and blocks, against /dev/null.

    python tests/benchmarks/bench_output.py [MB]

The limit of output is raised for that. Prints megabytes a second, and the task's seconds, of the clock and of the
processor, beside those of the same task whose output goes to /dev/null, as medians of three. "paced" computes as long
as a task does that prints 20 MB/s of lines to /dev/null.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import p2p_ipython


def prints(kind: str, size: int, nowhere: bool) -> tuple[float, float]:
    """Print ``size`` bytes; return the seconds that it took, of the clock and of the processor."""
    import os
    import sys
    import time

    line, block = "x" * 79 + "\n", ("y" * 127 + "\n") * 512

    def computes() -> None:
        total = 0
        for number in range(170):
            total += number

    begun, used = time.perf_counter(), time.process_time()
    with open(os.devnull, "w") as null:
        out = null if nowhere else sys.stdout
        if kind == "lines":
            for _ in range(size // len(line)):
                print(line, end="", file=out)
        elif kind == "paced":
            for _ in range(size // len(line)):
                print(line, end="", file=out)
                computes()
        elif kind == "blocks":
            for _ in range(size // len(block)):
                out.write(block)
        else:  # "bytes": to the descriptor, as C code and subprocesses write
            data, fd = block.encode(), null.fileno() if nowhere else 1
            for _ in range(size // len(data)):
                os.write(fd, data)
    return time.perf_counter() - begun, time.process_time() - used


def measured(cluster: Any, kind: str, size: int) -> tuple[float, ...]:
    """Return the seconds until all output was here, those of the task, and those with its output to /dev/null."""
    nowhere = cluster.submit(prints, kind, size, True).result()
    begun = time.perf_counter()
    future = cluster.submit(prints, kind, size, False)
    took = future.result()
    whole = time.perf_counter() - begun
    assert len(future.stdout) > 0.99 * size
    return (whole, *took, *nowhere)


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    size = megabytes * 1_000_000
    with p2p_ipython.connect(workers=1, output_limit=4 * size) as cluster:
        for kind in ("lines", "paced", "blocks", "bytes"):
            rows = [measured(cluster, kind, size) for _ in range(3)]
            whole, took, used, nowhere, least = (statistics.median(row[n] for row in rows) for n in range(5))
            print(
                f"{kind:7} {megabytes / whole:6.1f} MB/s; task {took:6.2f} s ({used:.2f} of processor), "
                f"to /dev/null {nowhere:6.2f} s ({least:.2f})",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()
