"""Connecting to a name that has several addresses, side by side: an address that is dead costs a quarter of a second.

This is what RFC 8305 calls Happy Eyeballs, for threads; asyncio and Twisted have their own. All of it blocks.
"""

from __future__ import annotations

import errno
import itertools
import os
import selectors
import socket
import time
from collections.abc import Iterator
from typing import Any

from p2p_ipython.loop import ADDRESS_DELAY

_Address = tuple[int, Any]
"""A family, and what sockets of it connect to."""


def connect(host: str, port: int, timeout: float) -> socket.socket:
    """Return a socket that is connected to the first address of ``host`` that answers, with ``timeout`` set.

    Raises ``OSError``: ``socket.gaierror`` for a name that nobody knows, ``TimeoutError``, or the last address's.
    """
    deadline = time.monotonic() + timeout
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    waiting = alternate([(int(family), address) for family, _, _, _, address in found])
    error: OSError = TimeoutError("timed out")
    with selectors.DefaultSelector() as trying:
        try:
            begin_at = time.monotonic()
            while waiting or trying.get_map():
                now = time.monotonic()
                if now >= deadline:
                    raise TimeoutError("timed out")
                if waiting and now >= begin_at:
                    begin_at = now + ADDRESS_DELAY
                    try:
                        trying.register(_begin(waiting.pop(0)), selectors.EVENT_WRITE)
                    except OSError as failure:
                        error, begin_at = failure, now
                    continue
                for key, _ in trying.select(min(deadline, begin_at if waiting else deadline) - now):
                    sock: Any = key.fileobj
                    trying.unregister(sock)
                    failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not failed:
                        sock.settimeout(timeout)
                        return sock  # type: ignore[no-any-return]
                    sock.close()
                    error, begin_at = OSError(failed, os.strerror(failed)), now
        finally:
            for key in list(trying.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    raise error


def alternate(addresses: list[_Address]) -> list[_Address]:
    """Put addresses of the two families in turns, beginning with that of the first."""
    first = [each for each in addresses if each[0] == addresses[0][0]]
    other = [each for each in addresses if each[0] != addresses[0][0]]
    return [each for pair in itertools.zip_longest(first, other) for each in _there(pair)]


def _there(pair: tuple[_Address | None, ...]) -> Iterator[_Address]:
    return (each for each in pair if each is not None)


def _begin(address: _Address) -> socket.socket:
    sock = socket.socket(address[0], socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        began = sock.connect_ex(address[1])
        if began not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(began, os.strerror(began))
    except BaseException:
        sock.close()
        raise
    return sock
