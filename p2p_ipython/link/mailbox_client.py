"""One wormhole, from its code to its goodbye, as coroutines.

The library reports to its delegate; ``new_code``, ``meet`` and ``receive`` return those reports, and raise once the
wormhole has ended. Assumes the process's loop (``loop.adopt``).

A mailbox is a stranger. It can't read the messages, but it can send anything, and the library takes a message of any
size. So all bytes that a mailbox sends in one visit are counted, and the visit ends above ``most`` bytes. A wormhole
whose server is gone would try to say goodbye for ever. It gets a few seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from p2p_ipython import loop as loops
from p2p_ipython.errors import LinkError, MailboxUnreachable, WrongPeer
from p2p_ipython.link.base import Secret
from p2p_ipython.loop import ADDRESS_DELAY
from p2p_ipython.protocol.plain import plain

_CLOSE_LIMIT = 5.0  # seconds for a wormhole to say goodbye to its mailbox


class WrongCode(WrongPeer):
    """Somebody came with another secret than ours; the code is used up."""


class Crowded(WrongPeer):
    """The mailbox knows a third party at our nameplate."""


class Visit:
    """One wormhole, as its delegate. Its maker calls ``close`` in the end, and may await ``closed``.

    The code is in the library's objects, and nowhere else.
    """

    def __init__(self, appid: str, mailbox: str, *, offer: dict[str, Any], most: int) -> None:
        """Begin to connect. ``offer`` goes to the peer with the message that confirms the key.

        ``most``: bytes that the mailbox may send. Raises ``MailboxUnreachable`` when ``mailbox`` is no address.
        """
        loops.adopt()
        # Late: they take long to load, and use the reactor that adopt() has installed.
        import wormhole
        from autobahn.websocket import protocol
        from twisted.internet import reactor

        # It seeds the process's own generator and draws masks from it. That one is the notebook's.
        protocol.random = random.SystemRandom()
        self._loop = asyncio.get_running_loop()
        self.welcome = False
        """Whether the mailbox has answered."""
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._appid = appid
        self._mailbox = mailbox
        self._error: LinkError | None = None
        self._news = asyncio.Event()
        self._code: Secret | None = None
        self._verifier: bytes | None = None
        self._versions: object = None
        self._messages: deque[bytes] = deque()
        try:
            self._wormhole = wormhole.create(
                appid,
                mailbox,
                reactor,
                versions=offer,
                delegate=self,
                tor=_endpoints(most, lambda: self._leave("it sends far more than a mailbox has to say")),
            )
        except Exception as error:
            if isinstance(error, ValueError):
                raise unreachable(mailbox, "it is no address", hint="It looks like ws://HOST:PORT/v1.") from None
            raise unreachable(mailbox, type(error).__name__) from None
        self._guard()

    def use_code(self, code: Secret) -> None:
        """Meet the peer that has the same code. Raises ``WrongPeer`` for a text that can't be a code."""
        try:
            self._wormhole.set_code(code.reveal())
        except Exception as error:
            # The library's message may hold the code. The class of the error says enough.
            raise WrongPeer(
                f"the other side sent a code that is none ({type(error).__name__})",
                hint="The other side's p2p_ipython may be of another version: upgrade both.",
            ) from None

    async def new_code(self, words: int) -> Secret:
        """Have the mailbox choose a short nameplate, and add a secret of so many words, 8 random bits each."""
        self._wormhole.allocate_code(words)
        await self._until(lambda: self._code is not None)
        assert self._code is not None
        return self._code

    async def meet(self) -> tuple[bytes, object]:
        """Wait for the peer; return the verifier, which only the two ends know, and the peer's offer."""
        await self._until(lambda: self._verifier is not None and self._versions is not None)
        assert self._verifier is not None
        return self._verifier, self._versions

    def send(self, message: bytes) -> None:
        """Send a message to the peer, which may come later."""
        self._wormhole.send_message(message)

    async def receive(self) -> bytes:
        """Return the peer's next message."""
        await self._until(lambda: self._messages)
        return self._messages.popleft()

    def derive_key(self) -> bytes:
        """Return 32 secret bytes that the peer has, too. Call it after ``meet`` and before ``close``."""
        key: bytes = self._wormhole.derive_key(self._appid, 32)
        return key

    def fail(self, error: LinkError) -> None:
        """Raise ``error`` in all calls that wait here or will, unless there was an error before."""
        self._error = self._error or error
        self._news.set()

    def close(self) -> None:
        """Say goodbye to the mailbox; ``closed`` resolves when that is done or takes too long. Idempotent."""
        if self.closed.done():
            return
        limit = self._loop.call_later(_CLOSE_LIMIT, self._give_up)
        self.closed.add_done_callback(lambda _: limit.cancel())
        self._wormhole.close()

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()

    def _guard(self) -> None:
        """End the visit when the mailbox talks nonsense.

        The library would print the error, reconnect, and read the nonsense again.
        """
        hear = self._connector.ws_message

        def guarded(payload: bytes) -> None:
            try:
                hear(payload)
            except Exception:  # anything that the library did not expect
                self._leave("it talks nonsense")

        self._connector.ws_message = guarded

    def _leave(self, why: str) -> None:
        self.fail(unreachable(self._mailbox, why))
        self._give_up()

    @property
    def _connector(self) -> Any:
        """The library's connection to the mailbox, which its interface does not show."""
        return self._wormhole._boss._RC

    def _give_up(self) -> None:
        # When its server is gone, a wormhole that closes reconnects for ever. Its interface can't stop that,
        # but its connection can.
        self._connector._connector.stopService()
        if not self.closed.done():
            self.closed.set_result(None)

    # For the wormhole, whose delegate this is

    def wormhole_got_welcome(self, welcome: object) -> None:
        self.welcome = True

    def wormhole_got_code(self, code: str) -> None:
        self._code = Secret(code)
        self._news.set()

    def wormhole_got_unverified_key(self, key: bytes) -> None:
        pass

    def wormhole_got_verifier(self, verifier: bytes) -> None:
        self._verifier = verifier
        self._news.set()

    def wormhole_got_versions(self, versions: object) -> None:
        self._versions = versions
        self._news.set()

    def wormhole_got_message(self, message: bytes) -> None:
        self._messages.append(message)
        self._news.set()

    def wormhole_closed(self, result: object) -> None:
        self.fail(_ending(result, self._mailbox))
        if not self.closed.done():
            self.closed.set_result(None)


_LOOK = "Check the address; check that the board's machine is up and lets the mailbox's port through."


def unreachable(mailbox: str, why: str, *, hint: str = _LOOK) -> MailboxUnreachable:
    """Make the error for a mailbox that can't be used."""
    return MailboxUnreachable(
        f"the wormhole mailbox at {mailbox} can't be used: {why}",
        hint=hint,
    )


def _ending(result: object, mailbox: str) -> LinkError:
    from wormhole import errors

    if isinstance(result, errors.WrongPasswordError):
        return WrongCode(
            "somebody came to the meeting with a wrong code",
            hint="The code is used up. Connect again: that makes a new one.",
        )
    if isinstance(result, errors.ServerError):
        # In practice "crowded": a third party is at our nameplate, which only the two ends should know.
        return Crowded(
            "the mailbox refused the meeting: somebody else has been there",
            hint="Connect again: that makes a new code.",
        )
    if isinstance(result, errors.ServerConnectionError):
        return unreachable(mailbox, plain(str(getattr(result.reason, "value", result.reason)), 200))
    return unreachable(mailbox, type(result).__name__)


def endpoint(host: str, port: int, *, tls: bool, below: Callable[[Any], Any] = lambda inner: inner) -> Any:
    """Make the endpoint of a mailbox. It tries the addresses of a name side by side; ``below`` is put beneath TLS."""
    from twisted.internet import reactor
    from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS

    inner = below(HostnameEndpoint(reactor, host, port, attemptDelay=ADDRESS_DELAY))
    if not tls:
        return inner
    from twisted.internet.ssl import optionsForClientTLS  # late: pyOpenSSL is slow to load

    return wrapClientTLS(optionsForClientTLS(host), inner)


def _endpoints(most: int, too_much: Callable[[], None]) -> Any:
    """Make an object that makes the library's connections; these count the bytes that they read.

    The library takes such an object for the sake of Tor, and names it so. Its interface is private to the library.
    """
    from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
    from wormhole._interfaces import ITorManager
    from zope.interface import implementer

    read = 0

    class Counted(ProtocolWrapper):  # type: ignore[misc]
        def dataReceived(self, data: bytes) -> None:
            nonlocal read
            read += len(data)
            if read > most:
                self.transport.abortConnection()
                too_much()
            else:
                super().dataReceived(data)

    class Endpoint:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def connect(self, factory: Any) -> Any:
            counted = WrappingFactory(factory)
            counted.noisy = False
            counted.protocol = Counted
            connecting = self._inner.connect(counted)
            # The library expects the protocol that its own factory has made.
            return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)

    @implementer(ITorManager)
    class Endpoints:
        def stream_via(self, host: str, port: int, tls: bool = False) -> Any:
            return endpoint(host, port, tls=tls, below=Endpoint)

    return Endpoints()
