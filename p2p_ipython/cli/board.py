"""``p2p board``: run a message board."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
from pathlib import Path

from p2p_ipython.cli.arguments import Commands, address, port
from p2p_ipython.cli.terminal import run, say
from p2p_ipython.config import data_dir


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "board",
        _board,
        short="run a message board, where notebooks and workers meet",
        text="Run a message board: an SSH server on which notebooks and workers find one another, with a Magic\n"
        "Wormhole mailbox and a relay beside it. The board sees who talks to whom, and only encrypted messages.\n"
        "It listens on this machine only, unless --host says otherwise. Ctrl-C ends it.",
        example="  p2p board\n"
        "  p2p board --host :: --users friends.txt        for others, with names for their keys\n"
        "  p2p board --host :: --port 443                 for others behind firewalls that let the web out\n"
        "  p2p board --port 0 --json                      any free port, for programs",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; :: is all of this machine's, 0.0.0.0 those of IPv4 (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=port,
        metavar="N",
        default=2222,
        help="port for SSH, mailbox and relay alike; 0 picks a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--mailbox-port", type=port, metavar="N", help="a port of its own for the wormhole mailbox (0: a free one)"
    )
    parser.add_argument("--relay-port", type=port, metavar="N", help="a port of its own for the relay (0: a free one)")
    parser.add_argument(
        "--advertise",
        type=_place,
        metavar="HOST[:PORT]",
        help="where members find mailbox and relay (default: where they have dialled the board)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder that keeps the board's host key (default: board, in this user's p2p_ipython data folder)",
    )
    parser.add_argument(
        "--users",
        type=Path,
        metavar="FILE",
        help="names for keys, a line each: NAME ssh-ed25519 AAAA…; read again when it changes (default: no names)",
    )
    parser.add_argument(
        "--proxy",
        type=address,
        metavar="ADDRESS",
        help="address of a proxy in front of the board: its connections begin with a header of the PROXY protocol",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON with the addresses, once it is ready"
    )
    parser.add_argument(
        "--until-eof", action="store_true", help="end when standard input does: for programs that start it"
    )


def _board(options: argparse.Namespace) -> int:
    from p2p_ipython.board.server.main import board_command
    from p2p_ipython.board.server.options import ServerOptions

    server = ServerOptions(
        host=options.host,
        port=options.port,
        mailbox_port=options.mailbox_port,
        relay_port=options.relay_port,
        data=options.data or data_dir() / "board",
        users=options.users,
        advertise=options.advertise,
        proxy=options.proxy,
    )
    run(board_command(server, json=options.json, out=say, until_eof=options.until_eof))
    return 0


def _place(text: str) -> str:
    """Read HOST or HOST:PORT."""
    from p2p_ipython.board.server.options import split_place

    split_place(text)
    return text


# argparse names the type in "invalid … value".
_place.__name__ = "HOST[:PORT]"
