"""One wormhole, from its code to its goodbye, as something to await.

What the library reports to its delegate becomes ``code``, ``meet`` and ``receive``; when it ends, all of them raise.
Assumes the process's loop (``loop.adopt``).

A mailbox is a stranger. It can't read what passes, but it can send what it likes, and the library takes a message of
any size: so all that it sends in one visit is counted, and the visit ends above ``most`` bytes. A wormhole whose
server is gone would try to say goodbye for ever: it gets a few seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from p2p_ipython import loop as loops
from p2p_ipython.errors import LinkError, MailboxUnreachable, WrongPeer
from p2p_ipython.link.base import Secret
from p2p_ipython.protocol.plain import plain

_CLOSE_LIMIT = 5.0  # seconds for a wormhole to say goodbye to its mailbox


class WrongCode(WrongPeer):
    """Somebody came with another secret than ours; the code is burnt."""


class Crowded(WrongPeer):
    """The mailbox knows a third party at our nameplate."""


class Visit:
    """One wormhole, as its delegate. Whoever makes one calls ``close`` in the end, and may await ``closed``.

    The code is in the library's objects, and nowhere else.
    """

    def __init__(self, appid: str, mailbox: str, *, offer: dict[str, Any], most: int) -> None:
        """Begin to connect. ``offer`` goes to the peer with the message that confirms the key.

        ``most``: bytes that the mailbox may send. Raises ``MailboxUnreachable`` when ``mailbox`` is no address.
        """
        loops.adopt()
        # Late, since they want the reactor that adopt() has installed.
        import wormhole
        from twisted.internet import reactor

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
        """Meet whoever has the same code. Raises ``WrongPeer`` for what can't be one."""
        try:
            self._wormhole.set_code(code.reveal())
        except Exception as error:
            # The library's message may hold the code; the kind of the error says enough.
            raise WrongPeer(
                f"what came as a code is none ({type(error).__name__})",
                hint="The other side's p2p_ipython may be of another version: update both.",
            ) from None

    async def new_code(self, words: int) -> Secret:
        """Have the mailbox choose a short nameplate, and add a secret of so many words, 8 random bits each."""
        self._wormhole.allocate_code(words)
        await self._until(lambda: self._code is not None)
        assert self._code is not None
        return self._code

    async def meet(self) -> tuple[bytes, object]:
        """Wait for the peer; returns the verifier, which both ends know and nobody else, and the peer's offer."""
        await self._until(lambda: self._verifier is not None and self._versions is not None)
        assert self._verifier is not None
        return self._verifier, self._versions

    def send(self, message: bytes) -> None:
        """Send a message to the peer, whenever it comes."""
        self._wormhole.send_message(message)

    async def receive(self) -> bytes:
        """The peer's next message."""
        await self._until(lambda: self._messages)
        return self._messages.popleft()

    def derive_key(self) -> bytes:
        """32 secret bytes that the peer has, too. After ``meet``, before ``close``."""
        key: bytes = self._wormhole.derive_key(self._appid, 32)
        return key

    def fail(self, error: LinkError) -> None:
        """Let all who wait here, or will, have ``error``, unless there was one before."""
        self._error = self._error or error
        self._news.set()

    def close(self) -> None:
        """Say goodbye to the mailbox; ``closed`` resolves when that is done, or when it took too long. Idempotent."""
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
        """End the visit when the mailbox talks nonsense; the library would print it, reconnect, and hear it again."""
        hear = self._connector.ws_message

        def guarded(payload: bytes) -> None:
            try:
                hear(payload)
            except Exception:  # whatever the library did not expect
                self._leave("it talks nonsense")

        self._connector.ws_message = guarded

    def _leave(self, why: str) -> None:
        self.fail(unreachable(self._mailbox, why))
        self._give_up()

    @property
    def _connector(self) -> Any:
        """What the library runs on; its interface lets nobody at it."""
        return self._wormhole._boss._RC

    def _give_up(self) -> None:
        # With its server gone, a wormhole that closes goes on reconnecting for ever, and its interface
        # has no way to stop that. What it runs on has one.
        self._connector._connector.stopService()
        if not self.closed.done():
            self.closed.set_result(None)

    # What the wormhole calls

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


_LOOK = "Check that the address is right and that the board's machine is up and lets its port through."


def unreachable(mailbox: str, why: str, *, hint: str = _LOOK) -> MailboxUnreachable:
    """The error for a mailbox that can't be used."""
    return MailboxUnreachable(
        f"the wormhole mailbox at {mailbox} can't be used: {why}",
        hint=hint,
    )


def _ending(result: object, mailbox: str) -> LinkError:
    from wormhole import errors

    if isinstance(result, errors.WrongPasswordError):
        return WrongCode(
            "somebody came to the meeting with a wrong code",
            hint="The code is used up; a new one is made for the next attempt.",
        )
    if isinstance(result, errors.ServerError):
        # In practice "crowded": a third party sits at our nameplate, which only the two of us should know.
        return Crowded("the mailbox refused the meeting: somebody else has been there", hint="It is tried again.")
    if isinstance(result, errors.ServerConnectionError):
        return unreachable(mailbox, plain(str(getattr(result.reason, "value", result.reason)), 200))
    return unreachable(mailbox, type(result).__name__)


def _endpoints(most: int, too_much: Callable[[], None]) -> Any:
    """What the library takes for a way to make connections; those made here count what they read.

    It calls that Tor, which is what it has it for, and what it asks of it is private to it.
    """
    from twisted.internet import reactor
    from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
    from twisted.internet.ssl import optionsForClientTLS
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
            # The library wants the protocol that its own factory has made.
            return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)

    @implementer(ITorManager)
    class Endpoints:
        def stream_via(self, host: str, port: int, tls: bool = False) -> Endpoint:
            inner = HostnameEndpoint(reactor, host, port)
            return Endpoint(wrapClientTLS(optionsForClientTLS(host), inner) if tls else inner)

    return Endpoints()
