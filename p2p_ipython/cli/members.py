"""``p2p members``, ``p2p revoke`` and ``p2p trust``: the members of a cluster, and on which terms."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import asyncio

from p2p_ipython.cli.arguments import Commands
from p2p_ipython.cli.friends import day, member_lines, run_shared, way_arguments, way_of
from p2p_ipython.cli.terminal import asked, say
from p2p_ipython.config import Settings


def add(commands: Commands) -> None:
    """Add the commands."""
    parser = commands.add(
        "members",
        _members,
        short="list the members of a cluster",
        text="List the members of a cluster: names, fingerprints of keys, and whom you trust. Without a name, list\n"
        "the clusters that this machine knows.",
        example="  p2p members\n  p2p members friends",
    )
    parser.add_argument("cluster", nargs="?", metavar="NAME", help="the cluster, as friends or alice/friends")

    parser = commands.add(
        "revoke",
        _revoke,
        short="revoke a membership of a cluster that you host",
        text="Revoke a membership of a cluster that you host. Every process that hears of it cuts its links to that\n"
        "member at once. The others get another topic and another key, and their tasks continue.",
        example="  p2p revoke friends bob\n  p2p revoke friends SHA256:…     one key of a member's",
    )
    parser.add_argument("cluster", metavar="NAME", help="the cluster, as friends")
    parser.add_argument("member", metavar="WHO", help="the member's name, or the fingerprint of one of their keys")
    parser.add_argument("--yes", action="store_true", help="don't ask")
    way_arguments(parser, board=False)

    parser = commands.add(
        "trust",
        _trust,
        short="let a member's results run code in your notebooks",
        text="Trust a member: results of their workers are then read as pickles, which can be of any type, and can\n"
        "run any code in your notebooks. Others' results are plain data: numbers, text, arrays, tables, pictures.",
        example="  p2p trust friends bob\n  p2p trust friends bob --revoke",
    )
    parser.add_argument("cluster", metavar="NAME", help="the cluster, as friends")
    parser.add_argument("member", metavar="WHO", help="the member's name")
    parser.add_argument("--revoke", action="store_true", help="no longer trust them")


def _members(options: argparse.Namespace) -> int:
    from p2p_ipython.members import operations
    from p2p_ipython.members.profiles import Profiles
    from p2p_ipython.protocol.roster import Roster

    profiles = Profiles()
    if options.cluster is None:
        known = profiles.all()
        for profile in known:
            until = operations.until_of(profile)
            say(f"{profile.title}  at {profile.board}{f', until {day(until)}' if until else ''}")
        if not known:
            say("no clusters yet: host one (p2p host NAME), or join one (p2p join CODE)")
        return 0
    profile = profiles.load(operations.find_title(profiles, options.cluster))
    if not profile.roster:
        say(f"the list of members of {profile.title} has not come yet; it does when you connect")
        return 0
    roster = Roster.parse(profile.roster, profile.cluster)
    say(f"{profile.title}, epoch {roster.epoch}, until {day(roster.until)}")
    for line in member_lines(profile, roster):
        say(line)
    return 0


def _revoke(options: argparse.Namespace) -> int:
    return run_shared(_revoked(options))


async def _revoked(options: argparse.Namespace) -> int:
    from p2p_ipython.members import operations
    from p2p_ipython.members.host import Host
    from p2p_ipython.members.owner import revoke
    from p2p_ipython.members.profiles import Profiles

    profiles, settings = Profiles(), Settings.load()
    title = await asyncio.to_thread(operations.find_title, profiles, options.cluster, hosted=True)
    access, profile = await operations.owners_access(title, way=way_of(options), profiles=profiles, settings=settings)
    revoke(profile, access.key, options.member)  # a name that nobody has is reported before the question
    if not options.yes and not await asked(f"Revoke {options.member}'s membership of {title}?"):
        say("nothing was changed")
        return 1
    host = Host(access, profile, profiles)
    try:
        await host.open()
        out = await operations.revoke(host, access, profiles, options.member)
    finally:
        await host.close()
    say(f"{out.member} is out of {title}")
    if out.told:
        say(f"{out.told} of the others' processes have the new key")
    if out.waiting:
        say(f"{out.waiting} have not taken it yet; they get it while somebody hosts: p2p host {title}")
    return 0


def _trust(options: argparse.Namespace) -> int:
    from p2p_ipython.members import operations
    from p2p_ipython.members.profiles import Profiles

    profiles = Profiles()
    title = operations.find_title(profiles, options.cluster)
    name, _ = operations.trust(profiles, title, options.member, allow=not options.revoke)
    if options.revoke:
        say(f"results of {name}'s workers are plain data again")
    else:
        say(f"results of {name}'s workers may be anything now, and run code in your notebooks in {title}")
    return 0
