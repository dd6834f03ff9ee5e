"""Presence: the sessions of a cluster that have been heard lately, those of clients and hosts too.

The client machine knows workers only, since nothing else runs tasks. Presence is for people. A session that says hello
is present until it says good-bye, or is silent for three times as long as members take between two hellos.

Only a fresh hello makes a session present. Anybody who reads the topic can repeat what a session said that ended long
ago, and protocol/wire.py drops only repetitions of messages that *we* have heard. At most ``MAX_SESSIONS`` are kept: a
further one takes the place of the one heard longest ago, of the member who has most.

Pure: ``now`` is any clock that doesn't go back, ``wall`` is Unix time; both seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from p2p_ipython.protocol.crowd import crowded_out
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.membership_machine import FRESH
from p2p_ipython.protocol.messages import Bye, Hello, Message, Terms

MAX_SESSIONS = 2000
"""Other sessions that are kept: twice as many as a cluster has members."""


@dataclass
class Seen:
    """A session: ``role`` is "client", "worker" or "host"; ``since`` Unix time, ``heard`` by the loop's clock.

    ``offer`` is a worker's. Read it, don't write it.
    """

    certificate: Certificate
    name: str
    role: str
    since: float
    heard: float
    offer: Terms | None = None


class Presence:
    """The sessions other than our own, by sid. Members say hello every ``every`` seconds."""

    def __init__(self, every: float) -> None:
        self._silence = 3 * every
        self.sessions: dict[bytes, Seen] = {}  # the one heard of longest ago first
        self._pushed_out: list[bytes] = []

    def heard(self, certificate: Certificate, message: Message, name: str, now: float, wall: float) -> bool:
        """Note an authentic message of another session, which is called ``name``.

        Returns whether anything has changed that people would see.
        """
        sid = certificate.sid
        seen = self.sessions.get(sid)
        match message:
            case Bye():
                return self.gone(sid)
            case Hello() if abs(message.time - wall) <= FRESH:
                if seen is None:
                    self.sessions[sid] = Seen(certificate, name, certificate.role, wall, now, message.offer)
                    self._make_room()
                    return True
                changed = (seen.name, seen.offer) != (name, message.offer)
                seen.name, seen.offer, seen.certificate = name, message.offer, certificate
                self._heard_again(sid, seen, now)
                return changed
            case Hello():
                return False
            case _ if seen is not None:
                self._heard_again(sid, seen, now)
                return False
            case _:
                return False

    def tick(self, now: float) -> list[bytes]:
        """Return the sessions that were silent for too long, or had to make room. Costs little."""
        gone, self._pushed_out = self._pushed_out, []
        for sid, seen in self.sessions.items():
            if now < seen.heard + self._silence:
                break
            gone.append(sid)
        for sid in gone:
            self.sessions.pop(sid, None)
        return gone

    def gone(self, sid: bytes) -> bool:
        """Remove a session that is no longer present; return whether it was."""
        return self.sessions.pop(sid, None) is not None

    def _heard_again(self, sid: bytes, seen: Seen, now: float) -> None:
        seen.heard = now
        self.sessions[sid] = self.sessions.pop(sid)

    def _make_room(self) -> None:
        if len(self.sessions) > MAX_SESSIONS:
            members = [(sid, seen.certificate.signer) for sid, seen in self.sessions.items()]
            first = crowded_out(members, Counter(member for _, member in members))
            del self.sessions[first]
            self._pushed_out.append(first)
