"""A process of ours hears what its starter says, line by line, and that it is gone."""

from __future__ import annotations

import os
import queue

from p2p_ipython import lifeline

DEADLINE = 30.0


def test_lines_come_whole_and_in_order_and_then_the_end() -> None:
    reading, writing = os.pipe()
    heard: queue.Queue[bytes | None] = queue.Queue()
    lifeline.hold(lambda: heard.put(None), fd=reading, told=heard.put)
    for piece in (b"one\ntw", b"o\n", b"\n", b"never ended"):
        os.write(writing, piece)
    assert [heard.get(timeout=DEADLINE) for _ in range(3)] == [b"one", b"two", b""]
    os.close(writing)
    assert heard.get(timeout=DEADLINE) is None
    os.close(reading)


def test_a_line_without_an_end_takes_bounded_memory() -> None:
    reading, writing = os.pipe()
    heard: queue.Queue[bytes | None] = queue.Queue()
    lifeline.hold(lambda: heard.put(None), fd=reading, told=heard.put)
    for _ in range(8):
        os.write(writing, b"x" * lifeline.MAX_LINE)
    os.write(writing, b"\n")
    line = heard.get(timeout=DEADLINE)
    assert line is not None
    assert len(line) <= 2 * lifeline.MAX_LINE
    os.close(writing)
    assert heard.get(timeout=DEADLINE) is None
    os.close(reading)
