"""Runs the doctor's checks, one after the other, each by the means that the rest of this package uses itself.

Nothing stays behind: what was opened is closed. No file is written but a host key's that the user has accepted, and
that of sandboxes which have passed their self-test.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from p2p_ipython.board.base import BoardReport
from p2p_ipython.board.client.address import BoardAddress, Route, SSHFiles, parse_ssh_options, route
from p2p_ipython.board.client.eyeballs import connect
from p2p_ipython.board.client.keys import KeyChoice, choose_key
from p2p_ipython.board.client.known_hosts import HostKeyCheck
from p2p_ipython.board.client.login import remember_accepted
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.config import Settings
from p2p_ipython.doctor import ssh, wormhole
from p2p_ipython.doctor.checks import CHECKS, WITHIN, Check, Report, Result, failed, obstacle, ok, skipped, unknown
from p2p_ipython.doctor.network import Web, ask_agent, explain_silence, look_around
from p2p_ipython.errors import BoardRefused, BoardUnreachable, P2PError
from p2p_ipython.loop import in_thread
from p2p_ipython.protocol.identity import BadIdentity, sign, verify

log = logging.getLogger(__name__)

CONNECT_WITHIN = 6.0
"""How long a TCP connection may take, s; what lies around is looked at after that."""

ECHO_WITHIN = 10.0
_NAMESPACE = "p2p-ipython-doctor@v1"


@dataclass(frozen=True)
class Places:
    """The places to look at.

    ``mailbox`` and ``relay`` "" are the board's own, or the fallbacks once it has said that it has none.
    ``host_key`` is the board's, or its fingerprint; None: known-hosts files decide. ``remember`` keeps it.
    ``ssh_options``: see ``board.address.parse_ssh_options``.
    """

    board: str
    identity: Path | None = None
    host_key: str | None = None
    remember: bool = False
    ssh_options: tuple[str, ...] = ()
    mailbox: str = ""
    relay: str = ""
    fallback_mailbox: str = ""
    fallback_relay: str = ""
    files: SSHFiles | None = field(default=None, repr=False)
    web: Web = field(default_factory=Web)


def _tell_nobody(check: Check, result: Result) -> None:
    pass


async def _not_looked_at() -> Result:
    return unknown("it was not looked at")


async def examine(
    places: Places,
    tell: Callable[[Check, Result], None] = _tell_nobody,
    *,
    within: float = WITHIN,
    sandbox: Callable[[], Awaitable[Result]] = _not_looked_at,
) -> Report:
    """Make all checks, within as many seconds; ``tell`` hears of each result at once.

    ``sandbox`` makes the check of that name: workers know sandboxes, and are no business of this block's.
    Raises ``ConfigError`` for an address that is none, and for options that aren't supported.
    """
    examination = _Examination(places)
    steps = {**examination.steps, "sandbox": sandbox}
    results: dict[str, Result] = {}
    end = time.monotonic() + within
    try:
        for check in CHECKS:
            result = obstacle(check, results) or await _make(check, steps[check.name], end)
            results[check.name] = result
            tell(check, result)
    finally:
        await examination.close()
    return Report(examination.where, results)


async def _make(check: Check, step: Callable[[], Awaitable[Result]], end: float) -> Result:
    limit = min(check.limit, end - time.monotonic())
    if limit <= 0:
        return skipped("there was no time left for it")
    try:
        async with asyncio.timeout(limit):
            return await step()
    except TimeoutError:
        return failed(f"no answer within {limit:.0f} s", "Try again; if it stays so, the other end hangs.")
    except P2PError as error:
        return failed(error.message, error.hint)


class _Examination:
    """The steps, and what earlier ones leave for later ones."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._address = BoardAddress.parse(places.board)
        self._files = places.files or SSHFiles.default()
        self._options = parse_ssh_options(places.ssh_options)
        self._route: Route
        self._key: KeyChoice
        self._board: SSHBoard
        self._topic = secrets.token_hex(16)
        self._refused: BoardRefused | None = None
        self._mailbox = places.mailbox
        self._relay = places.relay
        self._open = AsyncExitStack()
        self.steps: dict[str, Callable[[], Awaitable[Result]]] = {
            "key": self._check_key,
            "name": self._check_name,
            "tcp": self._check_tcp,
            "host-key": self._check_host_key,
            "log-in": self._check_log_in,
            "echo": self._check_echo,
            "clock": self._check_clock,
            "mailbox": self._check_mailbox,
            "relay": self._check_relay,
            "link": self._check_link,
        }

    @property
    def where(self) -> dict[str, str]:
        return {"board": str(self._address), "mailbox": self._mailbox, "relay": self._relay}

    async def close(self) -> None:
        await self._open.aclose()

    # -- the way to the board --

    async def _check_key(self) -> Result:
        agent = await ask_agent()
        about = ""
        if agent.trouble:
            about = f"; the SSH agent ({os.environ.get('SSH_AUTH_SOCK', '')}) {agent.trouble}"
        elif agent.keys == 0:
            about = "; the SSH agent holds no keys, or is locked"
        elif agent.keys:
            about = f"; the SSH agent holds {agent.keys} key{'s' if agent.keys > 1 else ''}"
        try:
            self._key = await in_thread(
                "p2p-doctor-key",
                lambda: choose_key(
                    self._address,
                    identity=self._places.identity,
                    files=self._files,
                    ssh_options=self._places.ssh_options,
                ),
            )
        except P2PError as error:
            return failed(f"{error.message}{about}", error.hint)
        key = self._key.key
        text = secrets.token_bytes(16)
        try:
            await in_thread("p2p-doctor-sign", lambda: verify(sign(key, text, _NAMESPACE), text, _NAMESPACE))
        except BadIdentity as error:
            return failed(
                f"the key {self._key} can't sign for a cluster: {error}",
                "Use another one, with --identity; `ssh-keygen -t ed25519` makes one.",
            )
        return ok(f"{key.get_name()} {self._key}{about}")

    async def _check_name(self) -> Result:
        self._route = await in_thread("p2p-doctor-config", lambda: route(self._address, self._files, self._options))
        hop = ssh.first_hop(self._route)
        through = "".join(f", through {jump}" for jump in self._route.jumps)
        try:
            ipaddress.ip_address(hop.host)
            return ok(f"{hop.host} is an address{through}")
        except ValueError:
            pass
        began = time.monotonic()
        try:
            found = await in_thread(
                "p2p-doctor-name", lambda: socket.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError):
            return failed(
                f"there is no host called {hop.host}",
                "Check the spelling. If other names fail, too, this machine is offline, or its network wants you to "
                "log in first: open any web page in a browser.",
            )
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        return ok(f"{hop.host} is {', '.join(addresses[:3])}{through}", seconds=time.monotonic() - began)

    async def _check_tcp(self) -> Result:
        hop = ssh.first_hop(self._route)
        began = time.monotonic()
        try:
            # By the product's own code, and so by any of the addresses.
            sock = await in_thread("p2p-doctor-tcp", lambda: connect(hop.host, hop.port, CONNECT_WITHIN))
        except ConnectionRefusedError:
            return failed(
                f"{hop.host} is there, but nothing listens on port {hop.port}",
                "Is the board running? Check the port (a board of ours listens on 2222 unless told otherwise).",
            )
        except TimeoutError:
            return failed(*explain_silence(hop.host, hop.port, await look_around(hop.host, self._places.web)))
        except OSError as error:
            return failed(
                f"{hop} can't be reached: {error.strerror or error}",
                "Is this machine online? Try another network, or another address.",
            )
        sock.close()
        return ok(f"{hop} answers", seconds=time.monotonic() - began)

    async def _check_host_key(self) -> Result:
        hop = ssh.first_hop(self._route)
        pin = self._places.host_key if hop is self._route else None
        check = HostKeyCheck(hop, self._files, pin)
        key = await in_thread(
            "p2p-doctor-host-key", lambda: ssh.shown_host_key(self._route, check.kinds, CONNECT_WITHIN)
        )
        check.check(key)
        whose = "" if hop is self._route else f" of the jump host {hop}; the next ones are looked at while logging in"
        return ok(f"{key.get_name()} {key.fingerprint}, as known{whose}")

    async def _check_log_in(self) -> Result:
        began = time.monotonic()
        board = self._session()
        try:
            await board.open()
        except BoardRefused as error:
            self._refused = error
            return ok("it lets the key in", seconds=time.monotonic() - began)
        self._open.push_async_callback(board.close)
        self._board = board
        if self._places.remember:
            await in_thread("p2p-doctor-remember", lambda: remember_accepted(board, self._places.host_key))
        seconds = time.monotonic() - began
        await self._ask_services()
        if board.user in ("", "public"):
            return ok("it lets the key in, without an account there, which is enough", seconds=seconds)
        return ok(f"as {board.user}", seconds=seconds)

    def _session(self, listener: _Ear | None = None) -> SSHBoard:
        return SSHBoard(
            self._address,
            self._topic,
            listener or _Ear(),
            key=self._key,
            pin=self._places.host_key,
            files=self._files,
            settings=Settings.load(),
            public=True,
            ssh_options=self._places.ssh_options,
        )

    async def _ask_services(self) -> None:
        """Ask the board for its own mailbox and relay, if none were given."""
        try:
            own = await self._board.services() or {}
        except BoardUnreachable as error:
            log.info("the board does not say where its mailbox is: %s", error)
            return
        self._mailbox = self._mailbox or own.get("mailbox", self._places.fallback_mailbox)
        self._relay = self._relay or own.get("relay", self._places.fallback_relay)

    async def _check_echo(self) -> Result:
        if self._refused is not None:
            return failed(self._refused.message, "Its operator knows why; or use another board.")
        ear = _Ear()
        other = self._session(ear)
        await other.open()
        self._open.push_async_callback(other.close)
        began = time.monotonic()
        self._board.post(b"doctor")
        try:
            async with asyncio.timeout(ECHO_WITHIN):
                await ear.heard.wait()
        except TimeoutError:
            return failed(
                f"a line that was posted did not come back within {ECHO_WITHIN:g} s",
                "The board takes lines and does not deliver them. Try again; if it stays so, tell its operator, or "
                "use another board (`p2p board` runs one).",
            )
        return ok("what one posts, another reads", seconds=time.monotonic() - began)

    # -- the way to each other --

    async def _check_clock(self) -> Result:
        return await wormhole.check_clock(self._mailbox) if self._mailbox else _not_said("mailbox")

    async def _check_mailbox(self) -> Result:
        return await wormhole.check_mailbox(self._mailbox) if self._mailbox else _not_said("mailbox")

    async def _check_relay(self) -> Result:
        return await wormhole.check_relay(self._relay) if self._relay else _not_said("relay")

    async def _check_link(self) -> Result:
        return await wormhole.check_link(self._mailbox, self._relay)


def _not_said(what: str) -> Result:
    return skipped(f"only the board can say where its {what} is (or --{what})")


class _Ear:
    """A listener that knows when a line has come."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()

    def on_line(self, line: bytes) -> None:
        self.heard.set()

    def on_board(self, report: BoardReport) -> None:
        log.info("the doctor's session with the board: %s %s", report.state.value, report.detail)
