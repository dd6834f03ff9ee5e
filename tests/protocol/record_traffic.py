"""Record the traffic in ``traffic/v1``: what a small cluster of friends says on its board and on its links.

``.venv/bin/python tests/protocol/record_traffic.py FILE`` runs alice's host, her notebook, bob's and carol's, bob's
worker and alice's laptop (whose key she has vouched for) in one process: real links over TLS, a real mailbox, real
runners, and a board in memory. The members' keys are made from their names, so that no secret of anybody's is in the
file; the sessions' keys and the cluster's are random, and are written down for the second reader.

The file that is in the tree is the protocol's version 1. It is recorded once and kept: every later reader reads it.
Record further files for what is new.

The rows, a line of JSON each, in the order in which things happened:

- ``key``: topic and key of board lines; ``session``: a session's secret X25519 key, to open boxes with.
- ``line``: bytes that a session wrote to a topic, when (Unix time).
- ``meeting``: what both ends of a link got from the wormhole: verifier and derived key, and the offers.
- ``bytes``: what one end of a connection said after TLS; compressed (zlib), then base64.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import ssl
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "members")]

from link_support import servers  # noqa: E402
from members_support import TITLE, Circle, choice, owners, print_of, until  # noqa: E402

from p2p_ipython import loop as loops  # noqa: E402
from p2p_ipython.board.base import Board, BoardListener  # noqa: E402
from p2p_ipython.client.bridge import Bridge  # noqa: E402
from p2p_ipython.client.future import Future  # noqa: E402
from p2p_ipython.config import Settings  # noqa: E402
from p2p_ipython.link import rendezvous  # noqa: E402
from p2p_ipython.link.tls import TLSLinker  # noqa: E402
from p2p_ipython.members import owner  # noqa: E402
from p2p_ipython.members.host import Host  # noqa: E402
from p2p_ipython.members.knocking import Granted, Knocking  # noqa: E402
from p2p_ipython.members.membership import Membership, Standing  # noqa: E402
from p2p_ipython.protocol.client_machine import TaskState  # noqa: E402
from p2p_ipython.protocol.identity import ClusterSecret, Session, vouch  # noqa: E402
from p2p_ipython.protocol.messages import Terms  # noqa: E402
from p2p_ipython.protocol.roster import lobby_secret  # noqa: E402
from p2p_ipython.rehearsal.board import MemoryBoard  # noqa: E402
from p2p_ipython.sandbox.launch import LaunchOptions  # noqa: E402
from p2p_ipython.task.payload import BufferStore  # noqa: E402
from p2p_ipython.task.task import Task, make_call, make_cell  # noqa: E402
from p2p_ipython.worker.agent import Agent  # noqa: E402
from p2p_ipython.worker.slots import Slot  # noqa: E402

MIB = 1 << 20


class Tape:
    """The rows so far."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def note(self, row: str, **fields: Any) -> None:
        """Add a row; bytes of one end that follow one another are one."""
        last = self.rows[-1] if self.rows else {}
        if row == "bytes" and all(last.get(name) == fields[name] for name in ("connection", "from")):
            last["data"] += fields["data"]
        else:
            self.rows.append({"row": row, **fields})

    def write(self, path: Path) -> None:
        """Write the rows, readable by the second reader."""
        for row in self.rows:
            for name, value in row.items():
                if isinstance(value, bytes):
                    row[name] = base64.b64encode(zlib.compress(value, 9)).decode() if name == "data" else value.hex()
        path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in self.rows), encoding="utf-8")


TAPE = Tape()
CONNECTIONS = itertools.count(1)


class _TappedTLS(ssl.SSLObject):
    """Writes down what the TLS client of a connection says and hears."""

    number = 0

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        found = super().read(len, buffer) if buffer is not None else super().read(len)
        self._note("worker", bytes(buffer[:found]) if buffer is not None else found)
        return found

    def write(self, data: Any) -> int:
        size = super().write(data)
        self._note("client", bytes(memoryview(data).cast("B")[:size]))
        return size

    def _note(self, who: str, data: bytes) -> None:
        if data and not self.server_side:
            self.number = self.number or next(CONNECTIONS)
            TAPE.note("bytes", **{"connection": self.number, "from": who}, data=data)


_meet = rendezvous.Rendezvous.meet


async def _tapped_meet(self: Any, meeting: Any, role: Any, offer: dict[str, Any]) -> Any:
    met = await _meet(self, meeting, role, offer)
    if role == "client":
        offers = {"client": {"role": role, **offer}, "worker": met.offer}
        TAPE.note("meeting", code=meeting.code.reveal(), verifier=met.verifier, key=met._key, offers=offers)
    return met


class _TappedBoard(MemoryBoard):
    def _write(self, data: bytes) -> None:
        TAPE.note("line", topic=self._topic, at=int(time.time()), line=data.decode())
        super()._write(data)


class _TappedCircle(Circle):
    async def open_board(self, topic: str, listener: BoardListener) -> Board:
        board = _TappedBoard(self.hub, topic, listener)
        await board.open()
        return board


def _key_row(secret: ClusterSecret) -> None:
    TAPE.note("key", cluster=secret.cluster, topic=secret.topic, key=secret.key)


def _session(key: Any, cluster: str, role: str, vouched: bytes = b"") -> Session:
    session = Session(key, cluster=cluster, role=role, now=time.time(), random=os.urandom, vouch=vouched)
    TAPE.note("session", sid=session.sid, x25519=bytes(session._sealing))
    return session


class Cluster:
    """Everybody, and what they share."""

    def __init__(self, circle: Circle, mailbox: str, relay: str) -> None:
        self.circle = circle
        self.mailbox, self.relay = mailbox, relay
        self.settings = Settings(presence=2.0, heartbeat=1.0, worker_cache=3 * MIB, runner_cache=3 * MIB)

    def _membership(self, name: str, role: str, *, knows: bool = True, laptop: str = "") -> Membership:
        circle = self.circle
        word = b""
        if laptop:
            key = print_of(laptop)
            word = vouch(circle.key(name), cluster=circle.secret.cluster, key=key, now=time.time())
        session = _session(circle.key(laptop or name), circle.secret.cluster, role, word)
        roster = circle.roster if knows else None
        standing = Standing(circle.secret, print_of(name), name, shared=True, roster=roster, title=TITLE)
        return Membership(session, standing, circle.open_board)

    async def notebook(self, name: str, **options: Any) -> Notebook:
        """A client of somebody's."""
        membership = self._membership(name, "client", **options)
        store = BufferStore(64 * MIB)
        bridge = Bridge(
            settings=self.settings,
            name=name,
            membership=membership,
            linker=TLSLinker("client", settings=self.settings, listen_host="127.0.0.1"),
            store=store,
            new_code=rendezvous.new_code,
        )
        await membership.join()
        bridge.open(self.mailbox, self.relay)
        return Notebook(bridge, store)

    async def worker(self, name: str, **options: Any) -> Agent:
        """A worker of somebody's, with one slot."""
        membership = self._membership(name, "worker", **options)
        terms = Terms(slots=1, free=1, python=f"{sys.version_info[0]}.{sys.version_info[1]}", platform="linux", cores=2)
        agent = Agent(
            settings=self.settings,
            name=options.get("laptop") or name,
            terms=terms,
            membership=membership,
            linker=TLSLinker("worker", settings=self.settings, listen_host="127.0.0.1"),
            make_slot=lambda agent: Slot(LaunchOptions(), agent, self.settings),
        )
        await agent.start_slots()
        await membership.join()
        agent.begin()
        return agent


class Notebook:
    """A client, and what it submits."""

    def __init__(self, bridge: Bridge, store: BufferStore) -> None:
        self.bridge, self.store = bridge, store

    def call(self, function: Callable[..., Any], *args: Any, once: bool = False) -> Future[Any]:
        return self._submit(make_call(function, args, {}, self.store, once=once))

    def cell(self, source: str, **names: Any) -> Future[Any]:
        return self._submit(make_cell(source, names, self.store, transform=str, label="a cell"))

    def _submit(self, task: Task) -> Future[Any]:
        future: Future[Any] = Future(task.id, task.label, self, lambda arrived: arrived)  # type: ignore[arg-type]
        self.bridge.submit(task, future, None)
        return future

    def trusts(self, signer: str) -> bool:
        return signer in getattr(self, "trusted", ())

    def withdraw(self, task_id: str) -> None:
        self.bridge.withdraw(task_id)

    def why(self, task_id: str) -> str:
        return self.bridge.why(task_id)


async def _over(*futures: Future[Any]) -> None:
    for future in futures:
        await until(future.done)


def _told(sort: str) -> int:
    """How often a kind of frame has been said so far."""
    rows = [row["data"] for row in TAPE.rows if row["row"] == "bytes"]
    return sum(data.count(f'"t":"{sort}"'.encode()) for data in rows)


async def _links(cluster: Cluster, alice: Notebook, carol: Notebook) -> None:
    """Tasks of all kinds on the links to one worker, which is bob's."""
    import numpy

    await _over(alice.cell("print('a line')\nimport sys\nprint('é', file=sys.stderr)\nlimit * 2", limit=21))
    await _over(alice.cell("from IPython.display import display, HTML\ndisplay(HTML('<b>bold</b>'))\ndisplay(1.5)"))
    await _over(alice.cell("from IPython.display import display\ndisplay({'text/plain': 'x' * 1_200_000}, raw=True)"))
    await _over(alice.cell("import time\ntime.sleep(0.2)\n{'a': [1, (2, 3)], 'b': b'bytes', 'c': {4}}"))
    await _over(alice.call(divmod, 1, 0))
    await _over(alice.call(eval, "object()"))  # no plain data: it comes as a pickle, which the client won't read
    large = numpy.arange(300_000, dtype="<f8") // 1000
    await _over(alice.call(numpy.sum, large))
    await _over(alice.call(numpy.add, large, 1))  # the buffer is there by now; the result is as large
    other = numpy.arange(330_000, dtype="<f8") // 1000
    await _over(alice.call(numpy.sum, other))  # the worker has room for one: the first is evicted
    await until(lambda: _told("evicted"))
    packed = make_call(numpy.max, (large,), {}, alice.store)
    for worker in alice.bridge.machine.workers.values():
        worker.have.update(packed.packed.large)  # a client that is wrong about what is there: it is asked again
    await _over(alice._submit(packed))
    await until(lambda: _told("want"))

    running = alice.cell("import time\ntime.sleep(60)")
    await until(lambda: alice.bridge.machine.state(running.task_id) is TaskState.RUNNING)
    running.cancel()
    await _over(running)
    await _over(alice.call(os.kill, 0, 0), alice.cell("import os\nos._exit(3)"))
    await _over(alice.call(eval, "__import__('os').kill(__import__('os').getpid(), 9)", once=True))
    await until(lambda: _told("lost"))

    # Two members want the only slot: tasks are handed back, and the slot is kept for who has had less of it.
    for _ in range(4):
        alices = alice.call(time.sleep, 0.1)
        carols = [carol.call(time.sleep, 0.4) for _ in range(5)]
        await _over(alices, *carols)
        if _told("nack") and _told("room") and _told("pass"):
            break

    # A connection breaks; the link goes on with the next one, and two tasks with it.
    link = next(iter(alice.bridge.links.values())).link
    link._connection.abort()  # type: ignore[attr-defined,union-attr]
    await _over(alice.call(pow, 2, 10))


async def _record(folder: Path) -> None:
    loops.adopt()
    circle = _TappedCircle()
    access, profile, profiles = owners(circle, folder)
    async with servers() as running:
        cluster = Cluster(circle, running.mailbox, running.relay)
        _key_row(lobby_secret(TITLE))
        _key_row(circle.secret)
        knocks: list[Any] = []
        host = Host(access, profile, profiles, on_knock=knocks.append)
        await host.open()

        # carol was invited; bob knocks, waits, and is let in. His sessions have no roster yet: it comes in parts.
        profiles.revise(TITLE, lambda now: owner.admit(now, access.key, "carol", print_of("carol")))
        knocking = Knocking(TITLE, choice(circle.key("bob")), circle.open_board, name="bob", owner=print_of("alice"))
        knocking._sign = lambda: _session(circle.key("bob"), TITLE, "client")  # type: ignore[method-assign]
        asked = asyncio.ensure_future(knocking.run())
        await until(lambda: knocks and "waiting for" in knocking.state)
        await asyncio.to_thread(host.approve, knocks[0])
        granted = await asked
        assert isinstance(granted, Granted)
        circle.secret, circle.roster = granted.secret, owner.roster_of(profiles.load(TITLE))

        alice, carol = await cluster.notebook("alice"), await cluster.notebook("carol")
        first = alice.call(pow, 2, 3)  # there is no worker yet: she requests one
        await until(lambda: alice.bridge.machine.state(first.task_id) is TaskState.WAITING)
        bob = await cluster.worker("bob", knows=False)
        await until(lambda: bob.membership.machine.roster is not None)
        await until(lambda: alice.bridge.links and carol.bridge.links)
        await _over(first)
        await _links(cluster, alice, carol)

        # A pickle of a machine of her own, which has a key of its own, for which she has vouched.
        bob.pause()
        laptop = await cluster.worker("alice", laptop="alice's laptop")
        await until(lambda: len(alice.bridge.links) == 2)
        await _over(alice.call(complex, 1, 2), alice.call(divmod, 1, 0), alice.cell("print('here')\n{1, 2}"))
        bob.resume()

        # Carol leaves for good: the next epoch has another topic and key, which the others are given.
        await asyncio.to_thread(profiles.revise, TITLE, lambda now: owner.revoke(now, access.key, "carol"))
        await host.refresh()
        now = host.profile
        _key_row(ClusterSecret(now.cluster, now.topic, now.key))
        members = (alice.bridge.membership, bob.membership, laptop.membership)
        await until(lambda: all(one.machine.secret.topic == now.topic for one in members))
        await until(lambda: not carol.bridge.links)
        await _over(alice.call(pow, 2, 5))
        for closing in (alice.bridge, carol.bridge, bob, laptop, host):
            await closing.close()


def main() -> None:
    """Record into the file that is named."""
    ssl.SSLContext.sslobject_class = _TappedTLS  # type: ignore[assignment]
    rendezvous.Rendezvous.meet = _tapped_meet  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        loops.background().run(_record(Path(folder)), 300)
    TAPE.write(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
