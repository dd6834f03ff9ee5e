"""What a panel costs the kernel: the share of a core at 1,000 task events a second, with a sidebar and a widget open.

    python tests/benchmarks/bench_panel.py [--rounds 5] [--seconds 10] [--rate 250]

A kernel runs calls that take no time on two workers, at a steady rate: each is submitted, sent, started and over, that
is four events. Its CPU time is compared with no panel open and with both open, turn about; medians are printed. With
``--profile`` the loop's thread is profiled while panels are open.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import statistics
import sys
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.notebook.kernels import Notebook, notebook

PREPARE = """
%load_ext p2p_ipython
%p2p_connect --workers 2
from IPython import get_ipython
cluster = get_ipython().magics_manager.registry["P2PMagics"].cluster
import time, threading

def nothing():
    pass

def load(seconds, rate):
    # Steps of 20 ms; what is late is made up for.
    begin, made, futures = time.monotonic(), 0, []
    while (now := time.monotonic() - begin) < seconds:
        while made < now * rate:
            futures.append(cluster.submit(nothing))
            made += 1
        futures = [one for one in futures if not one.done()]
        time.sleep(0.02)
    for one in futures:
        one.result(60)
    return made

def measured(seconds, rate):
    load(1, rate)
    wall, cpu = time.monotonic(), time.process_time()
    made = load(seconds, rate)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    return cpu / wall, 4 * made / wall

load(2, 100)
"""

PROFILE = """
import cProfile, pstats, io
from p2p_ipython.loop import background
profile = cProfile.Profile()
background().loop.call_soon_threadsafe(profile.enable)
load({seconds}, {rate})
background().loop.call_soon_threadsafe(profile.disable)
time.sleep(0.5)
text = io.StringIO()
pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(45)
print(text.getvalue())
"""


class Panels:
    """A sidebar and a widget of a kernel's, which read in a thread what they are told."""

    def __init__(self, book: Notebook) -> None:
        self._book = book
        self._client = book.client
        self.messages = self.bytes = 0
        self._sidebar = uuid.uuid4().hex
        self._say("comm_open", {"comm_id": self._sidebar, "target_name": "p2p_ipython:panel", "data": {}})
        self._say("comm_msg", {"comm_id": self._sidebar, "data": {"t": "hello", "v": 1, "view": "sidebar"}})
        cell = book.run("%p2p_panel", cell_id="panel")
        view = cell.of("display_data")[0]["data"]["application/vnd.jupyter.widget-view+json"]
        self._model = view["model_id"]
        hello = {"method": "custom", "content": {"t": "hello", "v": 1, "view": "widget"}}
        self._say("comm_msg", {"comm_id": self._model, "data": hello})

    def close(self) -> None:
        self._say("comm_close", {"comm_id": self._sidebar, "data": {}})
        self._say("comm_close", {"comm_id": self._model, "data": {}})

    def _say(self, kind: str, content: dict[str, Any]) -> None:
        self._client.shell_channel.send(self._client.session.msg(kind, content))


def run(book: Notebook, code: str) -> tuple[str, int]:
    """What a cell printed, and how many messages for panels came meanwhile."""
    cell, told = book.start(code), 0
    while not cell.idle:
        with contextlib.suppress(queue.Empty):
            message = book.client.get_iopub_msg(timeout=1)
            told += message["msg_type"] == "comm_msg"
            if (found := book.cells.get(message["parent_header"].get("msg_id", ""))) is not None:
                found.messages.append(message)
    if cell.error is not None:
        raise SystemExit(cell.error["evalue"])
    return cell.text, told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=250.0, help="tasks a second")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    shares: dict[bool, list[float]] = {False: [], True: []}
    with notebook() as book:
        run(book, PREPARE)
        if given.profile:
            Panels(book)
            print(run(book, PROFILE.format(seconds=given.seconds, rate=given.rate))[0])
            return
        for number in range(2 * given.rounds):
            panels = Panels(book) if number % 2 else None
            text, told = run(book, f"print(*measured({given.seconds}, {given.rate}))")
            share, events = (float(word) for word in text.split())
            shares[panels is not None].append(share)
            with_ = "with panels" if panels is not None else "without    "
            print(f"{with_}: {share:6.2%} of a core at {events:.0f} events/s, {told / given.seconds:.1f} messages/s")
            if panels is not None:
                panels.close()
    without, with_panels = (statistics.median(shares[which]) for which in (False, True))
    print(
        f"medians: {without:.2%} without, {with_panels:.2%} with; the panels cost {with_panels - without:.2%} of a core"
    )


if __name__ == "__main__":
    main()
