"""Logging in for a user: which key to show to which board, and which host keys have been accepted."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from p2p_ipython.board.base import BoardListener
from p2p_ipython.board.client.address import BoardAddress, SSHFiles
from p2p_ipython.board.client.keys import KeyChoice, Passphrase, choose_key
from p2p_ipython.board.client.known_hosts import remember_host_key
from p2p_ipython.board.client.passphrase import user_prompt
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.config import Settings, data_dir


async def choose_login(
    board: str,
    identity: Path | None = None,
    *,
    ssh_options: tuple[str, ...] = (),
    passphrase: Passphrase | None = None,
) -> tuple[BoardAddress, KeyChoice]:
    """Return the address of ``board`` ("HOST[:PORT]") and the one key to show there.

    ``ssh_options`` are those that ``SSHBoard`` gets, too (see ``address.parse_ssh_options``). A key's passphrase is
    asked for by ``passphrase``, or without it on the terminal or in the notebook, if there is one.

    Raises ``ConfigError`` for an address or a configuration that can't be read, ``NoKey`` without a usable key.
    """
    address = BoardAddress.parse(board)
    gone = threading.Event()
    ask = passphrase or user_prompt(gone)
    try:
        # One of asyncio's threads, which are waited for: it must have set the terminal right before the program ends.
        return address, await asyncio.to_thread(
            choose_key, address, identity=identity, ssh_options=ssh_options, passphrase=ask
        )
    finally:
        gone.set()


async def join_topic(
    address: BoardAddress,
    topic: str,
    listener: BoardListener,
    *,
    key: KeyChoice,
    settings: Settings,
    pin: str | None = None,
    ssh_options: tuple[str, ...] = (),
    remember: bool = True,
) -> SSHBoard:
    """Join a public topic; a host key that the user has accepted as ``pin`` is kept.

    ``remember`` is false for a board that is made for this cluster alone: the user's files are then left alone.
    Raises a ``BoardError``; a board that was joined is left again then.
    """
    # One topic for everybody, with an account or without. Its name is the secret; an access list would keep nobody
    # out (the first session of a stranger is let in) and shut some of us away.
    board = SSHBoard(
        address,
        topic,
        listener,
        key=key,
        settings=settings,
        pin=pin,
        public=True,
        ssh_options=ssh_options,
        files=None if remember else SSHFiles.none(),
    )
    await board.open()
    if remember:
        try:
            await asyncio.to_thread(remember_accepted, board, pin)
        except BaseException:
            await board.close()
            raise
    return board


def remember_accepted(board: SSHBoard, accepted: str | None) -> None:
    """Keep a host key that the user has ``accepted`` and the board has shown, so that it is known next time. Blocks."""
    if accepted is not None and board.route is not None:
        remember_host_key(board.route, board.host_key, data_dir() / "known_hosts")
