"""``p2p whoami``: which key would be shown to a board, and who that is there."""

from __future__ import annotations

import argparse
import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_ipython.cli.arguments import Commands, key_arguments
from p2p_ipython.cli.terminal import run, say
from p2p_ipython.config import Settings

if TYPE_CHECKING:
    from p2p_ipython.board.address import BoardAddress, SSHFiles
    from p2p_ipython.board.base import BoardReport
    from p2p_ipython.board.keys import KeyChoice


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "whoami",
        _whoami,
        short="say which SSH key would be offered to a board, and who that is there",
        text="Say which SSH key would be offered to a board, where it comes from, and its fingerprint. With --board,\n"
        "ask that board which user name the key has there.",
        example="  p2p whoami\n  p2p whoami --board localhost:2222",
    )
    parser.add_argument(
        "--board", metavar="[USER@]HOST[:PORT]", help="a board to ask (its settings in ~/.ssh/config count)"
    )
    key_arguments(parser)


def _whoami(options: argparse.Namespace) -> int:
    from p2p_ipython.board.address import BoardAddress, SSHFiles
    from p2p_ipython.board.keys import choose_among, choose_key

    if options.board is None:  # to look is enough: nothing of ours is read, or made
        files = SSHFiles(Path.home() / ".ssh", config=None, known_hosts=(), accepted=None)
        choice = choose_among(files, identity=options.identity)
    else:
        files = SSHFiles.default()
        address = BoardAddress.parse(options.board)
        choice = choose_key(address, identity=options.identity, files=files)
    say(f"key          {choice.fingerprint}")
    say(f"from         {choice.source}")
    say(f"public key   {choice.public_line}")
    if options.board is not None:
        user = run(_ask_board(address, choice, files, options.accept_host_key))
        say(f"on {options.board}: {user or 'it does not say'}")
    return 0


async def _ask_board(address: BoardAddress, choice: KeyChoice, files: SSHFiles, pin: str | None) -> str:
    """Join a topic of our own for a moment; return the user name that the board has for the key.

    A host key that was accepted with ``pin`` is remembered.
    """
    from p2p_ipython.board.login import remember_accepted
    from p2p_ipython.board.ssh import SSHBoard

    board = SSHBoard(
        address, secrets.token_hex(16), _Deaf(), key=choice, pin=pin, files=files, settings=Settings.load()
    )
    await board.open()
    try:
        await asyncio.to_thread(remember_accepted, board, pin)
        return board.user
    finally:
        await board.close()


class _Deaf:
    """A listener for who only asks."""

    def on_line(self, line: bytes) -> None:
        pass

    def on_board(self, report: BoardReport) -> None:
        pass
