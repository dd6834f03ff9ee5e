"""``p2p host``: be the host of a cluster of friends."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import asyncio
import signal
import time
from typing import TYPE_CHECKING

from p2p_ipython.cli.arguments import PICO_BOARD, Commands, duration
from p2p_ipython.cli.friends import day, member_lines, run_shared, way_arguments, way_of
from p2p_ipython.cli.terminal import asked, say
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError, P2PError, UsageError

if TYPE_CHECKING:
    from p2p_ipython.members.host import Host
    from p2p_ipython.members.profile import Profile
    from p2p_ipython.protocol.host_machine import Knock

LOOK_AGAIN = 60.0
"""Seconds after which a host looks at the latest how long it is to run."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "host",
        _host,
        short="host a cluster that friends share",
        text="Host a cluster that friends share, or continue it: admit guests, hand the list of members on. It runs\n"
        "until --duration is over or Ctrl-C. The members can work together without it, and find the cluster again\n"
        "on every later day. Invite friends from another terminal: p2p invite NAME. You are asked here about each\n"
        "guest who knocks.",
        example="  p2p host friends\n"
        "  p2p host friends --board board.example.org:2222 --users bob,carol\n"
        "  p2p host friends --users bob=SHA256:… --duration 90d",
    )
    parser.add_argument("cluster", metavar="NAME", help="what the cluster is called, as friends or alice/friends")
    parser.add_argument(
        "--users",
        default="",
        metavar="NAMES",
        help="the guests you expect: bob,carol; with bob=SHA256:… bob needs no invitation",
    )
    parser.add_argument("--owner", metavar="NAME", help="your name in its title (default: your name on the board)")
    parser.add_argument(
        "--duration", type=duration, metavar="TIME", help="how long the cluster is hosted, as 12h or 30d (default: 14d)"
    )
    parser.add_argument("--resume", action="store_true", help="only continue a cluster that is there")
    way_arguments(parser, board=True)


def _host(options: argparse.Namespace) -> int:
    return run_shared(_run(options))


async def _run(options: argparse.Namespace) -> int:
    from p2p_ipython.members import operations
    from p2p_ipython.members.host import Host
    from p2p_ipython.members.profiles import Profiles

    profiles, settings = Profiles(), Settings.load()
    access, profile, new = await operations.host(
        options.cluster,
        way=way_of(options),
        profiles=profiles,
        settings=settings,
        users=operations.parse_users(options.users),
        duration=options.duration or operations.DURATION,
        owner=options.owner,
        resume=options.resume,
    )
    lock = await asyncio.to_thread(profiles.hosting, profile.title)
    if lock is None:
        return _hosted_already(options, profile)
    knocks: asyncio.Queue[Knock] = asyncio.Queue()
    with lock:
        host = Host(access, profile, profiles, on_knock=knocks.put_nowait, on_members=_tell)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        try:
            await host.open()
            _introduce(host, new=new)
            answering = loop.create_task(_answer(host, knocks))
            try:
                over = "" if await _hosted_until_the_end(host, ended) else ": its time is up"
                say(f"{profile.title} is not hosted here any more{over}; p2p host {options.cluster} continues it")
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
        finally:
            await host.close()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
    return 0


def _hosted_already(options: argparse.Namespace, profile: Profile) -> int:
    """Say that another process hosts the cluster, which sees what the options have changed in the profile."""
    from p2p_ipython.members import operations
    from p2p_ipython.members.owner import roster_of
    from p2p_ipython.protocol.roster import parse_title

    users = operations.parse_users(options.users)
    if not users and not options.duration:
        raise ConfigError(
            f"another process of yours hosts {profile.title} already",
            hint=f"One is enough. Invite friends from here: p2p invite {parse_title(profile.title)[1]}\n"
            "To host it from here, end the other one first.",
        )
    for name, fingerprint in users.items():
        if not fingerprint:
            say(f"{name} is expected; your other process, which hosts {profile.title}, asks you when they knock")
    known = {name for name, fingerprint in users.items() if fingerprint}
    if known:
        say(f"{', '.join(sorted(known))} may come in: your other process, which hosts {profile.title}, admits them")
    if options.duration:
        say(f"{profile.title} is hosted until {day(roster_of(profile).until)} now, by your other process")
    return 0


async def _hosted_until_the_end(host: Host, ended: asyncio.Event) -> bool:
    """Return whether ``ended`` came before the cluster's time was up. Another process may prolong that time."""
    from p2p_ipython.members import operations

    while (left := operations.until_of(host.profile) - time.time()) > 0:
        try:
            await asyncio.wait_for(ended.wait(), min(left, LOOK_AGAIN))
        except TimeoutError:
            continue
        return True
    return False


def _introduce(host: Host, *, new: bool) -> None:
    from p2p_ipython.members import operations
    from p2p_ipython.members.owner import roster_of
    from p2p_ipython.protocol.roster import parse_title

    profile, roster = host.profile, roster_of(host.profile)
    name = parse_title(profile.title)[1]
    say(f"{profile.title} is hosted at {profile.board} until {day(roster.until)}")
    say("members:" if not new or len(roster.members) > 1 else "members: only you so far")
    for line in member_lines(profile, roster):
        say(line)
    if waiting := operations.still_expected(profile):
        say(f"expected: {', '.join(waiting)}")
    if operations.is_only_here(profile.board):
        say(f"note: {profile.board} is this machine only; friends elsewhere need an address that they can reach")
    say(f"invite somebody:   p2p invite {name}     (in another terminal; it prints a code to say aloud)")
    board = "" if profile.board == PICO_BOARD else f" --board {profile.board}"
    say(f"or let them knock: p2p join {profile.title}{board} --owner {roster.owner}")
    say("Ctrl-C ends the hosting; the members can go on without it")


def _tell(come: frozenset[str], gone: frozenset[str]) -> None:
    """Say which members have come in, by whatever way, and which are out."""
    for name in sorted(come):
        say(f"{name} is in")
    for name in sorted(gone):
        say(f"{name} is out")


async def _answer(host: Host, knocks: asyncio.Queue[Knock]) -> None:
    """Ask about each guest who knocks, one after the other."""
    while True:
        knock = await knocks.get()
        try:
            await _answer_one(host, knock)
        except P2PError as error:  # the next guest is asked about nevertheless
            say(f"{knock.name} could not be admitted: {error}")


async def _answer_one(host: Host, knock: Knock) -> None:
    from p2p_ipython.members.owner import free_name

    title = host.profile.title
    name = free_name(host.profile, knock.name)
    expected = host.profile.hosting.expected if host.profile.hosting else {}
    # Anybody can use the name. A guest whose fingerprint is expected would be in already, without knocking.
    remark = " (a name that you expect; you don't know their key yet)" if expected.get(name) == "" else ""
    knocks = f"{name}{remark} knocks, with the key {knock.fingerprint}."
    if name != knock.name:
        knocks += f" They use the name {knock.name}, which a member has."
    try:
        yes = await asked(f"{knocks} Admit them to {title} as {name}?")
    except UsageError:
        say(f"{knocks} Nobody can answer here; admit them by:\n  p2p host {title} --users {name}={knock.fingerprint}")
        return
    there = host.machine.roster.member(knock.fingerprint)
    if there is not None:  # another process has admitted them while the question was there
        say(f"{there.name} is in already; to undo that: p2p revoke {title} {there.name}")
        return
    if not yes:
        host.refuse(knock)
        say(f"{knock.name} is refused")
        return
    await asyncio.to_thread(host.approve, knock)
    await host.refresh()
