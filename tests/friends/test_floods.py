"""Members who flood a client and a worker, and lie to them, with every kind of frame and line there is.

The victims are processes as people have them: a notebook's, and ``p2p worker`` with its agent, slots and runners. They
grow little, and print nothing into a notebook; tasks of others go on. Frames are drawn by a seed
(tests/strange_frames.py). Some kinds are tried here; ``P2P_FLOODS=1``, as by ``make attacks``, tries all, for longer.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from floods_support import ALL, CONNECTED, FLOOD, MOST, SEED, TITLE, WORK, Flooder, Growth, taking_part
from friends_support import Notebook, Village, access_of, eventually, lending, on_the_loop, soon
from strange_frames import Said, crowd

from p2p_ipython.protocol import wire
from p2p_ipython.protocol.messages import (
    Accept,
    Answer,
    Ask,
    Bye,
    Grant,
    Hello,
    Message,
    Reply,
    Request,
    RosterPart,
    Terms,
)
from p2p_ipython.protocol.task_frames import FRAMES, Sender
from p2p_ipython.protocol.wire import LineWriter
from p2p_ipython.rehearsal.slot import MemorySlot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200 if ALL else 240)]


class Held(MemorySlot):
    """A slot that runs nothing, and says nothing."""

    def run(self, *_: Any, **__: Any) -> None:
        pass

    def cancel(self, task_id: str) -> None:
        pass


def chosen(kinds: list[str]) -> list[str]:
    return kinds if ALL else random.Random(SEED).sample(kinds, 2)


def attack(flooder: Flooder, sender: Sender, about: Callable[[], dict[str, Any]]) -> None:
    """Flood and lie with the kinds of frames that a sender has, and with those of the link itself."""
    for kind in chosen(list(FRAMES[sender])):
        wrong, right = crowd(sender, kind, 40 if ALL else 15, SEED)
        for reads in (True, False) if ALL else (False,):
            flooder.flood([frame.about(**about()) for frame in right], reads=reads)
        for frame in [frame for frame in wrong if frame.wrong][: 5 if ALL else 1]:
            flooder.lie(frame.about(**about()))
    flooder.flood([Said({"t": "link.ping", "n": number}, b"") for number in range(500)], reads=False)
    flooder.lie(Said({"t": "link.ack", "n": 1 << 50}, b""))
    if ALL:
        flooder.flood([Said({"t": kind, "n": 0}, bytes(9)) for kind in ("link.pong", "later")], reads=False)
        flooder.lie(Said({"t": "x" * (1 << 20)}, b""))


@contextmanager
def working(notebook: Notebook, what: str) -> Iterator[None]:
    """While the block runs, tasks of a notebook go on; and afterwards, with nobody who disturbs them."""
    notebook.run(WORK)
    before = int(notebook.run("answer = len(done)"))
    yield
    during = int(notebook.run("answer = len(done)"))
    assert during > before
    time.sleep(0)
    eventually(lambda: int(notebook.run("answer = len(done)")) > during + 20, "tasks after the flood")
    notebook.run("over.set()")
    failed = notebook.run("answer = len(failed), sorted(set(failed))")
    print(f"{what}: {during - before} tasks of others done meanwhile; failed: {failed}", file=sys.stderr)


def test_a_client_that_a_worker_floods_and_lies_to_grows_little_and_prints_nothing(alone: Village) -> None:
    profile = alone.found("bob", "carol")
    alone.person("carol").worker(TITLE, "--slots", "2")
    notebook = alone.person("alice").notebook(CONNECTED, logs=False)
    assert notebook.run("answer = c.submit(pow, 2, 3).result(60)") == "8"
    with (
        working(notebook, "a client"),
        on_the_loop(lending(profile, alone.person("bob"), Held)) as bob,
        Growth(notebook.program.process.pid) as growth,
    ):

        def about() -> dict[str, Any]:
            jobs = [{"id": job.task, "attempt": job.attempt} for job in list(bob._arrived)]
            return jobs[0] if jobs else {}

        def link() -> Any:
            return next((end.link for end in list(bob._links.values()) if about()), None)

        def end(link: Any) -> None:
            link.abort()
            for number in [number for number, end in bob._links.items() if end.link is link]:
                bob.link_ended(number, "ended on purpose")

        attack(Flooder(link, end), "worker", about)
    print(f"the client has grown by {growth.bytes >> 20} MiB from {growth.first >> 20}", file=sys.stderr)
    assert growth.bytes <= MOST
    said = [line for line in notebook.program.text.splitlines() if not line.startswith("\x02")]
    assert said == [], "what a peer does is none of a cell's output"


def test_a_worker_that_a_client_floods_and_lies_to_grows_little_and_logs_little(alone: Village) -> None:
    profile = alone.found("bob", "carol")
    worker = alone.person("carol").worker(TITLE, "--slots", "2", P2P_WORKER_CACHE=str(16 << 20))
    notebook = alone.person("alice").notebook(CONNECTED, logs=False)
    assert notebook.run("answer = c.submit(pow, 2, 3).result(60)") == "8"
    logged = len(worker.text)
    with (
        working(notebook, "a worker"),
        on_the_loop(taking_part(profile, alone.person("bob"))) as bob,
        Growth(worker.process.pid) as growth,
    ):

        def link() -> Any:
            return next((end.link for end in list(bob.links.values())), None)

        def end(link: Any) -> None:
            for sid in [sid for sid, end in bob.links.items() if end.link is link]:
                bob.worker_gone(sid, "ended on purpose")

        attack(Flooder(link, end), "client", dict)
    print(f"the worker has grown by {growth.bytes >> 20} MiB from {growth.first >> 20}", file=sys.stderr)
    assert growth.bytes <= MOST
    warned = [line for line in worker.text[logged:].splitlines() if "WARNING" in line or "ERROR" in line]
    assert len(warned) <= 10, warned
    assert "Traceback" not in worker.text


# --- runners ----------------------------------------------------------------------------------------------------------

HIJACKS = """
def hijacks(said, seconds):
    import os, stat, time
    end = time.monotonic() + seconds
    pipes = [fd for fd in range(1, 64) if _is_pipe(os, stat, fd)]
    while time.monotonic() < end:
        for fd in pipes:
            try:
                os.write(fd, said)
            except OSError:
                pass
def _is_pipe(os, stat, fd):
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
"""


def test_a_task_that_floods_the_pipe_of_its_runner_costs_its_lender_little(alone: Village) -> None:
    alone.found("bob", "carol")
    worker = alone.person("carol").worker(TITLE, "--slots", "2")
    notebook = alone.person("alice").notebook(CONNECTED, logs=False)
    bob = alone.person("bob").notebook(CONNECTED + HIJACKS, logs=False)
    for one in (notebook, bob):
        assert one.run("answer = c.submit(pow, 2, 3).result(60)") == "8"
    logged = len(worker.text)
    with working(notebook, "a slot"), Growth(worker.process.pid) as growth:
        for kind in FRAMES["runner"] if ALL else ("chunk",):
            wrong, right = crowd("runner", kind, 15, SEED)
            for frames in (right, wrong) if ALL else (right,):
                said = b"".join(frame.head + frame.body for frame in frames)[: 1 << 20]
                bob.run(f"f = c.submit(hijacks, {said!r}, {FLOOD}); f.exception(100)")
    print(f"the worker has grown by {growth.bytes >> 20} MiB from {growth.first >> 20}", file=sys.stderr)
    assert growth.bytes <= MOST
    assert "Traceback" not in worker.text
    warned = [line for line in worker.text[logged:].splitlines() if "WARNING" in line or "ERROR" in line]
    assert len(warned) <= 10, warned


# --- lines ------------------------------------------------------------------------------------------------------------


def lines(dice: random.Random) -> Iterator[Message | bytes]:
    """Messages of every kind, in any order: right ones, ones that are wrong in a word, and what is none at all."""
    sid, box = bytes(16), dice.randbytes(200)
    terms = Terms(slots=4096, free=4096, python="3.11", memory=1 << 50)
    while True:
        messages: list[Message] = [
            Hello("x" * 64, int(time.time()), terms, dice.randrange(1 << 30)),
            Hello("", int(time.time()) - dice.randrange(10_000)),
            Request("3.11"),
            Accept(dice.randbytes(16), box),
            Accept(sid, box),
            RosterPart(dice.randrange(1 << 30), dice.randrange(255), 256, box),
            Ask("somebody", 7),
            Grant(sid, 9, box),
            Answer(sid, Reply.NO),
            Bye(),
        ]
        message = dice.choice(messages)
        text = wire.encode(message)
        spoilt = bytearray(text)
        spoilt[dice.randrange(len(text))] = dice.randrange(256)
        yield dice.choice([message, bytes(spoilt), text[: dice.randrange(len(text))], b"[" * 1000])


def test_lines_without_end_by_a_member_cost_others_little(alone: Village, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = alone.found("bob", "carol")
    worker = alone.person("carol").worker(TITLE)
    notebook = alone.person("alice").notebook(CONNECTED, logs=False)
    assert notebook.run("answer = c.submit(pow, 2, 3).result(60)") == "8"
    encode = wire.encode
    monkeypatch.setattr(wire, "encode", lambda said: said if isinstance(said, bytes) else encode(said))
    access, dice = access_of(profile, alone.person("bob")), random.Random(SEED)
    draw = lines(dice)
    sessions = [access.session(role) for role in ("client", "worker") * (100 if ALL else 10)]
    with (
        working(notebook, "lines"),
        on_the_loop(taking_part(profile, alone.person("bob"))) as bob,
        Growth(notebook.program.process.pid) as client,
        Growth(worker.process.pid) as lender,
    ):

        def burst() -> None:
            board = bob.membership.board
            assert board is not None
            for _ in range(20):
                writer = LineWriter(dice.choice(sessions), access.standing.secret, os.urandom)
                board.post(writer.write(next(draw), introduce=dice.random() < 0.9))  # type: ignore[arg-type]

        end = time.monotonic() + 10 * FLOOD
        while time.monotonic() < end:
            soon(burst)
            time.sleep(0.05)
    print(f"lines: client + {client.bytes >> 20} MiB, worker + {lender.bytes >> 20} MiB", file=sys.stderr)
    assert max(client.bytes, lender.bytes) <= MOST
    said = [line for line in notebook.program.text.splitlines() if not line.startswith("\x02")]
    assert said == []
    assert "Traceback" not in worker.text
    assert json.loads(notebook.run("answer = c.submit(pow, 2, 5).result(60)")) == 32
