"""Virtual machines, as far as none is started: disks, states, the command line. tests/attacks starts them."""

from __future__ import annotations

import json
import lzma
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from p2p_ipython.cli.sandbox import _build
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError
from p2p_ipython.members.membership import Standing
from p2p_ipython.protocol.identity import ClusterSecret
from p2p_ipython.sandbox.launch import LaunchOptions, unable
from p2p_ipython.sandbox.mechanisms import (
    machine_command,
    machine_disk,
    machine_files,
    machine_kernel,
    machine_trial,
    qemu,
)
from p2p_ipython.sandbox.mechanisms.elf import libraries, needed
from p2p_ipython.sandbox.mechanisms.machine_command import PORTS, Shape, command, shape
from p2p_ipython.sandbox.mechanisms.machine_guard import FULL, MEMORY_FULL
from p2p_ipython.sandbox.mechanisms.machine_state import KEPT, State
from p2p_ipython.worker.main import WorkerOptions, _launches

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="virtual machines need Linux")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep nothing in the user's cache folder, and use nothing of it."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(machine_disk, "_found", [])
    monkeypatch.setenv("P2P_CACHE", str(folder))
    return folder


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a folder in place of this environment, and a kernel that nobody starts."""
    if shutil.which("mksquashfs") is None:
        pytest.skip("mksquashfs is not installed")
    folder = tmp_path / "environment"
    folder.mkdir()
    (folder / "module.py").write_text("x = 1\n")
    monkeypatch.setattr(machine_files, "places", lambda: [folder])
    monkeypatch.setattr(machine_files, "system_files", lambda _found: [])

    def prepare(target: Path, _start: str, _say: object) -> None:
        for name in ("kernel", "initrd"):
            (target / name).write_bytes(name.encode())

    monkeypatch.setattr(machine_kernel, "prepare", prepare)
    return folder


def nothing(_disk: machine_disk.Disk) -> None:
    """Try nothing out."""


# --- the command line ------------------------------------------------------------------------------------------------


def test_a_machine_has_three_ports_one_disk_to_read_and_nothing_else() -> None:
    made = Shape(1 << 30, 2, fast=False)
    words = command(made, {"kernel": 3, "initrd": 4, "disk": 5}, {"orders": 6, "accounts": 7, "console": 8}, None)
    assert [words[n + 1] for n, word in enumerate(words) if word == "-net"] == ["none"]
    devices = [words[n + 1].partition(",")[0] for n, word in enumerate(words) if word == "-device"]
    assert sorted(devices) == sorted(
        ["virtio-blk-pci", "virtio-serial-pci", "vmgenid", *("virtserialport" for _ in PORTS)]
    )
    (drive,) = (words[n + 1] for n, word in enumerate(words) if word == "-drive")
    assert "readonly=on" in drive.split(",")
    (sandbox,) = (words[n + 1] for n, word in enumerate(words) if word == "-sandbox")
    assert {"on", "elevateprivileges=deny", "spawn=deny"} <= set(sandbox.split(","))
    assert {"-nodefaults", "-no-user-config"} <= set(words)
    assert "-mon" not in words
    assert "-incoming" not in words
    assert command(made, {"kernel": 3, "initrd": 4, "disk": 5}, {}, 9)[-2:] == ["-incoming", "fd:9"]


def test_a_state_is_for_one_shape_and_one_qemu() -> None:
    keys = {
        made.key(version)
        for made in (Shape(1 << 30, 2, fast=False), Shape(2 << 30, 2, fast=False), Shape(1 << 30, 1, fast=False))
        for version in ("one", "other")
    }
    assert len(keys) == 6
    assert Shape(1 << 30, 2, fast=True).key("one") not in keys


def test_a_machines_memory_has_room_for_a_task_and_its_files() -> None:
    made = shape(LaunchOptions(memory=1 << 30, disk=1 << 30), fast=False)
    assert 2 << 30 < made.memory < 3 << 30


def test_a_machine_has_as_many_cores_as_its_task_may_run_on_whatever_their_numbers_are() -> None:
    assert shape(LaunchOptions(cores=(95, 94)), fast=False).cores == 2
    every = len(os.sched_getaffinity(0))
    assert shape(LaunchOptions(), fast=False).cores == min(every, 8)
    assert shape(LaunchOptions(cores=tuple(range(96))), fast=False).cores == 8


def test_what_a_machine_can_not_do_is_said() -> None:
    assert unable("qemu", LaunchOptions(network=True)) is not None


# --- a launch --------------------------------------------------------------------------------------------------------


@pytest.fixture
def an_empty_disk() -> Path:
    """Have a disk that launches take, and that no machine starts from."""
    folder = machine_disk.parent() / f"{machine_files.environment()}-{machine_files.fingerprint()}"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.usefixtures("an_empty_disk")
def test_no_command_line_or_environment_holds_what_a_runner_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = secrets.token_hex(16)
    monkeypatch.setenv("GITHUB_TOKEN", secret)
    launch = qemu.prepare(LaunchOptions(extra_env={"MINE": secret}, memory=1 << 30))
    try:
        assert secret not in json.dumps([launch.command, launch.env])
        with os.fdopen(os.dup(launch.descriptors[-1]), "rb") as told:
            order = json.load(told)["order"]
        assert order["env"]["MINE"] == secret
        assert "GITHUB_TOKEN" not in order["env"]
        assert launch.death(MEMORY_FULL, FULL).kind == "memory"
        assert launch.death(MEMORY_FULL, "").kind == "exit"
        assert launch.death(-signal.SIGSEGV, "").kind == "signal"
    finally:
        held = launch.descriptors
        launch.clean()
    assert not launch.folder.exists()
    for descriptor in held:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.mark.usefixtures("an_empty_disk")
def test_a_runner_in_a_machine_is_given_no_numbers_of_cores_of_this_one() -> None:
    launch = qemu.prepare(LaunchOptions(cores=(95, 94), cpus=1.5))
    try:
        with os.fdopen(os.dup(launch.descriptors[-1]), "rb") as told:
            given = json.load(told)
        assert json.loads(given["order"]["command"][-1])["cores"] == []
        assert given["shape"]["cores"] == 2
    finally:
        launch.clean()


@pytest.mark.usefixtures("an_empty_disk")
def test_a_launch_that_can_not_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_name: str, _data: bytes) -> int:
        raise OSError(24, "Too many open files")

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(machine_command, "in_memory", fails)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Too many open files"):
        qemu.prepare(LaunchOptions())
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not list(temporary.iterdir())


def test_without_a_disk_it_is_said_how_to_build_one() -> None:
    with pytest.raises(ConfigError, match="no disk") as caught:
        qemu.prepare(LaunchOptions())
    assert "p2p sandbox build qemu" in caught.value.hint
    missing = qemu.available()
    assert missing is not None
    assert "p2p sandbox build qemu" in missing.hint or "qemu" in missing.why


def test_what_is_not_installed_is_named_with_the_command_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="qemu-system-x86_64 is not installed") as caught:
        machine_trial.build(LaunchOptions(), print)
    assert "qemu-system-x86" in caught.value.hint
    monkeypatch.setattr(machine_trial, "lacks_program", lambda *_: None)
    with pytest.raises(ConfigError, match="mksquashfs is not installed") as caught:
        machine_trial.build(LaunchOptions(), print)
    assert "squashfs-tools" in caught.value.hint


@pytest.mark.usefixtures("small")
def test_the_state_that_is_saved_with_a_disk_is_for_the_tasks_of_a_worker_that_is_given_no_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved = []

    def note(_disk: Path, made: Shape, *_: object, **__: object) -> tuple[list[str], int]:
        saved.append(made)
        return ["true"], os.open(os.devnull, os.O_RDONLY)

    monkeypatch.setattr(machine_trial, "lacks_program", lambda *_: None)
    monkeypatch.setattr(machine_trial, "guard_command", note)
    assert _build() == 0
    standing = Standing(ClusterSecret("friends", "p2p-topic", bytes(32)), "me", "bob", shared=True)
    (launch,) = _launches(WorkerOptions("board.example.org", "friends", settings=Settings.load()), standing)
    assert saved == [shape(launch, fast=saved[0].fast)]


# --- the disk --------------------------------------------------------------------------------------------------------


def test_a_disk_is_found_until_the_environment_is_another_one(small: Path, cache: Path) -> None:
    disk = machine_disk.build(print, nothing)
    assert machine_disk.find() == disk
    assert machine_disk.build(print, nothing) == disk
    assert disk.folder.parent.stat().st_mode & 0o777 == 0o700
    (small / "__pycache__").mkdir()
    (small / "__pycache__" / "module.pyc").write_text("compiled, whenever")
    assert machine_disk.find() == disk
    (small / "module.py").write_text("x = 2, and longer\n")
    assert machine_disk.known() == disk  # a worker that lends with it continues to
    assert machine_disk.find() is None
    new = machine_disk.build(print, nothing)
    assert [each for each in (cache / "machines").iterdir() if each.is_dir()] == [new.folder]
    assert machine_disk.known() == new


def test_a_disk_has_files_at_their_own_paths_for_everybody_to_read(small: Path) -> None:
    (small / "module.py").chmod(0o4700)
    (small / "link").symlink_to("module.py")
    disk = machine_disk.build(print, nothing)
    listed = subprocess.run(["unsquashfs", "-lln", disk.image], capture_output=True, text=True, check=True).stdout
    modes = {
        line.split()[-1] if " -> " not in line else line.split()[-3]: line.split()[:2] for line in listed.splitlines()
    }
    assert modes[f"squashfs-root{small}/module.py"] == ["-rwxr-xr-x", "0/0"]
    assert modes[f"squashfs-root{small}"] == ["drwxr-xr-x", "0/0"]
    assert modes[f"squashfs-root{small}/link"][0].startswith("l")
    assert "squashfs-root/start" in modes


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ConfigError("it doesn't start")])
def test_an_interrupted_build_leaves_nothing(small: Path, cache: Path, error: BaseException) -> None:
    def interrupt(_disk: machine_disk.Disk) -> None:
        raise error

    with pytest.raises(type(error)):
        machine_disk.build(print, interrupt)
    assert [each.name for each in (cache / "machines").iterdir()] == ["lock"]
    killed = cache / "machines" / ".new-killed"
    killed.mkdir()
    disk = machine_disk.build(print, nothing)
    assert {each for each in (cache / "machines").iterdir() if each.is_dir()} == {disk.folder}


def test_disks_of_other_environments_are_few(small: Path, cache: Path) -> None:
    for number in range(5):
        other = cache / "machines" / f"other{number}-fingerprint"
        other.mkdir(parents=True)
        os.utime(other, (number, number))
    disk = machine_disk.build(print, nothing)
    kept = {each.name for each in (cache / "machines").iterdir() if each.is_dir()}
    assert kept == {disk.folder.name, "other4-fingerprint", "other3-fingerprint"}


def test_libraries_are_found_through_those_that_need_them() -> None:
    shell = Path("/bin/sh").resolve()
    if not needed(shell):
        pytest.skip("this system's shell needs no library")
    found = {each.name for each in libraries([shell])}
    assert set(map(os.path.basename, needed(shell))) <= found
    assert "libgcc_s.so.1" in found or "libc.so.6" not in found  # threads end by it
    assert needed(Path(__file__)) == []
    assert libraries([Path("/nowhere")]) == set()


# --- the kernel ------------------------------------------------------------------------------------------------------


def a_kernel(root: Path, release: str, *, suffix: str = ".ko") -> None:
    (root / "boot").mkdir(parents=True, exist_ok=True)
    (root / "boot" / f"vmlinuz-{release}").write_bytes(b"kernel")
    modules = root / "lib/modules" / release
    (modules / "kernel").mkdir(parents=True)
    (modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    for name, needs in (("virtio_blk", "virtio-ring"), ("virtio_console", ""), ("squashfs", ""), ("virtio-ring", "")):
        data = b"\x7fELF\0depends=" + needs.encode() + b"\0name=\0"
        (modules / "kernel" / f"{name}{suffix}").write_bytes(lzma.compress(data) if suffix.endswith("xz") else data)


def test_a_kernel_that_is_installed_is_taken_those_for_machines_first(tmp_path: Path) -> None:
    assert machine_kernel.installed(tmp_path) is None
    a_kernel(tmp_path, "6.1.0-9-amd64")
    a_kernel(tmp_path, "6.1.0-10-amd64")
    found = machine_kernel.installed(tmp_path)
    assert found is not None
    assert found.image.name == "vmlinuz-6.1.0-10-amd64"
    a_kernel(tmp_path, "5.10.0-1-cloud-amd64")
    found = machine_kernel.installed(tmp_path)
    assert found is not None
    assert found.image.name == "vmlinuz-5.10.0-1-cloud-amd64"


@pytest.mark.parametrize("suffix", [".ko", ".ko.xz"])
def test_what_the_kernel_starts_has_the_modules_in_their_order(tmp_path: Path, suffix: str) -> None:
    if shutil.which("cpio") is None:
        pytest.skip("cpio is not installed")
    a_kernel(tmp_path, "6.1.0-cloud", suffix=suffix)
    packed = machine_kernel._initrd(tmp_path / "lib/modules/6.1.0-cloud", Path("/bin/sh").resolve(), "/start")
    target = tmp_path / "unpacked"
    target.mkdir()
    subprocess.run(["cpio", "-id", "--quiet", "--no-absolute-filenames"], input=packed, cwd=target, check=True)
    script = (target / "init").read_text()
    assert "for module in virtio-ring virtio_blk virtio_console squashfs;" in script
    assert (target / "init").stat().st_mode & 0o111
    assert (target / "modules" / "virtio-ring.ko").read_bytes().startswith(b"\x7fELF")
    assert (target / "bin" / "busybox").exists()


# --- states ----------------------------------------------------------------------------------------------------------


def test_a_state_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    asked = []

    def save(target: int) -> bool:
        asked.append(target)
        os.write(target, b"state")
        return True

    state = State(tmp_path / "state-one")
    for _ in range(2):
        with state.opened(save) as descriptor:
            assert descriptor is not None
            assert os.read(descriptor, 99) == b"state"
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(descriptor, b"x")
    assert len(asked) == 1
    assert (tmp_path / "state-one").stat().st_mode & 0o777 == 0o600
    state.remove()
    with state.opened(save) as descriptor:
        assert descriptor is not None
    assert len(asked) == 2


def test_a_state_that_can_not_be_saved_leaves_nothing(tmp_path: Path) -> None:
    def fail(target: int) -> bool:
        os.write(target, b"a part")
        raise OSError(28, "No space left on device")

    for save in (fail, lambda _target: False):
        with State(tmp_path / "state-one").opened(save) as descriptor:
            assert descriptor is None
    assert [each.name for each in tmp_path.iterdir()] == ["state.lock"]


def test_states_of_a_disk_are_few(tmp_path: Path) -> None:
    for number in range(KEPT + 2):
        with State(tmp_path / f"state-{number}").opened(lambda _target: True):
            os.utime(tmp_path / f"state-{number}", (number, number))
    assert len(list(tmp_path.glob("state-*"))) == KEPT
    assert (tmp_path / f"state-{KEPT + 1}").exists()
