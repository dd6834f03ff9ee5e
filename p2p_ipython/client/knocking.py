"""Coming into a shared cluster that one isn't a member of yet: knock, wait a moment, go on knocking behind the scenes.

A cell must not block the kernel until somebody far away has read a question. So the first ``connect`` knocks and,
without an answer within moments, says for whom it waits; the knocking goes on, and a later one finds its outcome. It
ends with ``give_up``, or with the process.
"""

from __future__ import annotations

# Functions import what is heavy (cryptography, paramiko, cloudpickle): the extension must load quickly.
import asyncio
import concurrent.futures
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from p2p_ipython.client.ending import Turn, at_end
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError, NotAdmitted, P2PError, in_notebook
from p2p_ipython.loop import adopt, background

if TYPE_CHECKING:
    from p2p_ipython.members.joining import LetIn
    from p2p_ipython.members.profiles import Profiles
    from p2p_ipython.members.way import Way

log = logging.getLogger(__name__)

MOMENT = 3.0
"""Seconds that a ``connect`` waits for an answer."""

PATIENCE = 900.0
"""Seconds that the knocking goes on."""

GIVING_UP = 30.0
"""Seconds that leaving the lobbies may take."""


class _Visit:
    """One knocking that is under way, or over: as whom, and by which way."""

    def __init__(self, name: str, way: Way) -> None:
        self.name = name
        self.way = way
        self.state = "knocking"
        self.progress: Callable[[str], None]
        self.left = False
        """Whether the cell that knocked has ended, so that its user has to be notified of the answer."""
        self.task: asyncio.Task[LetIn]
        self.pid = os.getpid()

    def is_as_wanted(self, name: str, way: Way) -> bool:
        """Whether it is by this way, as far as that is said."""
        said = {field: value for field, value in vars(way).items() if value}
        return name == self.name and all(getattr(self.way, field) == value for field, value in said.items())

    async def knock(
        self,
        title: str,
        *,
        way: Way,
        name: str,
        owner: str,
        settings: Settings,
    ) -> LetIn:
        from p2p_ipython.members import joining

        def told(words: str) -> None:
            self.state = in_notebook(words)
            self.progress(self.state)

        try:
            async with asyncio.timeout(PATIENCE):
                let_in = await joining.knock(
                    title, way=replace(way, owner=owner), name=name, settings=settings, told=told
                )
        except TimeoutError:
            raise NotAdmitted(
                f"nobody has let you into {title} within {PATIENCE / 60:.0f} minutes ({self.state})",
                hint="Ask its owner to host it (p2p host), or for an invitation; then connect again.",
            ) from None
        log.info("%s lets us in", title)
        return let_in

    def over(self, title: str) -> None:
        """Notify a user who no longer waits of the answer."""
        if self.task.cancelled():
            return
        error = self.task.exception()
        if not self.left:
            return
        if error is None:
            self.progress(f"{title} lets you in: run the line again.")
        elif isinstance(error, P2PError):
            self.progress(in_notebook(str(error)))


_visits: dict[str, _Visit] = {}


async def come_in(
    title: str,
    *,
    way: Way,
    name: str,
    owner: str,
    settings: Settings,
    profiles: Profiles,
    progress: Callable[[str], None],
    patience: float = MOMENT,
) -> None:
    """Return once the profile of ``title`` is there.

    ``owner`` is the fingerprint of the owner's key, "" if it isn't known; ``patience`` is how long to wait for an
    answer, seconds. Raises ``NotAdmitted`` while nobody has answered, and when the user has to confirm the key that
    answers; ``ConfigError`` when the answer was no.
    """
    visit = _visits.get(title)
    if visit is not None and not visit.is_as_wanted(name, way):  # the last time was a mistake
        await _end(_visits.pop(title))
        visit = None
    if visit is None:
        visit = _visits[title] = _Visit(name, way)
        knocking = visit.knock(title, way=way, name=name, owner=owner, settings=settings)
        visit.task = asyncio.get_running_loop().create_task(knocking)
        visit.task.add_done_callback(lambda _task, visit=visit: visit.over(title))  # type: ignore[misc]
    visit.progress, visit.left = progress, False
    try:
        await asyncio.wait({visit.task}, timeout=patience)
    finally:
        visit.left = True
    if not visit.task.done():
        raise NotAdmitted(
            f"you are not in {title} yet: {visit.state}",
            hint=f"It goes on knocking for {PATIENCE / 60:.0f} minutes. Run the same line again when you are let in; "
            "or ask for an invitation, and %p2p_join its code.",
        )
    try:
        let_in = visit.task.result()
    except BaseException:
        _visits.pop(title, None)
        raise
    if owner and let_in.owner != owner:
        _visits.pop(title, None)
        raise ConfigError(
            f"{title} lets you in, by a host that has the key {let_in.owner}, not {owner}",
            hint="Somebody else may be answering in its owner's place. Ask the owner for an invitation.",
        )
    if not owner:
        raise NotAdmitted(
            f"{title} lets you in; its owner has the key {let_in.owner}",
            hint="Its holder admits people who run code on your workers, so compare it with what the owner says; "
            f"then run the line again with: --owner {let_in.owner}",
        )
    _visits.pop(title, None)
    await asyncio.to_thread(let_in.keep, profiles)


def knock(
    title: str,
    *,
    way: Way,
    name: str | None,
    owner: str,
    patience: float,
    progress: Callable[[str], None],
) -> None:
    """As ``come_in``, for a thread that isn't the loop's; does nothing where the profile is there already.

    ``name`` is what we are called (default: the login name). Raises ``NoKey`` and a ``BoardError`` besides.
    """

    async def knocked() -> None:
        adopt()
        from p2p_ipython.members.operations import my_name
        from p2p_ipython.members.profiles import Profiles

        profiles = Profiles()
        if await asyncio.to_thread(profiles.find, title) is None:
            await come_in(
                title,
                way=way,
                name=name or my_name(),
                owner=owner,
                settings=Settings.load(),
                profiles=profiles,
                progress=progress,
                patience=patience,
            )

    background().run(knocked(), patience + GIVING_UP)


def give_up(title: str | None = None) -> None:
    """Knock no more at a cluster, or at any. Waits until the lobbies are left."""
    titles = [key for key, one in _visits.items() if one.pid == os.getpid() and title in (key, None)]
    visits = [_visits.pop(key) for key in titles]

    async def end_all() -> None:
        await asyncio.gather(*(_end(visit) for visit in visits))

    if visits:
        try:
            background().run(end_all(), GIVING_UP)
        except concurrent.futures.TimeoutError:
            log.warning("the lobbies could not be left in time")


async def _end(visit: _Visit) -> None:
    visit.task.cancel()
    await asyncio.wait({visit.task})


at_end(Turn.KNOCKING, give_up)
