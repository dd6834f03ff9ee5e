"""Tells from what members say whether their clocks and ours are apart, so far that one of us does not hear the other.

A session's certificate lives for a day from its making. If it ends later than that by our clock, its holder's clock is
ahead, and we don't hear what it says. A clock that is behind shows in the time of a hello; its holder doesn't hear us.
Anybody can repeat old hellos, so it takes two of one session that are as late as each other.

Pure: ``wall`` is Unix time, seconds.
"""

from __future__ import annotations

from p2p_ipython.protocol.identity import CLOCK_SLACK, MAX_LIFE, Certificate

ALIKE = 30.0
"""Seconds by which two hellos may differ in how late they are."""

MAX_SESSIONS = 100
"""Sessions with late hellos that are remembered."""


class Clocks:
    """The clock that is farthest from ours, as far as members show it. ``apart`` is (whose, seconds ahead of ours)."""

    def __init__(self) -> None:
        self.apart: tuple[str, float] | None = None
        self._late: dict[bytes, tuple[int, float]] = {}  # what the last hello said, and how late it was, by sid

    def shown(self, certificate: Certificate, wall: float) -> None:
        """Note a member's certificate that is otherwise right, and lives too long."""
        ahead = certificate.until - MAX_LIFE - wall
        if CLOCK_SLACK < ahead < MAX_LIFE:
            self.apart = certificate.signer, ahead

    def said(self, certificate: Certificate, time: int, wall: float) -> None:
        """Note the time of a member's hello, which may show that our clocks agree."""
        off = time - wall
        if abs(off) <= CLOCK_SLACK:
            self.apart = None
            return
        before = self._late.pop(certificate.sid, None)
        self._late[certificate.sid] = time, off
        if len(self._late) > MAX_SESSIONS:
            del self._late[next(iter(self._late))]
        if before is not None and time > before[0] and abs(off - before[1]) <= ALIKE:
            self.apart = certificate.signer, off
