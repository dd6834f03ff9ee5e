"""Two processes that share a code meet once, through a wormhole, and know each other afterwards.

Each side's offer (its certificate, its addresses, its relay) travels in the wormhole's own *versions*
message, the one that confirms the key: so one exchange does for both, and nothing of it is readable by the mailbox
or by somebody who guessed a wrong code. Once it is there the wormhole is closed, behind the caller's back but
not forgotten: ``Rendezvous.close`` waits for it.

A code is used once. A wrong secret burns it, and both sides hear of that as ``WrongPeer``.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from p2p_ipython import loop as loops
from p2p_ipython.errors import LinkError, LinkLost, LinkTimeout, MailboxUnreachable, WrongPeer
from p2p_ipython.link.base import Meeting, Secret

logger = logging.getLogger(__name__)

Role = Literal["client", "worker"]
KeyFor = Callable[[str], bytes]

APPID = "p2p-ipython/link/v1"

MAX_OFFER = 16 << 10
"""Largest offer taken from a peer, bytes of JSON."""

AT_ONCE = 8
"""Rendezvous at the same time: each is a websocket, and some 17 ms of computing."""

_CLOSE_LIMIT = 5.0  # seconds for a wormhole to say goodbye to its mailbox


def new_code() -> Secret:
    """A wormhole code for one meeting: a random nameplate of 39 digits and a secret of 128 bits.

    Nameplates this long are never listed nor used up; guessing the secret takes one visible failure per guess.
    """
    return Secret(f"{secrets.randbits(128):039d}-{secrets.token_hex(16)}")


@dataclass(frozen=True)
class Met:
    """What a meeting has brought: the ``verifier``, the same at both ends and nowhere else; the peer's offer; keys."""

    verifier: bytes = field(repr=False)
    offer: dict[str, Any] = field(repr=False)
    _key: bytes = field(repr=False)

    def key_for(self, purpose: str) -> bytes:
        """32 secret bytes, the same at both ends, different for each purpose."""
        return hmac.digest(self._key, purpose.encode(), hashlib.sha256)


class Rendezvous:
    """A process's meetings: at most ``AT_ONCE`` at a time, all of them ended by ``close``."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)
        self._visits: set[_Visit] = set()
        self._closing: set[asyncio.Future[None]] = set()
        self._closed = False

    async def meet(self, meeting: Meeting, role: Role, offer: dict[str, Any]) -> Met:
        """Meet the peer that has the same code and the other role; waits ``meeting.deadline`` seconds at most.

        Raises ``MailboxUnreachable``, ``LinkTimeout`` when nobody came, ``WrongPeer`` when somebody came with
        another secret, in our own role or with nonsense.
        """
        visit: _Visit | None = None
        try:
            async with asyncio.timeout(meeting.deadline):
                async with self._places:
                    if self._closed:
                        raise LinkLost("the linker was closed meanwhile")
                    visit = _Visit(meeting, {"role": role, **offer})
                    self._visits.add(visit)
                    try:
                        return await _met(visit, role)
                    finally:
                        self._close(visit)
        except TimeoutError:
            if visit is not None and not visit.welcome:
                raise _unreachable(meeting.mailbox, "it does not answer") from None
            raise LinkTimeout(
                f"nobody came to the meeting within {meeting.deadline:g} s",
                hint="The other side may have left or lost its connection; it is asked again by itself.",
            ) from None

    async def close(self) -> None:
        """End all meetings, and wait until the mailbox has forgotten us, for a few seconds at most."""
        self._closed = True
        for visit in list(self._visits):
            if not visit.met.done():
                visit.met.set_exception(LinkLost("the linker was closed meanwhile"))
            self._close(visit)
        if self._closing:
            await asyncio.wait(self._closing)

    def _close(self, visit: _Visit) -> None:
        if visit not in self._visits:
            return
        self._visits.discard(visit)
        self._closing.add(visit.closed)
        visit.closed.add_done_callback(self._closing.discard)
        visit.close()


async def _met(visit: _Visit, role: Role) -> Met:
    verifier, versions = await visit.met
    other = "worker" if role == "client" else "client"
    if not isinstance(versions, dict) or len(json.dumps(versions)) > MAX_OFFER or versions.get("role") != other:
        raise WrongPeer(
            "somebody with the right code is there, but does not speak this protocol",
            hint="The other side's p2p_ipython may be of another version: update both.",
        )
    # One key is taken out of the wormhole, so that it can be closed and forgotten.
    return Met(verifier, versions, visit.derive_key())


class _Visit:
    """One wormhole, as its delegate: what it reports becomes futures. The code is in it and nowhere else."""

    def __init__(self, meeting: Meeting, offer: dict[str, Any]) -> None:
        loops.adopt()
        # Late, since they want the reactor that adopt() has installed.
        import wormhole
        from twisted.internet import reactor

        loop = asyncio.get_running_loop()
        self.welcome = False
        self.met: asyncio.Future[tuple[bytes, object]] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._mailbox = meeting.mailbox
        self._verifier: bytes | None = None
        self._versions: object = None
        try:
            self._wormhole = wormhole.create(APPID, meeting.mailbox, reactor, versions=offer, delegate=self)
            self._wormhole.set_code(meeting.code.reveal())
        except Exception as error:
            # The library's message may hold the code; the kind of the error says enough.
            raise _unreachable(meeting.mailbox, type(error).__name__) from None

    def derive_key(self) -> bytes:
        key: bytes = self._wormhole.derive_key(APPID, 32)
        return key

    def close(self) -> None:
        """Say goodbye to the mailbox; ``closed`` resolves when that is done, or when it took too long."""
        self.met.cancel()
        if self.closed.done():
            return
        limit = self._loop.call_later(_CLOSE_LIMIT, self._give_up)
        self.closed.add_done_callback(lambda _: limit.cancel())
        self._wormhole.close()

    def _give_up(self) -> None:
        # With its server gone, a wormhole that closes goes on reconnecting for ever, and its interface
        # has no way to stop that. What it runs on has one.
        service = getattr(getattr(getattr(self._wormhole, "_boss", None), "_RC", None), "_connector", None)
        if service is not None:
            service.stopService()
        if not self.closed.done():
            self.closed.set_result(None)

    # What the wormhole calls

    def wormhole_got_welcome(self, welcome: object) -> None:
        self.welcome = True

    def wormhole_got_code(self, code: str) -> None:
        pass

    def wormhole_got_unverified_key(self, key: bytes) -> None:
        pass

    def wormhole_got_verifier(self, verifier: bytes) -> None:
        self._verifier = verifier
        self._settle_met()

    def wormhole_got_versions(self, versions: object) -> None:
        self._versions = versions
        self._settle_met()

    def wormhole_got_message(self, message: bytes) -> None:
        pass

    def wormhole_closed(self, result: object) -> None:
        if not self.met.done():
            self.met.set_exception(_meeting_error(result, self._mailbox))
        if not self.closed.done():
            self.closed.set_result(None)

    def _settle_met(self) -> None:
        if self._verifier is not None and self._versions is not None and not self.met.done():
            self.met.set_result((self._verifier, self._versions))


def _meeting_error(result: object, mailbox: str) -> LinkError:
    from wormhole import errors

    if isinstance(result, errors.WrongPasswordError):
        return WrongPeer(
            "somebody came to the meeting with a wrong code",
            hint="The code is used up; a new one is made for the next attempt.",
        )
    if isinstance(result, errors.ServerError):
        # In practice "crowded": a third party sits at our nameplate, which only the two of us should know.
        return WrongPeer("the mailbox refused the meeting: somebody else has been there", hint="It is tried again.")
    if isinstance(result, errors.ServerConnectionError):
        return _unreachable(mailbox, str(getattr(result.reason, "value", result.reason))[:200])
    return _unreachable(mailbox, type(result).__name__)


def _unreachable(mailbox: str, why: str) -> MailboxUnreachable:
    return MailboxUnreachable(
        f"the wormhole mailbox at {mailbox} can't be used: {why}",
        hint="Check that the address is right and that the board's machine is up and lets its port through.",
    )
