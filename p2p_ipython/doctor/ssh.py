"""An SSH server's answers: its host key, the result of one command. All of it blocks, within a deadline.

For servers that are no boards (pico.sh, where accounts are) and for looking at a host key before anybody logs in.
Boards are talked to by ``board/client/ssh.py``.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import paramiko

from p2p_ipython.board.client.address import BoardAddress, Route, SSHFiles, route
from p2p_ipython.board.client.dial import close_transport, key_refused, new_transport, no_ssh, seconds_left
from p2p_ipython.board.client.eyeballs import connect
from p2p_ipython.board.client.keys import KeyChoice
from p2p_ipython.board.client.known_hosts import HostKeyCheck
from p2p_ipython.errors import BoardUnreachable, HostKeyUnknown

MAX_ANSWER = 16 << 10

_NAME = re.compile(r"[a-zA-Z0-9]{1,50}")


@dataclass(frozen=True)
class Account:
    """An account at pico.sh or at a board that answers ``user`` alike. ``since`` is a date, ``plan`` a word; or ""."""

    name: str
    since: str = ""
    plan: str = ""

    def __str__(self) -> str:
        since = f", since {self.since}" if self.since else ""
        return f"{self.name}{since}{f', plan {self.plan}' if self.plan else ''}"


def shown_host_key(there: Route, kinds: list[str], timeout: float) -> paramiko.PKey:
    """Return the host key that ``there``'s end shows (or its first jump host's, if it has any). Nobody logs in.

    ``kinds`` are asked for first. Raises ``BoardUnreachable`` where nothing speaks SSH.
    """
    hop = first_hop(there)
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(_socket(hop, timeout))
        return _start(sock, hop, kinds, timeout, stack)[1]


def first_hop(there: Route) -> Route:
    """Return where the way to ``there``'s end begins: there, or at a jump host."""
    return there.jumps[0] if there.jumps else there


def ask(there: Route, files: SSHFiles, key: KeyChoice, command: str, timeout: float) -> str:
    """Log in and run ``command``; return what it prints, 16 KiB at most.

    Each host key on the way must be known. Raises ``BoardUnreachable``, ``HostKeyUnknown``, ``HostKeyChanged``,
    ``KeyRefused`` or ``NoKey``.
    """
    deadline = time.monotonic() + timeout
    hops = [*there.jumps, there]
    with contextlib.ExitStack() as stack:
        sock: Any = stack.enter_context(_socket(hops[0], timeout))
        for hop, onward in zip(hops, [*hops[1:], None], strict=True):
            left = seconds_left(deadline)
            check = HostKeyCheck(hop, files)
            transport, host_key = _start(sock, hop, check.kinds, left, stack)
            check.check(host_key)
            try:
                if transport.auth_publickey(hop.user, key.key):
                    raise paramiko.AuthenticationException
                if onward is not None:
                    sock = transport.open_channel(
                        "direct-tcpip", (onward.host, onward.port), ("127.0.0.1", 0), timeout=left
                    )
            except paramiko.AuthenticationException:
                raise key_refused(hop, key) from None
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise BoardUnreachable(f"{hop} has hung up: {error}", hint="Try again.") from None
        return _answer(transport, there, command, deadline)


def _answer(transport: paramiko.Transport, there: Route, command: str, deadline: float) -> str:
    answer = b""
    try:
        with contextlib.closing(transport.open_session(timeout=seconds_left(deadline))) as channel:
            channel.settimeout(seconds_left(deadline))
            channel.exec_command(command)
            channel.shutdown_write()
            while len(answer) < MAX_ANSWER and time.monotonic() < deadline:
                data = channel.recv(MAX_ANSWER - len(answer))
                if not data:
                    break
                answer += data
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise BoardUnreachable(f"{there} does not answer {command!r}: {error}", hint="Try again.") from None
    return answer.decode("utf-8", "replace")


def ask_account(address: BoardAddress, files: SSHFiles, key: KeyChoice, timeout: float) -> Account | None:
    """Ask pico.sh, or a board that answers ``user`` alike, which account the key has there; None: none.

    Raises as ``ask`` does.
    """
    try:
        return parse_account(ask(route(address, files), files, key, "user", timeout))
    except HostKeyUnknown as error:
        hint = "`p2p setup` shows it, and asks whether it is the right one."
        raise HostKeyUnknown(error.message, hint=hint) from None


def parse_account(answer: str) -> Account | None:
    """Read what ``user`` prints: name, id, date, plan, a line each. None: that is no account."""
    lines = [line.strip() for line in answer.splitlines()]
    if not lines or not _NAME.fullmatch(lines[0]) or lines[0].lower() == "public":
        return None
    since, plan = (lines[2], lines[3]) if len(lines) >= 4 else ("", "")
    try:
        since = datetime.date.fromisoformat(since[:10]).isoformat()
    except ValueError:
        since = ""
    return Account(lines[0].lower(), since, plan if _NAME.fullmatch(plan) else "")


@contextlib.contextmanager
def _socket(hop: Route, timeout: float) -> Iterator[socket.socket]:
    try:
        sock = connect(hop.host, hop.port, timeout)
    except (OSError, UnicodeError) as error:
        raise BoardUnreachable(
            f"{hop} can't be reached: {getattr(error, 'strerror', None) or error}", hint="`p2p doctor` says why."
        ) from None
    with sock:
        yield sock


def _start(
    sock: Any, hop: Route, kinds: list[str], timeout: float, stack: contextlib.ExitStack
) -> tuple[paramiko.Transport, paramiko.PKey]:
    transport = new_transport(sock, kinds, timeout)
    stack.callback(close_transport, transport)
    try:
        transport.start_client(timeout=timeout)
        return transport, transport.get_remote_server_key()  # which fails when start_client has run out of time
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise no_ssh(hop, error, transport) from None
