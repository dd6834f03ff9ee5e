"""Memory that is used again."""

from __future__ import annotations

import gc
from collections import deque

import pytest

from p2p_ipython import memory


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests of this process have used is not in the way."""
    gc.collect()
    monkeypatch.setattr(memory, "_returned", deque())


def test_memory_has_the_size_that_was_asked_for_and_can_be_written() -> None:
    for size in (0, 1, memory.LARGE - 1, memory.LARGE, memory.LARGE + 12345):
        block = memory.fresh(size)
        assert block.nbytes == size
        assert not block.readonly
        block[:] = bytes(size)


def test_a_block_is_used_again_only_when_its_last_view_is_gone() -> None:
    first = memory.fresh(5 << 20)
    first[:4] = b"mine"
    part = first[:4]
    other = memory.fresh(5 << 20)
    other[:4] = b"else"
    assert bytes(part) == b"mine"
    del first
    third = memory.fresh(5 << 20)
    third[:4] = b"more"
    assert bytes(part) == b"mine"
    before = len(memory._returned)
    del part
    assert len(memory._returned) == before + 1
    again = memory.fresh((5 << 20) - 100)
    assert bytes(again[:4]) == b"mine"  # the same pages: not cleared, as promised to nobody


def test_no_more_than_the_limit_is_kept() -> None:
    blocks = [memory.fresh(40 << 20) for _ in range(5)]
    blocks.clear()
    assert sum(map(len, memory._returned)) <= memory.KEEP
    huge = memory.fresh(memory.KEEP + 1)
    del huge
    assert sum(map(len, memory._returned)) <= memory.KEEP
