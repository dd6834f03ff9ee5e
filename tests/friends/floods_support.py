"""What tests of floods share: who floods, and what is seen of it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from friends_support import Person, access_of, eventually, soon
from strange_frames import Said

from p2p_ipython import loop as loops
from p2p_ipython.client.bridge import Bridge
from p2p_ipython.link.rendezvous import new_code
from p2p_ipython.link.tls import TLSLinker
from p2p_ipython.members.access import rendezvous_of
from p2p_ipython.members.profile import Profile
from p2p_ipython.task.buffer_store import BufferStore

ALL = bool(os.environ.get("P2P_FLOODS"))
SEED = 20261130
FLOOD = 2.0 if ALL else 0.3
"""Seconds of a flood of one kind of frame."""

MOST = 50 << 20
"""Bytes by which a victim may grow."""

TITLE = "alice/friends"
CONNECTED = f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r}, request_every=0.5, presence=1)"
WORK = """
import threading
done, failed, over = [], [], threading.Event()
def work():
    while not over.is_set():
        try:
            done.append(c.submit(pow, 2, 10).result(60))
        except Exception as error:
            failed.append(type(error).__name__)
threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
for one in threads: one.start()
"""


@dataclass
class Growth:
    """The memory of a process, and of those that it has started, while it is watched."""

    pid: int
    first: int = 0
    most: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Growth:
        self.first = self.most = self._now()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        return self.most - self.first

    def _now(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, self._now())


class Flooder:
    """Sends what it likes over the connection under a link, past everything that would check or count it here."""

    def __init__(self, link: Callable[[], Any], end: Callable[[Any], None]) -> None:
        """``link`` returns the present one, None while there is none; ``end`` ends it at this end."""
        self._link = link
        self._end = end

    def flood(self, frames: list[Said], *, reads: bool) -> None:
        """Say these frames again and again, until the time is over or the link has been ended."""
        link = self._fresh()
        soon(lambda: self._prepare(link, reads=reads))
        end = time.monotonic() + FLOOD
        written = 0
        while time.monotonic() < end and soon_value(lambda: self._burst(link, frames)):
            written += 1
        soon(lambda: self._end(link))

    def lie(self, frame: Said) -> None:
        """Say one frame, and wait until the peer has ended the link."""
        link = self._fresh()
        soon(lambda: self._prepare(link, reads=True))
        soon(lambda: self._burst(link, [frame] * 100))
        eventually(lambda: link._connection is None, f"the end of the link after {frame!r}")
        soon(lambda: self._end(link))

    def _fresh(self) -> Any:
        eventually(lambda: (link := self._link()) is not None and link._connection is not None, "a link")
        return self._link()

    def _prepare(self, link: Any, *, reads: bool) -> None:
        link._outbox.acknowledge = lambda count: None  # what is said past it, it hasn't counted
        if not reads and link._connection is not None:
            link._connection._transport.pause_reading()

    def _burst(self, link: Any, frames: list[Said]) -> bool:
        connection = link._connection
        if connection is None:
            return False
        for frame in frames:
            if not connection.writable:
                break
            connection.write([frame.head, frame.body] if frame.body else [frame.head])
        return True


def soon_value(call: Callable[[], Any]) -> Any:
    """Call something on the loop, and return what it returns."""

    async def work() -> Any:
        await asyncio.sleep(0)
        return call()

    return loops.background().run(work())


@asynccontextmanager
async def taking_part(profile: Profile, person: Person) -> AsyncIterator[Bridge]:
    """A client of somebody's in this process."""
    access = access_of(profile, person)
    membership = access.membership(access.session("client"))
    await membership.join()
    assert membership.board is not None
    bridge = Bridge(
        settings=access.settings,
        name=person.name,
        membership=membership,
        linker=TLSLinker("client", settings=access.settings, listen_host="127.0.0.1"),
        store=BufferStore(0),
        new_code=new_code,
    )
    try:
        bridge.open(*await rendezvous_of(access, membership.board))
        yield bridge
    finally:
        await bridge.close()
