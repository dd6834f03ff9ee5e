"""``p2p setup``: a key, the hosts' keys, and an account on pico.sh, step by step.

Nothing happens behind the user's back: a step says what it is going to run, asks, and runs that in the same terminal,
so that passphrases go to OpenSSH's own programs and never come here. A step that is done already is reported and left
alone, so it can be stopped at any time, and run again.
"""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import getpass
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_ipython.board.client.address import BoardAddress, SSHFiles, route
from p2p_ipython.cli.arguments import PICO_ACCOUNTS, PICO_BOARD, Commands
from p2p_ipython.cli.terminal import ask, run, say
from p2p_ipython.errors import HostKeyUnknown, NoKey, UsageError

if TYPE_CHECKING:
    from p2p_ipython.board.client.keys import KeyChoice
    from p2p_ipython.doctor.ssh import Account

ANSWER_WITHIN = 15.0
"""How long a host may take to answer, s."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "setup",
        _setup,
        short="walk through an SSH key, host keys and an account on pico.sh",
        text="Walk through what a newcomer needs: an SSH key, an agent for its passphrase, the host keys of the\n"
        "public board, and an account on pico.sh (which is free, and not needed to join friends). Each step shows\n"
        "what it is going to run, and asks. Stop at any time, and run it again: what is done is left alone.\n"
        "Without a terminal it prints the steps and does nothing.",
        example="  p2p setup\n  p2p setup --identity ~/.ssh/id_friends",
    )
    parser.add_argument(
        "--host", default=PICO_ACCOUNTS, metavar="HOST[:PORT]", help="where accounts are (default: %(default)s)"
    )
    parser.add_argument("--board", default=PICO_BOARD, metavar="HOST[:PORT]", help="the board (default: %(default)s)")
    parser.add_argument(
        "--identity",
        type=Path,
        metavar="FILE",
        help="SSH key to use or to make (default: as ~/.ssh/config and the agent have it)",
    )


def _setup(options: argparse.Namespace) -> int:
    host, board = BoardAddress.parse(options.host), BoardAddress.parse(options.board)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        say(_as_text(host, board, options.identity))
        return 0
    files = SSHFiles.default()
    say("This sets up an SSH key and an account for meeting friends. Each step asks first; Ctrl-C stops.")
    key = _key_step(host, options.identity, files)
    if key is None:
        return _stopped()
    _title("2", "host keys")
    for address in dict.fromkeys((host, board)):
        if not _host_key_step(address, files):
            return _stopped()
    account = _account_step(host, key, files)
    _machines_step(host, key, account)
    say(f"\nDone. `p2p doctor{'' if options.board == PICO_BOARD else f' --board {board}'}` checks the rest of the way.")
    return 0


def _title(number: str, text: str) -> None:
    say(f"\n{number}. {text[0].upper()}{text[1:]}")


def _stopped() -> int:
    say("\nStopped here. Nothing else was changed; `p2p setup` continues from here.")
    return 1


# -- 1: the key --


class _Locked(Exception):
    """A key needs its passphrase; ``path`` is its file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path


def _key_step(host: BoardAddress, identity: Path | None, files: SSHFiles) -> KeyChoice | None:
    from p2p_ipython.board.client.keys import DEFAULT_NAMES, choose_key

    def say_locked(path: Path) -> str:
        raise _Locked(path)

    try:
        key = choose_key(host, identity=identity, files=files, passphrase=say_locked)
    except _Locked as locked:
        say(f"  You have a key with a passphrase: {locked.path}")
        _offer_agent(locked.path)
        key = choose_key(host, identity=identity, files=files, passphrase=_ask_passphrase)
    except NoKey:
        path = identity.expanduser() if identity is not None else files.folder / DEFAULT_NAMES[0]
        if path.exists() or path.suffix == ".pub":
            raise
        return _key_step(host, identity, files) if _make_key(path) else None
    say(f"  ✓ {key}")
    return key


def _make_key(path: Path) -> bool:
    say(f"  There is no key yet: {path} would be made. It is what others know you by.")
    say("  You will be asked for a passphrase: choose one, so that the file alone is of no use to a thief.")
    if not path.parent.exists():
        say(f"  The folder {path.parent} would be made for it.")
    return (
        _offer(["ssh-keygen", "-t", "ed25519", "-f", str(path)], "Make the key?", folder=path.parent) and path.exists()
    )


def _offer_agent(path: Path) -> None:
    from p2p_ipython.doctor.network import ask_agent

    if run(ask_agent()).keys is None:
        say("  An SSH agent would remember the passphrase; none is running here. This starts one, in a terminal:")
        say('    eval "$(ssh-agent)"')
        return
    say("  The SSH agent can hold the key, so that its passphrase is asked for once and not each time.")
    _offer(["ssh-add", str(path)], "Give the key to the agent?")


def _ask_passphrase(path: Path) -> str:
    return getpass.getpass(f"  Passphrase of {path}: ")


# -- 2: host keys --


def _host_key_step(address: BoardAddress, files: SSHFiles) -> bool:
    from p2p_ipython.board.client.known_hosts import HostKeyCheck, remember_host_key
    from p2p_ipython.doctor.ssh import first_hop, shown_host_key

    end = route(address, files)
    hop = first_hop(end)
    check = HostKeyCheck(hop, files)
    key = shown_host_key(end, check.kinds, ANSWER_WITHIN)
    try:
        check.check(key)
    except HostKeyUnknown:
        say(f"  {hop} shows this host key ({key.get_name()}):")
        say(f"    {key.fingerprint}")
        say("  Compare it with what its operators publish, or with what a friend sees.")
        if not ask("  Is it the right one, and to be remembered?"):
            return False
        assert files.accepted is not None
        remember_host_key(hop, f"{key.get_name()} {key.get_base64()}", files.accepted)
    say(f"  ✓ {hop}: {key.fingerprint}")
    return True


# -- 3: the account --


def _account_step(host: BoardAddress, key: KeyChoice, files: SSHFiles) -> Account | None:
    from p2p_ipython.doctor.ssh import ask_account

    _title("3", f"an account at {host}")
    account = ask_account(host, files, key, ANSWER_WITHIN)
    if account is None:
        say("  This key has no account there yet. None is needed to join friends; with one, the board calls you by")
        say("  name, and several machines of yours are one person there.")
        say(f"  To make one, {host} opens in this terminal: choose a user name there, then leave it (q or Ctrl-C).")
        if not _offer(_sign_up(host, key, files), "Open it?"):
            say("  – no account; that is fine.")
            return None
        account = ask_account(host, files, key, ANSWER_WITHIN)
    if account is None:
        say("  – there is no account for this key yet. Run `p2p setup` again to try once more.")
    else:
        say(f"  ✓ {account}")
    return account


def _sign_up(host: BoardAddress, key: KeyChoice, files: SSHFiles) -> list[str]:
    """Return the command that opens the account's pages, with our key and the host keys that were accepted here."""
    command = ["ssh"]
    file = Path(key.source.removesuffix(", in the SSH agent"))
    if file.is_absolute() and file.exists():
        command += ["-i", str(file), "-o", "IdentitiesOnly=yes"]
    known = [path for path in (files.accepted, *files.known_hosts) if path is not None and path.exists()]
    command += ["-o", "UserKnownHostsFile=" + " ".join(f'"{path}"' for path in known)]
    return [*command, *_target(host)]


def _target(host: BoardAddress) -> list[str]:
    where = f"{host.user}@{host.host}" if host.user else host.host
    return ["-p", str(host.port), where] if host.port else [where]


# -- 4: more machines --


def _machines_step(host: BoardAddress, key: KeyChoice, account: Account | None) -> None:
    _title("4", "more machines of yours")
    if account is not None:
        say(f"  To have another machine count as {account.name}, too: make a key there (`p2p setup` does), copy its")
        say(
            f"  public line (`p2p whoami` shows it), and add it on this machine: {shlex.join(['ssh', *_target(host)])},"
        )
        say("  among the public keys of the account.")
    say("  Or copy this key there; but a key of its own can be taken away on its own. This one's public line is:")
    say(f"    {key.public_line}")


# -- running things, and saying how --


def _offer(command: list[str], question: str, folder: Path | None = None) -> bool:
    """Show a command, ask, and run it in this terminal; whether it was run. ``folder`` is made for it, mode 0700."""
    say(f"    {shlex.join(command)}")
    if not ask(f"  {question}"):
        return False
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, check=False)
    except FileNotFoundError:
        raise UsageError(
            f"there is no {command[0]} on this machine", hint="Install OpenSSH's client, and run `p2p setup` again."
        ) from None
    if done.returncode:
        say(f"  {command[0]} ended with status {done.returncode}.")
    return True


def _as_text(host: BoardAddress, board: BoardAddress, identity: Path | None) -> str:
    path = identity or Path("~/.ssh/id_ed25519")
    ssh = shlex.join(["ssh", *_target(host)])
    return f"""\
p2p setup asks questions, and there is no terminal to ask them on. By hand it is:

1. An SSH key, if you have none yet; choose a passphrase, and give the key to your SSH agent:
     {shlex.join(["ssh-keygen", "-t", "ed25519", "-f"])} {path}
     ssh-add {path}
2. The host keys of {host} and {board}: compare their fingerprints with what their operators publish, then
     p2p whoami --board {board} --accept-host-key SHA256:…
3. An account at {host} (free; not needed to join friends): choose a user name in
     {ssh}
   and see that it is there:
     {ssh} user
4. For several machines under one account: add each one's public key there, by {ssh}.

Then `p2p doctor` checks the rest of the way."""
