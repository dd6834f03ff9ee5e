"""``p2p setup`` as a newcomer goes through it, on a terminal, with a board of ours in the place of pico.sh."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_support import DEADLINE, Home, address, agent, terminal

from p2p_ipython.cli.whoami import is_pico

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH's client is not installed")


@dataclass(frozen=True)
class Pico:
    """Where accounts are, and where the board is, on two ports; ``users`` is the file of accounts."""

    accounts: dict[str, object]
    board: dict[str, object]
    users: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("--host", address(self.accounts), "--board", address(self.board))


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pico]:
    folder = tmp_path_factory.mktemp("pico")
    operator = Home(folder / "home")
    users = folder / "users"
    users.write_text("")
    told = []
    board = ("board", "--port", "0", "--users", str(users), "--json", "--data")
    with operator.running(*board, str(folder / "a")) as first, operator.running(*board, str(folder / "b")) as second:
        for process in (first, second):
            assert process.stdout is not None
            told.append(json.loads(process.stdout.readline()))
        yield Pico(*told, users)


@pytest.fixture
def accounts(pico: Pico) -> Pico:
    """Nobody has an account yet."""
    pico.users.write_text("")
    return pico


@pytest.fixture
def newcomer(tmp_path: Path) -> Home:
    """A home without a key."""
    home = Home(tmp_path / "home")
    shutil.rmtree(home.key_file.parent)
    return home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a key."""
    return Home(tmp_path / "home")


def known_hosts(home: Home) -> str:
    path = home.folder / "data" / "known_hosts"
    return path.read_text() if path.exists() else ""


def test_a_newcomer_gets_a_key_the_hosts_keys_and_an_account_and_is_asked_each_time(
    newcomer: Home, accounts: Pico
) -> None:
    key = newcomer.key_file
    with terminal(newcomer, "setup", *accounts.arguments) as screen:
        assert f"ssh-keygen -t ed25519 -f {key}" in screen.expect("Make the key?")
        assert not key.parent.exists()
        screen.type("yes\n")
        for prompt in ("Enter passphrase", "Enter same passphrase"):
            screen.expect(prompt)
            screen.type("\n")
        for server in (accounts.accounts, accounts.board):
            assert str(server["fingerprint"]) in screen.expect("Is it the right one")
            assert address(server).rpartition(":")[2] not in known_hosts(newcomer)
            screen.type("yes\n")
        assert "no account there yet" in screen.expect("Open it?")
        accounts.users.write_text(f"newbie {key.with_name('id_ed25519.pub').read_text()}")
        screen.type("yes\n")
        screen.expect("Command: ssh")  # what our board shows in the place of pico's pages
        screen.expect("✓ newbie, since")
        screen.expect("Done.")
        assert screen.wait() == 0
        assert "Are you sure you want to continue" not in screen.text, "ssh knows the host key that was accepted"
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert len(known_hosts(newcomer).splitlines()) == 2

    with terminal(newcomer, "setup", *accounts.arguments) as again:
        assert again.wait() == 0
        assert "?" not in again.text, "what is done is not asked again"
        assert again.text.count("✓") == 4
        assert newcomer.key_file.with_name("id_ed25519.pub").read_text().split()[1] in again.text


def test_without_a_yes_no_key_is_made(newcomer: Home, accounts: Pico) -> None:
    with terminal(newcomer, "setup", *accounts.arguments) as screen:
        screen.expect("Make the key?")
        screen.type("no\n")
        screen.expect("Stopped here")
        assert screen.wait() == 1
    assert not newcomer.key_file.parent.exists()


def test_without_a_yes_no_host_key_is_remembered_and_nobody_logs_in(home: Home, accounts: Pico) -> None:
    with terminal(home, "setup", *accounts.arguments) as screen:
        screen.expect("Is it the right one")
        screen.type("no\n")
        screen.expect("Stopped here")
        assert screen.wait() == 1
        assert "account" not in screen.text.partition("2. ")[2]
    assert known_hosts(home) == ""


def test_an_account_is_not_needed(home: Home, accounts: Pico) -> None:
    with terminal(home, "setup", *accounts.arguments) as screen:
        for _ in range(2):
            screen.expect("Is it the right one")
            screen.type("y\n")
        screen.expect("Open it?")
        screen.type("no\n")
        screen.expect("no account; that is fine")
        screen.expect("Done.")
        assert screen.wait() == 0


def test_a_host_key_that_has_changed_ends_it(home: Home, accounts: Pico) -> None:
    host, port = address(accounts.accounts).split(":")
    other = home.public_line
    (home.folder / "data").mkdir()
    (home.folder / "data" / "known_hosts").write_text(f"[{host}]:{port} {other}\n")
    with terminal(home, "setup", *accounts.arguments) as screen:
        screen.expect("Somebody may be in between")
        assert screen.wait() == 1


def test_ctrl_c_stops_it(home: Home, accounts: Pico) -> None:
    with terminal(home, "setup", *accounts.arguments) as screen:
        screen.expect("Is it the right one")
        screen.type("\x03")
        assert screen.wait() == 130
        assert "Traceback" not in screen.text


def test_without_a_terminal_the_steps_are_printed_and_nothing_is_done(newcomer: Home, accounts: Pico) -> None:
    done = newcomer.run("setup", *accounts.arguments)
    assert done.returncode == 0
    for step in ("ssh-keygen -t ed25519", "ssh-add", f"ssh -p {address(accounts.accounts).rpartition(':')[2]}"):
        assert step in done.stdout
    assert not newcomer.key_file.parent.exists()
    assert not (newcomer.folder / "data").exists()


# -- keys with a passphrase --


@pytest.fixture
def locked(home: Home, accounts: Pico) -> Home:
    """A home whose key has the passphrase "sesame", and an account; the hosts' keys are known."""
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "sesame", "-f", str(home.key_file)], check=True, timeout=DEADLINE
    )
    home.key_file.with_name("id_ed25519.pub").write_text(f"{home.public_line}\n")
    accounts.users.write_text(f"alice {home.public_line}\n")
    (home.folder / "data").mkdir()
    with (home.folder / "data" / "known_hosts").open("w") as file:
        for server in (accounts.accounts, accounts.board):
            host, port = address(server).split(":")
            file.write(f"[{host}]:{port} {server['host_key']}\n")
    return home


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="OpenSSH's agent is not installed")
def test_the_agent_is_given_a_key_with_a_passphrase_after_a_yes(locked: Home, accounts: Pico, tmp_path: Path) -> None:
    with agent(tmp_path) as path:
        with terminal(locked, "setup", *accounts.arguments, SSH_AUTH_SOCK=path) as screen:
            assert f"ssh-add {locked.key_file}" in screen.expect("Give the key to the agent?")
            screen.type("yes\n")
            screen.expect("passphrase")
            screen.type("sesame\n")
            screen.expect("from the SSH agent")
            screen.expect("✓ alice")
            assert screen.wait() == 0
        with terminal(locked, "setup", *accounts.arguments, SSH_AUTH_SOCK=path) as again:
            assert again.wait() == 0
            assert "?" not in again.text


def test_without_an_agent_the_passphrase_is_asked_for(locked: Home, accounts: Pico) -> None:
    with terminal(locked, "setup", *accounts.arguments) as screen:
        screen.expect('eval "$(ssh-agent)"')
        screen.expect("Passphrase of")
        screen.type("sesame\n")
        screen.expect("✓ alice")
        assert screen.wait() == 0
        assert "sesame" not in screen.text


# -- whoami --


def test_whoami_knows_the_account(locked: Home, accounts: Pico, tmp_path: Path) -> None:
    where = address(accounts.accounts)
    plain = Home(tmp_path / "other")
    shutil.copytree(locked.folder / "data", plain.folder / "data")
    nobody = plain.run("whoami", "--account", where)
    assert f"none at {where} for this key" in nobody.stdout, nobody.stderr
    accounts.users.write_text(f"bob {plain.public_line}\n")
    somebody = plain.run("whoami", "--account", where)
    assert "account      bob, since 20" in somebody.stdout, somebody.stderr
    assert f"plan free (at {where})" in somebody.stdout


@pytest.mark.parametrize(
    ("board", "answer"),
    [
        (None, False),
        ("pipe.pico.sh", True),
        ("alice@Pipe.Pico.SH:22", True),
        ("pico.sh", True),
        ("notpico.sh", False),
        ("pico.sh.example.org", False),
    ],
)
def test_whoami_asks_for_the_account_by_itself_only_where_the_board_is_picos(board: str | None, answer: bool) -> None:
    assert is_pico(board) is answer


def test_whoami_does_not_ask_a_host_whose_key_is_unknown(home: Home, accounts: Pico) -> None:
    done = home.run("whoami", "--account", address(accounts.accounts))
    assert done.returncode == 1
    assert "p2p setup" in done.stderr
