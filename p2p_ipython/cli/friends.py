"""The parts that commands for clusters of friends share: options, the loop that runs a coroutine, words."""

from __future__ import annotations

import argparse
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from p2p_ipython.cli.arguments import key_arguments
from p2p_ipython.cli.terminal import run
from p2p_ipython.loop import adopt, disown
from p2p_ipython.members.way import Way

if TYPE_CHECKING:
    from p2p_ipython.members.profile import Profile
    from p2p_ipython.protocol.roster import Roster

T = TypeVar("T")


def way_arguments(parser: argparse.ArgumentParser, *, board: bool) -> None:
    """Add the key's options and, if the ``board`` can be chosen, ``--board``, ``--mailbox`` and ``--relay``."""
    if board:
        parser.add_argument(
            "--board", default="", metavar="[USER@]HOST[:PORT]", help="the board to meet at (default: pipe.pico.sh)"
        )
        parser.add_argument(
            "--mailbox",
            default="",
            metavar="URL",
            help="wormhole mailbox (default: the board's own, or the public one)",
        )
        parser.add_argument(
            "--relay", default="", metavar="tcp:HOST:PORT", help="relay (default: the board's own, or the public one)"
        )
    key_arguments(parser)


def way_of(options: argparse.Namespace) -> Way:
    """Return the way to the board that the options describe."""
    return Way(
        board=getattr(options, "board", "") or "",
        identity=options.identity,
        pin=options.accept_host_key,
        mailbox=getattr(options, "mailbox", "") or "",
        relay=getattr(options, "relay", "") or "",
        ssh_options=tuple(getattr(options, "ssh_option", None) or ()),
    )


def run_shared(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on a loop that Twisted, and so Magic Wormhole, shares."""

    async def whole() -> T:
        adopt()
        try:
            return await work
        finally:
            disown()

    return run(whole())


def day(until: float) -> str:
    """Write a time for people."""
    return time.strftime("%a %d %b %Y, %H:%M", time.localtime(until))


def member_lines(profile: Profile, roster: Roster) -> list[str]:
    """Return the members, a line each key: name, fingerprint, roles, whether they are trusted."""
    width = max(len(member.name) for member in roster.members)
    lines = []
    for number, member in enumerate(roster.members):
        notes = ["owner"] if number == 0 else []
        if profile.signer in member.keys:
            notes.append("you")
        if len(member.roles) == 1:
            notes.append(f"{member.roles[0]} only")
        if any(key in profile.trusted for key in member.keys):
            notes.append("trusted")
        words = f"  ({', '.join(notes)})" if notes else ""
        lines += [
            f"  {member.name if not at else '':<{width}}  {key}{words if not at else ''}"
            for at, key in enumerate(member.keys)
        ]
    return lines


def identity_path(options: argparse.Namespace) -> Path | None:
    """Return the key file that was named."""
    path: Path | None = options.identity
    return path.expanduser() if path is not None else None
