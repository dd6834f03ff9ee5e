"""What it costs to record a task's life, without and with somebody who follows. Run by hand.

``python tests/benchmarks/bench_journal.py``: N tasks are submitted, sent, begun, print a line and end; a follower takes
what has changed after each hundred events, as a panel does at ten looks a second and 1,000 events. Figures are the
median of ``REPEATS`` runs: microseconds an event, and bytes that an entry occupies.
"""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "protocol"))

from people import certificate

from p2p_ipython.client.journal import JOURNAL
from p2p_ipython.client.records import Records
from p2p_ipython.config import Settings
from p2p_ipython.protocol.client_machine import Settle
from p2p_ipython.protocol.messages import Terms
from p2p_ipython.protocol.placement import WorkerView
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.task import Task, make_call

REPEATS = 7
TASKS = 5_000
EVENTS = 5  # a task


def life(records: Records, task: Task, worker: WorkerView, after: Callable[[], None]) -> None:
    """All that happens to a task."""
    records.submitted(task, None)
    records.sent(task.id, worker, 1)
    after()
    records.running(task.id)
    records.printed(task.id, "step 1 of 3\nstep 2 of 3\n", "")
    after()
    records.settled(Settle(task.id, header={}), {"ok": True, "seconds": 0.25}, 1000)


def run(tasks: list[Task], worker: WorkerView, *, followed: bool) -> float:
    """Return seconds."""
    records = Records(Settings())
    follower = records.feed.follow(lambda: None) if followed else None
    count = 0

    def look() -> None:
        nonlocal count
        count += 1
        if follower is not None and count % 40 == 0:
            follower.take()

    begun = time.perf_counter()
    for task in tasks:
        life(records, task, worker, look)
    return time.perf_counter() - begun


def main() -> None:
    store = BufferStore(1 << 20)
    tasks = [make_call(pow, (2, number), {}, store) for number in range(TASKS)]
    worker = WorkerView(certificate("w"), "worker-1", Terms(slots=4, free=4, python="3.11"), heard=0)
    for followed in (False, True):
        seconds = statistics.median(run(tasks, worker, followed=followed) for _ in range(REPEATS))
        each = seconds / TASKS / EVENTS
        who = "followed" if followed else "not followed"
        print(f"{who:<14}{each * 1e6:6.2f} µs an event; 1,000 a second take {each * 1000:.2%} of a core")
    tracemalloc.start()
    records = Records(Settings())
    for task in tasks:
        life(records, task, worker, lambda: None)
    print(f"an entry       {tracemalloc.get_traced_memory()[0] / TASKS:6.0f} bytes; {JOURNAL:,} are kept")


if __name__ == "__main__":
    main()
