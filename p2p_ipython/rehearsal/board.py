"""A board within a process, for tests and simulations: the real topics and lines, no network.

Time is the running loop's, so a loop with virtual time makes it virtual. Everything else is decided by the seed:
the same calls at the same times give the same run. The faults are those of real boards: chunks are lost, repeated,
late, and cut by somebody else's; sessions are cut.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from p2p_ipython.board.base import BoardListener, BoardReport, BoardState
from p2p_ipython.board.lines import Backoff, ordinal
from p2p_ipython.board.session import Lines
from p2p_ipython.board.topics import Action, Cut, Deliver, Direction, Join, Topics
from p2p_ipython.errors import BoardUnreachable


@dataclass(frozen=True)
class Faults:
    """How likely (0 to 1) a chunk on its way to a reader is lost, comes twice, is cut short, or late.

    A late chunk takes up to ``delay`` seconds, and others overtake it; ``latency`` is what every chunk takes.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    cut: float = 0.0
    late: float = 0.0
    delay: float = 0.0
    latency: float = 0.0


class MemoryBoardHub:
    """The board itself. ``posted`` counts the chunks that were written to it, ``delivered`` those that came out."""

    def __init__(self, seed: int = 0, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.posted = 0
        self.delivered = 0
        self.is_down = False
        self._random = random.Random(seed)  # noqa: S311 - a simulation's dice, not a secret
        self._topics = Topics()
        self._boards: dict[str, MemoryBoard] = {}
        self._sessions = 0

    def down(self) -> None:
        """Cut every session, and admit nobody until ``up``."""
        self.is_down = True
        for name in list(self._boards):
            self.cut(name)

    def up(self) -> None:
        """Admit members again."""
        self.is_down = False

    def chance(self) -> float:
        """Draw a number from 0 to 1, from the seed."""
        return self._random.random()

    def cut(self, session: str) -> None:
        """End a session, as the board may at any time."""
        board = self._boards.pop(session, None)
        self._do(self._topics.leave(session))
        if board is not None:
            asyncio.get_running_loop().call_soon(board.lost, session)

    def join(
        self, board: MemoryBoard, user: str, topic: str, access: tuple[str, ...] = (), public: bool = False
    ) -> str:
        """Put a board's session on a topic; return the session's name."""
        if self.is_down:
            raise BoardUnreachable("the board is down", hint="Try again later.")
        self._sessions += 1
        session = f"s{self._sessions}"
        key = f"SHA256:{user}"
        join = Join(session, session, user, key, Direction.PIPE, topic, access, public, replay=True, fresh=session)
        name = self._topics.resolve(join)
        self._boards[session] = board
        self._do(self._topics.join(join, name))
        return session

    def leave(self, session: str) -> None:
        """End a session that its board has closed."""
        if self._boards.pop(session, None) is not None:
            self._do(self._topics.leave(session))

    def publish(self, session: str, data: bytes) -> None:
        """Write a chunk."""
        self.posted += 1
        self._do(self._topics.publish(session, data))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Deliver(to=to, data=data):
                    for session in to:
                        self._send(session, data)
                case Cut(sessions):
                    for session in sessions:
                        self.cut(session)

    def _send(self, session: str, data: bytes) -> None:
        faults, dice = self.faults, self._random
        if dice.random() < faults.drop:
            return
        if dice.random() < faults.cut:
            at = dice.randrange(len(data))
            data = data[:at] + b"\np1 somebody else's\n" + data[at:]
        for _ in range(2 if dice.random() < faults.duplicate else 1):
            delay = faults.latency + (dice.random() * faults.delay if dice.random() < faults.late else 0.0)
            asyncio.get_running_loop().call_later(delay, self._arrive, session, data)

    def _arrive(self, session: str, data: bytes) -> None:
        board = self._boards.get(session)
        if board is not None:
            self.delivered += 1
            board.received(data)


class MemoryBoard:
    """A session with a ``MemoryBoardHub``; implements ``base.Board``."""

    def __init__(
        self,
        hub: MemoryBoardHub,
        topic: str,
        listener: BoardListener,
        *,
        user: str = "alice",
        access: tuple[str, ...] = (),
        public: bool = False,
    ) -> None:
        self._hub = hub
        self._topic = topic
        self._user = user
        self._access = access
        self._public = public
        self._lines = Lines(listener, self._write)
        self._backoff = Backoff(chance=hub.chance)
        self._session: str | None = None
        self._retry: asyncio.TimerHandle | None = None

    @property
    def report(self) -> BoardReport:
        """The state now, and its reason."""
        return self._lines.report

    @property
    def user(self) -> str:
        """The name that was given."""
        return self._user

    async def open(self) -> None:
        """Join the topic. Raises ``BoardUnreachable`` while the hub is down."""
        self._session = self._hub.join(self, self._user, self._topic, self._access, self._public)
        self._lines.say(BoardState.CONNECTED)
        self._lines.connected()

    def post(self, line: bytes) -> None:
        """Post a line; see ``base.Board``."""
        self._lines.post(line)

    async def close(self) -> None:
        """Leave; see ``base.Board``."""
        try:
            if self.report.state is BoardState.CONNECTED:
                await self._lines.flush()
        finally:  # also when the caller is cancelled
            if self._retry is not None:
                self._retry.cancel()
            if self._session is not None:
                self._hub.leave(self._session)
                self._session = None
            self._lines.close()
            self._lines.say(BoardState.CLOSED)

    def received(self, data: bytes) -> None:
        """Take what the hub delivers."""
        self._lines.received(data)

    def lost(self, session: str) -> None:
        """Try again: the hub has cut our session."""
        if session == self._session:
            self._session = None
            self._lines.disconnected()
            self._try_again("the board has cut the session")

    def _try_again(self, why: str) -> None:
        delay = self._backoff.next()
        self._lines.say(BoardState.RECONNECTING, f"{ordinal(self._backoff.tries)} try: {why}")
        self._retry = asyncio.get_running_loop().call_later(delay, self._rejoin)

    def _rejoin(self) -> None:
        try:
            self._session = self._hub.join(self, self._user, self._topic, self._access, self._public)
        except BoardUnreachable as error:
            self._try_again(error.message)
            return
        self._backoff.reset()
        self._lines.say(BoardState.CONNECTED)
        self._lines.connected()

    def _write(self, data: bytes) -> None:
        if self._session is not None:
            self._hub.publish(self._session, data)
