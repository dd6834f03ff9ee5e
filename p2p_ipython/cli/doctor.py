"""``p2p doctor``: which hop works, and which doesn't."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_ipython import loop
from p2p_ipython.cli.arguments import PICO_BOARD, Commands, key_arguments
from p2p_ipython.cli.lending import lent
from p2p_ipython.cli.terminal import run, say, wrong_usage
from p2p_ipython.config import Settings

if TYPE_CHECKING:
    from p2p_ipython.doctor.checks import Check, Report, Result
    from p2p_ipython.doctor.examine import Places


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "doctor",
        _doctor,
        short="find out which hop fails, why, and what to do",
        text="Check each hop between this machine and a cluster, in order: the SSH key, the board's name, the\n"
        "connection, the board's host key, the log-in, a line on the board, this machine's clock, the wormhole\n"
        "mailbox, the relay, and a link to oneself over that relay. Then check which sandbox friends' tasks would\n"
        "run in here. Name the first thing that fails, why, and what to do.\n"
        f"Default: the board {PICO_BOARD}, with Magic Wormhole's public mailbox and relay. It takes a minute at most.\n"
        "Exit status: 0 if everything works, 1 if not.",
        example="  p2p doctor\n  p2p doctor --board localhost:2222\n  p2p doctor --cluster alice/friends --json",
    )
    parser.add_argument("--board", metavar="[USER@]HOST[:PORT]", help=f"the board to look at (default: {PICO_BOARD})")
    parser.add_argument(
        "--cluster", metavar="TITLE", help="check the board, mailbox and relay of this cluster, which you have joined"
    )
    parser.add_argument(
        "--mailbox", metavar="URL", help="the wormhole mailbox (default: the board's, or the public one)"
    )
    parser.add_argument("--relay", metavar="tcp:HOST:PORT", help="the relay (default: the board's, or the public one)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    key_arguments(parser)


def _doctor(options: argparse.Namespace) -> int:
    if options.cluster and options.board:
        wrong_usage("doctor", "--cluster knows its board: give one of --cluster and --board")

    from p2p_ipython.doctor.show import Style, finding, verdict

    style = Style(
        width=shutil.get_terminal_size().columns,
        colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ,
        signs=_can_print("✓✗–→"),
    )

    def tell(check: Check, result: Result) -> None:
        if not options.json:
            say(finding(check, result, style))

    report = run(_examine(_places(options), tell))
    say(json.dumps(report.as_json()) if options.json else f"\n{verdict(report)}")
    for line in () if options.json else lent():
        say(line)
    return 0 if report.healthy else 1


async def _examine(places: Places, tell: Callable[[Check, Result], None]) -> Report:
    from p2p_ipython.doctor.examine import examine

    try:
        return await examine(places, tell, sandbox=_sandbox)
    finally:
        loop.disown()


async def _sandbox() -> Result:
    """Say which sandbox a worker would take by itself. Raises ``ConfigError`` if none works here."""
    from p2p_ipython.doctor.checks import ok, unknown

    if sys.platform == "win32":
        return unknown("workers don't run on Windows itself")
    from p2p_ipython.worker.sandboxes import automatic

    return ok(f"auto is {await automatic(Settings.load())}, which has passed its self-test")


def _places(options: argparse.Namespace) -> Places:
    from p2p_ipython.doctor.examine import Places
    from p2p_ipython.link.rendezvous import PUBLIC_MAILBOX, PUBLIC_RELAY

    if options.cluster is None:
        public = options.board is None  # which has no mailbox of its own: there is no need to ask
        return Places(
            board=options.board or PICO_BOARD,
            identity=options.identity,
            host_key=options.accept_host_key,
            remember=options.accept_host_key is not None,
            ssh_options=tuple(options.ssh_option),
            mailbox=options.mailbox or (PUBLIC_MAILBOX if public else ""),
            relay=options.relay or (PUBLIC_RELAY if public else ""),
            fallback_mailbox=PUBLIC_MAILBOX,
            fallback_relay=PUBLIC_RELAY,
        )
    from p2p_ipython.members.operations import find_title
    from p2p_ipython.members.profiles import Profiles

    profiles = Profiles()
    profile = profiles.load(find_title(profiles, options.cluster))
    return Places(
        board=profile.board,
        identity=options.identity or (Path(profile.identity) if profile.identity else None),
        host_key=options.accept_host_key or profile.host_key or None,
        remember=options.accept_host_key is not None,
        ssh_options=tuple(options.ssh_option),
        mailbox=options.mailbox or profile.mailbox,
        relay=options.relay or profile.relay,
        fallback_mailbox=PUBLIC_MAILBOX,
        fallback_relay=PUBLIC_RELAY,
    )


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
