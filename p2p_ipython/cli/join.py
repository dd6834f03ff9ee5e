"""``p2p join``: join a cluster, by a code or by knocking; ``p2p leave``: forget it."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from p2p_ipython.cli.arguments import Commands
from p2p_ipython.cli.friends import identity_path, run_shared, way_arguments, way_of
from p2p_ipython.cli.terminal import answer, ask, asked, say
from p2p_ipython.config import Settings
from p2p_ipython.errors import NoKey, UsageError

if TYPE_CHECKING:
    from p2p_ipython.board.client.keys import KeyChoice
    from p2p_ipython.members.invitation_messages import Inviter


def add(commands: Commands) -> None:
    """Add the commands."""
    parser = commands.add(
        "join",
        _join,
        short="join a cluster, by a code that a friend tells you",
        text="Join a friend's cluster, by the code that they tell you; or knock, by its title, and wait until they\n"
        "admit you. All it takes is an SSH key, which is made if there is none. Afterwards %p2p_connect TITLE and\n"
        "p2p worker --cluster TITLE just work, on every later day.",
        example="  p2p join 7-guitarist-snowcap-hamburger\n"
        "  p2p join 7-guitarist-snowcap-hamburger --mailbox ws://board.example.org:2222/v1\n"
        "  p2p join alice/friends --board board.example.org:2222     to knock",
    )
    parser.add_argument(
        "code",
        nargs="*",
        metavar="CODE",
        help="the code that the friend has told you (default: you are asked), or the cluster's title",
    )
    parser.add_argument("--name", help="your name in the cluster (default: your login name)")
    parser.add_argument("--own", action="store_true", help="the code is your own: this machine will count as you")
    parser.add_argument(
        "--owner", default="", metavar="SHA256:…", help="when knocking: the fingerprint of the owner's key"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing: make a key if there is none")
    way_arguments(parser, board=True)

    parser = commands.add(
        "leave",
        _leave,
        short="forget a cluster that you are in",
        text="Forget a cluster: its profile, with the topic and the key, is removed from this machine. The owner's\n"
        "list of members still has you until they revoke your membership.",
        example="  p2p leave alice/friends",
    )
    parser.add_argument("cluster", metavar="TITLE", help="the cluster, as alice/friends")
    parser.add_argument("--yes", action="store_true", help="don't ask, even if it is your own")


def _join(options: argparse.Namespace) -> int:
    from p2p_ipython.protocol.roster import is_title

    # With blanks between the words, as it is said. A code that is asked for is in no list of processes.
    options.code = " ".join(options.code) or answer("the code that you were told: ")
    return run_shared(_knock(options) if is_title(options.code) else _by_code(options))


async def _by_code(options: argparse.Namespace) -> int:
    from p2p_ipython.members import joining, operations
    from p2p_ipython.members.invitation import read_code
    from p2p_ipython.members.profiles import Profiles

    read_code(options.code)  # a mistyped code is reported before anything else is asked
    key = await _key(options)

    def told(inviter: Inviter) -> None:
        say(f"{inviter.title} invites you; its owner has the key {inviter.fingerprint}")
        say("waiting for their yes")

    say("looking for the host that has made this code")
    profile = await joining.join(
        options.code,
        key=key,
        identity=identity_path(options),
        name=options.name or operations.my_name(),
        mailbox=options.mailbox,
        profiles=Profiles(),
        told=told,
        own=options.own,
    )
    _say_what_now(profile.title)
    return 0


async def _knock(options: argparse.Namespace) -> int:
    from p2p_ipython.members import joining, operations
    from p2p_ipython.members.profiles import Profiles
    from p2p_ipython.protocol.roster import owner_of

    profiles, settings = Profiles(), Settings.load()
    way = replace(way_of(options), owner=options.owner)
    known = await asyncio.to_thread(profiles.find, options.code)
    if known is not None and operations.is_listed(known):
        say(f"you are in {options.code} already")
        _say_what_now(options.code)
        return 0
    if known is not None:
        say(f"your membership of {options.code} was revoked; asking to be admitted again")
        pin, owner = way.pin or known.host_key or None, way.owner or owner_of(known.cluster)
        way = replace(way, board=way.board or known.board, pin=pin, owner=owner)
    await _key(options)
    granted = await joining.knock(
        options.code, way=way, name=options.name or operations.my_name(), settings=settings, told=say
    )
    if not way.owner:
        # No --yes for this question: it would believe any host that answers first.
        question = f"{options.code} admits you. Its owner has the key {granted.owner}.\nIs that right? {_OWNER_MATTERS}"
        if not await asked(question, option="--owner SHA256:…"):
            say("nothing was kept")
            return 1
    await asyncio.to_thread(granted.keep, profiles)
    _say_what_now(options.code)
    return 0


_OWNER_MATTERS = "Ask them: the holder of that key admits people who run code on your workers."


def _leave(options: argparse.Namespace) -> int:
    from p2p_ipython.members import operations
    from p2p_ipython.members.profiles import Profiles

    profiles = Profiles()
    title = operations.find_title(profiles, options.cluster)
    if profiles.load(title).hosting is not None:
        own = f"{title} is your own; once forgotten, it can't be hosted again, and no membership can be revoked."
        if not (options.yes or ask(f"{own} Forget it?", False)):
            say("nothing was changed")
            return 1
    operations.leave(profiles, title)
    say(f"{title} is forgotten on this machine")
    return 0


async def _key(options: argparse.Namespace) -> KeyChoice:
    """Choose the guest's key; if there is none, make one if the guest agrees."""
    from p2p_ipython.members import guest_key

    gone = threading.Event()
    try:
        # One of asyncio's threads, which are waited for: it must have reset the terminal before the program ends.
        return await asyncio.to_thread(guest_key.key_of_guest, identity_path(options), gone)
    except NoKey as error:
        path = guest_key.place_for_key(identity_path(options))
        if path is None:
            raise
        say(error.message)
        try:
            question = f"Make one now, {path}? It has no passphrase; ssh-keygen -p adds one."
            if not (options.yes or await asked(question, True)):
                raise
        except UsageError:
            raise error from None
        made = await asyncio.to_thread(guest_key.make_key, path)
        say(f"made {path}; its fingerprint is {made.fingerprint}")
        return made
    finally:
        gone.set()


def _say_what_now(title: str) -> None:
    say(f"you are in {title}. In a notebook: %p2p_connect {title}")
    say(f"to lend this machine's time:       p2p worker --cluster {title}")
