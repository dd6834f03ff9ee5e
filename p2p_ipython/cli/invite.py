"""``p2p invite``: let one friend into a cluster, by a code that is spoken aloud."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import asyncio
from typing import TYPE_CHECKING

from p2p_ipython.cli.arguments import PERSONAL, Commands
from p2p_ipython.cli.friends import run_shared, way_arguments, way_of
from p2p_ipython.cli.terminal import asked, say
from p2p_ipython.config import Settings

if TYPE_CHECKING:
    from p2p_ipython.members.inviting import Question


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "invite",
        _invite,
        short="invite a friend into a cluster that you host",
        text="Invite a friend into a cluster that you host: prints a code that they type, waits for them, shows their\n"
        "name and the fingerprint of their key, and asks whether to admit them. A code works once, for ten minutes.\n"
        "With --own, it is for a machine of your own that has a key of its own.",
        example="  p2p invite friends bob\n"
        "  p2p invite --own --board board.example.org:2222     a machine for your personal cluster",
    )
    parser.add_argument(
        "cluster",
        nargs="?",
        default="",
        metavar="NAME",
        help="the cluster, as friends (default: the one that you host)",
    )
    parser.add_argument("guest", nargs="?", metavar="WHO", help="the guest's name in the cluster (default: their own)")
    parser.add_argument("--own", action="store_true", help="a machine of your own, which counts as you")
    parser.add_argument("--yes", action="store_true", help="admit anyone who has the code, without a question")
    way_arguments(parser, board=True)


def _invite(options: argparse.Namespace) -> int:
    return run_shared(_run(options))


async def _run(options: argparse.Namespace) -> int:
    from p2p_ipython.members import inviting, operations
    from p2p_ipython.members.host import Host
    from p2p_ipython.members.owner import roster_of
    from p2p_ipython.members.profiles import Profiles

    profiles, settings, way = Profiles(), Settings.load(), way_of(options)

    def show_code(code: str, mailbox: str) -> None:
        own = " --own" if options.own else ""
        where = f" --mailbox {mailbox}" if mailbox else ""
        say(f"the guest types:  p2p join{own} {code}{where}")
        say(f"in a notebook:    %p2p_join{own} {code}{where}")
        say("waiting for them, for ten minutes")

    async def ask(question: Question) -> str | None:
        if options.yes:
            say(str(question))
            say("yes, as --yes says")
            return question.called
        return question.called if await asked(str(question)) else None

    if options.own and (options.board or options.cluster in ("", PERSONAL)):
        guest = await inviting.invite_own(
            options.cluster or PERSONAL, way=way, settings=settings, show_code=show_code, ask=ask
        )
        title = options.cluster or PERSONAL
        called = guest.name if guest is not None else ""
    else:
        title = await asyncio.to_thread(operations.find_title, profiles, options.cluster, hosted=True)
        access, profile = await operations.owners_access(title, way=way, profiles=profiles, settings=settings)
        host = Host(access, profile, profiles)
        try:
            await host.open()
            guest = await inviting.invite(
                host, access, profiles, name=options.guest, show_code=show_code, ask=ask, own=options.own
            )
            member = roster_of(host.profile).member(guest.fingerprint) if guest is not None else None
            called = member.name if member is not None else guest.name if guest is not None else ""
        finally:
            await host.close()
    if guest is None:
        say("not admitted")
        return 1
    say(f"done: {called} is in {title}")
    return 0
