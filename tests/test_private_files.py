"""Private files, by each of the four that write some: no link is followed, a crash leaves old or new, mode 0600.

What each of them writes in particular is tested beside it: profiles, accepted host keys, a board's own, a user's.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_ipython import private_files
from p2p_ipython.errors import ConfigError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="modes and links are POSIX's")

# What each of the four does in a folder, and the file that it writes there. Replacing ones do it over what is there.
WRITERS = """
from pathlib import Path

def write_profile(folder):
    from p2p_ipython.members.profile import Profile
    from p2p_ipython.members.profiles import Profiles
    owner = "SHA256:" + "A" * 43
    places = ("board", "", "", "", "")
    Profiles(folder).save(Profile("alice/friends", f"{owner}/friends", *places, owner, "p2p-1", b"k" * 32, b""))

def accept_host_key(folder):
    from p2p_ipython.board.client.address import Route
    from p2p_ipython.board.client.known_hosts import remember_host_key
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHyWjPIKnPJLCpTHWXnJDd1lqWWmAXqHFzUMPz3kLTsT"
    remember_host_key(Route("board", 22, "me", "board"), line, folder / "known_hosts")

def make_host_key(folder):
    from p2p_ipython.board.server.host_key import host_key
    host_key(folder)

def make_own_key(folder):
    from p2p_ipython.members.guest_key import make_key
    make_key(folder / "id_ed25519")

FILES = {
    write_profile: "alice@friends.json",
    accept_host_key: "known_hosts",
    make_host_key: "board_host_key",
    make_own_key: "id_ed25519",
}
"""

# Ends the process, as a crash does, before its nth call that changes a disk; each n in a process and folder of its own.
CRASH = (
    WRITERS
    + """
import json, os, sys
write = globals()[sys.argv[1]]
name, old, base = FILES[write], bytes.fromhex(sys.argv[2]), Path(sys.argv[3])
write(base / "whole")  # all is imported

def crash_before(step):
    def counted(call):
        def wrapped(*args, **kwargs):
            nonlocal step
            step -= 1
            if step < 0:
                os._exit(9)
            return call(*args, **kwargs)
        return wrapped
    for call in ("open", "fsync", "utime", "replace", "link", "unlink"):
        setattr(os, call, counted(getattr(os, call)))

found = []
for step in range(100):
    folder = base / str(step)
    folder.mkdir(mode=0o700)
    if old:
        (folder / name).write_bytes(old)
        (folder / name).chmod(0o600)
    if not (child := os.fork()):
        crash_before(step)
        try:
            write(folder)
        finally:
            os._exit(0)
    crashed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    modes = {path.name: path.stat().st_mode & 0o077 for path in folder.iterdir() if ".pub" not in path.name}
    text = (folder / name).read_bytes().hex() if (folder / name).exists() else ""
    write(folder) if crashed and not (text and name == "id_ed25519") else None  # what is left keeps nobody from it
    found.append((text, modes))
    if not crashed:
        break
print(json.dumps(found))
"""
)

namespace: dict[str, object] = {}
exec(WRITERS, namespace)
FILES: dict[object, str] = namespace["FILES"]  # type: ignore[assignment]
EACH = pytest.mark.parametrize("write", FILES, ids=lambda write: write.__name__)
REPLACED = {"write_profile", "accept_host_key"}


@POSIX
@EACH
@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_in_its_place_is_refused_and_what_it_leads_to_stays_as_it_is(write, dangling, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir(mode=0o700)
    if not dangling:
        write(folder)
        (folder / FILES[write]).rename(elsewhere)
    before = elsewhere.read_bytes() if elsewhere.exists() else None
    (folder / FILES[write]).symlink_to(elsewhere)
    with pytest.raises(ConfigError):
        write(folder)
    assert (folder / FILES[write]).is_symlink()
    assert (elsewhere.read_bytes() if elsewhere.exists() else None) == before


@POSIX
@EACH
def test_its_mode_lets_only_its_user_read_it_whatever_the_mask(write, tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        write(tmp_path / "folder")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "folder" / FILES[write]).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


@POSIX
@EACH
def test_a_crash_between_any_two_steps_leaves_the_old_text_or_the_new_one_whole(write, tmp_path: Path) -> None:
    old = b""
    if write.__name__ in REPLACED:
        write(tmp_path / "before")
        old = (tmp_path / "before" / FILES[write]).read_bytes()
        old = old.replace(b': "board"', b': "older"').replace(b"board ssh", b"older ssh")
    done = subprocess.run(
        [sys.executable, "-c", CRASH, write.__name__, old.hex(), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    texts = [bytes.fromhex(text) for text, _ in found]
    new = texts[-1]
    assert len(texts) > 5
    assert new not in (b"", old)
    assert texts[0] == old
    if write.__name__ in REPLACED:
        assert set(texts) == {old, new}
    else:
        assert all(text.endswith(b"-----END OPENSSH PRIVATE KEY-----\n") for text in texts if text)
    assert not any(mode for _, modes in found for mode in modes.values())


MANY = (
    WRITERS
    + """
import sys
from p2p_ipython.errors import ConfigError
write, folder = globals()[sys.argv[1]], Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    try:
        write(folder)
    except ConfigError as error:
        assert "can't be made" in str(error), error
"""
)


@EACH
def test_processes_that_write_it_at_once_leave_one_whole_file_and_nothing_else(write, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, write.__name__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.communicate("go\n", timeout=100)
    assert [process.returncode for process in running] == [0, 0, 0]
    left = {path.name for path in folder.iterdir() if not path.name.endswith("lock")}
    assert left - {"id_ed25519.pub"} == {FILES[write]}
    assert (folder / FILES[write]).stat().st_size > 50


@POSIX
@EACH
def test_it_is_on_the_disk_with_its_name_when_it_is_said_to_be_there(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = [], os.fsync

    def seen(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    write(tmp_path / "folder")
    assert synced[:2] == [False, True]
    assert synced[-1]


@POSIX
def test_a_file_system_without_hard_links_has_new_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    private_files.create(tmp_path / "key", b"secret")
    with pytest.raises(FileExistsError):
        private_files.create(tmp_path / "key", b"another")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("key", b"secret")]
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
