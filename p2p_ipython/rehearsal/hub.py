"""Everything between the processes of a rehearsal: their meetings, the wires of their links, and the faults of both.

A ``MemoryHub`` uses nothing but its event loop's time and turns, and a seeded random generator. So a run can be
repeated exactly, under virtual time, too. Faults are ordered (``cut``, ``restore``, ``lose``, ``mailbox_up``) or, with
``cut_rate``, come by themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
from dataclasses import dataclass
from typing import Any, Protocol

from p2p_ipython.errors import LinkError, LinkTimeout, MailboxUnreachable, WrongPeer
from p2p_ipython.link.base import Meeting
from p2p_ipython.link.rendezvous import Role


class Wired(Protocol):
    """One end of a link, as the hub knows it; see rehearsal/link.py."""

    role: Role

    def join(self, peer: Any) -> None:
        """Connect the two ends; ``peer`` is of the same class."""

    def cut_for(self, away: float) -> None:
        """See ``MemoryHub.cut``."""

    def restore(self) -> None:
        """See ``MemoryHub.restore``."""

    def lose(self, why: str) -> None:
        """End both ends as LOST at once."""


@dataclass(eq=False)
class _Waiting:
    """One end at a meeting, which waits for the other."""

    link: Wired
    meeting: Meeting
    met: asyncio.Future[None]


class MemoryHub:
    """Everything between the ends: meetings, wires, and their faults."""

    def __init__(self, *, seed: int = 0, cut_rate: float = 0.0, away: float = 0.02) -> None:
        """``cut_rate`` is the share of frames on whose way the link is cut; it then stays away ``away`` seconds."""
        self.mailbox_up = True
        self._random = random.Random(seed)  # noqa: S311 - its purpose is to be repeatable
        self._cut_rate = cut_rate
        self._away = away
        self._waiting: dict[str, _Waiting] = {}

    def cut(self, link: Wired, *, away: float | None = None) -> None:
        """Cut ``link``; it is back after ``away`` seconds (None: the hub's) or, if infinite, by ``restore`` only."""
        link.cut_for(self._away if away is None else away)

    def restore(self, link: Wired) -> None:
        """Connect a link that is cut again. Do nothing otherwise."""
        link.restore()

    def lose(self, link: Wired) -> None:
        """End both ends as LOST at once."""
        link.lose("lost on purpose")

    def strikes(self) -> bool:
        """Return whether a fault comes now."""
        return self._cut_rate > 0 and self._random.random() < self._cut_rate

    async def meet(self, link: Wired, meeting: Meeting) -> None:
        """Join ``link`` to the one whose meeting has the same code. Raises as ``Linker.open`` does."""
        if not self.mailbox_up:
            raise MailboxUnreachable(
                f"the mailbox at {meeting.mailbox} does not answer", hint="Check that the board's machine is up."
            )
        nameplate, _, _ = meeting.code.reveal().partition("-")
        mine = _Waiting(link, meeting, asyncio.get_running_loop().create_future())
        other = self._waiting.pop(nameplate, None)
        if other is not None:
            _join(mine, other)
        else:
            self._waiting[nameplate] = mine
        try:
            async with asyncio.timeout(meeting.deadline):
                await mine.met
        except TimeoutError:
            raise LinkTimeout(
                f"nobody came to the meeting within {meeting.deadline:g} s",
                hint="The other side may have left; p2p_ipython asks it again by itself.",
            ) from None
        finally:
            if self._waiting.get(nameplate) is mine:
                del self._waiting[nameplate]


def _join(first: _Waiting, second: _Waiting) -> None:
    """Check both ends of a meeting against each other, and connect their links."""
    code, other_code = first.meeting.code.reveal(), second.meeting.code.reveal()
    if code != other_code or first.link.role == second.link.role:
        for end in (first, second):
            _settle(
                end,
                WrongPeer(
                    "somebody came to the meeting with a wrong code", hint="Connect again: that makes a new code."
                ),
            )
        return
    verifier = hmac.digest(b"p2p-ipython/memory", code.encode(), hashlib.sha256)
    failures = {
        id(checker): failure
        for checker, prover in ((first, second), (second, first))
        if (failure := _failure(checker.meeting, prover.meeting, verifier)) is not None
    }
    if not failures:
        first.link.join(second.link)
    for end in (first, second):
        refused = WrongPeer("the peer refused our proof of who we are") if failures else None
        _settle(end, failures.get(id(end), refused))


def _failure(checker: Meeting, prover: Meeting, verifier: bytes) -> WrongPeer | None:
    try:
        checker.check(verifier, prover.prove(verifier))
    except WrongPeer as error:
        return error
    return None


def _settle(end: _Waiting, error: LinkError | None) -> None:
    if end.met.done():
        return
    if error is None:
        end.met.set_result(None)
    else:
        end.met.set_exception(error)
