"""A shared cluster on a board in memory: keys, rosters, members, and the owner's host."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from p2p_ipython.board.base import Board, BoardListener, BoardReport
from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.board.client.keys import KeyChoice
from p2p_ipython.config import Settings
from p2p_ipython.members import owner
from p2p_ipython.members.access import Access
from p2p_ipython.members.membership import Keep, Membership, Standing
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.protocol.identity import Certificate, ClusterSecret, Session, fingerprint
from p2p_ipython.protocol.messages import Hello, Message
from p2p_ipython.protocol.roster import Member, Roster, commitment
from p2p_ipython.rehearsal.board import MemoryBoard, MemoryBoardHub

TITLE = "alice/friends"
DAY = 24 * 3600
PATIENCE = 20.0
"""How long anything may take before a test fails, s."""


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that tells nobody when it happens."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.005)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class Key:
    """An Ed25519 key as paramiko has it; ``trouble`` is raised instead of a signature.

    ``signed`` counts signatures, ``threads`` are those that asked for them.
    """

    def __init__(self, seed: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())
        self.signed = 0
        self.trouble: Exception | None = None
        self.threads: set[threading.Thread] = set()

    def asbytes(self) -> bytes:
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _string(b"ssh-ed25519") + _string(public)

    def get_name(self) -> str:
        return "ssh-ed25519"

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> bytes:
        self.signed += 1
        self.threads.add(threading.current_thread())
        if self.trouble is not None:
            raise self.trouble
        return _string(b"ssh-ed25519") + _string(self._key.sign(data))


def print_of(name: str) -> str:
    """The fingerprint of somebody's key."""
    return fingerprint(Key(name).asbytes())


def choice(key: Key) -> KeyChoice:
    return KeyChoice(key, "made for a test")  # type: ignore[arg-type]


@dataclass
class Ear:
    """A speaker that keeps what it is told."""

    name: str
    said: list[Message] = field(default_factory=list)
    changes: int = 0
    expelled_because: str = ""

    def hello(self) -> Hello:
        return Hello(name=self.name, time=int(time.time()))

    def heard(self, certificate: Certificate, message: Message) -> None:
        self.said.append(message)

    def board_changed(self, report: BoardReport) -> None:
        pass

    def members_changed(self) -> None:
        self.changes += 1

    def expelled(self, why: str) -> None:
        self.expelled_because = why


class Circle:
    """alice's cluster of friends. ``before`` is awaited before anybody joins a topic, which is its argument."""

    def __init__(self, *names: str) -> None:
        self.hub = MemoryBoardHub()
        self.before: Callable[[str], Awaitable[None]] | None = None
        self.keys: dict[str, Key] = {}
        self.secret = self.new_secret()
        members = tuple(Member(name, (print_of(name),)) for name in ("alice", *names))
        self.roster = Roster(
            self.secret.cluster, TITLE, 1, int(time.time()) + 14 * DAY, commitment(self.secret), members
        ).signed(self.key("alice"))

    @staticmethod
    def new_secret() -> ClusterSecret:
        return ClusterSecret(f"{print_of('alice')}/friends", f"p2p-{os.urandom(16).hex()}", os.urandom(32))

    def key(self, name: str) -> Key:
        return self.keys.setdefault(name, Key(name))

    def next_roster(
        self, without: str = "", *, secret: ClusterSecret | None = None, end: float | None = None
    ) -> Roster:
        """The next epoch; with another topic and key where ``secret`` is given. The circle's from now on."""
        old, self.secret = self.roster, secret or self.secret
        self.roster = Roster(
            old.cluster,
            TITLE,
            old.epoch + 1,
            int(old.until if end is None else end),
            commitment(self.secret),
            tuple(member for member in old.members if member.name != without),
        ).signed(self.key("alice"))
        return self.roster

    async def open_board(self, topic: str, listener: BoardListener) -> Board:
        if self.before is not None:
            await self.before(topic)
        board = MemoryBoard(self.hub, topic, listener)
        await board.open()
        return board

    def topics(self) -> list[str]:
        """The topics that sessions are on, each as often as there are sessions."""
        return sorted(board._topic for board in self.hub._boards.values())

    def membership(
        self, name: str, role: str = "client", *, roster: Roster | None = None, keep: Keep | None = None
    ) -> Membership:
        """Somebody's, with an ``Ear`` as its speaker; not joined yet."""
        standing = Standing(self.secret, print_of(name), name, shared=True, roster=roster or self.roster, title=TITLE)
        session = Session(self.key(name), cluster=self.secret.cluster, role=role, now=time.time(), random=os.urandom)
        made = Membership(session, standing, self.open_board, keep=keep)
        made.speaker = Ear(name)
        return made

    async def member(self, name: str, role: str = "client", **options: Any) -> Membership:
        """The same, joined."""
        made = self.membership(name, role, **options)
        await made.join()
        made.begin()
        return made


class MemoryAccess(Access):
    """An access whose board is in memory."""

    circle: Circle

    async def open_board(self, topic: str, listener: BoardListener) -> Board:
        return await self.circle.open_board(topic, listener)


def owners(circle: Circle, folder: Path) -> tuple[MemoryAccess, Profile, Profiles]:
    """What the host of a new cluster of alice's needs; the cluster becomes the circle's."""
    profiles = Profiles(folder)
    key = choice(circle.key("alice"))
    profile = owner.found(TITLE, key, board="memory", host_key="", until=int(time.time() + 14 * DAY))
    profiles.save(profile)
    return entry_of(circle, profile), profile, profiles


def entry_of(circle: Circle, profile: Profile) -> MemoryAccess:
    """The owner's access, by a profile."""
    circle.secret = ClusterSecret(profile.cluster, profile.topic, profile.key)
    circle.roster = Roster.parse(profile.roster, profile.cluster)
    key = choice(circle.key("alice"))
    standing = Standing(circle.secret, key.fingerprint, "alice", shared=True, roster=circle.roster, title=profile.title)
    access = MemoryAccess(BoardAddress("memory"), key, standing, Settings(presence=1.0), remember=False)
    object.__setattr__(access, "circle", circle)
    return access
