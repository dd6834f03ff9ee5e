"""The way to a board, as options of a magic: key, host key, options of ssh, mailbox and relay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.core.magic_arguments import argument

from p2p_ipython.members.way import Way


def way_arguments(*, board: str) -> Callable[[Any], Any]:
    """Return a decorator that adds the options. ``board``: the help of ``--board``; "" if it can't be chosen."""
    options = [
        argument("--identity", help="file of the SSH key to use"),
        argument("--accept-host-key", help="fingerprint of the board's host key, to accept it"),
        argument("--ssh-option", action="append", help="option of ssh for the way, as '-J HOST'; repeatable"),
    ]
    if board:
        options += [
            argument("--mailbox", help="URL of the wormhole mailbox (default: the board's own, or the public one)"),
            argument("--relay", help="tcp:HOST:PORT of the relay (default: the board's own, or the public one)"),
            argument("--board", help=board),
        ]

    def add(function: Any) -> Any:
        for option in options:
            function = option(function)
        return function

    return add


def way_of(given: dict[str, Any]) -> Way:
    """Return the way that the options of a magic say."""

    return Way(
        board=given.get("board") or "",
        identity=file_of(given["identity"]),
        pin=given["accept_host_key"],
        mailbox=given.get("mailbox") or "",
        relay=given.get("relay") or "",
        ssh_options=tuple(given["ssh_option"] or ()),
    )


def file_of(text: str | None) -> Path | None:
    """Return the path of a file that was given, "~" expanded."""
    return Path(text).expanduser() if text else None
