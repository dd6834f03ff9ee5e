"""Knocking: a guest who knows a cluster's title asks its owner to be admitted.

The ask is signed and goes to the cluster's lobby, a public topic. The owner's host shows the owner the guest's name and
fingerprint. After the owner's yes, the host seals the cluster's topic and key to the asking session.

A guest who has only heard the title can't know the owner's key. So the key of the host that answers is shown to the
user before anything is believed (``Granted.owner``), or is given beforehand.

All belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from p2p_ipython.board.client.keys import KeyChoice
from p2p_ipython.members.voice import OpenBoard, Voice
from p2p_ipython.protocol.identity import BadIdentity, ClusterSecret, Session
from p2p_ipython.protocol.messages import Answer, Ask, BadMessage, Grant, Reply, decode_admission
from p2p_ipython.protocol.roster import lobby_secret, parse_title
from p2p_ipython.protocol.wire import Heard

ASK_EVERY = (2.0, 15.0)
"""Seconds between two asks: the first pause, and the longest, to which it doubles."""


@dataclass(frozen=True)
class Granted:
    """A host with the key ``owner`` (a fingerprint) admits us to the cluster of that key."""

    owner: str
    secret: ClusterSecret = field(repr=False)


@dataclass(frozen=True)
class Refused:
    """The host that has the key ``owner`` doesn't admit us."""

    owner: str


class Knocking:
    """One request to be admitted. ``told(state)`` is called with words whenever they change.

    ``owner`` is the fingerprint of the key that must answer, "" for any.
    """

    def __init__(
        self,
        title: str,
        key: KeyChoice,
        open_board: OpenBoard,
        *,
        name: str,
        owner: str = "",
        told: Callable[[str], None] = lambda _words: None,
    ) -> None:
        self.title = title
        self.state = ""
        self._key = key
        self._open_board = open_board
        self._name = name
        self._owner = owner
        self._told = told
        self._answer: asyncio.Future[Granted | Refused] = asyncio.get_running_loop().create_future()
        self._session: Session | None = None

    async def run(self) -> Granted | Refused:
        """Ask until there is an answer: it may take as long as the owner does. Raises a ``BoardError`` or ``NoKey``."""
        self._session = session = await asyncio.to_thread(self._sign)
        voice = Voice(
            session,
            lobby_secret(self.title),
            admit=lambda certificate: certificate.role == "host" and self._owner in ("", certificate.signer),
            heard=self._heard,
        )
        try:
            await voice.open(self._open_board)
            owner = parse_title(self.title)[0]
            self._say(f"nobody answers for {owner} yet: is {owner} hosting {self.title} (p2p host)?")
            pause = ASK_EVERY[0]
            while True:
                if session.is_due(time.time()):  # the owner may be away for days
                    await asyncio.to_thread(session.renew, time.time())
                voice.say(Ask(self._name))
                try:
                    return await asyncio.wait_for(asyncio.shield(self._answer), pause)
                except TimeoutError:
                    pause = min(2 * pause, ASK_EVERY[1])
        finally:
            await voice.close()

    def _sign(self) -> Session:
        return Session(self._key.key, cluster=self.title, role="client", now=time.time(), random=os.urandom)

    def _say(self, words: str) -> None:
        if words != self.state:
            self.state = words
            self._told(words)

    def _heard(self, heard: Heard) -> None:
        assert self._session is not None
        if not heard.admitted or self._answer.done():
            return
        host = heard.certificate.signer
        match heard.message:
            case Answer(to=to, reply=Reply.WAITING) if to == self._session.sid:
                owner = parse_title(self.title)[0]
                self._say(f"waiting for {owner}'s approval (the host that answers has the key {host})")
            case Answer(to=to, reply=Reply.NO) if to == self._session.sid:
                self._answer.set_result(Refused(host))
            case Grant(to=to, box=box) if to == self._session.sid:
                try:
                    admission = decode_admission(self._session.unseal(box))
                except (BadIdentity, BadMessage):
                    return
                # The id names the cluster's owner, whose word alone counts for it.
                if admission.cluster == f"{host}/{parse_title(self.title)[1]}":
                    secret = ClusterSecret(admission.cluster, admission.topic, admission.key)
                    self._answer.set_result(Granted(host, secret))
            case _:
                pass
