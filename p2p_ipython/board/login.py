"""Which key to show to which board, asked off the event loop: files may be slow, and an agent may ask its user."""

from __future__ import annotations

import asyncio
from pathlib import Path

from p2p_ipython.board.address import BoardAddress
from p2p_ipython.board.keys import KeyChoice, choose_key


async def choose_login(board: str, identity: Path | None = None) -> tuple[BoardAddress, KeyChoice]:
    """Return the address of ``board`` ("HOST[:PORT]") and the one key to show there.

    Raises ``ConfigError`` for an address or a configuration that can't be read, ``NoKey`` without a usable key.
    """
    address = BoardAddress.parse(board)
    return address, await asyncio.to_thread(choose_key, address, identity=identity)
