"""Hosting clusters of friends from a notebook: a synchronous face of the owner's host, of invitations and of joining.

A ``Reception`` deals with everybody who would join this process's clusters: those who knock at a cluster that is hosted
here, and guests who have the code of an invitation. Nothing waits for them: a ``View`` shows who is there, and the user
answers when they like.

Its methods may be called from any thread but the loop's; each waits for the network with a deadline. What has been
started ends with ``close``, or with the process.
"""

from __future__ import annotations

# Functions import what is heavy (cryptography, paramiko, cloudpickle): the extension must load quickly.
import asyncio
import logging
import os
import weakref
from collections.abc import Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from p2p_ipython.client.ending import Turn, at_end
from p2p_ipython.client.errands import ENDING, Errand, Invitation, Invite, Joining, View, Visitor
from p2p_ipython.client.face import wait_for
from p2p_ipython.client.hosted import Hosting, find_visitor
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError, NoKey, P2PError, UsageError
from p2p_ipython.loop import adopt, background

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from p2p_ipython.board.client.keys import KeyChoice
    from p2p_ipython.members.access import Access
    from p2p_ipython.members.host import Host
    from p2p_ipython.members.invitation_messages import Guest
    from p2p_ipython.members.invitation_messages import Inviter as Inviting
    from p2p_ipython.members.inviting import Ask
    from p2p_ipython.members.operations import Revoked
    from p2p_ipython.members.profile import Profile
    from p2p_ipython.members.way import Way

log = logging.getLogger(__name__)

T = TypeVar("T")

GOING = 180.0
"""Seconds to get to the board; a key's passphrase may have to be typed meanwhile."""

DECIDING = 15.0
"""Seconds that a yes or no may take to reach who waits for it."""


class Reception:
    """See the module. One a notebook."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._hosted: dict[str, Hosting] = {}
        self._errands: set[Errand] = set()
        self._followers: list[Callable[[], None]] = []
        _open.add(self)

    # -- hosting --

    def host(
        self,
        name: str,
        view: View,
        *,
        way: Way,
        users: Mapping[str, str] | None = None,
        duration: float | None = None,
        owner: str | None = None,
        resume: bool = False,
        progress: Callable[[str], None] = lambda _words: None,
    ) -> tuple[str, bool]:
        """Host the cluster ``name``, or go on with it; returns its title once it is open.

        And whether it was opened now: what this process hosts already stays in its ``view``, and heeds what was given.
        ``duration`` is in seconds (None: the usual 14 days), ``users`` as of ``operations.parse_users``. Raises
        ``ConfigError``, ``NoKey``, or a ``BoardError``.
        """
        before = dict(self._hosted)
        work = self._host(
            name,
            view,
            way=way,
            users=users or {},
            duration=duration,
            owner=owner,
            resume=resume,
            progress=progress,
        )
        try:
            return self._wait(work, GOING, "hosting the cluster")
        except BaseException:  # an interrupt may come when it is open already
            for title in [title for title, hosting in self._hosted.items() if before.get(title) is not hosting]:
                self._wait(self._unhost(title), ENDING, "leaving the board")
            raise

    def unhost(self, name: str | None = None) -> list[str]:
        """Host no more the cluster ``name``, or any; the titles of those that were. Raises ``ConfigError``."""
        return self._wait(self._unhost(name), ENDING, "leaving the board")

    def hosted(self) -> list[str]:
        """Titles of the clusters that are hosted here."""
        return [title for title, hosting in list(self._hosted.items()) if not hosting.over]

    def revoke(self, name: str, member: str, *, way: Way) -> tuple[str, Revoked]:
        """Revoke a member of a cluster that we own; return its title and the member. Wait some seconds for the others.

        Raises ``ConfigError``, ``NoKey``, a ``BoardError``.
        """
        return self._wait(self._revoke(name, member, way), GOING, "revoking a membership")

    # -- inviting and joining --

    def invite(self, name: str, guest: str | None, view: View, *, way: Way, own: bool, yes: bool) -> Invitation:
        """Invite one guest; returns once there is a code. ``guest``: their name here (None: as they say).

        ``own``: a machine of one's own; of the personal cluster ``name`` where a board is given, else of a shared one.
        ``yes``: admit anyone who has the code. Raises ``MailboxUnreachable``, and as ``host`` does.
        """
        from p2p_ipython.members.invitation import CODE_LIFE

        invite = self._inviting(name, guest, way, own=own)
        invitation = Invitation(self._followed(view), invite, life=CODE_LIFE, own=own, yes=yes)
        try:
            self._wait(self._coded(invitation), GOING, "making an invitation")
        except BaseException:  # an interrupt may come when there is a code already
            invitation.cancel()
            raise
        if not invitation.code:
            invitation.result()
        return invitation

    def join(
        self,
        code: str,
        view: View,
        *,
        name: str | None = None,
        identity: Path | None = None,
        mailbox: str = "",
        own: bool = False,
        make_key: bool = False,
    ) -> Joining:
        """Begin to come in by a code, as ``name`` (default: the login name). ``make_key``: where there is no SSH key.

        Raises ``ConfigError`` for what is no code, and ``NoKey``; what happens later is the errand's.
        """
        from p2p_ipython.members.invitation import read_code

        read_code(code)  # a mistyped one is said before anything else
        key = key_of_guest(identity, make=make_key)
        joining = self._joining(code, view, key=key, name=name, identity=identity, mailbox=mailbox, own=own)
        try:
            self._wait(self._started(joining), ENDING, "joining")
        except BaseException:
            joining.cancel()
            raise
        return joining

    # -- who waits --

    def waiting(self) -> list[Visitor]:
        """Return the guests who wait for a yes or no, those with a code first."""
        return self._wait(self._waiting(), ENDING, "looking for guests")

    def approve(self, who: str | Visitor, *, called: str | None = None) -> tuple[Visitor, str]:
        """Admit the guest who is called ``who``, or whose fingerprint begins so; return (the old name, the new one).

        Or this very guest: one key may wait at several lobbies. Raises ``ConfigError`` when nobody is called so or
        several are, and why a guest didn't come in after all.
        """
        return self._wait(self._decide(who, called, yes=True), GOING, "admitting a guest")

    def refuse(self, who: str | Visitor) -> Visitor:
        """Refuse a guest, who is found as in ``approve``. Raises ``ConfigError``."""
        return self._wait(self._decide(who, None, yes=False), GOING, "refusing a guest")[0]

    def answer(self, visitor: Visitor, *, yes: bool) -> None:
        """Answer this very guest; return at once. Do nothing if they have stopped waiting."""

        async def answered() -> None:
            try:
                await self._answer(visitor, None, yes=yes)
            except P2PError as error:
                log.warning("%s", error)

        background().start(answered())

    def visitors(self) -> list[Visitor]:
        """As ``waiting``, for the loop's thread."""
        guests = [one.visitor for one in self._invitations() if one.visitor is not None]
        return guests + [visitor for hosting in self._hosted.values() for visitor in hosting.waiting.values()]

    def follow(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have ``wake`` called on the loop's thread when somebody comes or goes; the result ends that."""
        self._followers.append(wake)
        return lambda: self._followers.remove(wake)

    # -- the end --

    def close(self) -> None:
        """Withdraw the invitations, leave the boards. Idempotent."""
        _open.discard(self)
        if self._pid == os.getpid() and (self._hosted or self._errands):
            self._wait(self._close(), 2 * ENDING, "leaving the boards")

    # -- on the loop --

    def _wait(self, work: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
        return wait_for(work, seconds, what, pid=self._pid)

    async def _host(
        self,
        name: str,
        view: View,
        *,
        way: Way,
        users: Mapping[str, str],
        duration: float | None,
        owner: str | None,
        resume: bool,
        progress: Callable[[str], None],
    ) -> tuple[str, bool]:
        adopt()
        from p2p_ipython.members import operations
        from p2p_ipython.members.host import Host
        from p2p_ipython.members.profiles import Profiles

        profiles, settings = Profiles(), Settings.load()
        access, profile, _ = await operations.host(
            name,
            way=way,
            profiles=profiles,
            settings=settings,
            users=users,
            duration=duration or operations.DURATION,
            owner=owner,
            resume=resume,
            progress=progress,
        )
        title = profile.title
        there = self._hosted.get(title)
        if there is not None and not there.over:
            await there.host.refresh()
            there.show("")
            return title, False
        lock = profiles.hosting(title)  # takes no time; in a thread, an interrupt could lose it
        if lock is None:
            raise ConfigError(
                f"another process of yours hosts {title} already",
                hint="One is enough; it heeds what you gave. Invite friends from here all the same: %p2p_invite.",
            )
        progress(f"joining the board at {profile.board}")
        hosting = Hosting(access, lock, self._followed(view))
        host = Host(access, profile, profiles, on_knock=hosting.knocks)
        self._hosted[title] = hosting
        try:
            await hosting.begin(host)
        except BaseException:
            del self._hosted[title]
            raise
        return title, True

    async def _unhost(self, name: str | None) -> list[str]:
        here = self.hosted()
        titles = here if name is None else [title for title in here if name in (title, title.partition("/")[2])]
        if name is not None and not titles:
            raise ConfigError(
                f"{name} is not hosted by this notebook",
                hint=f"Hosted here: {', '.join(here)}." if here else "Nothing is.",
            )
        for title in titles:
            for errand in list(self._errands):
                if isinstance(errand, Invitation) and errand.title == title:
                    await errand.end("The invitation has ended with the hosting.")
            await self._hosted.pop(title).end()
        return titles

    @asynccontextmanager
    async def _host_of(self, name: str, way: Way) -> AsyncIterator[tuple[Host, Access]]:
        """Return the host of a cluster that we own: the one that is open here, or one for the while."""
        from p2p_ipython.members import operations
        from p2p_ipython.members.host import Host
        from p2p_ipython.members.profiles import Profiles

        profiles = Profiles()
        title = await asyncio.to_thread(operations.find_title, profiles, name, hosted=True)
        hosting = self._hosted.get(title)
        if hosting is not None and not hosting.over:
            yield hosting.host, hosting.access
            return
        access, profile = await operations.owners_access(title, way=way, profiles=profiles, settings=Settings.load())
        host = Host(access, profile, profiles)
        try:
            await host.open()
            yield host, access
        finally:
            await host.close()

    async def _revoke(self, name: str, member: str, way: Way) -> tuple[str, Revoked]:
        adopt()
        from p2p_ipython.members import operations
        from p2p_ipython.members.profiles import Profiles

        async with self._host_of(name, way) as (host, access):
            revoked = await operations.revoke(host, access, Profiles(), member)
            title = host.profile.title
        hosting = self._hosted.get(title)
        if hosting is not None and not hosting.over:
            hosting.show(f"{revoked.member} is out.")
        return title, revoked

    def _inviting(self, name: str, guest: str | None, way: Way, *, own: bool) -> Invite:
        from p2p_ipython.members import inviting
        from p2p_ipython.members.invitation import CODE_LIFE
        from p2p_ipython.members.profiles import Profiles
        from p2p_ipython.protocol.roster import check_name

        if guest is not None:
            check_name(guest)

        async def personal(invitation: Invitation, show_code: Callable[[str, str], None], ask: Ask) -> Guest | None:
            invitation.title = name
            return await inviting.invite_own(
                name, way=way, settings=Settings.load(), show_code=show_code, ask=ask, deadline=CODE_LIFE
            )

        async def shared(invitation: Invitation, show_code: Callable[[str, str], None], ask: Ask) -> Guest | None:
            async with self._host_of(name, way) as (host, access):
                invitation.title = host.profile.title
                return await inviting.invite(
                    host,
                    access,
                    Profiles(),
                    name=guest,
                    show_code=show_code,
                    ask=ask,
                    deadline=CODE_LIFE,
                    own=own,
                )

        return personal if own and way.board else shared

    async def _coded(self, invitation: Invitation) -> None:
        """Begin an invitation; returns once there is a code, or it is over."""
        adopt()
        task = self._begin(invitation)
        coded = asyncio.ensure_future(invitation.coded.wait())
        try:
            await asyncio.wait({task, coded}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            coded.cancel()

    def _joining(
        self,
        code: str,
        view: View,
        *,
        key: KeyChoice,
        name: str | None,
        identity: Path | None,
        mailbox: str,
        own: bool,
    ) -> Joining:
        from p2p_ipython.members import joining, operations
        from p2p_ipython.members.profiles import Profiles
        from p2p_ipython.protocol.roster import check_name

        called = check_name(name or operations.my_name())

        async def join(told: Callable[[Inviting], None]) -> Profile:
            return await joining.join(
                code,
                key=key,
                identity=identity,
                name=called,
                mailbox=mailbox,
                profiles=Profiles(),
                told=told,
                own=own,
            )

        return Joining(view, join)

    async def _started(self, errand: Errand) -> None:
        adopt()
        self._begin(errand)

    def _begin(self, errand: Errand) -> asyncio.Task[None]:
        task = errand.begin()
        self._errands.add(errand)
        task.add_done_callback(lambda _task: self._errands.discard(errand))
        return task

    async def _waiting(self) -> list[Visitor]:
        return self.visitors()

    async def _decide(self, who: str | Visitor, called: str | None, *, yes: bool) -> tuple[Visitor, str]:
        adopt()
        from p2p_ipython.protocol.roster import check_name

        if called is not None:
            check_name(called)
        visitor = who
        if isinstance(visitor, str):
            visitor = find_visitor(await self._waiting(), visitor, invited=bool(self._invitations()))
        if visitor.own and called is not None:
            raise UsageError(
                f"{visitor.called} would be a machine of your own, which has no name among the members",
                hint="Leave --as out.",
            )
        return visitor, await self._answer(visitor, called, yes=yes)

    async def _answer(self, visitor: Visitor, called: str | None, *, yes: bool) -> str:
        """Answer a guest, and wait until it has come true; return what they are called then, "" if they aren't in."""
        for invitation in self._invitations():
            if invitation.visitor == visitor:
                invitation.answer((called or visitor.called) if yes else None)
                await invitation.over(DECIDING)
                if yes:
                    invitation.result()
                return invitation.member
        hosting = self._hosted.get(visitor.title)
        if hosting is None or visitor not in hosting.waiting.values():
            return ""
        if yes:
            return await hosting.approve(visitor, called)
        hosting.refuse(visitor)
        return ""

    def _invitations(self) -> list[Invitation]:
        return [errand for errand in self._errands if isinstance(errand, Invitation)]

    def _followed(self, view: View) -> View:
        return _Followed(view, self._followers)

    async def _close(self) -> None:
        for errand in list(self._errands):
            await errand.end()
        await self._unhost(None)


class _Followed:
    """A view that others follow, too."""

    def __init__(self, view: View, followers: list[Callable[[], None]]) -> None:
        self._view = view
        self._followers = followers

    def show(self, text: str, news: str, visitors: tuple[Visitor, ...]) -> None:
        """As ``View`` has it."""
        self._view.show(text, news, visitors)
        for wake in list(self._followers):
            wake()


# --- what is shown ----------------------------------------------------------------------------------


def key_of_guest(identity: Path | None, *, make: bool) -> KeyChoice:
    """Return the SSH key by which to join; with ``make`` one is made if there is none. Blocks. Raises ``NoKey``."""
    from p2p_ipython.members import guest_key

    try:
        return guest_key.key_of_guest(identity)
    except NoKey as error:
        place = guest_key.place_for_key(identity)
        if place is None:
            raise
        if make:
            return guest_key.make_key(place)
        raise NoKey(
            error.message, hint=f"Add --make-key to the line to have one made, {place}, without a passphrase."
        ) from None


_open: weakref.WeakSet[Reception] = weakref.WeakSet()


def _close_all() -> None:
    for reception in list(_open):
        try:
            reception.close()
        except Exception:
            log.exception("could not leave the boards")


at_end(Turn.RECEPTIONS, _close_all)
