"""Members who flood a client and a worker, and lie to them, with every kind of frame and line there is.

The victims are processes as people have them: a notebook's, and ``p2p worker`` with its agent, slots and runners. They
grow little, and print nothing into a notebook; tasks of others go on. Frames are drawn by a seed
(tests/strange_frames.py). Some kinds are tried here; ``P2P_FLOODS=1``, as by ``make attacks``, tries all, for longer.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from friends_support import Notebook, Person, Village, access_of, eventually, lending, on_the_loop, soon, village
from strange_frames import Said, crowd

from p2p_ipython import loop as loops
from p2p_ipython.client.bridge import Bridge
from p2p_ipython.link.rendezvous import new_code
from p2p_ipython.link.tls import TLSLinker
from p2p_ipython.members.access import rendezvous_of
from p2p_ipython.members.profile import Profile
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
from p2p_ipython.task.buffer_store import BufferStore

ALL = bool(os.environ.get("P2P_FLOODS"))
SEED = 20261130
FLOOD = 2.0 if ALL else 0.3
"""Seconds of a flood of one kind of frame."""

MOST = 50 << 20
"""Bytes by which a victim may grow."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200 if ALL else 240)]

TITLE = "alice/friends"
CONNECTED = f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r}, request_every=0.5, presence=1)"
WORK = """
import threading
done, failed, over = [], [], threading.Event()
def work():
    while not over.is_set():
        try:
            done.append(c.submit(pow, 2, 10).result(60))
        except Exception as error:
            failed.append(type(error).__name__)
threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
for one in threads: one.start()
"""


class Held(MemorySlot):
    """A slot that runs nothing, and says nothing."""

    def run(self, *_: Any, **__: Any) -> None:
        pass

    def cancel(self, task_id: str) -> None:
        pass


@dataclass
class Growth:
    """The memory of a process, and of those that it has started, while it is watched."""

    pid: int
    first: int = 0
    most: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Growth:
        self.first = self.most = self._now()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        return self.most - self.first

    def _now(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, self._now())


class Flooder:
    """Sends what it likes over the connection under a link, past everything that would check or count it here."""

    def __init__(self, link: Callable[[], Any], end: Callable[[Any], None]) -> None:
        """``link`` returns the present one, None while there is none; ``end`` ends it at this end."""
        self._link = link
        self._end = end

    def flood(self, frames: list[Said], *, reads: bool) -> None:
        """Say these frames again and again, until the time is over or the link has been ended."""
        link = self._fresh()
        soon(lambda: self._prepare(link, reads=reads))
        end = time.monotonic() + FLOOD
        written = 0
        while time.monotonic() < end and soon_value(lambda: self._burst(link, frames)):
            written += 1
        soon(lambda: self._end(link))

    def lie(self, frame: Said) -> None:
        """Say one frame, and wait until the peer has ended the link."""
        link = self._fresh()
        soon(lambda: self._prepare(link, reads=True))
        soon(lambda: self._burst(link, [frame] * 100))
        eventually(lambda: link._connection is None, f"the end of the link after {frame!r}")
        soon(lambda: self._end(link))

    def _fresh(self) -> Any:
        eventually(lambda: (link := self._link()) is not None and link._connection is not None, "a link")
        return self._link()

    def _prepare(self, link: Any, *, reads: bool) -> None:
        link._outbox.acknowledge = lambda count: None  # what is said past it, it hasn't counted
        if not reads and link._connection is not None:
            link._connection._transport.pause_reading()

    def _burst(self, link: Any, frames: list[Said]) -> bool:
        connection = link._connection
        if connection is None:
            return False
        for frame in frames:
            if not connection.writable:
                break
            connection.write([frame.head, frame.body] if frame.body else [frame.head])
        return True


def soon_value(call: Callable[[], Any]) -> Any:
    """Call something on the loop, and return what it returns."""

    async def work() -> Any:
        await asyncio.sleep(0)
        return call()

    return loops.background().run(work())


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


@asynccontextmanager
async def taking_part(profile: Profile, person: Person) -> AsyncIterator[Bridge]:
    """A client of somebody's in this process."""
    access = access_of(profile, person)
    membership = access.membership(access.session("client"))
    await membership.join()
    assert membership.board is not None
    bridge = Bridge(
        settings=access.settings,
        name=person.name,
        membership=membership,
        linker=TLSLinker("client", settings=access.settings, listen_host="127.0.0.1"),
        store=BufferStore(0),
        new_code=new_code,
    )
    try:
        bridge.open(*await rendezvous_of(access, membership.board))
        yield bridge
    finally:
        await bridge.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Village]:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("P2P_DATA", str(tmp_path / "nobody" / "data"))
    with village(tmp_path) as made:
        yield made


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


def test_a_client_that_a_worker_floods_and_lies_to_grows_little_and_prints_nothing(here: Village) -> None:
    profile = here.found("bob", "carol")
    here.person("carol").worker(TITLE, "--slots", "2")
    notebook = here.person("alice").notebook(CONNECTED, logs=False)
    assert notebook.run("answer = c.submit(pow, 2, 3).result(60)") == "8"
    with (
        working(notebook, "a client"),
        on_the_loop(lending(profile, here.person("bob"), Held)) as bob,
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


def test_a_worker_that_a_client_floods_and_lies_to_grows_little_and_logs_little(here: Village) -> None:
    profile = here.found("bob", "carol")
    worker = here.person("carol").worker(TITLE, "--slots", "2", P2P_WORKER_CACHE=str(16 << 20))
    notebook = here.person("alice").notebook(CONNECTED, logs=False)
    assert notebook.run("answer = c.submit(pow, 2, 3).result(60)") == "8"
    logged = len(worker.text)
    with (
        working(notebook, "a worker"),
        on_the_loop(taking_part(profile, here.person("bob"))) as bob,
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


def test_a_task_that_floods_the_pipe_of_its_runner_costs_its_lender_little(here: Village) -> None:
    here.found("bob", "carol")
    worker = here.person("carol").worker(TITLE, "--slots", "2")
    notebook = here.person("alice").notebook(CONNECTED, logs=False)
    bob = here.person("bob").notebook(CONNECTED + HIJACKS, logs=False)
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


def test_lines_without_end_by_a_member_cost_others_little(here: Village, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = here.found("bob", "carol")
    worker = here.person("carol").worker(TITLE)
    notebook = here.person("alice").notebook(CONNECTED, logs=False)
    assert notebook.run("answer = c.submit(pow, 2, 3).result(60)") == "8"
    encode = wire.encode
    monkeypatch.setattr(wire, "encode", lambda said: said if isinstance(said, bytes) else encode(said))
    access, dice = access_of(profile, here.person("bob")), random.Random(SEED)
    draw = lines(dice)
    sessions = [access.session(role) for role in ("client", "worker") * (100 if ALL else 10)]
    with (
        working(notebook, "lines"),
        on_the_loop(taking_part(profile, here.person("bob"))) as bob,
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
