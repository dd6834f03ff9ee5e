"""The link as its users see it: frames in, frames out, each exactly once, until it is lost for good.

One link joins one client process and one worker process and carries all their tasks. It reconnects by
itself and then continues where it stopped. A frame that was handed to ``send`` is delivered once and in
order (within its class), or the link ends as LOST and reports that. Implementations: ``link/tls.py`` (through
``link/rendezvous.py``) and ``rehearsal/link.py`` (a shipped fake, both ends in one process). Both pass
tests/conformance/test_link.py.

All methods and callbacks belong to one event loop; none of them blocks it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from p2p_ipython.protocol.frames import Buffer, Header

HIGH_WATER = 8 << 20
"""Pending bytes above which a sender should wait for ``on_drain``; nothing is refused above it."""

LOW_WATER = 2 << 20
"""Pending bytes at which ``on_drain`` is called."""

FRAME_COST = 256
"""Bytes that a frame counts besides its own while it waits, for the objects that hold it. A peer can make us answer
with very small frames."""

MOST_WAITING = 32 << 20
"""Bytes of small frames that may wait at a worker's end. Beyond them the link is lost: its client asks for results
and doesn't read them. A worker pauses its runners above ``HIGH_WATER``, so it comes near only with a hundred slots.
A client's end has no such bound: the frames that wait there are those of its own user."""

WINDOW = 16 << 20
"""Bytes that may have been written without being acknowledged, at either end; further frames wait. A peer that keeps to
the protocol acknowledges each 4 MiB; networks and relays hold some more."""

PATIENCE = 60.0
"""Seconds after which a link is lost if frames wait for the peer, or for its word that they have come, and the peer has
taken none, and not a byte."""

LANDING = 64 << 10
"""Bytes of the smallest body that lands where ``buffer_for`` says."""

RESERVED = "link."
"""The beginning of the kinds of frame that are the link's own; ``send`` refuses them."""


class LinkState(enum.Enum):
    """The state of a link; the value is the word that people read."""

    UP = "up"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"  # by us or by the peer, in order
    LOST = "lost"  # the peer did not come back within the lease


class LinkHandler(Protocol):
    """The user of a link. Called on the event loop; must not block.

    ``on_frame`` and ``buffer_for`` may raise ``RemoteProtocolError``: the peer broke the protocol. Then the link ends
    at once and for good, nothing that came later is delivered, and ``on_link`` gets LOST with the error's message.
    Any other exception of a handler is a bug. It is logged, once a link, and ends the link in the same way.
    """

    def on_frame(self, header: Header, body: Buffer) -> bool | None:
        """Take a frame that has arrived whole. ``body`` is the handler's own from now on.

        Return True if it comes to nothing, as nobody waits for it. A peer that sends many of these is read slower.
        """

    def buffer_for(self, header: Header, size: int) -> memoryview | None:
        """Return the place where a body of ``size`` bytes is to land, or None for a fresh buffer.

        Called before the body has been read, for bodies of 64 KiB and more; ``on_frame`` then gets the same
        memoryview. The link may be cut in between. Then ``on_frame`` is not called, and ``buffer_for`` is
        called again when the frame is sent again.
        """

    def on_link(self, state: LinkState, detail: str) -> None:
        """Learn that the state has changed; ``detail`` says why, in words.

        Not called for the first UP, which is ``Linker.open``'s return, nor for our own ``close`` and ``abort``.
        """

    def on_drain(self) -> None:
        """Learn that ``Link.pending`` has fallen to the low-water mark after having been above the high one."""


class Link(Protocol):
    """One end of a link that has been made and proved (see ``Linker.open``)."""

    @property
    def kind(self) -> str:
        """The way that the link takes: "direct", "relay" or "memory". May change with a reconnect."""
        ...

    @property
    def state(self) -> LinkState: ...

    @property
    def rtt(self) -> float | None:
        """The last measured round trip, seconds; None before the first one."""
        ...

    @property
    def pending(self) -> int:
        """Bytes handed to ``send`` that have not been written yet (see ``HIGH_WATER``), ``FRAME_COST`` more a frame."""
        ...

    def send(self, header: Header, body: Buffer = b"", *, bulk: bool = False) -> None:
        """Queue a frame; returns at once. ``body`` must not change until it has been delivered.

        Frames of one class (``bulk`` or not) keep their order; those that aren't bulk overtake those that are. A bulk
        frame with an ``offset`` may arrive as several, each with its own.
        However much waits, no frame is refused. But with more than ``MOST_WAITING`` bytes the link is lost soon after,
        and after ``PATIENCE`` seconds in which the peer takes none.
        Raises ``LinkLost`` when the link is closed or lost, ``FrameError`` when over the bounds, and
        ``LocalProtocolError`` for a kind that begins with ``link.``, which is the link's own.
        """

    async def close(self) -> None:
        """Write the queued frames (for at most 1 s), notify the peer, end. Idempotent."""

    def abort(self) -> None:
        """End at once, without a word to the peer or the handler. Idempotent."""

    def cut(self) -> None:
        """Cut the connection under the link, as a failing network would; the link then reconnects.

        For drills and tests. Does nothing while there is no connection.
        """


@dataclass(frozen=True)
class Meeting:
    """One appointment of two ends: everything that they need in order to meet, once.

    ``code`` is the wormhole code: a secret, and used once. ``mailbox`` is a websocket URL, ``relay`` the
    ``tcp:HOST:PORT`` of a transit relay or None; ``own``: they are the board's, which each end reaches in its own way.
    ``deadline`` is the longest time to wait for the peer, seconds.

    ``prove(verifier)`` returns this end's proof, some bytes over the wormhole's verifier; ``check(verifier,
    proof)`` raises ``WrongPeer`` unless the peer's proof is right. They are the link's first frame in each
    direction, before any payload.

    ``peer`` names the peer's member, "" for our own. Meetings with one member leave room for those with others.
    """

    code: Secret
    mailbox: str
    relay: str | None
    deadline: float
    prove: Callable[[bytes], bytes]
    check: Callable[[bytes, bytes], None]
    peer: str = ""
    own: bool = False


class Secret:
    """A text that must not be shown; only ``reveal()`` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret does not travel in a pickle")


class Linker(Protocol):
    """Makes links. One per process; the worker's keeps a listening socket as long as it lives."""

    async def open(self, meeting: Meeting, handler: LinkHandler) -> Link:
        """Meet the peer, make the link and prove both ends to each other.

        The handler is not called before ``await open(…)`` has returned. A cancelled ``open`` leaves nothing
        behind. Raises ``MailboxUnreachable``, ``RelayUnreachable``, ``LinkTimeout`` or ``WrongPeer``.
        """
        ...

    async def close(self) -> None:
        """Abort all links and stop listening. Idempotent."""
