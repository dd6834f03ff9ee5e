"""Is it the right board?"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading

import paramiko
import pytest
from board_support import make_key, ssh_files

from p2p_ipython.board.client.address import Route
from p2p_ipython.board.client.known_hosts import MAX_KNOWN_HOSTS, HostKeyCheck, remember_host_key
from p2p_ipython.errors import ConfigError, HostKeyChanged, HostKeyUnknown

ROUTE = Route("board.example", 2222, "me", "[board.example]:2222")


@pytest.fixture
def world(tmp_path):  # type: ignore[no-untyped-def]
    class World:
        files = ssh_files(tmp_path)
        right, wrong = make_key(tmp_path, "right"), make_key(tmp_path, "wrong")
        hosts = files.known_hosts[0]

        def check(self, key, pin=None, route=ROUTE):  # type: ignore[no-untyped-def]
            HostKeyCheck(route, self.files, pin).check(paramiko.PKey.from_path(key.path))

    return World()


def test_a_key_that_nobody_accepted_is_shown_and_what_to_type(world):
    with pytest.raises(HostKeyUnknown) as caught:
        world.check(world.right)
    assert f"--accept-host-key {world.right.fingerprint}" in str(caught.value)


@pytest.mark.parametrize("pin", ["line", "fingerprint"])
def test_a_pin_decides_alone(world, pin):
    world.hosts.write_text(f"[board.example]:2222 {world.wrong.line}\n")
    world.check(world.right, pin=getattr(world.right, pin))
    with pytest.raises(HostKeyChanged, match=r"was expected"):
        world.check(world.wrong, pin=getattr(world.right, pin))


@pytest.mark.parametrize("pin", ["", "SHA256:short", "MD5:aa:bb", "ssh-rsa AAAA", "ssh-ed25519 not-base64!"])
def test_what_is_no_pin_is_refused(world, pin):
    with pytest.raises(ConfigError, match="no host key"):
        world.check(world.right, pin=pin)


def test_known_hosts_decide_by_name_and_port(world):
    world.hosts.write_text(
        f"board.example {world.wrong.line}\n# [board.example]:2222\n[board.example]:2222 {world.right.line}\n"
    )
    world.check(world.right)
    with pytest.raises(HostKeyChanged) as caught:
        world.check(world.wrong)
    for words in (world.right.fingerprint, world.wrong.fingerprint, "ssh-keygen -R '[board.example]:2222'"):
        assert words in str(caught.value)
    world.check(world.wrong, route=Route("board.example", 22, "me", "board.example"))


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen here")
def test_hashed_known_hosts_are_found(world):
    world.hosts.write_text(f"[board.example]:2222 {world.right.line}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(world.hosts)], check=True, stderr=subprocess.DEVNULL)
    assert "board.example" not in world.hosts.read_text()
    world.check(world.right)
    with pytest.raises(HostKeyChanged):
        world.check(world.wrong)


def test_patterns_mean_many_hosts_and_not_the_excluded(world):
    world.hosts.write_text(f"!bad.example,*.example,[*.example]:2222 {world.right.line}\n")
    world.check(world.right)
    world.check(world.right, route=Route("good.example", 22, "me", "good.example"))
    with pytest.raises(HostKeyUnknown):
        world.check(world.right, route=Route("bad.example", 22, "me", "bad.example"))


def test_a_revoked_key_is_refused_though_it_is_known(world):
    world.hosts.write_text(f"[board.example]:2222 {world.right.line}\n@revoked * {world.right.line}\n")
    with pytest.raises(HostKeyChanged, match="revoked"):
        world.check(world.right)


def test_lines_that_are_not_understood_hide_nothing(world):
    world.hosts.write_text(
        f"garbage\n@cert-authority *.example {world.wrong.line}\n[board.example]:2222 {world.right.line}\n"
    )
    world.check(world.right)


def test_an_accepted_key_is_remembered_in_a_file_of_our_own_with_mode_0600(world):
    accepted = world.files.accepted
    remember_host_key(Route("other", 22, "me", "other"), world.wrong.line, accepted)
    remember_host_key(ROUTE, world.wrong.line, accepted)
    remember_host_key(ROUTE, world.right.line, accepted)
    world.check(world.right)
    with pytest.raises(HostKeyChanged):
        world.check(world.wrong)
    assert len(accepted.read_text().splitlines()) == 2
    assert not world.hosts.exists()
    if os.name == "posix":
        assert stat.S_IMODE(accepted.stat().st_mode) == 0o600


def test_accepting_a_key_keeps_every_other_line_as_it_is(world):
    accepted = world.files.accepted
    accepted.parent.mkdir(parents=True, exist_ok=True)
    before = b"# caf\xe9, by hand\n\n  other ssh-ed25519 AAAA  a comment\r\n|1|hash|= ssh-rsa AAAA"
    accepted.write_bytes(before)
    remember_host_key(ROUTE, world.wrong.line, accepted)
    remember_host_key(ROUTE, world.right.line, accepted)
    kept, _, added = accepted.read_bytes().rpartition(b"[board.example]:2222 ")
    assert kept == before + b"\n"
    assert world.right.line.encode().startswith(added.strip())
    world.check(world.right)


def test_keys_that_are_accepted_at_once_are_all_kept(world):
    def accept(number: int) -> None:
        for port in range(10):
            name = f"[board{number}.example]:{port}"
            remember_host_key(Route(name, port, "me", name), world.right.line, world.files.accepted)

    threads = [threading.Thread(target=accept, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(world.files.accepted.read_text().splitlines()) == 40


def test_a_file_of_accepted_keys_that_is_too_large_is_refused_and_left_alone(world):
    accepted = world.files.accepted
    accepted.parent.mkdir(parents=True, exist_ok=True)
    accepted.write_bytes(b"#" * (MAX_KNOWN_HOSTS + 1))
    with pytest.raises(ConfigError, match="larger than"):
        remember_host_key(ROUTE, world.right.line, accepted)
    assert accepted.stat().st_size == MAX_KNOWN_HOSTS + 1


def test_the_kinds_that_are_known_are_asked_for_first(world):
    world.hosts.write_text(f"[board.example]:2222 {world.right.line}\n")
    assert HostKeyCheck(ROUTE, world.files).kinds == ["ssh-ed25519"]
