"""Which key to show to which board: the address, the configuration and the agent, asked off the event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from p2p_ipython.board.address import BoardAddress, SSHFiles, route
from p2p_ipython.board.keys import KeyChoice, choose_key


async def choose_login(board: str, identity: Path | None = None) -> tuple[BoardAddress, KeyChoice]:
    """Return the address of ``board`` ("HOST[:PORT]") and the one key to show there; asks files and the agent.

    Raises ``ConfigError`` for an address or a configuration that can't be read, ``NoKey`` without a usable key.
    """
    address = BoardAddress.parse(board)

    def choose() -> KeyChoice:
        files = SSHFiles.default()
        return choose_key(files, identity=identity, configured=route(address, files).identities)

    return address, await asyncio.to_thread(choose)
