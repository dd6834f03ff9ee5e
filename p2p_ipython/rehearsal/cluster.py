"""A whole cluster in one process: real client, workers, messages and decisions; board, links and runners in memory.

For simulations, and for rehearsing a workshop without any network::

    async def lesson() -> None:
        async with Rehearsal(workers=3, seed=7, cut_rate=0.01) as cluster:
            future = cluster.submit(slow_square, 12)
            print(await future)

    run(lesson())   # on virtual time: an hour of it takes a moment

``add_client`` brings further clients, of the same member or of friends. Faults are seeded: the same seed and the same
calls at the same times make the same faults.
"""

from __future__ import annotations

import asyncio
import io
import os
import selectors
import sys
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

import paramiko

from p2p_ipython.board.base import Board, BoardListener, BoardReport
from p2p_ipython.board.client.new_key import new_ed25519
from p2p_ipython.client.arrived import Arrived
from p2p_ipython.client.bridge import Bridge
from p2p_ipython.client.future import Frozen, Future, OutputMessage
from p2p_ipython.client.submitted import Submitted
from p2p_ipython.client.task_options import USUAL, TaskOptions
from p2p_ipython.config import Settings
from p2p_ipython.errors import P2PError
from p2p_ipython.link.base import Linker
from p2p_ipython.link.rendezvous import Role, new_code
from p2p_ipython.members.membership import Membership, Standing
from p2p_ipython.protocol.identity import ClusterSecret, Session, fingerprint
from p2p_ipython.protocol.messages import Terms
from p2p_ipython.protocol.roster import Member, Roster, changed, commitment
from p2p_ipython.rehearsal.board import Faults, MemoryBoard, MemoryBoardHub
from p2p_ipython.rehearsal.hub import MemoryHub
from p2p_ipython.rehearsal.link import MemoryLinker
from p2p_ipython.rehearsal.slot import MemorySlot
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.outcome import decode
from p2p_ipython.task.task import Task
from p2p_ipython.worker.agent import Agent
from p2p_ipython.worker.slot_base import Death, TaskSlot

T = TypeVar("T")

MAILBOX = "ws://rehearsal/v1"
TITLE = "me/rehearsal"


class NothingWillHappen(P2PError):
    """Everybody waits, and no time that passes would change it: a task or a test waits for what can't come."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when all wait for it, and then at once."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Selector(self._pass))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def _pass(self, seconds: float | None) -> None:
        if seconds is None:
            raise NothingWillHappen("nothing will ever happen here", hint="What is being awaited never comes.")
        # A nanosecond more, so that rounding never leaves a timer's owner just short of the time it waited for.
        self._now += seconds + 1e-9


class _Selector(selectors.SelectSelector):
    """Asks for events without waiting; where it would have waited, time passes instead."""

    def __init__(self, pass_time: Callable[[float | None], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events and (timeout is None or timeout > 0):
            self._pass_time(timeout)
        return events


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


def _nowhere(_message: OutputMessage) -> None:
    """Show no output."""


class Participant:
    """One client of a rehearsed cluster; what is submitted here is its member's."""

    client: Bridge

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = BufferStore(settings.client_cache)
        self.submitted = Submitted(
            self.store,
            settings,
            decode=_decode,
            bridge=lambda: self.client,
            check_open=lambda: None,
            fetch=lambda call: call(),  # threads don't live on virtual time
        )

    def submit(self, function: Callable[..., Any], /, *args: Any, once: bool = False, **kwargs: Any) -> Future[Any]:
        """As ``Cluster.submit``; ``once``: never start it a second time."""
        return self.submitted.call(function, args, kwargs, options=USUAL.changed({"once": once}))

    def submit_with(self, options: TaskOptions, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """As ``Cluster.options(…).submit``."""
        return self.submitted.call(function, args, {}, options=options)

    def submit_task(self, task: Task) -> Future[Any]:
        """As ``Cluster.submit_task``."""
        return self.submitted.take(Frozen(task), _nowhere)


class Rehearsal(Participant):
    """See the module. ``board`` and ``links`` are the hubs, whose methods make further faults happen."""

    def __init__(
        self,
        *,
        workers: int = 2,
        slots: int = 1,
        seed: int = 0,
        board_faults: Faults | None = None,
        cut_rate: float = 0.0,
        **settings: Any,
    ) -> None:
        """``cut_rate`` is the share of frames on whose way a link is cut; the keywords are settings."""
        super().__init__(Settings.load({}, **settings))
        self.board = MemoryBoardHub(seed, board_faults)
        self.links = MemoryHub(seed=seed, cut_rate=cut_rate)
        self.agents: list[Agent] = []
        self.slots: list[list[MemorySlot]] = []
        self.friends: list[Participant] = []
        self._keys = {"me": _key()}
        me = fingerprint(self._keys["me"].asbytes())
        self._secret = ClusterSecret(f"{me}/rehearsal", f"p2p-{os.urandom(16).hex()}", os.urandom(32))
        self._roster = Roster(
            self._secret.cluster,
            TITLE,
            epoch=1,
            until=int(time.time()) + 14 * 24 * 3600,
            secret=commitment(self._secret),
            members=(Member("me", (me,)),),
        ).signed(self._keys["me"])
        self._numbers = (workers, slots)

    async def __aenter__(self) -> Rehearsal:
        await self._open(self, "me")
        for _ in range(self._numbers[0]):
            await self.add_worker()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for participant in (self, *self.friends):
            await participant.client.close()
        for agent in self.agents:
            await agent.close()

    async def add_client(self, member: str = "me") -> Participant:
        """Let a client come. ``member`` names whose it is: the same name is the same key, "me" the cluster's owner."""
        friend = Participant(self.settings)
        await self._open(friend, member)
        self.friends.append(friend)
        return friend

    async def add_worker(self, member: str = "me", **terms: Any) -> int:
        """Let a worker of a ``member`` come, as in ``add_client``; return its number. ``terms`` are its offer's."""
        number = len(self.agents)
        mine: list[MemorySlot] = []

        def make_slot(agent: Agent) -> TaskSlot:
            mine.append(MemorySlot(agent))
            return mine[-1]

        slots = self._numbers[1]
        agent = Agent(
            settings=self.settings,
            name=f"worker-{number + 1}",
            terms=Terms(slots=slots, free=slots, python=f"{sys.version_info[0]}.{sys.version_info[1]}", **terms),
            membership=(membership := self._membership("worker", member)),
            linker=self.linker("worker"),
            make_slot=make_slot,
        )
        self.agents.append(agent)
        self.slots.append(mine)
        await membership.join()
        await agent.start_slots()
        agent.begin()
        return number

    def take_out(self, member: str) -> None:
        """Revoke a member: their client knows it at once, the others hear of it on the board."""
        members = [one for one in self._roster.members if one.name != member]
        self._roster = changed(self._roster, members).signed(self._keys["me"])
        self.client.membership.adopt(self._roster, self._secret)

    async def remove_worker(self, number: int) -> None:
        """Let a worker leave, with a good-bye."""
        await self.agents[number].close()

    def linker(self, role: Role) -> Linker:
        """Make the linker of one process. A class that returns another kind rehearses on that, in real time."""
        return MemoryLinker(role, hub=self.links, settings=self.settings)

    def kill_runner(self, number: int) -> None:
        """Kill the process in which a worker runs its tasks, from outside."""
        for slot in self.slots[number]:
            slot.die(Death("signal", 9, "killed in a rehearsal"))

    @property
    def board_report(self) -> BoardReport | None:
        """How the client's session on the board stands."""
        board = self.client.membership.board
        return board.report if board is not None else None

    async def _open(self, participant: Participant, member: str) -> None:
        participant.client = Bridge(
            settings=self.settings,
            name=member,
            membership=(membership := self._membership("client", member)),
            linker=self.linker("client"),
            store=participant.store,
            new_code=new_code,
        )
        await membership.join()
        participant.client.open(MAILBOX, "")

    def _membership(self, role: str, member: str) -> Membership:
        """Return the membership of a process. A new member is in the next roster, which the board passes on."""
        key, owner = self._keys.setdefault(member, _key()), self._keys["me"]
        me = fingerprint(key.asbytes())
        if self._roster.member(me) is None:
            self._roster = changed(self._roster, [*self._roster.members, Member(member, (me,))]).signed(owner)
        secret = self._secret
        standing = Standing(
            secret,
            me,
            member,
            shared=True,
            roster=self._roster,
            title=TITLE,
            trusted=frozenset(key for one in self._roster.members for key in one.keys),
        )
        session = Session(key, cluster=secret.cluster, role=role, now=time.time(), random=os.urandom)
        return Membership(session, standing, self._open_board)

    async def _open_board(self, topic: str, listener: BoardListener) -> Board:
        board = MemoryBoard(self.board, topic, listener)
        await board.open()
        return board


def _decode(result: Arrived) -> Any:
    return decode(result.result, result.inline, result.large, worker=result.worker, trusted=True)


def _key() -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key(io.StringIO(new_ed25519()[0]))
