"""Values through the safe codec and back, for tests."""

from __future__ import annotations

import tracemalloc
from typing import Any
from unittest.mock import patch

from p2p_ipython.task import safe
from p2p_ipython.task.payload import Packed
from p2p_ipython.task.safe import codec
from p2p_ipython.task.safe.parts import Incoming


def decoded(packed: Packed, **more: Any) -> Any:
    """What arrives: inline bytes, and each large segment in memory of its own."""
    large = {ref: memoryview(bytearray(view)) for ref, view in packed.large.items()}
    return safe.decode([list(each) for each in packed.segments], packed.inline, large, worker="bob", **more)


def again(value: object) -> Any:
    """``value`` after its way."""
    return decoded(safe.encode(value))


def memory(packed: Packed) -> tuple[int, int]:
    """Bytes that decoding takes at its peak, besides those that are here already; and what it reckons with."""
    decoded(packed)  # what it imports and keeps is here from now on
    large = {ref: memoryview(bytearray(view)) for ref, view in packed.large.items()}
    made: list[Incoming] = []

    def make(*args: Any) -> Incoming:
        made.append(Incoming(*args))
        return made[0]

    with patch.object(codec, "Incoming", make):
        tracemalloc.start()
        try:
            safe.decode(packed.segments, packed.inline, large)
            return tracemalloc.get_traced_memory()[1], made[0].charged + 100_000
        finally:
            tracemalloc.stop()
