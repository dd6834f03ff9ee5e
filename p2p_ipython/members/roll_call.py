"""The sessions that the owner's host hears, and whether they have followed to the cluster's new topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from p2p_ipython.protocol.identity import Certificate


@dataclass(frozen=True)
class Present:
    """A session that the host hears: its member, its own name and role, and the topic and time of its last hello.

    ``signer`` is the member's fingerprint, ``heard`` the loop's time.
    """

    member: str
    name: str
    role: str
    signer: str
    topic: str = field(repr=False)
    heard: float


class RollCall:
    """The sessions heard in the last ``memory`` seconds, by sid. Belongs to the running event loop."""

    def __init__(self, memory: float) -> None:
        self.present: dict[bytes, Present] = {}
        self._memory = memory
        self._news = asyncio.Event()

    def hello(self, certificate: Certificate, name: str, member: str, topic: str, now: float) -> bool:
        """Note a session's hello; return whether the session is new."""
        new = certificate.sid not in self.present
        self.present[certificate.sid] = Present(member, name, certificate.role, certificate.signer, topic, now)
        self._news.set()
        return new

    def bye(self, certificate: Certificate) -> None:
        """Forget a session that leaves."""
        self.present.pop(certificate.sid, None)

    def forget(self, now: float) -> None:
        """Forget the sessions that were heard too long ago."""
        self.present = {sid: one for sid, one in self.present.items() if now < one.heard + self._memory}

    async def settled(self, topic: str, is_member: Callable[[str], bool], seconds: float) -> tuple[int, int]:
        """Wait, ``seconds`` at most, until the members' sessions have followed to ``topic``.

        Returns how many have, and how many of those that were heard elsewhere have not.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            members = [one for one in self.present.values() if is_member(one.signer)]
            here = [one for one in members if one.role != "host"]  # a host goes where its profile says
            behind = sum(one.topic != topic for one in here)
            left = end - loop.time()
            if not behind or left <= 0:
                return len(here) - behind, behind
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                pass
