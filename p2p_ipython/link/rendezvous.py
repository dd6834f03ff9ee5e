"""Two processes that share a code meet once, through a wormhole, and know each other afterwards.

Each side's offer (its certificate, its addresses, its relay) travels in the wormhole's own *versions* message, which
also confirms the key. So one exchange serves for both, and neither the mailbox nor somebody who guessed a wrong code
can read an offer. Once the offer is there the wormhole is closed in the background. ``Rendezvous.close`` waits for
that.

A code is used once. A wrong secret uses it up, too, and both sides get ``WrongPeer``.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakValueDictionary

from p2p_ipython.errors import LinkLost, LinkTimeout, WrongPeer
from p2p_ipython.link.base import Meeting, Secret
from p2p_ipython.link.mailbox_client import Visit, unreachable

Role = Literal["client", "worker"]
KeyFor = Callable[[str], bytes]

APPID = "p2p-ipython/link/v1"

MAX_OFFER = 16 << 10
"""Largest offer taken from a peer, bytes of JSON."""

AT_ONCE = 8
"""Rendezvous at the same time: each takes a websocket, and some 17 ms of computing."""

AT_ONCE_WITH_ONE = AT_ONCE // 2
"""Of these, those with one member who isn't ours: meetings to which nobody comes must not keep others waiting."""

PUBLIC_MAILBOX = "ws://relay.magic-wormhole.io:4000/v1"
"""Magic Wormhole's public mailbox server, for clusters whose board has none."""

PUBLIC_RELAY = "tcp:transit.magic-wormhole.io:4001"
"""Magic Wormhole's public transit relay."""

_MOST_HEARD = 256 << 10  # bytes that a mailbox may send in one visit; it sends some 5,000 beside the offers


def new_code() -> Secret:
    """Make a wormhole code for one meeting: a random nameplate of 39 digits and a secret of 128 bits.

    Nameplates this long are never listed, and can't run out. Each wrong guess of the secret is a visible failure.
    """
    return Secret(f"{secrets.randbits(128):039d}-{secrets.token_hex(16)}")


@dataclass(frozen=True)
class Met:
    """The yield of a meeting: the ``verifier``, the same at both ends and nowhere else; the peer's offer; keys."""

    verifier: bytes = field(repr=False)
    offer: dict[str, Any] = field(repr=False)
    _key: bytes = field(repr=False)

    def key_for(self, purpose: str) -> bytes:
        """Return 32 secret bytes, the same at both ends, different for each purpose."""
        return hmac.digest(self._key, purpose.encode(), hashlib.sha256)


class Rendezvous:
    """A process's meetings: at most ``AT_ONCE`` at a time; ``close`` ends all of them."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)
        self._places_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by the peer's member
        self._visits: set[Visit] = set()
        self._closing: set[asyncio.Future[None]] = set()
        self._closed = False

    async def meet(self, meeting: Meeting, role: Role, offer: dict[str, Any]) -> Met:
        """Meet the peer that has the same code and the other role; wait at most ``meeting.deadline`` seconds.

        Raises ``MailboxUnreachable``; ``LinkTimeout`` when nobody came; ``WrongPeer`` when somebody came with another
        secret, in our own role or with nonsense.
        """
        visit: Visit | None = None
        try:
            async with asyncio.timeout(meeting.deadline):
                async with self._places_with(meeting.peer), self._places:
                    if self._closed:
                        raise LinkLost("the linker was closed meanwhile")
                    visit = Visit(APPID, meeting.mailbox, offer={"role": role, **offer}, most=_MOST_HEARD)
                    self._visits.add(visit)
                    try:
                        visit.use_code(meeting.code)
                        return await _met(visit, role)
                    finally:
                        self._close(visit)
        except TimeoutError:
            if visit is not None and not visit.welcome:
                raise unreachable(meeting.mailbox, "it does not answer") from None
            raise LinkTimeout(
                f"nobody came to the meeting within {meeting.deadline:g} s",
                hint="The other side may have left or lost its connection; p2p_ipython asks it again by itself.",
            ) from None

    def _places_with(self, peer: str) -> asyncio.Semaphore:
        """Return the places for meetings with one member; those who wait for one keep it."""
        places = self._places_of.get(peer)
        if places is None:
            self._places_of[peer] = places = asyncio.Semaphore(AT_ONCE_WITH_ONE if peer else AT_ONCE)
        return places

    async def close(self) -> None:
        """End all meetings, and wait a few seconds at most until the mailbox has forgotten us."""
        self._closed = True
        for visit in list(self._visits):
            visit.fail(LinkLost("the linker was closed meanwhile"))
            self._close(visit)
        if self._closing:
            await asyncio.wait(self._closing)

    def _close(self, visit: Visit) -> None:
        if visit not in self._visits:
            return
        self._visits.discard(visit)
        self._closing.add(visit.closed)
        visit.closed.add_done_callback(self._closing.discard)
        visit.close()


async def _met(visit: Visit, role: Role) -> Met:
    verifier, versions = await visit.meet()
    other = "worker" if role == "client" else "client"
    if not isinstance(versions, dict) or len(json.dumps(versions)) > MAX_OFFER or versions.get("role") != other:
        raise WrongPeer(
            "somebody with the right code is there, but does not speak this protocol",
            hint="The other side's p2p_ipython may be of another version: upgrade both.",
        )
    # With one key derived from it, the wormhole can be closed and forgotten.
    return Met(verifier, versions, visit.derive_key())
