"""``python -m p2p_ipython.board.server``: the board of a personal cluster.

Standard input: a line of JSON with the users' keys; then nothing, until its end, which is the board's end too.
Standard output: one line of JSON with the addresses, once the board is ready. Nothing is kept on disk. See
client/local.py, which is at the other end.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from p2p_ipython import lifeline


def main() -> int:
    """Run the board that standard input describes."""
    options = lifeline.first_line()
    if options is None:
        return 0
    # Late: asyncssh and Twisted are heavy, and a starter that has gone needs neither.
    from p2p_ipython.board.server.main import board_command
    from p2p_ipython.board.server.options import ServerOptions

    def say(line: str) -> None:
        os.write(1, line.encode() + b"\n")

    # Rate limits are for strangers: on loopback all sessions are the user's own.
    free: dict[str, Any] = dict.fromkeys(("rate", "burst", "relay_rate_each", "relay_rate"), 1 << 30)
    server = ServerOptions(port=0, users_inline=options["users"], **free)
    asyncio.run(board_command(server, json=True, out=say, until_eof=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
