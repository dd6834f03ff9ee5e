"""How many tasks a second the two machines decide on: no I/O, no bytes. Run by hand.

``python tests/benchmarks/bench_machines.py``: a client with W workers of 4 slots sends N tasks; each is started,
finished and settled. An event is one call of a machine. Figures are the median of ``REPEATS`` runs.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "protocol"))

from people import NOW, certificate

from p2p_ipython.config import Settings
from p2p_ipython.protocol import client_machine as cm
from p2p_ipython.protocol import worker_machine as wm
from p2p_ipython.protocol.messages import Accept, Hello, Terms
from p2p_ipython.protocol.task_frames import Result

REPEATS = 5
SLOTS = 4


def run(workers: int, tasks: int) -> tuple[float, int]:
    """Return (seconds, events)."""
    settings = Settings()
    terms = Terms(slots=SLOTS, free=SLOTS, python="3.11")
    client = cm.ClientMachine(settings, now=0)
    us = certificate("c0", "client")
    machines = {}
    for number in range(workers):
        them = certificate(f"w{number}")
        worker = machines[them.sid] = wm.WorkerMachine(settings, sid=them.sid, name="w", terms=terms, now=0)
        worker.heard(us, Accept(them.sid, b"x"), 0, NOW)
        worker.link_up(1, us)
        for slot in range(SLOTS):
            worker.slot_ready(slot, 0)
        client.heard(them, Hello("w", 0, terms), 0)
        client.link_up(them.sid, 0)

    begun = time.perf_counter()
    events, settled, now = 0, 0, 0.0
    waiting: list[cm.Action] = []
    for number in range(tasks):
        waiting += client.submit(cm.TaskSpec(f"t{number}"), now)
        events += 1
    running: list[tuple[bytes, int, str, int]] = []
    while settled < tasks:
        now += 0.0001
        actions, waiting = waiting, []
        for action in actions:
            match action:
                case cm.Send(sid, task, attempt, _):
                    events += 1
                    running += _started(sid, machines[sid].task(1, task, attempt, now))
                case cm.Settle():
                    settled += 1
        ended, running = running, []
        for sid, slot, task, attempt in ended:
            result = Result(task, attempt, True, (), 0.001)
            running += _started(sid, machines[sid].slot_result(slot, result, b"", now))
            waiting += client.frame(sid, result, now)
            events += 2
    return time.perf_counter() - begun, events


def _started(sid: bytes, actions: list[wm.Action]) -> list[tuple[bytes, int, str, int]]:
    return [(sid, a.slot, a.task, a.attempt) for a in actions if isinstance(a, wm.Start)]


def main() -> None:
    print(f"{'workers':>8}{'tasks':>8}{'events/s':>12}{'tasks/s':>10}{'µs a task':>11}")
    for workers, tasks in [(1, 10_000), (8, 10_000), (100, 10_000), (8, 100_000)]:
        runs = [run(workers, tasks) for _ in range(REPEATS if tasks <= 10_000 else 1)]
        seconds = statistics.median(seconds for seconds, _ in runs)
        rates = f"{runs[0][1] / seconds:>12,.0f}{tasks / seconds:>10,.0f}{seconds / tasks * 1e6:>11.1f}"
        print(f"{workers:>8}{tasks:>8}{rates}")


if __name__ == "__main__":
    main()
