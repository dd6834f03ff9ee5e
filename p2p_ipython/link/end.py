"""One end of a link, as its handler holds it: perhaps not made yet, perhaps lost already."""

from __future__ import annotations

from p2p_ipython.errors import LinkLost
from p2p_ipython.link.base import Link
from p2p_ipython.protocol.frames import Buffer, Header


class LinkEnd:
    """Base of handlers: ``link`` is set once it is made.

    A frame for a link that is lost is dropped. ``on_link`` notifies the handler, which then gives up all that went over
    the link.
    """

    def __init__(self) -> None:
        self.link: Link | None = None

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
