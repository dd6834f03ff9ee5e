"""``p2p whoami``: which key would be shown to a board, who that is there, and which account it has on pico.sh."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from p2p_ipython.board.base import Deaf
from p2p_ipython.board.client.address import BoardAddress, SSHFiles
from p2p_ipython.cli.arguments import PICO_ACCOUNTS, Commands, key_arguments
from p2p_ipython.cli.terminal import run, say
from p2p_ipython.config import Settings
from p2p_ipython.errors import BoardError

if TYPE_CHECKING:
    from p2p_ipython.board.client.keys import KeyChoice


ANSWER_WITHIN = 15.0
"""How long pico.sh may take to answer, s."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "whoami",
        _whoami,
        short="say which SSH key would be offered to a board, and who that is there",
        text="Say which SSH key would be offered to a board, where it comes from, and its fingerprint. With --board,\n"
        "ask that board which user name the key has there. With --account, or where the board is pico's, ask\n"
        "pico.sh for the key's account: its name, since when, and its plan.",
        example="  p2p whoami\n  p2p whoami --board localhost:2222\n  p2p whoami --account",
    )
    parser.add_argument(
        "--board", metavar="[USER@]HOST[:PORT]", help="a board to ask (its settings in ~/.ssh/config count)"
    )
    parser.add_argument(
        "--account",
        nargs="?",
        const=PICO_ACCOUNTS,
        metavar="HOST[:PORT]",
        help=f"ask for the key's account, too (there, or at {PICO_ACCOUNTS})",
    )
    key_arguments(parser)


def _whoami(options: argparse.Namespace) -> int:
    from p2p_ipython.board.client.keys import choose_among, choose_key

    accounts = options.account or (PICO_ACCOUNTS if is_pico(options.board) else None)
    asked = options.board or accounts
    if asked is None:  # to look is enough: nothing of ours is read, or made
        files = replace(SSHFiles.default(), config=None, known_hosts=(), accepted=None)
        choice = choose_among(files, identity=options.identity)
    else:
        files = SSHFiles.default()
        choice = choose_key(
            asked,
            identity=options.identity,
            files=files,
            ssh_options=options.ssh_option if options.board is not None else (),
        )
    say(f"key          {choice.fingerprint}")
    say(f"from         {choice.source}")
    say(f"public key   {choice.public_line}")
    if options.board is not None:
        address = BoardAddress.parse(options.board)
        user = run(_ask_board(address, choice, files, options.accept_host_key, tuple(options.ssh_option)))
        known = "no account; the board lets the key in nevertheless" if user == "public" else user
        say(f"on {options.board}: {known or 'it does not say'}")
    if accounts is not None:
        say(f"account      {_account(accounts, choice, files, wished=options.account is not None)}")
    return 0


def is_pico(board: str | None) -> bool:
    """Whether a board (as typed; None: none) is one of pico.sh's, whose users have their accounts there."""

    return board is not None and f".{BoardAddress.parse(board).host.lower()}".endswith(f".{PICO_ACCOUNTS}")


def _account(accounts: str, choice: KeyChoice, files: SSHFiles, *, wished: bool) -> str:
    """Describe the key's account; unless it was ``wished`` for, a failure to ask is described instead of raised."""
    from p2p_ipython.doctor.ssh import ask_account

    try:
        account = ask_account(BoardAddress.parse(accounts), files, choice, ANSWER_WITHIN)
    except BoardError as error:
        if wished:
            raise
        return f"not known: {error.message}"
    return (
        f"{account} (at {accounts})" if account else f"none at {accounts} for this key; `p2p setup` helps to make one"
    )


async def _ask_board(
    address: BoardAddress, choice: KeyChoice, files: SSHFiles, pin: str | None, ssh_options: tuple[str, ...]
) -> str:
    """Join a topic of our own for a moment; return the user name that the board has for the key.

    A host key that was accepted with ``pin`` is remembered.
    """
    from p2p_ipython.board.client.login import remember_accepted
    from p2p_ipython.board.client.ssh import SSHBoard

    board = SSHBoard(
        address,
        secrets.token_hex(16),
        Deaf(),
        key=choice,
        pin=pin,
        files=files,
        settings=Settings.load(),
        ssh_options=ssh_options,
    )
    await board.open()
    try:
        await asyncio.to_thread(remember_accepted, board, pin)
        return board.user
    finally:
        await board.close()
