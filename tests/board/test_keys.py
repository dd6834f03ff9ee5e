"""Which key is shown. The agent is a real ssh-agent, started for the test."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from board_support import Key, make_key, ssh_files

from p2p_ipython.board.client import keys as keys_module
from p2p_ipython.board.client import ssh_config
from p2p_ipython.board.client.address import Route
from p2p_ipython.board.client.keys import AgentSigner, choose_among, choose_key
from p2p_ipython.errors import NoKey
from p2p_ipython.protocol.identity import SESSION_NAMESPACE, Session


class Agent:
    def __init__(self, folder: Path) -> None:
        # Its socket's path must be short; a pytest folder's may not be.
        self.process = subprocess.Popen(["ssh-agent", "-D", "-a", str(folder / "s")], stdout=subprocess.PIPE)
        assert self.process.stdout
        self.process.stdout.readline()

    def add(self, key: Key) -> None:
        subprocess.run(["ssh-add", "-q", str(key.path)], check=True)

    def lock(self, folder: Path) -> None:
        ask = folder / "ask"
        ask.write_text("#!/bin/sh\necho secret\n")
        ask.chmod(0o700)
        environment = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", "-q", "-x"], check=True, env=environment, stderr=subprocess.DEVNULL)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture
def agent(monkeypatch, tmp_path_factory) -> Iterator[Agent]:  # type: ignore[no-untyped-def]
    if shutil.which("ssh-agent") is None:
        pytest.skip("there is no ssh-agent here")
    folder = tmp_path_factory.mktemp("agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(folder / "s"))
    running = Agent(folder)
    yield running
    running.end()


@pytest.fixture
def files(tmp_path):  # type: ignore[no-untyped-def]
    return replace(ssh_files(tmp_path), agent=True)


@pytest.fixture(autouse=True)
def _no_agent_of_the_developers(monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def test_a_given_file_wins_and_says_where_it_is_from(files, tmp_path):
    make_key(files.folder, "id_ed25519")
    given = make_key(tmp_path, "given")
    choice = choose_among(files, identity=given.path, way=Route("b", 22, "u", "b", (files.folder / "id_ed25519",)))
    assert (choice.fingerprint, choice.source) == (given.fingerprint, str(given.path))
    assert choice.public_line == " ".join(given.line.split()[:2])


def test_the_configured_file_for_that_host_is_next(files, tmp_path):
    make_key(files.folder, "id_ed25519")
    configured = make_key(tmp_path, "configured")
    (files.folder / "config").write_text(f"Host board\n IdentityFile /not/there\n IdentityFile {configured.path}\n")
    assert choose_key("board", files=files).fingerprint == configured.fingerprint


def test_then_the_agents_first_then_the_usual_files(files, tmp_path, agent):
    usual = make_key(files.folder, "id_ed25519")
    assert choose_among(files).fingerprint == usual.fingerprint
    held = make_key(tmp_path, "held")
    agent.add(held)
    agent.add(make_key(tmp_path, "second"))
    choice = choose_among(files)
    assert (choice.fingerprint, choice.source) == (held.fingerprint, "from the SSH agent")


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
def test_keys_of_every_kind_are_loaded(files, tmp_path, kind):
    key = make_key(tmp_path, kind=kind)
    assert choose_among(files, identity=key.path).fingerprint == key.fingerprint


def test_a_files_key_that_the_agent_holds_is_used_through_the_agent(files, tmp_path, agent):
    key = make_key(tmp_path)
    agent.add(key)
    key.path.unlink()
    for identity in (key.path, Path(f"{key.path}.pub")):
        choice = choose_among(files, identity=identity)
        assert isinstance(choice.key, AgentSigner)
        assert choice.key.inner_key.verify_ssh_sig(b"data", _message(choice.key.sign_ssh_data(b"data")))


def _message(signature: bytes):  # type: ignore[no-untyped-def]
    import paramiko

    return paramiko.Message(signature)


def test_an_encrypted_file_without_its_passphrase_says_ssh_add(files, tmp_path):
    key = make_key(tmp_path, passphrase="secret")
    with pytest.raises(NoKey, match=r"has a passphrase\n.*ssh-add"):
        choose_among(files, identity=key.path)


def test_an_encrypted_file_is_opened_with_the_passphrase_that_is_asked_for(files, tmp_path):
    key = make_key(tmp_path, passphrase="secret")
    tries = iter(["guess", "guess", "guess", "no more"])
    with pytest.raises(NoKey, match="passphrase is wrong") as caught:
        choose_among(files, identity=key.path, passphrase=lambda path: next(tries))
    assert list(tries) == ["no more"]
    assert "guess" not in str(caught.value)
    tries = iter(["guess", "secret"])
    choice = choose_among(files, identity=key.path, passphrase=lambda path: next(tries))
    assert choice.fingerprint == key.fingerprint


def test_a_passphrase_is_asked_for_once_a_process_whoever_asks_and_for_a_new_file_anew(files, tmp_path):
    key = make_key(tmp_path, passphrase="secret")
    asked: list[Path] = []
    begun, go_on = threading.Event(), threading.Event()

    def ask(path: Path) -> str:
        asked.append(path)
        begun.set()
        assert go_on.wait(20)
        return "secret"

    with ThreadPoolExecutor(4) as pool:
        choices = [pool.submit(choose_among, files, identity=key.path, passphrase=ask) for _ in range(4)]
        assert begun.wait(20)
        go_on.set()
        assert {choice.result(20).fingerprint for choice in choices} == {key.fingerprint}
    assert choose_among(files, identity=key.path).fingerprint == key.fingerprint, "it is open now"
    assert asked == [key.path]
    other = make_key(tmp_path, passphrase="another secret")
    with pytest.raises(NoKey, match="has a passphrase"):
        choose_among(files, identity=other.path)


def test_what_is_kept_of_opened_keys_shows_none_of_them(files, tmp_path):
    key = make_key(tmp_path, passphrase="secret")
    choose_among(files, identity=key.path, passphrase=lambda path: "secret")
    assert re.fullmatch(r"<\d+ opened keys>", repr(keys_module._opened))


def test_a_refusal_to_be_asked_is_passed_on_at_once(files, tmp_path):
    key = make_key(tmp_path, passphrase="secret")
    asked = []

    def refuse(path: Path) -> str:
        asked.append(path)
        raise NoKey("no passphrase was given")

    with pytest.raises(NoKey, match="no passphrase was given"):
        choose_among(files, identity=key.path, passphrase=refuse)
    assert len(asked) == 1


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen here")
@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("ssh-ed25519", "file"),
        ("ssh-ed25519", "encrypted file"),
        ("ssh-ed25519", "agent"),
        ("ecdsa-sha2-nistp256", "agent"),
        ("ecdsa-sha2-nistp384", "agent"),
        ("ecdsa-sha2-nistp521", "agent"),
        ("ssh-rsa", "agent"),
    ],
)
def test_ssh_keygen_accepts_the_certificate_of_a_session(files, tmp_path, request, kind, where):
    """Whatever kind of key, and wherever it is: the key vouches for a session, and OpenSSH says that it did."""
    key = make_key(tmp_path, kind=kind, passphrase="secret" if where == "encrypted file" else None)
    asked = []
    if where == "agent":
        request.getfixturevalue("agent").add(key)
    choice = choose_among(files, identity=key.path, passphrase=lambda path: asked.append(path) or "secret")
    assert isinstance(choice.key, AgentSigner) == (where == "agent")
    session = Session(choice.key, cluster="SHA256:x/friends", role="client", now=1e9, random=os.urandom)
    session.renew(1e9 + 3600)
    assert len(asked) == (where == "encrypted file"), "signing asks for nothing"
    body, signature = parts(session.certificate.wire)
    (tmp_path / "signature").write_text(
        "-----BEGIN SSH SIGNATURE-----\n"
        + "\n".join(textwrap.wrap(base64.b64encode(signature).decode(), 70))
        + "\n-----END SSH SIGNATURE-----\n"
    )
    (tmp_path / "signers").write_text(f"alice {key.line}\n")
    command = ["ssh-keygen", "-Y", "verify", "-f", str(tmp_path / "signers"), "-I", "alice"]
    command += ["-n", SESSION_NAMESPACE, "-s", str(tmp_path / "signature")]
    verified = subprocess.run(command, input=body, capture_output=True, check=False)
    assert verified.returncode == 0, verified.stderr.decode() + verified.stdout.decode()
    assert choice.fingerprint in verified.stdout.decode()
    assert subprocess.run(command, input=body + b" ", capture_output=True, check=False).returncode != 0


def parts(wire: bytes) -> list[bytes]:
    """The strings of SSH's that a certificate is made of: what was signed, and the signature."""
    found = []
    while wire:
        size = int.from_bytes(wire[:4], "big")
        found.append(wire[4 : 4 + size])
        wire = wire[4 + size :]
    return found


@pytest.mark.parametrize("openssh", [True, False], ids=["openssh", "paramiko"])
def test_the_agent_is_the_one_that_is_configured_for_the_host(files, tmp_path, agent, monkeypatch, openssh):
    held, usual = make_key(tmp_path, "held"), make_key(files.folder, "id_ed25519")
    agent.add(held)
    socket = os.environ["SSH_AUTH_SOCK"]
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "none there"))
    monkeypatch.setenv("OTHER_AGENT", socket)
    if not openssh:
        monkeypatch.setattr(ssh_config.shutil, "which", lambda name: None)
    (files.folder / "config").write_text(
        f"Host board\n IdentityAgent {socket}\nHost named\n IdentityAgent $OTHER_AGENT\n"
        f"Host only\n IdentityAgent {socket}\n IdentitiesOnly yes\n"
    )
    for name in ("board", "named"):
        key = choose_key(name, files=files)
        assert key.fingerprint == held.fingerprint
        assert key.key.sign_ssh_data(b"data"), "it signs by that agent, too"
    assert choose_key("only", files=files).fingerprint == usual.fingerprint
    assert choose_key("another", files=files).fingerprint == usual.fingerprint
    monkeypatch.setenv("SSH_AUTH_SOCK", socket)
    (files.folder / "config").write_text("Host board\n IdentityAgent none\n")
    assert choose_key("board", files=files).fingerprint == usual.fingerprint
    assert choose_key("another", files=files).fingerprint == held.fingerprint


def test_without_any_key_the_next_step_is_ssh_keygen(files):
    with pytest.raises(NoKey, match="ssh-keygen -t ed25519"):
        choose_among(files)


def test_a_locked_agent_holds_no_key_and_the_error_says_how_to_unlock_it(files, tmp_path, agent):
    key = make_key(tmp_path)
    agent.add(key)
    choice = choose_among(files)
    agent.lock(tmp_path)
    with pytest.raises(NoKey, match="ssh-add -X"):
        choose_among(files)
    with pytest.raises(NoKey, match="does not sign"):
        choice.key.sign_ssh_data(b"data")


def test_an_agent_that_has_gone_says_so(files, tmp_path, agent):
    key = make_key(tmp_path)
    agent.add(key)
    choice = choose_among(files)
    agent.end()
    with pytest.raises(NoKey, match="does not sign"):
        choice.key.sign_ssh_data(b"data")


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nSECRET\n"], ids=len)
def test_a_file_that_is_no_key_is_refused_without_showing_it(files, tmp_path, content):
    path = tmp_path / "id"
    path.write_bytes(content)
    with pytest.raises(NoKey, match="can't be used") as caught:
        choose_among(files, identity=path)
    assert "SECRET" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(files, tmp_path):
    with pytest.raises(NoKey, match="No such file"):
        choose_among(files, identity=tmp_path / "gone")


def test_nothing_private_is_shown(files, tmp_path):
    key = make_key(tmp_path)
    choice = choose_among(files, identity=key.path)
    private = key.path.read_text().split("\n")[2]
    assert private not in repr(choice) + str(choice)
    assert repr(choice) == f"KeyChoice(source='{key.path}')"
