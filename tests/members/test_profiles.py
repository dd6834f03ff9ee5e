"""Profiles on disk: private, whole, never lost; several processes and threads at the same time."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from p2p_ipython import private_files
from p2p_ipython.errors import ConfigError
from p2p_ipython.members.profile import MAX_PROFILE, Hosting, Profile
from p2p_ipython.members.profiles import Profiles

OWNER = "SHA256:" + "A" * 43
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="modes and links are POSIX's")


def make(title: str = "alice/friends", **changes: object) -> Profile:
    profile = Profile(
        title=title,
        cluster=f"{OWNER}/{title.partition('/')[2]}",
        board="alice@board.example:2222",
        host_key="ssh-ed25519 AAAA",
        mailbox="ws://board.example:4000/v1",
        relay="tcp:board.example:4001",
        identity="/home/bob/.ssh/id_ed25519",
        signer="SHA256:" + "B" * 43,
        topic="p2p-" + "0" * 32,
        key=bytes(range(32)),
        roster=b"signed\0\xff",
        trusted=frozenset({"SHA256:" + "C" * 43}),
        vouch=b"\x01\x02",
        hosting=Hosting(1_800_000_000, {"carol": "", "bob": "SHA256:" + "B" * 43}),
    )
    return replace(profile, **changes)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "clusters"


@pytest.fixture
def profiles(folder: Path) -> Profiles:
    return Profiles(folder)


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("*.json")
    return path


def test_what_was_saved_is_loaded_whole(profiles: Profiles) -> None:
    profiles.save(make())
    assert profiles.load("alice/friends") == make()
    assert profiles.load("alice/friends").hosting == make().hosting


def test_the_users_own_folder_is_in_his_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2P_DATA", str(tmp_path / "data"))
    Profiles().save(make())
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "data" / "clusters"]


def test_a_cluster_that_nobody_has_joined_says_how_to_join(profiles: Profiles) -> None:
    assert profiles.find("alice/friends") is None
    with pytest.raises(ConfigError, match="invitation"):
        profiles.load("alice/friends")
    with pytest.raises(ConfigError, match="gone"):
        profiles.change("alice/friends", lambda profile: profile)


@pytest.mark.parametrize(
    "title", ["", "alice", "alice/", "/x", "Alice/x", "alice/../x", "alice/.x", "alice/x/y", "a/x\n", "a/" + "x" * 51]
)
def test_what_is_no_title_is_refused_and_touches_no_file(profiles: Profiles, folder: Path, title: str) -> None:
    with pytest.raises(ConfigError, match="title"):
        profiles.find(title)
    assert not folder.exists()


def test_titles_that_differ_in_capitals_only_have_files_that_differ_in_more(profiles: Profiles, folder: Path) -> None:
    titles = ["alice/friends", "alice/Friends", "alice/FRIENDS", "con/a.b", "alice/f-r_i.e"]
    for title in titles:
        profiles.save(make(title))
    assert sorted(profile.title for profile in profiles.all()) == sorted(titles)
    assert len({path.name.lower() for path in folder.glob("*.json")}) == len(titles)


def test_a_removed_profile_is_gone_and_may_be_removed_again(profiles: Profiles) -> None:
    profiles.save(make())
    profiles.remove("alice/friends")
    profiles.remove("alice/friends")
    assert profiles.find("alice/friends") is None
    assert profiles.all() == []


@POSIX
def test_only_the_user_can_read_them(profiles: Profiles, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o755)
    modes: list[int] = []
    fsync = os.fsync

    def looking(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", looking)
    before = os.umask(0)
    try:
        profiles.save(make())
        profiles.save(make(board="other"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert set(modes) == {0o600, 0o700}, "while it is written, too; the folder is synced as well"


def test_no_secret_is_in_a_repr() -> None:
    profile = make()
    shown = repr(profile)
    for secret in (profile.key, profile.roster, profile.vouch):
        assert repr(secret) not in shown
        assert secret.hex() not in shown
    assert profile.topic not in shown
    named = {name for name in vars(profile) if f", {name}=" in shown.replace("(", ", ")}
    assert named == {*vars(profile)} - {"topic", "key", "roster", "vouch"}, "a new field is shown, or isn't, on purpose"


def test_a_profile_that_could_not_be_read_again_is_not_written(profiles: Profiles, folder: Path) -> None:
    profiles.save(make())
    for wrong in ({"key": b"short"}, {"cluster": f"{OWNER}/others"}, {"roster": bytes(MAX_PROFILE)}):
        with pytest.raises(ConfigError, match="can't be kept"):
            profiles.save(make(**wrong))
    assert profiles.load("alice/friends") == make()


# Damage


def damage(folder: Path, **changes: object) -> bytes:
    path = only_file(folder)
    fields = json.loads(path.read_bytes())
    fields.update(changes)
    path.write_text(json.dumps({name: value for name, value in fields.items() if value != "GONE"}))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"version": "GONE"}, "version"),
        ({"version": True}, "version"),
        ({"title": 7}, "title"),
        ({"title": "alice/others"}, "cluster does not fit"),
        ({"title": "bob/friends"}, "another cluster"),
        ({"cluster": "GONE"}, "cluster"),
        ({"topic": None}, "topic"),
        ({"key": "ab"}, "key"),
        ({"key": "AB" * 32}, "key"),
        ({"roster": "not base64!"}, "roster"),
        ({"trusted": "SHA256:x"}, "trusted"),
        ({"trusted": [7]}, "trusted"),
        ({"vouch": []}, "vouch"),
        ({"hosting": {"until": True, "expected": {}}}, "hosting"),
        ({"hosting": {"until": 1.5, "expected": {}}}, "hosting"),
        ({"hosting": {"until": 1, "expected": ["bob"]}}, "expected"),
        ({"hosting": {"until": 1, "expected": {"bob": 7}}}, "expected"),
        ({"more": "x" * MAX_PROFILE}, "larger"),
    ],
)
def test_a_damaged_profile_is_described_and_kept_aside(
    profiles: Profiles, folder: Path, changes: dict[str, object], what: str
) -> None:
    profiles.save(make())
    bad = damage(folder, **changes)
    with pytest.raises(ConfigError, match=what) as caught:
        profiles.load("alice/friends")
    (aside,) = folder.glob("*.damaged-*-1")
    assert aside.read_bytes() == bad
    assert str(aside) in str(caught.value)
    assert make().key.hex() not in str(caught.value)
    assert profiles.find("alice/friends") is None


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"{", b"[]", b"[" * 100_000, b"null"])
def test_what_is_no_json_object_is_damage_too(profiles: Profiles, folder: Path, text: bytes) -> None:
    profiles.save(make())
    only_file(folder).write_bytes(text)
    with pytest.raises(ConfigError, match="JSON"):
        profiles.change("alice/friends", lambda profile: profile)
    assert [path.read_bytes() for path in folder.glob("*.damaged-*")] == [text]


def test_saving_over_a_damaged_profile_keeps_the_damaged_one(
    profiles: Profiles, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        profiles.save(make())
        only_file(folder).write_text(f"damage {number}")
        profiles.save(make())
    assert profiles.load("alice/friends") == make()
    assert sorted(path.read_text() for path in folder.glob("*.damaged-*")) == ["damage 1", "damage 2"]
    assert "is damaged" in caplog.text


def test_the_others_are_returned_when_one_is_damaged(
    profiles: Profiles, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profiles.save(make())
    only_file(folder).write_text("damage")
    profiles.save(make("bob/lab"))
    (folder / "notes.json").write_text("the user's")
    (folder / "bob@%6Cab.json").write_text("another name that would mean the same")
    with caplog.at_level(logging.WARNING):
        assert profiles.all() == [make("bob/lab")]
    assert "alice/friends is damaged" in caplog.text
    assert (folder / "notes.json").read_text() == "the user's"


def test_a_profile_of_a_newer_version_is_left_alone(profiles: Profiles, folder: Path) -> None:
    profiles.save(make())
    written = damage(folder, version=2)
    for use in (lambda: profiles.load("alice/friends"), lambda: profiles.save(make())):
        with pytest.raises(ConfigError, match="Update"):
            use()
    assert only_file(folder).read_bytes() == written


def test_fields_that_a_newer_one_has_added_are_kept(profiles: Profiles, folder: Path) -> None:
    profiles.save(make())
    damage(folder, colour="green", hosting={"until": 1, "expected": {}, "lights": "on"})
    profiles.change("alice/friends", lambda profile: replace(profile, board="other"))
    profiles.save(replace(profiles.load("alice/friends"), relay=""))
    fields = json.loads(only_file(folder).read_bytes())
    assert fields["colour"] == "green"
    assert fields["hosting"] == {"until": 1, "expected": {}, "lights": "on"}
    assert (fields["board"], fields["relay"]) == ("other", "")


@POSIX
def test_a_link_in_a_profiles_place_is_refused_and_not_followed(
    profiles: Profiles, folder: Path, tmp_path: Path
) -> None:
    profiles.save(make())
    path = only_file(folder)
    target = tmp_path / "target"
    os.rename(path, target)
    before = target.read_bytes()
    path.symlink_to(target)
    for use in (lambda: profiles.load("alice/friends"), lambda: profiles.save(make(board="other"))):
        with pytest.raises(ConfigError, match="symbolic link"):
            use()
    assert target.read_bytes() == before
    assert path.is_symlink()


@POSIX
def test_a_pipe_in_a_profiles_place_is_refused_at_once(profiles: Profiles, folder: Path) -> None:
    profiles.save(make())
    path = only_file(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="not a plain file"):
        profiles.load("alice/friends")


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        Profiles(tmp_path / "file" / "clusters").save(make())


def test_a_crash_while_writing_leaves_the_old_profile(
    profiles: Profiles, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles.save(make())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="No space left"):
            profiles.save(make(board="other"))
    assert profiles.load("alice/friends") == make()
    assert not list(folder.glob(".*.new")), "nothing half written is left"
    path = only_file(folder)
    path.with_name(f".{path.name}.new").write_text("what a killed process has left")
    profiles.save(make(board="other"))
    assert profiles.load("alice/friends").board == "other"


# Several at the same time


def test_changes_of_many_threads_are_all_kept(profiles: Profiles) -> None:
    profiles.save(make(trusted=frozenset()))

    def trust(name: str) -> None:
        mine = Profiles(profiles._folder)
        for number in range(10):
            entry = {f"{name}{number}"}
            mine.change("alice/friends", lambda old, entry=entry: replace(old, trusted=old.trusted | entry))  # type: ignore[misc]

    threads = [threading.Thread(target=trust, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(profiles.load("alice/friends").trusted) == 40


CHANGE = """
import sys
from dataclasses import replace
from pathlib import Path
from p2p_ipython.members.profiles import Profiles
profiles = Profiles(Path(sys.argv[1]))
for number in range(10):
    profiles.change("alice/friends", lambda old: replace(old, trusted=old.trusted | {f"{sys.argv[2]}{number}"}))
"""


def test_changes_of_many_processes_are_all_kept(profiles: Profiles, folder: Path) -> None:
    profiles.save(make(trusted=frozenset()))
    running = [subprocess.Popen([sys.executable, "-c", CHANGE, str(folder), name]) for name in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(profiles.load("alice/friends").trusted) == 30


def test_an_edit_that_takes_long_keeps_nobody_waiting_and_begins_anew_when_overtaken(profiles: Profiles) -> None:
    profiles.save(make(trusted=frozenset()))
    seen = []

    def sign(profile: Profile) -> Profile:
        seen.append(profile.trusted)
        if len(seen) == 1:  # meanwhile, somebody else
            profiles.change("alice/friends", lambda old: replace(old, trusted=old.trusted | {"b"}))
        return replace(profile, trusted=profile.trusted | {"a"})

    assert profiles.revise("alice/friends", sign).trusted == {"a", "b"}
    assert seen == [frozenset(), {"b"}]


def test_an_edit_that_is_overtaken_again_and_again_is_an_error(profiles: Profiles) -> None:
    profiles.save(make(trusted=frozenset()))
    names = iter("abcdefgh")

    def edit(profile: Profile) -> Profile:
        profiles.change("alice/friends", lambda old: replace(old, trusted=old.trusted | {next(names)}))
        return replace(profile, board="x")

    with pytest.raises(ConfigError, match="again and again"):
        profiles.revise("alice/friends", edit)
    assert profiles.load("alice/friends").board == make().board


def test_an_edit_that_fails_changes_nothing_and_lets_others_edit(profiles: Profiles) -> None:
    profiles.save(make())
    with pytest.raises(ZeroDivisionError):
        profiles.change("alice/friends", lambda profile: 1 // 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="bob/friends"):
        profiles.change("alice/friends", lambda profile: replace(profile, title="bob/friends"))
    assert profiles.change("alice/friends", lambda profile: replace(profile, board="x")) == make(board="x")


def test_a_folder_that_somebody_holds_for_long_is_an_error_in_the_end(
    profiles: Profiles, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from p2p_ipython.members import profiles as module

    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    profiles.save(make())
    lock = private_files.Lock.acquire(folder / ".lock")
    assert lock is not None
    with lock, pytest.raises(ConfigError, match="in use"):
        profiles.load("alice/friends")
    assert profiles.load("alice/friends") == make()


def test_a_stamp_changes_with_the_profile_and_only_then(profiles: Profiles, folder: Path) -> None:
    assert profiles.stamp("alice/friends") is None
    profiles.save(make())
    seen = {profiles.stamp("alice/friends")}
    assert {profiles.stamp("alice/friends")} == seen
    profiles.load("alice/friends")
    profiles.change("alice/friends", lambda profile: profile)
    assert {profiles.stamp("alice/friends")} == seen
    for number in range(20):  # of one size, faster than any clock of a file system
        profiles.save(make(board=f"board{number % 10}"))
        seen.add(profiles.stamp("alice/friends"))
    os.utime(only_file(folder), (2_000_000_000, 2_000_000_000))  # the clock was wrong, and is set back
    before = profiles.stamp("alice/friends")
    profiles.save(make(board="board0"))
    after = profiles.stamp("alice/friends")
    assert len(seen) == 21
    assert before is not None
    assert after is not None
    assert after[0] > before[0]


# The process that hosts


def test_one_process_hosts_a_cluster_at_a_time(profiles: Profiles, folder: Path) -> None:
    first = profiles.hosting("alice/friends")
    assert first is not None
    with first:
        assert Profiles(folder).hosting("alice/friends") is None
        other = profiles.hosting("alice/Friends")
        assert other is not None
        other.release()
        profiles.save(make())  # hosting keeps nobody from the profile
    again = profiles.hosting("alice/friends")
    assert again is not None
    again.release()
    again.release()


@POSIX
def test_a_released_lock_is_free_though_a_fork_has_a_copy_of_it(profiles: Profiles) -> None:
    lock = profiles.hosting("alice/friends")
    assert lock is not None
    assert lock._descriptor is not None
    copy = os.dup(lock._descriptor)
    try:
        lock.release()
        again = profiles.hosting("alice/friends")
        assert again is not None
        again.release()
    finally:
        os.close(copy)


HOST = """
import sys
from pathlib import Path
from p2p_ipython.members.profiles import Profiles
lock = Profiles(Path(sys.argv[1])).hosting("alice/friends")
print("hosting" if lock else "no", flush=True)
sys.stdin.read()
"""


def test_a_host_that_was_killed_hosts_no_longer(profiles: Profiles, folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOST, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hosting\n"
        assert profiles.hosting("alice/friends") is None
        process.kill()
    lock = profiles.hosting("alice/friends")
    assert lock is not None
    lock.release()
