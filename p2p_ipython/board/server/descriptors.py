"""How many files and connections a board's process may have open, and what becomes of more.

A listening socket keeps one descriptor in reserve. When all others are used up, it takes newcomers with that one, and
closes them at once. Otherwise they would wait in the kernel, and the loop would try to accept them without pause.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import sys
import time

from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.limits import SHARES, Seldom

log = logging.getLogger(__name__)

_USED_UP = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
_BACKLOG = 512
"""Connections that the kernel keeps until they are accepted; it may take fewer."""
_AT_ONCE = 100
"""Connections that are turned away before others have their turn."""
_WINDOWS = 512
"""The files that a selector takes on Windows, where no limit can be asked for."""


def limit() -> int:
    """Return how many files this process may have open."""
    if sys.platform == "win32":
        return _WINDOWS
    import resource  # there is none on Windows

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_limit() -> None:
    """Raise the soft limit of open files to what a board can use, or to the hard limit if that is lower."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = Bounds.descriptors + SHARES * Bounds.connections
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:  # macOS has another limit below the one that it tells
            log.info("at most %d files can be open: %s", soft, error)


class ReservedSocket(socket.socket):
    """A listening socket that has a descriptor in reserve for newcomers it must turn away."""

    def reserve(self, seldom: Seldom) -> None:
        """Keep a descriptor in reserve from now on. ``seldom`` decides how often refusals are logged."""
        self._seldom = seldom
        self._reserved: int | None = os.open(os.devnull, os.O_RDONLY)
        self._tired = False

    def accept(self) -> tuple[socket.socket, object]:
        """Accept a connection; turn newcomers away while there are no descriptors for them."""
        for _ in range(_AT_ONCE):
            try:
                return super().accept()
            except OSError as error:
                if error.errno not in _USED_UP:
                    raise
                if self._seldom.say(time.monotonic()):
                    log.error("connections are refused: %s; the limit is %d files", error.strerror, limit())
                if not self._turned_away():
                    # asyncio tries 100 times before it waits for a second: spare it 98.
                    self._tired = not self._tired
                    if self._tired:
                        raise
                    break
        raise BlockingIOError  # for now: others have their turn

    def close(self) -> None:
        """Close the socket and the descriptor in reserve."""
        if getattr(self, "_reserved", None) is not None:
            os.close(self._reserved)  # type: ignore[arg-type]
            self._reserved = None
        super().close()

    def _turned_away(self) -> bool:
        """Accept and close one connection; False: the descriptor in reserve is gone, too."""
        if self._reserved is not None:
            os.close(self._reserved)
            self._reserved = None
        try:
            super().accept()[0].close()
        except BlockingIOError:
            raise
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                self._reserved = os.open(os.devnull, os.O_RDONLY)
        return True


def listening(host: str, port: int, seldom: Seldom) -> list[ReservedSocket]:
    """Return the sockets that listen on an address, a port of 0 being any. Raises ``OSError``.

    ``::`` is all addresses, also those of IPv4. They get a socket of their own, so that none looks like one of IPv6.
    """
    if host != "::":
        return [_listening(host, port, seldom)]
    try:
        everywhere = _listening("::", port, seldom)
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
        return [_listening("0.0.0.0", port, seldom)]  # noqa: S104 - as asked for
    try:
        return [everywhere, _listening("0.0.0.0", int(everywhere.getsockname()[1]), seldom)]  # noqa: S104
    except BaseException:
        everywhere.close()
        raise


def _listening(host: str, port: int, seldom: Seldom) -> ReservedSocket:
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    listener = ReservedSocket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: {host} port {port}") from None
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        listener.reserve(seldom)
    except BaseException:
        listener.close()
        raise
    return listener
