"""Logging in for a user: which key to show to which board, and which host keys have been accepted."""

from __future__ import annotations

import asyncio
from pathlib import Path

from p2p_ipython.board.address import BoardAddress, SSHFiles
from p2p_ipython.board.hostkeys import remember_host_key
from p2p_ipython.board.keys import KeyChoice, choose_key
from p2p_ipython.board.ssh import SSHBoard


async def choose_login(
    board: str, identity: Path | None = None, *, ssh_options: tuple[str, ...] = ()
) -> tuple[BoardAddress, KeyChoice]:
    """Return the address of ``board`` ("HOST[:PORT]") and the one key to show there.

    ``ssh_options`` are those that ``SSHBoard`` gets, too (see ``address.parse_ssh_options``).
    Raises ``ConfigError`` for an address or a configuration that can't be read, ``NoKey`` without a usable key.
    """
    address = BoardAddress.parse(board)
    return address, await asyncio.to_thread(choose_key, address, identity=identity, ssh_options=ssh_options)


def remember_accepted(board: SSHBoard, accepted: str | None) -> None:
    """Keep a host key that the user has ``accepted`` and the board has shown, so that it is known next time. Blocks."""
    file = SSHFiles.default().accepted
    if accepted is not None and board.route is not None and file is not None:
        remember_host_key(board.route, board.host_key, file)
