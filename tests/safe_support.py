"""Values through the safe codec and back, for tests."""

from __future__ import annotations

from typing import Any

from p2p_ipython.task import safe
from p2p_ipython.task.payload import Packed


def decoded(packed: Packed, **more: Any) -> Any:
    """What arrives: inline bytes, and each large segment in memory of its own."""
    large = {ref: memoryview(bytearray(view)) for ref, view in packed.large.items()}
    return safe.decode([list(each) for each in packed.segments], packed.inline, large, worker="bob", **more)


def again(value: object) -> Any:
    """``value`` after its way."""
    return decoded(safe.encode(value))
