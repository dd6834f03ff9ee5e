"""Starts a board: its key, its users, its ports, in order; and what is said when one can't be had."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from dataclasses import replace

import asyncssh

from p2p_ipython.board.server import descriptors
from p2p_ipython.board.server.host_key import host_key
from p2p_ipython.board.server.limits import connections_each
from p2p_ipython.board.server.options import ServerOptions
from p2p_ipython.board.server.server import BoardServer
from p2p_ipython.board.server.services import Services
from p2p_ipython.board.server.users import Users
from p2p_ipython.errors import BoardError

log = logging.getLogger(__name__)


async def serve(options: ServerOptions, make: type[BoardServer] = BoardServer) -> BoardServer:
    """Start a board; it serves until ``close``. The running loop becomes the process's Twisted reactor.

    Raises ``ConfigError`` for a file that can't be used, ``BoardError`` when a port can't be had.
    """
    # At its info level asyncssh logs commands, and topics are secrets.
    asyncssh.set_log_level(logging.WARNING)
    most = connections_each(descriptors.limit(), options.connections, options.descriptors)
    options = replace(options, connections=most)
    key = host_key(options.data)
    users = Users(options.users, options.users_inline)
    host = await _literal(options.host)
    services = None
    if make.has_services:
        services = Services(options)
    server = make(options, host, users, services, key)
    try:
        await server.listen()
    except BaseException as error:
        if services is not None:
            await services.close()
        if isinstance(error, OSError):
            raise _taken(error) from None
        raise
    log.info("board listens on %s port %d", server.addresses.host, server.addresses.port)
    return server


def _taken(error: OSError) -> BoardError:
    return BoardError(
        f"the board can't listen: {error}", hint="Is another board running? Give another --port (0 picks a free one)."
    )


async def _literal(host: str) -> str:
    """Return an IP address for ``host``; Twisted listens on nothing else."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except OSError as error:
        raise BoardError(f"{host} is no address of this machine: {error}", hint="Give an address as --host.") from None
    return str(found[0][4][0])
