"""Calls a link's handler, and makes each exception of it a reason to end the link.

A frame on which its handler fails can't be sent again: its sender counts it as delivered. If the link continued, the
two ends would disagree about that frame, and a part of it might stay in memory. So both kinds of link end for good.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from p2p_ipython.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from p2p_ipython.jobs import Complaints
from p2p_ipython.link.base import LinkHandler, LinkState
from p2p_ipython.protocol.frames import Buffer, Header

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Guard:
    """Calls a handler. Every method raises ``ProtocolError``, after which the link has to end.

    A ``RemoteProtocolError`` is the handler's own: the peer broke the protocol. A ``LocalProtocolError`` stands for any
    other exception, a bug of ours. It is logged here, once a peer and minute: a peer must not fill the log by it.
    """

    def __init__(self, handler: LinkHandler, link: object, complaints: Complaints, peer: str) -> None:
        """``link`` is named in the log, by its ``repr``; ``peer`` is the member at its other end."""
        self._handler = handler
        self._link = link
        self._complaints = complaints
        self._peer = peer

    def on_frame(self, header: Header, body: Buffer) -> bool | None:
        """See ``LinkHandler``."""
        return self._call(self._handler.on_frame, header, body)

    def buffer_for(self, header: Header, size: int) -> memoryview | None:
        """See ``LinkHandler``; a returned place has exactly ``size`` bytes."""
        place = self._call(self._handler.buffer_for, header, size)
        if place is not None and (place.nbytes != size or place.readonly or not place.contiguous):
            raise self._failed("buffer_for", f"it gave {place.nbytes} bytes for a body of {size}")
        return place

    def on_link(self, state: LinkState, detail: str) -> None:
        """See ``LinkHandler``."""
        self._call(self._handler.on_link, state, detail)

    def on_drain(self) -> None:
        """See ``LinkHandler``."""
        self._call(self._handler.on_drain)

    def _call(self, method: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(*args, **kwargs)
        except RemoteProtocolError:
            raise
        except Exception as error:
            failure = self._failed(getattr(method, "__name__", "?"), type(error).__name__, error)
        # Raised out here, where it takes along neither the exception nor, by its traceback, the frame.
        raise failure

    def _failed(self, name: str, why: str, error: Exception | None = None) -> ProtocolError:
        # Counted apart from the peer's other faults: a bug of ours must be seen at its first time.
        words, about = "%r: the handler's %s failed: %s", f"bug {self._peer}"
        self._complaints.about(about, words, self._link, name, why, level=logging.ERROR, error=error)
        return LocalProtocolError(f"this end failed in {name} ({why}): a bug of p2p_ipython")
