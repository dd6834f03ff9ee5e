"""What the safe codec costs beside what it is made of.

Run by hand: ``.venv/bin/python tests/benchmarks/bench_safe.py``. Each figure is the median of its repeats.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from p2p_ipython.task import safe
from p2p_ipython.task.payload import pack_result, unpack

REPEATS = 7


def median(work: Callable[[], Any], calls: int = 1) -> float:
    """Seconds for one call."""
    figures = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        for _ in range(calls):
            work()
        figures.append((time.perf_counter() - begun) / calls)
    return statistics.median(figures)


def main() -> None:
    whole = list(range(1_000_000))
    records = [{"name": f"n{each}", "value": each / 7, "tags": ["a", "b"]} for each in range(100_000)]
    values: dict[str, tuple[Any, int]] = {
        "None": (None, 2000),
        "a small dict": ({"a": 1, "b": [1.5, "x"]}, 2000),
        "1,000,000 ints": (whole, 1),
        "1,000,000 floats": ([each / 7 for each in whole], 1),
        "1,000,000 short texts": ([f"n{each}" for each in whole], 1),
        "100,000 records": (records, 1),
        "100,000 tuples": ([(each, each) for each in range(100_000)], 1),
        "1,000 arrays of 100": ([np.zeros(100) for _ in range(1000)], 1),
        "an array of 100 MB": (np.zeros(12_500_000), 1),
        "100 MB of truth values": (np.zeros(100_000_000, bool), 1),
    }
    try:
        import pandas as pd

        values["a frame of 1,000,000 × 6"] = (
            pd.DataFrame({"a": whole, "b": 1.5, "c": True, "d": pd.Timestamp("2020", tz="UTC"), "e": 1j, "f": 2}),
            1,
        )
    except ImportError:
        pass
    print(f"{'milliseconds, median of ' + str(REPEATS):<28}{'encode':>10}{'decode':>10}{'JSON':>18}{'pickle':>18}")
    for name, (value, calls) in values.items():
        packed = safe.encode(value)
        large = {ref: memoryview(bytearray(view)) for ref, view in packed.large.items()}
        figures = [
            median(lambda value=value: safe.encode(value), calls),
            median(lambda packed=packed, large=large: safe.decode(packed.segments, packed.inline, large), calls),
        ]
        try:
            text = json.dumps(value)
            figures += [
                median(lambda value=value: json.dumps(value), calls),
                median(lambda text=text: json.loads(text), calls),
            ]
        except TypeError:
            figures += [0, 0]
        pickled = pack_result(value)
        figures += [
            median(lambda value=value: pack_result(value), calls),
            median(lambda pickled=pickled: unpack(pickled.segments, pickled.inline, pickled.large), calls),
        ]
        shown = [f"{figure * 1e3:9.3f}" if figure else "        –" for figure in figures]
        print(f"{name:<28} {shown[0]} {shown[1]} {shown[2]}{shown[3]} {shown[4]}{shown[5]}")


if __name__ == "__main__":
    main()
