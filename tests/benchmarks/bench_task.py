"""What packing costs the client; run by hand: ``.venv/bin/python tests/benchmarks/bench_task.py``.

Each figure is the median of its repeats.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.capture import capture_cell, freeze
from p2p_ipython.task.outcome import decode
from p2p_ipython.task.payload import pack_result, pack_task, unpack
from p2p_ipython.task.task import make_call

MIB = 1 << 20


def median(work: Callable[[], Any], repeats: int, calls: int = 1) -> float:
    """Seconds for one call."""
    figures = []
    for _ in range(repeats):
        begun = time.perf_counter()
        for _ in range(calls):
            work()
        figures.append((time.perf_counter() - begun) / calls)
    return statistics.median(figures)


def main() -> None:
    store = BufferStore(256 * MIB)

    def row(what: str, seconds: float, repeats: str) -> None:
        figure = f"{seconds * 1e6:9.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:9.1f} ms"
        print(f"{what:<52} {figure}   ({repeats})")

    call = (pow, (2, 10), {})
    packed = pack_task(call, store)
    result = pack_result(1024)
    header = {"ok": True, "segments": result.segments}
    many = "median of 9 × 5,000"
    row("pack a no-op call", median(lambda: pack_task(call, store), 9, 5000), many)
    row("make a task of it", median(lambda: make_call(pow, (2, 10), {}, store), 9, 5000), many)
    row("unpack it", median(lambda: unpack(packed.segments, packed.inline, {}), 9, 5000), many)
    row("decode its result", median(lambda: decode(header, result.inline, {}, trusted=True), 9, 5000), many)

    home: dict[str, Any] = {"__name__": "__main__"}
    exec("import numpy as np\nk = 3\ndef f(x): return x * k", home)
    home["a"] = np.arange(1000)
    source = "total = 0\nfor i in range(3):\n    total += f(a).sum()\nnp.sqrt(total)\n"
    captured = capture_cell(source, home, transform=str)
    row(
        "capture a cell of four lines",
        median(lambda: capture_cell(source, home, transform=str), 9, 200),
        "median of 9 × 200",
    )
    row("freeze its names", median(lambda: freeze(captured, store), 9, 200), "median of 9 × 200")

    array = np.random.default_rng(0).random(100 * MIB // 8)

    def send() -> None:
        store.unpin(pack_task(array, store).large)

    def send_new() -> None:
        array[0] += 1
        store.clear()
        send()

    send()
    row("freeze 100 MiB, new", median(send_new, 9), "median of 9")
    row("freeze 100 MiB, the same again", median(send, 9), "median of 9")
    row("pack a result of 100 MiB", median(lambda: pack_result(array), 9), "median of 9")


if __name__ == "__main__":
    main()
