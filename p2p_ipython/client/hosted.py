"""A cluster of friends that this notebook hosts: its owner's host, on the loop, and what is shown of it.

Guests who knock wait here until the notebook's user answers; ``reception.py`` has the calls for that.
"""

from __future__ import annotations

# Functions import what is heavy (cryptography, paramiko, cloudpickle): the extension must load quickly.
import asyncio
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from p2p_ipython.board.client.address import PICO_BOARD
from p2p_ipython.client.errands import View, Visitor, commands
from p2p_ipython.errors import ConfigError

if TYPE_CHECKING:
    from p2p_ipython.members.access import Access
    from p2p_ipython.members.host import Host
    from p2p_ipython.members.profile import Profile
    from p2p_ipython.private_files import Lock
    from p2p_ipython.protocol.host_machine import Knock

log = logging.getLogger(__name__)


LOOK_EVERY = 1.0
"""Seconds between two looks at who still waits, and at how long the cluster is hosted."""

MOST_SHOWN = 10
"""Visitors that are shown by name; of the others, only how many there are."""


class Hosting:
    """A cluster that this process hosts. Belongs to the loop, but for ``title``."""

    def __init__(self, access: Access, lock: Lock, view: View) -> None:
        self.access = access
        self.title = access.standing.title
        self.host: Host
        self.waiting: dict[str, Visitor] = {}  # by fingerprint
        self._lock = lock
        self._view = view
        self._ended = asyncio.Event()
        self._last = ""
        self._introduction = ""
        self._why = f"{self.title} is not hosted from here any more; its members can go on without it."
        self._task: asyncio.Task[None] | None = None

    async def begin(self, host: Host) -> None:
        """Go to the board. Raises a ``BoardError`` or ``NoKey``, and has released everything then."""
        self.host = host
        try:
            await host.open()
        except BaseException:
            await host.close()
            self._lock.release()
            raise
        self._task = asyncio.get_running_loop().create_task(self._run())
        self.show("")

    async def end(self) -> None:
        """Leave the board."""
        self._ended.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    @property
    def over(self) -> bool:
        """Whether it is over, or hasn't begun."""
        return self._task is None or self._task.done()

    def knocks(self, knock: Knock) -> None:
        """Somebody knocks."""
        from p2p_ipython.members.owner import free_name

        visitor = Visitor(self.title, knock.name, knock.fingerprint, free_name(self.host.profile, knock.name))
        self.waiting[knock.fingerprint] = visitor
        others = [one for one in self.waiting.values() if one.called == visitor.called]
        self.show(knock_line(visitor, by_key=len(others) > 1), waits=True)

    async def approve(self, visitor: Visitor, called: str | None) -> str:
        """Admit them; return what they are called. Raises ``ConfigError`` and ``NoKey``."""
        from p2p_ipython.protocol.host_machine import Knock

        knock = Knock(visitor.name, visitor.fingerprint)
        member = await asyncio.to_thread(self.host.approve, knock, called)
        await self.host.refresh()
        self.waiting.pop(visitor.fingerprint, None)
        self.show(f"{member.name} is in, with the key {visitor.fingerprint}.")
        return member.name

    def refuse(self, visitor: Visitor) -> None:
        """Refuse them, as long as this host runs."""
        from p2p_ipython.protocol.host_machine import Knock

        self.waiting.pop(visitor.fingerprint, None)
        self.host.refuse(Knock(visitor.name, visitor.fingerprint))
        self.show(f"{visitor.called} is told no.")

    def show(self, news: str, *, waits: bool = False) -> None:
        """Show how it stands; ``news``: what has happened. ``waits``: that somebody waits, which is shown anyhow."""
        if not waits:
            self._last = news or self._last
        self._show(news or introduction(self.host.profile))

    def _show(self, news: str) -> None:
        visitors = tuple(self.waiting.values())
        self._introduction = introduction(self.host.profile)
        self._view.show(hosting_text(self.host.profile, visitors, self._last), news, visitors)

    async def _run(self) -> None:
        from p2p_ipython.members import operations

        try:
            while (left := operations.until_of(self.host.profile) - time.time()) > 0:
                try:
                    await asyncio.wait_for(self._ended.wait(), min(left, LOOK_EVERY))
                    break
                except TimeoutError:
                    self._look()
            else:
                self._why = f"The time of {self.title} is up; %p2p_host {self.title} goes on with it."
        finally:
            try:
                await self.host.close()
            finally:
                self._lock.release()
                self.waiting.clear()
                self._view.show(self._why, self._why, ())

    def _look(self) -> None:
        """Forget those who have stopped waiting: admitted by another process, or gone. Show who is in now."""
        still = {knock.fingerprint for knock in self.host.machine.knocks}
        for visitor in [one for one in self.waiting.values() if one.fingerprint not in still]:
            del self.waiting[visitor.fingerprint]
            member = self.host.machine.roster.member(visitor.fingerprint)
            self.show(f"{member.name} is in." if member is not None else f"{visitor.called} knocks no more.")
        if introduction(self.host.profile) != self._introduction:  # by an invitation, which has said so, or elsewhere
            self._last = ""
            self._show("")


def introduction(profile: Profile) -> str:
    """Say what a cluster's owner needs to know while it is hosted."""
    from p2p_ipython.members.operations import is_only_here, still_expected
    from p2p_ipython.members.owner import roster_of

    roster = roster_of(profile)
    owner, *others = roster.members
    day = time.strftime("%a %d %b %Y, %H:%M", time.localtime(roster.until))
    name = profile.title.partition("/")[2]
    board = "" if profile.board == PICO_BOARD else f" --board {profile.board}"
    names = ", ".join([f"{owner.name} (you)", *(member.name for member in others)])
    lines = [
        f"{profile.title} is hosted from this notebook, at {profile.board}, until {day}.",
        f"Members: {names}.",
    ]
    if expected := still_expected(profile):
        lines.append(f"Expected: {', '.join(expected)}.")
    lines += [
        f"Invite somebody:   %p2p_invite {name}",
        f"Or let them knock:  %p2p_connect {profile.title}{board} --owner {roster.owner}",
    ]
    if is_only_here(profile.board):
        lines.append(f"{profile.board} is this machine only; friends elsewhere need an address that they can reach.")
    return "\n".join(lines)


def hosting_text(profile: Profile, visitors: Iterable[Visitor], last: str) -> str:
    """Return the text under the cell that hosts: the state, what happened last, and who waits."""
    waiting = list(visitors)
    lines = [introduction(profile), *([last] if last else [])]
    for visitor in waiting[:MOST_SHOWN]:
        same = [one for one in waiting if one.called == visitor.called]
        lines.append(knock_line(visitor, by_key=len(same) > 1))
    if len(waiting) > MOST_SHOWN:
        lines.append(f"{len(waiting) - MOST_SHOWN} more knock.")
    return "\n".join(lines)


def knock_line(visitor: Visitor, *, by_key: bool) -> str:
    """Describe somebody who knocks."""
    says = f", who calls himself {visitor.name!r}," if visitor.name != visitor.called else ""
    whose = f"{visitor.called}{says} knocks at {visitor.title}, with the key {visitor.fingerprint}"
    return f"{whose}:   {commands(visitor, by_key=by_key)}"


def find_visitor(waiting: Iterable[Visitor], who: str, *, invited: bool = False) -> Visitor:
    """Return the one guest who is called ``who``, or whose fingerprint begins so. Raises ``ConfigError``.

    ``invited``: whether somebody has a code, who may come yet.
    """
    everybody = list(waiting)
    key = who if who.startswith("SHA256:") else f"SHA256:{who}"
    by_key = [one for one in everybody if len(key) >= len("SHA256:") + 4 and one.fingerprint.startswith(key)]
    found = [one for one in everybody if who in (one.called, one.name)] or by_key
    if len(found) == 1:
        return found[0]
    if not found:
        names = ", ".join(f"{one.called} ({one.fingerprint})" for one in everybody[:MOST_SHOWN])
        yet = " A guest with a code is here once they have typed it; the invitation then says so." if invited else ""
        raise ConfigError(
            f"nobody called {who!r} waits to be let in",
            hint=f"Waiting: {names}." if names else f"Nobody waits now.{yet}",
        )
    keys = "\n".join(f"  {commands(one, by_key=True)}     {one.fingerprint}" for one in found)
    raise ConfigError(f"{len(found)} of those who wait are called {who!r}", hint=f"Say which, by the key:\n{keys}")
