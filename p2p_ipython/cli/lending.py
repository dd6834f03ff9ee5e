"""``p2p lending``: a lender's say over the workers on this machine: how they stand, a pause, an end, log and policy."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import json
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

from p2p_ipython.cli.arguments import Commands, count
from p2p_ipython.cli.terminal import ask, say, wrong_usage
from p2p_ipython.errors import ConfigError, P2PError, UsageError

if TYPE_CHECKING:
    from p2p_ipython import private_files
    from p2p_ipython.lending.control import Command, WorkerState
    from p2p_ipython.lending.record import Entry

WHAT = ("state", "pause", "resume", "finish", "stop", "log", "policy", "welcome")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "lending",
        _lending,
        short="pause or stop the workers on this machine; log and policy",
        text="Say what the workers on this machine do, those of notebooks too. Without a word, show how they stand.\n"
        "  pause    take no new tasks; what runs continues      finish   end when nothing runs any more\n"
        "  resume   take tasks again                            stop     end now; owners of tasks are told\n"
        "  log      what has run here, and for whom             welcome  say yes to new members of a cluster\n"
        "  policy   show the policy, check one (--check FILE) or edit it (--edit): who, when and how much",
        example="  p2p lending\n"
        "  p2p lending pause\n"
        "  p2p lending log -n 20\n"
        "  p2p lending policy --edit\n"
        "  p2p lending welcome carol --cluster alice/friends",
    )
    parser.add_argument("what", nargs="?", choices=WHAT, default="state", metavar="WHAT", help=", ".join(WHAT))
    parser.add_argument("names", nargs="*", metavar="NAME", help="members to welcome (default: all who are there)")
    parser.add_argument("--cluster", default="", metavar="TITLE", help="only this cluster, as alice/friends")
    parser.add_argument(
        "-n", dest="lines", type=count, metavar="N", default=20, help="entries of the log (default: 20)"
    )
    parser.add_argument("--json", action="store_true", help="one object of JSON a line")
    parser.add_argument("--check", type=Path, metavar="FILE", help="say whether a policy can be read")
    parser.add_argument("--edit", action="store_true", help="edit the policy; it is checked before it counts")


def _lending(options: argparse.Namespace) -> int:
    what: str = options.what
    if options.names and what != "welcome":
        wrong_usage("lending", f"{what} takes no name")
    if (options.check or options.edit) and what != "policy":
        wrong_usage("lending", "--check and --edit are for the policy")
    match what:
        case "log":
            return _log(options)
        case "policy":
            return _policy(options)
        case "welcome":
            return _welcome(options)
        case _:
            return _tell(cast("Command", what), options)


# -- workers --


def _tell(command: Command, options: argparse.Namespace) -> int:
    from p2p_ipython.lending import control

    states = []
    for path in control.workers():
        try:
            state = control.tell(path, "state")
            if state is None or options.cluster not in ("", state.cluster, state.cluster.partition("/")[2]):
                continue
            if command != "state":
                state = control.tell(path, command) or state
        except P2PError as error:
            say(f"process {path.name.partition('-')[0]}: {error.message}")
            continue
        states.append(state)
    for state in states:
        say(json.dumps(asdict(state)) if options.json else _words(state))
    if not states and not options.json:
        if command != "state":
            raise UsageError("no worker runs on this machine", hint="p2p worker lends it, or %p2p_lend in a notebook.")
        say("no worker runs on this machine")
    return 0


def lent() -> list[str]:
    """Return a line for each worker that lends this machine, with its policy; for people."""
    from p2p_ipython.lending import control
    from p2p_ipython.protocol.plain import plain

    lines = []
    for path in control.workers():
        try:
            if (state := control.tell(path, "state")) is not None:
                lines.append(f"lent: {_words(state)}")
                conditions = [line for line in state.conditions.splitlines() if line] or ["# no condition"]
                lines += [f"  {plain(line, 400)}" for line in conditions]
        except P2PError as error:
            lines.append(f"lent: {error.message}")
    return lines


def _words(state: WorkerState) -> str:
    """Return a worker's line."""
    from p2p_ipython.protocol.plain import plain

    how = f"takes nothing now: {state.words}" if state.words else state.state
    policy = f", policy {state.policy}" if state.policy else ""
    runs = f"{state.busy} of {state.slots} slots run a task" if state.slots else f"{state.busy} still run"
    return plain(f"{state.name} for {state.cluster}: {how}; {runs} (process {state.pid}{policy})", 400)


# -- the log --


def _log(options: argparse.Namespace) -> int:
    from collections import deque

    from p2p_ipython.lending.record import LendingLog

    record = LendingLog()
    mine = (
        entry for entry in record.entries() if options.cluster in ("", entry.cluster, entry.cluster.partition("/")[2])
    )
    last = deque(mine, maxlen=options.lines)
    for entry in last:
        say(json.dumps(asdict(entry)) if options.json else _line(entry))
    if not last and not options.json:
        say(f"nothing of a friend's has run here ({record.path})")
    return 0


def _line(entry: Entry) -> str:
    from p2p_ipython.protocol.plain import plain, size_words

    parts = [
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time)),
        f"{entry.member or entry.key} ({entry.cluster})",
        repr(plain(entry.label, 60)),
        f"source {entry.source}" if entry.source else "",
        f"{entry.outcome}{f' ({entry.why})' if entry.why else ''}",
        f"{entry.seconds:.3g} s" if entry.outcome != "refused" else "",
        f"processor {entry.cpu:.3g} s" if entry.cpu >= 0 else "",
        f"memory {size_words(entry.memory)}" if entry.memory >= 0 else "",
        f"{size_words(entry.bytes_in)} in, {size_words(entry.bytes_out)} out" if entry.outcome != "refused" else "",
    ]
    return plain("  ".join(part for part in parts if part), 600)


# -- the policy --


def _policy(options: argparse.Namespace) -> int:
    from p2p_ipython.lending.policy_file import default_path, load, shown

    if options.check is not None:
        load(options.check)
        say(f"{options.check} is a policy")
        return 0
    path = default_path()
    if options.edit:
        return _edit(path)
    if not path.exists():
        say(f"# there is no policy at {path}: p2p lending policy --edit makes one")
        return 0
    say(f"# {path}\n{shown(load(path)) or '# no condition'}")
    return 0


def _edit(path: Path) -> int:
    """Edit a copy, check it, and put it in the policy's place."""
    from p2p_ipython import private_files
    from p2p_ipython.config import make_private
    from p2p_ipython.lending.policy_file import MAX_POLICY, TEMPLATE, PolicyError, load

    editor = _editor()
    copy = path.with_name(f"{path.stem}-{os.getpid()}.toml")
    try:
        make_private(path.parent)
        before = private_files.read(path, MAX_POLICY)
        private_files.create(copy, before if before is not None else TEMPLATE.encode())
        try:
            while True:
                if (status := subprocess.run([*editor, str(copy)], check=False).returncode) != 0:
                    raise UsageError(f"{editor[0]} ended with status {status}: the policy is as before")
                try:
                    load(copy)
                    break
                except PolicyError as error:
                    say(str(error))
                    if not ask("Edit it again?", default=True, option="a policy that can be read"):
                        raise UsageError("the policy is as before") from None
            data = private_files.read(copy, MAX_POLICY) or b""
            if data == before:
                say("the policy is as before")
                return 0
            with private_files.Lock.acquire(path.with_suffix(".lock"), wait=5.0) or _busy(path):
                private_files.write(path, data)
        finally:
            copy.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"the policy can't be edited: {error}") from None
    say(f"{path} is the policy now; workers that run heed it within seconds")
    return 0


def _busy(path: Path) -> private_files.Lock:
    raise UsageError(f"{path} is in use by another program", hint="Try again.")


def _editor() -> list[str]:
    for name in ("VISUAL", "EDITOR"):
        if os.environ.get(name):
            return shlex.split(os.environ[name])
    for name in ("nano", "vi"):
        if shutil.which(name):
            return [name]
    raise UsageError("there is no editor", hint="Set EDITOR to one, or write the file yourself: p2p lending policy")


# -- who is known --


def _welcome(options: argparse.Namespace) -> int:
    from p2p_ipython.lending.known import KnownMembers
    from p2p_ipython.members.operations import find_title
    from p2p_ipython.members.profiles import Profiles
    from p2p_ipython.protocol.roster import Roster

    profiles = Profiles()
    profile = profiles.load(find_title(profiles, options.cluster))
    if not profile.roster:
        raise UsageError(f"the list of members of {profile.title} has not come yet", hint="Connect to it once.")
    roster = Roster.parse(profile.roster, profile.cluster)
    names = KnownMembers().welcome(roster, options.names)
    say(f"you know {', '.join(names)} in {roster.title}")
    return 0
