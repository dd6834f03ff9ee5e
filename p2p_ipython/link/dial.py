"""Looks for the peer on every way at once: each of its addresses, and the relay a little later.

A search runs until it is cancelled; attempts.py does that as soon as a connection is used. A connection that greets as
the peer is handed over at once, and from then on attempts.py has to close it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from p2p_ipython.errors import LinkError, LinkLost, RelayUnreachable
from p2p_ipython.link.handshake import Tokens, greet, greet_relay
from p2p_ipython.link.hints import Hint
from p2p_ipython.link.session import Refusals
from p2p_ipython.link.transport import Connection, ConnectionGone
from p2p_ipython.loop import ADDRESS_DELAY

logger = logging.getLogger(__name__)

Kind = Literal["direct", "relay"]

RELAY_AFTER = 1.0
"""Seconds that direct connections have before the relay joins: a relay costs its operator traffic."""

_CONNECT_LIMIT = 5.0  # seconds for TCP and the greeting
_STAGGER = 0.025  # seconds between the first attempts on an end's addresses: mostly the first one is enough
_RELAY_WAIT = 30.0  # seconds at the relay before knocking anew: it may have forgotten us
_BACK_OFF = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds between attempts on one way; the last one stays


@dataclass
class Ways:
    """The ways on which one link's peer may be reached."""

    tokens: Tokens = field(repr=False)
    hints: list[Hint]
    relay: tuple[str, int] | None
    relay_only: bool
    """No direct connection is possible, in either direction."""
    side: bytes
    """16 hex digits that tell our connections at the relay from the peer's."""
    refusals: Refusals = field(init=False)
    relay_error: LinkError | None = None

    def __post_init__(self) -> None:
        self.refusals = Refusals(self.hints)


class Search:
    """One search for the peer. ``found`` is called with each connection that greeted as the peer."""

    def __init__(self, ways: Ways, found: Callable[[Connection, Kind], None], *, last: Kind | None) -> None:
        """``last`` is the kind of the connection that was cut, None when there was none yet."""
        self._ways = ways
        self._found = found
        self._last = last

    async def run(self) -> None:
        """Search until cancelled.

        Raises ``LinkLost`` when the peer's process is gone: it was connected directly, and now its addresses refuse
        us. Raises ``RelayUnreachable`` when only a relay could make a first connection, and the relay isn't there.
        """
        self._ways.refusals.reset()
        try:
            async with asyncio.TaskGroup() as group:
                for number, hint in enumerate(self._ways.hints):
                    group.create_task(self._direct(hint, after=number * _STAGGER))
                if self._ways.relay is not None:
                    group.create_task(self._relay(*self._ways.relay))
                # Without any way of our own, too: the peer may come to us.
                await asyncio.get_running_loop().create_future()
        except* LinkError as errors:
            raise next(_leaves(errors)) from None

    async def _direct(self, hint: Hint, *, after: float) -> None:
        await asyncio.sleep(after)
        refusals = self._ways.refusals
        now = asyncio.get_running_loop().time
        for pause in _pauses():
            try:
                connection = await _connect(hint.host, hint.port, lambda c: greet(c, self._ways.tokens))
            except (ConnectionRefusedError, ConnectionGone):
                gone = refusals.refused(hint, now())
                if gone and self._last == "direct":
                    raise LinkLost("the other end's process is gone: its addresses refuse us") from None
            except (OSError, TimeoutError):
                refusals.silent(hint)
            else:
                refusals.answered(hint)
                self._found(connection, "direct")
                await asyncio.wait([connection.closed])
            await asyncio.sleep(pause)

    async def _relay(self, host: str, port: int) -> None:
        ways = self._ways
        if not ways.relay_only and self._last != "relay":
            await asyncio.sleep(RELAY_AFTER)
        for pause in _pauses():
            try:
                connection = await _connect(
                    host, port, lambda c: greet_relay(c, ways.tokens, ways.side), greeting_limit=_RELAY_WAIT
                )
            except TimeoutError:
                pass
            except (OSError, ConnectionGone) as error:
                ways.relay_error = RelayUnreachable(
                    f"the relay at tcp:{host}:{port} can't be used: {error}",
                    hint="Check that the board's machine is up and lets the relay's port through.",
                )
                if ways.relay_only and self._last is None:
                    raise ways.relay_error from None
            else:
                ways.relay_error = None
                self._found(connection, "relay")
                await asyncio.wait([connection.closed])
            await asyncio.sleep(pause)


def _leaves(errors: BaseExceptionGroup[LinkError]) -> Iterator[LinkError]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _pauses() -> Iterator[float]:
    return itertools.chain(_BACK_OFF, itertools.repeat(_BACK_OFF[-1]))


def _delay(host: str) -> float | None:
    """Return the delay between a name's addresses; None for an address.

    asyncio would race it all the same, and forgets the socket of a race that is cancelled as it is won (Python 3.11 to
    3.13). A search is cancelled as soon as one way is used, so that happens where all ways are short.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ADDRESS_DELAY
    return None


async def _connect(
    host: str, port: int, greeting: Callable[[Connection], Awaitable[None]], *, greeting_limit: float = _CONNECT_LIMIT
) -> Connection:
    """Connect and greet. Raises ``OSError``, ``TimeoutError``, ``ConnectionGone``."""
    async with asyncio.timeout(_CONNECT_LIMIT):
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, host, port, happy_eyeballs_delay=_delay(host))
    try:
        async with asyncio.timeout(greeting_limit):
            await greeting(connection)
    except BaseException:
        connection.abort("no greeting")
        raise
    return connection
