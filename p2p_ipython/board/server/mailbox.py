"""A board's wormhole mailbox: Magic Wormhole's own server, with bounds on what a stranger makes it parse and keep.

A client that breaks one is cut, without a line in the log for each. Import it after ``loop.adopt()``: it imports
Twisted's reactor.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from wormhole_mailbox_server.database import create_channel_db
from wormhole_mailbox_server.server import make_server
from wormhole_mailbox_server.server_websocket import WebSocketServer, WebSocketServerFactory

from p2p_ipython.board.server.limits import (
    MAILBOX_BURST,
    MAILBOX_KEEPS,
    MAILBOX_RATE,
    MAX_MAILBOX_MESSAGE,
    PACKET,
    Bucket,
    Seldom,
)

log = logging.getLogger(__name__)

PRUNE_EVERY = 300.0
EXPIRE_AFTER = 660.0


class Mailbox:
    """The mailbox; ``site`` is what listens."""

    def __init__(self) -> None:
        self._database = create_channel_db(":memory:")
        (page,) = self._database.execute("PRAGMA page_size").fetchone().values()
        self._database.execute(f"PRAGMA max_page_count={MAILBOX_KEEPS // page}")
        self._server = make_server(self._database, allow_list=False)
        factory = WebSocketServerFactory(None, self._server)
        factory.protocol = _Connection
        # A dead websocket is noticed by its pings; one that says too much is closed.
        factory.setProtocolOptions(
            autoPingInterval=30,
            autoPingTimeout=30,
            maxFramePayloadSize=MAX_MAILBOX_MESSAGE,
            maxMessagePayloadSize=MAX_MAILBOX_MESSAGE,
        )
        root = Resource()
        root.putChild(b"v1", WebSocketResource(factory))
        self.site = _Site(root, requestFactory=_Request)
        self._pruning: Any = None

    def start(self) -> None:
        """Serve, and forget from time to time what nobody has fetched."""
        self._server.startService()
        self._pruning = reactor.callLater(PRUNE_EVERY, self._prune)

    def stop(self) -> None:
        """Serve no longer."""
        self._pruning.cancel()
        self._server.stopService()

    def close(self) -> None:
        """Drop what was kept. Nothing must use the mailbox any more."""
        self._database.close()

    def _prune(self) -> None:
        self._pruning = reactor.callLater(PRUNE_EVERY, self._prune)
        try:
            self._server.prune_all_apps(time.time(), time.time() - EXPIRE_AFTER)
        except Exception:
            log.exception("pruning the mailbox failed; it is tried again in %g s", PRUNE_EVERY)


_full = Seldom()


class _Connection(WebSocketServer):  # type: ignore[misc]
    def onOpen(self) -> None:
        self._bucket = Bucket(MAILBOX_RATE, MAILBOX_BURST, reactor.seconds())
        super().onOpen()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._bucket.take(len(payload) + PACKET, reactor.seconds()):
            self.dropConnection(abort=True)
            return
        try:
            super().onMessage(payload, isBinary)
        except Exception as error:  # whatever isn't expected there: Twisted would log a traceback for each
            self.dropConnection(abort=True)
            if isinstance(error, sqlite3.OperationalError) and _full.say(reactor.seconds()):
                log.warning("the mailbox is full, and refuses messages: %s", error)


class _Site(Site):  # type: ignore[misc]
    def log(self, request: Any) -> None:
        """Log nothing: who meets whom is nobody's business."""


class _Request(Request):  # type: ignore[misc]
    def gotLength(self, length: int | None) -> None:
        """Take no body: Twisted would keep it, on disk if it is large."""
        super().gotLength(0)
        if length != 0:
            self.channel.loseConnection()
