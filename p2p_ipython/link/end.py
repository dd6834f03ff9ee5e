"""One end of a link, as its handler holds it: perhaps not made yet, perhaps lost already."""

from __future__ import annotations

import asyncio

from p2p_ipython.errors import LinkLost, LinkTimeout
from p2p_ipython.link.base import Link, Linker, LinkHandler, Meeting
from p2p_ipython.protocol.frames import Buffer, Header

MEETING_SPARE = 20.0
"""Seconds that making a link may take beyond the deadline of its meeting, whatever hangs there."""


class LinkEnd(LinkHandler):
    """Base of handlers: ``link`` is set once it is made.

    A frame for a link that is lost is dropped. ``on_link`` notifies the handler, which then gives up all that went over
    the link.
    """

    def __init__(self) -> None:
        self.link: Link | None = None

    async def meet(self, linker: Linker, meeting: Meeting) -> Link:
        """Make the link. Raises what ``Linker.open`` does, and ``LinkTimeout`` if that takes too long."""
        try:
            async with asyncio.timeout(meeting.deadline + MEETING_SPARE):
                self.link = await linker.open(meeting, self)
        except TimeoutError:
            raise LinkTimeout(
                f"the meeting took longer than {meeting.deadline + MEETING_SPARE:g} s",
                hint="The other side may be overloaded; p2p_ipython tries it again by itself.",
            ) from None
        return self.link

    @property
    def pending(self) -> int:
        """Bytes that wait to be written."""
        return self.link.pending if self.link is not None else 0

    def send(self, header: Header, body: Buffer = b"", *, bulk: bool = False) -> None:
        """Send a frame, if the link is there."""
        if self.link is not None:
            try:
                self.link.send(header, body, bulk=bulk)
            except LinkLost:
                pass

    async def close(self) -> None:
        """Close the link, if there is one."""
        if self.link is not None:
            await self.link.close()
