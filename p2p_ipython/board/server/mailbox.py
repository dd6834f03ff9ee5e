"""A board's wormhole mailbox: ``mailboxes.py`` over websockets.

A client that breaks a bound is refused with a word, or cut, without a line in the log for each. Import it after
``loop.adopt()``: it imports Twisted's reactor.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from p2p_ipython.board.server import mailboxes
from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.limits import PACKET, Bucket, Seldom, Unread, neighbourhood
from p2p_ipython.board.server.mailboxes import Mailboxes

log = logging.getLogger(__name__)

PRUNE_EVERY = 30.0
"""Between two looks for what is too old, s."""


class Mailbox:
    """The mailbox; ``site`` is what listens."""

    def __init__(self, bounds: Bounds, is_here: Callable[[str], bool]) -> None:
        self.bounds = bounds
        self.boxes = Mailboxes(bounds, is_here)
        self.unread: Unread[_Connection] = Unread(bounds.mailbox_queues, _Connection.unread)
        self.clients: dict[mailboxes.Client, _Connection] = {}
        self.seldom = Seldom(bounds.say_every)
        factory = WebSocketServerFactory(None)
        factory.protocol = _Connection
        factory.mailbox = self
        # A dead websocket is noticed by its pings; one that says too much is closed.
        factory.setProtocolOptions(
            autoPingInterval=30,
            autoPingTimeout=30,
            maxFramePayloadSize=bounds.message,
            maxMessagePayloadSize=bounds.message,
        )
        root = Resource()
        root.putChild(b"v1", WebSocketResource(factory))
        self.site = _Site(root, requestFactory=_Request)
        self._pruning: Any = None

    def start(self) -> None:
        """Forget from time to time what nobody has fetched."""
        self._pruning = reactor.callLater(PRUNE_EVERY, self._prune)

    def stop(self) -> None:
        """Forget nothing any longer."""
        self._pruning.cancel()

    def do(self, actions: Iterable[mailboxes.Action]) -> None:
        """Perform what the mailboxes decided."""
        for action in actions:
            connection = self.clients.get(action.client)
            if connection is None:
                continue  # it was cut meanwhile
            if isinstance(action, mailboxes.Tell):
                connection.tell(action.message)
            else:
                connection.sendClose(connection.CLOSE_STATUS_CODE_NORMAL, action.why)

    def _prune(self) -> None:
        self._pruning = reactor.callLater(PRUNE_EVERY, self._prune)
        self.do(self.boxes.prune(time.time()))


class _Connection(WebSocketServerProtocol):  # type: ignore[misc]
    _client: mailboxes.Client | None = None

    def onOpen(self) -> None:
        self._mailbox: Mailbox = self.factory.mailbox
        bounds = self._mailbox.bounds
        self._bucket = Bucket(bounds.mailbox_rate, bounds.mailbox_burst, reactor.seconds())
        peer = self.transport.getPeer()
        client = self._mailbox.boxes.connect(neighbourhood(peer.host), time.time())
        if isinstance(client, str):
            # Clients show this to their users, and end.
            self.tell({"type": "welcome", "welcome": {"error": client}})
            self.sendClose(self.CLOSE_STATUS_CODE_NORMAL, client)
            return
        self._client = client
        self._mailbox.clients[client] = self
        family = "ipv6" if ":" in peer.host else "ipv4"
        self.tell({"type": "welcome", "welcome": {"your-address": {"port": peer.port, family: peer.host}}})

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._client is None:
            return
        if self._bucket.take(len(payload) + PACKET, reactor.seconds()):
            self.dropConnection(abort=True)
            return
        try:
            actions = self._mailbox.boxes.receive(self._client, json.loads(payload), time.time())
        except (ValueError, RecursionError):
            self.dropConnection(abort=True)
            return
        self._mailbox.do(actions)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self._client is not None:
            self._mailbox.boxes.leave(self._client)
            self._mailbox.clients.pop(self._client, None)
            self._mailbox.unread.forget(self)
            self._client = None

    def tell(self, message: mailboxes.Message) -> None:
        """Send a message, or cut the client that reads least if too much is unread. One that is being cut gets none."""
        if self.state != self.STATE_OPEN:
            return
        self.sendMessage(json.dumps({**message, "server_tx": time.time()}).encode())
        if self._client is None:
            return
        most = self._mailbox.unread.note(self, self.unread())
        if most is not None:
            if count := self._mailbox.seldom.say(reactor.seconds()):
                log.warning("clients of the mailbox that don't read are cut: %d", count)
            most.dropConnection(abort=True)

    def unread(self) -> int:
        """Return how many bytes wait for the client. Twisted doesn't say so in public."""
        transport = self.transport
        if transport is None:
            return 0
        return len(transport.dataBuffer) - int(transport.offset) + int(transport._tempDataLen)


class _Site(Site):  # type: ignore[misc]
    def log(self, request: Any) -> None:
        """Log nothing: who meets whom is nobody's business."""


class _Request(Request):  # type: ignore[misc]
    def gotLength(self, length: int | None) -> None:
        """Take no body: Twisted would keep it, on disk if it is large."""
        super().gotLength(0)
        if length != 0:
            self.channel.loseConnection()
