"""The work behind the scenes until somebody far away has answered: inviting a guest, joining by a code.

A notebook begins an errand and goes on; the errand says where it is (``view``), and ends by itself: with an outcome,
at its deadline, or when it is cancelled. All of it happens on the background loop; the methods of an errand may be
called from any other thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from p2p_ipython.errors import P2PError, UsageError, in_notebook
from p2p_ipython.loop import background

if TYPE_CHECKING:
    from p2p_ipython.members.invitation_messages import Guest
    from p2p_ipython.members.invitation_messages import Inviter as Host
    from p2p_ipython.members.inviting import Ask, Question
    from p2p_ipython.members.profile import Profile

log = logging.getLogger(__name__)

STEP = 0.5
"""Seconds after which a wait looks up: on Windows a wait without an end can't be interrupted."""

ENDING = 30.0
"""Seconds that an errand may take to end when it is cancelled: goodbyes to mailbox and board."""


@dataclass(frozen=True)
class Visitor:
    """Somebody who asks to be let into the cluster ``title``.

    They have proved to have the key; ``name`` and ``about`` are what they say. ``called`` is their future name, a name
    that can be. ``invited``: they have the code of an invitation; otherwise they knock. ``own``: it would be a machine
    of the owner's. ``also``: what else to know before saying yes.
    """

    title: str
    name: str
    fingerprint: str
    called: str
    invited: bool = False
    about: str = ""
    own: bool = False
    also: str = ""


class View(Protocol):
    """Shows something that changes. Called on the loop's thread; must not block."""

    def show(self, text: str, news: str, visitors: tuple[Visitor, ...]) -> None:
        """Show ``text``, of which ``news`` is what has changed, and who waits for a yes or no."""


class Errand(ABC):
    """See the module. ``begin`` it on the loop."""

    def __init__(self, view: View) -> None:
        self.state = ""
        """Where it is, in words."""
        self.error: BaseException | None = None
        """Why it failed; None while it goes on, and when it didn't."""
        self._view = view
        self._over = threading.Event()
        self._task: asyncio.Task[None] | None = None

    # -- for its user --

    def done(self) -> bool:
        """Whether it is over."""
        return self._over.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is over, for ``seconds`` at most; whether it is."""
        end = None if seconds is None else time.monotonic() + seconds
        while not self._over.is_set():
            left = STEP if end is None else min(STEP, end - time.monotonic())
            if left <= 0:
                return False
            self._over.wait(left)
        return True

    def result(self) -> None:
        """Raise why it failed, if it did."""
        if self.error is not None:
            raise self.error

    def cancel(self) -> None:
        """End it; returns once nothing of it is left. Does nothing when it is over."""
        background().run(self.end(), timeout=ENDING)

    def _ipython_display_(self) -> None:
        """Show nothing: where it is, is under its cell already."""
        return

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.state}>"

    # -- on the loop --

    async def over(self, seconds: float) -> None:
        """Wait until it is over, for so long at most."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)

    def begin(self) -> asyncio.Task[None]:
        """Start it."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self._task

    async def end(self, why: str = "") -> None:
        """As ``cancel``; ``why`` is said then."""
        if self._task is not None and not self._task.done():
            self._cancelled = why or self._cancelled
            self._task.cancel()
            await asyncio.wait({self._task})

    _cancelled = "It was cancelled."

    @abstractmethod
    async def _work(self) -> str:
        """Do it; returns what is to be said in the end."""

    async def _run(self) -> None:
        try:
            self._say(await self._work())
        except asyncio.CancelledError:
            self.error = UsageError(self._cancelled)
            self._say(self._cancelled)
        except P2PError as error:
            self.error = error
            self._say(in_notebook(str(error)))
        except Exception as error:
            log.exception("%s failed", type(self).__name__)
            self.error = error
            self._say(f"{type(error).__name__}: {error}")
        finally:
            self._over.set()

    def _say(self, text: str, news: str | None = None, visitors: tuple[Visitor, ...] = ()) -> None:
        self.state = text
        self._view.show(text, text if news is None else news, visitors)


Invite = Callable[["Invitation", Callable[[str, str], None], "Ask"], Awaitable["Guest | None"]]
"""Invites one guest: (invitation, show_code, ask), the latter as of ``inviting.invite``; sets the title."""


class Invitation(Errand):
    """An invitation into the cluster ``title``: it waits for a guest, asks about them, and is over then."""

    title = ""

    def __init__(self, view: View, invite: Invite, *, life: float, own: bool, yes: bool) -> None:
        super().__init__(view)
        self.visitor: Visitor | None = None
        """The guest who is here and waits for a yes or no."""
        self.member = ""
        """The name that the guest has now; "" while they aren't in."""
        self.code = ""
        """The code that the guest has to type; "" while there is none."""
        self.mailbox = ""
        """Where the code is good; "" for the usual mailbox."""
        self._invite = invite
        self._life = life
        self._own = own
        self._yes = yes
        self._answer: asyncio.Future[str | None] | None = None
        self.coded = asyncio.Event()
        """Is set once there is a code. For the loop."""

    @property
    def arguments(self) -> str:
        """The arguments that the guest types behind ``p2p join`` or ``%p2p_join``."""
        own = "--own " if self._own else ""
        return f"{own}{self.code}" + (f" --mailbox {self.mailbox}" if self.mailbox else "")

    def answer(self, called: str | None) -> None:
        """Let the guest in as ``called``, or don't (None). On the loop; does nothing when nobody waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(called)

    async def _work(self) -> str:
        guest = await self._invite(self, self._show_code, self._ask)
        if guest is None:
            return "The guest was not let in."
        if self._own:
            return f"{guest.name} is in {self.title}, as a machine of your own, with the key {guest.fingerprint}."
        return f"{self.member} is in {self.title}, with the key {guest.fingerprint}."

    def _show_code(self, code: str, mailbox: str) -> None:
        self.code, self.mailbox = code, mailbox
        until = time.strftime("%H:%M", time.localtime(time.time() + self._life))
        self._say(
            f"Tell your guest to type, in a notebook or in a shell:\n\n"
            f"  %p2p_join {self.arguments}\n"
            f"  p2p join {self.arguments}\n\n"
            f"Waiting for them until {until}. The code works once; tell it to nobody else."
        )
        self.coded.set()

    async def _ask(self, question: Question) -> str | None:
        if self._yes:
            self.member = question.called
            self._say(f"{question}\nYes, as --yes says.")
            return question.called
        guest = question.guest
        visitor = Visitor(
            self.title,
            guest.name,
            guest.fingerprint,
            question.called,
            invited=True,
            about=guest.about,
            own=self._own,
            also=question.also,
        )
        self.visitor = visitor
        self._answer = asyncio.get_running_loop().create_future()
        self._say(f"{question}   {commands(visitor)}", visitors=(visitor,))
        try:
            called = await self._answer
        finally:
            self.visitor = self._answer = None
        self.member = called or ""
        self._say(f"{question.called} is told yes." if called else f"{question.called} is told no.")
        return called


class Joining(Errand):
    """Coming into a cluster by a code. ``title`` is the cluster's, once we are in."""

    _cancelled = "It was cancelled; the code is used up."

    def __init__(self, view: View, join: Callable[[Callable[[Host], None]], Awaitable[Profile]]) -> None:
        super().__init__(view)
        self.title = ""
        self._join = join

    async def _work(self) -> str:
        self._say("Looking for the host with this code …")
        profile = await self._join(self._told)
        self.title = profile.title
        return f"You are in {profile.title}: %p2p_connect {profile.title}"

    def _told(self, host: Host) -> None:
        self._say(f"{host.title} invites you; its owner has the key {host.fingerprint}.\nWaiting for the owner's yes …")


def commands(visitor: Visitor, *, by_key: bool = False) -> str:
    """Return what to type to admit or refuse somebody; ``by_key`` if another one who waits has the same name."""
    who = visitor.fingerprint[:15] if by_key else visitor.called
    return f"%p2p_approve {who}   or   %p2p_refuse {who}"
