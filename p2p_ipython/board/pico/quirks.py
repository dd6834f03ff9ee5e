"""How pico's ``pipe`` service treats its topics, purely: its weaknesses, which a client has to live with.

``topics.py`` has the rules that both boards share. Here is what ours doesn't do:

* **The access hole.** A session that is the first to name a topic counts as its creator, and that is looked at under
  the asker's own prefix: the first concurrent session of anybody, even of a key without an account, is admitted to
  ``alice/x`` whatever alice's list says. Only a second one lands in the shadow topic.
* **Anybody closes a public topic** that has no entry at that moment, also while others are on it.
* **Lock-step.** What sessions write is read in pieces of at most 32 KiB, wherever that cuts a line. A topic passes on a
  piece at a time, of its writers in turn, and takes the next when every reader has taken this one. So everybody on a
  topic sees one order, lines of several writers are mixed up in bursts, and one reader that doesn't read stops all.

A session *takes* a piece when all that it was sent before is on its way to it, within the window that its client
gives. ``pico/server.py`` does it over SSH.
"""

from __future__ import annotations

from collections import deque

from p2p_ipython.board.topics import Action, Deliver, Join, Topics

READ = 32 << 10
"""Most bytes that are read from a session at a time."""


class PicoTopics(Topics):
    """The topics of a board like pico's. Takes bytes by ``read``, and passes them on by ``turn``."""

    _may_close_public = True

    def __init__(self) -> None:
        super().__init__()
        self._unread: dict[str, bytearray] = {}
        self._turns: dict[str, deque[str]] = {}
        self._behind: set[str] = set()
        self._owed: dict[str, dict[str, bytes]] = {}

    def read(self, session: str, data: bytes) -> None:
        """Take what a session on a topic has written. It waits for the session's turn."""
        unread = self._unread.setdefault(session, bytearray())
        if not unread and data:
            self._turns.setdefault(self._where[session], deque()).append(session)
        unread += data

    def backlog(self, session: str) -> int:
        """Return how many bytes of a session wait for its turn."""
        return len(self._unread.get(session, b""))

    def turn(self) -> list[Action] | None:
        """Pass on the next piece on a topic where nobody is waited for. None: there is no such piece."""
        for name, turns in self._turns.items():
            if turns and not self._owed.get(name):
                session = turns.popleft()
                unread = self._unread[session]
                piece = bytes(unread[:READ])
                del unread[:READ]
                if unread:
                    turns.append(session)
                return self._hand_out(name, self.publish(session, piece))
        return None

    def fell_behind(self, session: str) -> None:
        """Hold back what a session is sent, which has not taken all so far, until it has ``caught_up``."""
        self._behind.add(session)

    def caught_up(self, session: str) -> list[Action]:
        """Hand out the piece that was held for a session, if one was: it has taken what it was sent."""
        self._behind.discard(session)
        held = [(name, owed.pop(session)) for name, owed in self._owed.items() if session in owed]
        return [Deliver(name, (session,), piece, None) for name, piece in held]

    def leave(self, session: str) -> list[Action]:
        """Take a session off its topic. Nobody waits for it any more, and what it wrote last may be lost."""
        name = self._where.get(session)
        unread = self._unread.pop(session, None)
        if name is not None and unread:
            self._turns[name].remove(session)
        self._behind.discard(session)
        for owed in self._owed.values():
            owed.pop(session, None)
        actions = super().leave(session)
        if name is not None and name not in self._topics:
            self._turns.pop(name, None)
            self._owed.pop(name, None)
        return actions

    def _hand_out(self, name: str, actions: list[Action]) -> list[Action]:
        """Leave out of a piece's readers those that are behind: the topic waits for them."""
        now: list[Action] = []
        for action in actions:
            if isinstance(action, Deliver):
                behind = self._behind.intersection(action.to) - {action.but}
                self._owed.setdefault(name, {}).update(dict.fromkeys(behind, action.data))
                to = tuple(reader for reader in action.to if reader not in behind)
                now.append(Deliver(action.topic, to, action.data, action.but))
        return now

    def _admits_unlisted(self, join: Join, own: str, creator: str) -> bool:
        # A session that has just made an entry, if only below its own user's name, passes for the topic's creator.
        return self._stored.get(join.session) == own or super()._admits_unlisted(join, own, creator)
