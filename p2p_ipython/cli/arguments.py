"""The parts that all command lines share: how a command is made, kinds of values, groups of options."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2p_ipython.board.client.address import PICO_BOARD as PICO_BOARD  # noqa: PLC0414 - commands take it from here
from p2p_ipython.cli.terminal import wrong_usage
from p2p_ipython.config import parse_amount, parse_duration, parse_size
from p2p_ipython.errors import ConfigError

PERSONAL = "personal"
"""The cluster's name if none is given; as in client/cluster.py, which is not worth loading for --help."""

PICO_ACCOUNTS = "pico.sh"
"""The server that has the accounts of that board."""


class Commands:
    """The commands of ``p2p``: each module adds its own."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        # Given before or after the command: the second default would else overwrite the first's value.
        self._verbosity = _Command(add_help=False)
        self._verbosity.add_argument(
            "-v",
            "--verbose",
            action="count",
            default=argparse.SUPPRESS,
            help="say more about what happens (-vv: much more)",
        )
        self._verbosity.add_argument(
            "--trace", metavar="FILE", default=argparse.SUPPRESS, help="write what is decided to FILE; see p2p trace"
        )
        parser.add_argument("-v", "--verbose", action="count", default=0, help=argparse.SUPPRESS)
        parser.add_argument("--trace", default="", help=argparse.SUPPRESS)
        self._commands = parser.add_subparsers(
            title="commands", dest="command", metavar="COMMAND", required=True, parser_class=_Command
        )

    def add(
        self, name: str, run: Callable[[argparse.Namespace], int], *, short: str, text: str, example: str
    ) -> argparse.ArgumentParser:
        """Add a command and return its parser, for its arguments.

        ``short`` is its line in ``p2p --help``. ``text`` and ``example`` (lines that begin with two blanks) are its own
        help. ``run`` gets the parsed arguments and returns the exit status.
        """
        made = self._commands.add_parser(
            name,
            help=short,
            description=text,
            epilog=f"examples:\n{example}",
            parents=[self._verbosity],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        return made


class _Command(argparse.ArgumentParser):
    """A command's parser. It refuses unknown arguments itself: argparse would show the usage of ``p2p``."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


# -- groups of options --


def cluster_arguments(parser: argparse.ArgumentParser, *, required: bool, default: str | None) -> None:
    """Add ``--board`` (which may be ``required``), ``--cluster`` (with its ``default``) and the key's options."""
    parser.add_argument("--board", required=required, metavar="[USER@]HOST[:PORT]", help="the board to meet at")
    parser.add_argument(
        "--cluster", default=default, metavar="NAME", help=f"the cluster's name on the board (default: {PERSONAL})"
    )
    key_arguments(parser)


def which_cluster(command: str, options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Return what ``cluster_arguments`` have said, as ``connect`` takes its target and its cluster.

    Without a target a cluster is started here. What makes no sense is wrong usage of ``command``.
    """
    if "/" in (options.cluster or ""):
        if options.board:
            wrong_usage(command, f"{options.cluster} is a cluster of friends, which knows its board; leave --board out")
        return options.cluster, None
    if options.cluster and not options.board:
        wrong_usage(command, "--cluster needs --board, unless it is one of friends, as alice/friends")
    return options.board, options.cluster


def key_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--identity``, ``--accept-host-key`` and ``--ssh-option``: our key, the board's, and the way to it."""
    parser.add_argument(
        "--identity",
        type=Path,
        metavar="FILE",
        help="SSH key to show (default: as ~/.ssh/config and the agent have it)",
    )
    parser.add_argument(
        "--accept-host-key", metavar="SHA256:…", help="the board's fingerprint, the first time you go there"
    )
    parser.add_argument(
        "--ssh-option",
        action="append",
        default=[],
        metavar="OPTION",
        help='an option of ssh for the way to the board, as --ssh-option "-J jump.example.org"; may be repeated',
    )


# -- kinds of values: they raise ``argparse.ArgumentTypeError``, which argparse shows as wrong usage --


def duration(text: str) -> float:
    """Read a duration as seconds; see ``config.parse_duration``."""
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def size(text: str) -> int:
    """Read a size as bytes; see ``config.parse_size``."""
    try:
        return parse_size(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def amount(text: str) -> float:
    """Read an amount of processor cores; see ``config.parse_amount``."""
    try:
        return parse_amount(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def port(text: str) -> int:
    """Read a port, or 0."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("a port is between 0 and 65535")
    return number


def address(text: str) -> str:
    """Read an IP address."""
    return str(ipaddress.ip_address(text))


def count(text: str) -> int:
    """Read a number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


# argparse names the type in "invalid … value".
count.__name__ = "whole number"
