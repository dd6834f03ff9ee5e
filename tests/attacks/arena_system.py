"""What an arena asks of this system: a Python that its user may run, a copy of the packages, looks into /proc."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.metadata
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

CHECKOUT = Path(__file__).parents[2]
PREFIX = "p2pattacks-"
"""How the names of arenas' folders begin."""

_YOUNG = 10.0
"""A folder that has changed this recently, seconds, isn't swept: it may be about to be locked."""

PACKAGES = ("ipython", "cloudpickle", "psutil", "platformdirs")
"""Distributions that the lender's side needs, with what they require; those that aren't here are left out."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class NotOffered(Exception):
    """An arena that can't be on this system, and why."""


def python_for(uid: int) -> Path:
    """Return a Python of this version that the user may run. Raises ``NotOffered``."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    own = Path(sys.base_prefix, "bin", version)
    for path in (own, Path("/usr/bin") / version, Path("/usr/local/bin") / version):
        real = path.resolve()
        if path.exists() and (uid == os.getuid() or all(each.stat().st_mode & 0o001 for each in (real, *real.parents))):
            return path
    raise NotOffered(f"there is no {version} that an ordinary user may run: {own} is closed to others")


def make_environment(folder: Path, python: Path) -> tuple[Path, Path]:
    """Make a virtual environment with what the lender's side needs; return its Python and its site-packages."""
    site = folder / "lib" / python.name / "site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(python)
    (folder / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    todo, seen = list(PACKAGES), {"jedi"}  # thousands of files, and IPython runs without them
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in found.files or ():
            if ".." not in file.parts and (source := Path(str(found.locate_file(file)))).is_file():
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        needs = [need for need in found.requires or () if "extra ==" not in need]
        todo += [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in needs]
    shutil.copytree(
        CHECKOUT / "p2p_ipython",
        site / "p2p_ipython",
        ignore=shutil.ignore_patterns("static", "_labextension"),
    )
    return folder / "bin" / "python", site


def build_machine(python: Path, how: dict[str, Any]) -> None:
    """Build what virtual machines start from, as the lender who has ``python``. Raises ``NotOffered``."""
    done = subprocess.run([python, "-P", "-c", _BUILD], **how, capture_output=True, text=True, check=False)
    if done.returncode == _NOT_HERE:
        raise NotOffered(done.stdout.strip().rpartition("\n")[2])
    assert done.returncode == 0, f"no disk for machines can be built: {done.stdout}{done.stderr}"


_NOT_HERE = 3
_BUILD = f"""
import sys
from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.launch import LaunchOptions
from p2p_ipython.sandbox.mechanisms.machine_trial import build
try:
    build(LaunchOptions(), print)
except ConfigError as error:
    print(error.message)
    sys.exit({_NOT_HERE})
"""


def compile_package(python: Path, package: Path) -> None:
    """Compile what runners import: they write no bytecode, and must not be slow for that."""
    folders = [package / each for each in ("protocol", "task", "sandbox", "worker")]
    for more, paths in (("-l", [package]), ("-q", folders)):
        subprocess.run([python, "-m", "compileall", "-q", more, *paths], check=True)


def address_of_host() -> str:
    """Return an address of this machine that isn't the loopback's; "" if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, contextlib.suppress(OSError):
        asking.connect(("192.0.2.1", 9))  # sends nothing
        return str(asking.getsockname()[0])
    return ""


def handle_of(path: Path) -> str:
    """Return in hexadecimal the handle by which the kernel opens a file without its path; "" if there is none."""
    room = ctypes.create_string_buffer(b"\x80\0\0\0", 136)
    mount = ctypes.c_int()
    if ctypes.CDLL(None).name_to_handle_at(-100, os.fsencode(path), room, ctypes.byref(mount), 0) < 0:
        return ""
    return room.raw[: 8 + int.from_bytes(room.raw[:4], sys.byteorder)].hex()


def attributes_of(path: str) -> tuple[dict[str, bytes], int]:
    """Return a file's extended attributes, access lists among them, and its flags."""
    with open(path, "rb") as file:
        flags = int.from_bytes(_flags(file.fileno(), 0x80086601, bytes(8)), sys.byteorder)
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}, flags


def clear_attributes(path: str) -> None:
    """Remove what ``attributes_of`` tells, as far as an attack sets it."""
    for name in os.listxattr(path):
        os.removexattr(path, name)
    with open(path, "rb") as file:
        flags = int.from_bytes(_flags(file.fileno(), 0x80086601, bytes(8)), sys.byteorder)
        _flags(file.fileno(), 0x40086602, (flags & ~0x40).to_bytes(8, sys.byteorder))


def _flags(file: int, request: int, value: bytes) -> bytes:
    """Get or set a file's flags; none if its file system has none."""
    with contextlib.suppress(OSError):
        return fcntl.ioctl(file, request, value)
    return b""


def shared_memory() -> int:
    """Return the bytes of shared memory and temporary file systems, of the whole machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) * 1024
    return 0


def memory_of(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def sizes_below(root: int) -> list[int]:
    """Return the memory of all processes below one, in a single look at the system: there may be hundreds.

    Containers of Docker's are below its engine. They count as below ``root``: there are no others where this runs.
    """
    below: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                program, _, rest = file.read().rpartition(b")")
                fields = rest.split()
                parent = root if b"(containerd-shim" in program else int(fields[1])
                below[parent].append((int(name), int(fields[21]) * _PAGE))
    sizes, todo = [], [root]
    while todo:
        for pid, size in below[todo.pop()]:
            todo.append(pid)
            sizes.append(size)
    return sizes


def state_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def has_tracer(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
    return False


def end_processes(pids: Iterable[int]) -> None:
    """Kill processes, and see them end."""
    for pid in (pids := list(pids)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 5
    while any(psutil.pid_exists(pid) and state_of(pid) != "Z" for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)


def remove_user(name: str) -> None:
    """Remove a user that an arena made, and what runs as that user."""
    with contextlib.suppress(KeyError):
        uid = pwd.getpwnam(name).pw_uid
        end_processes(one.pid for one in psutil.process_iter() if _user_of(one) == uid)
        subprocess.run(["userdel", "--force", name], check=False, capture_output=True)


def sweep() -> None:
    """Remove what arenas have left whose process was killed: each holds a lock on its folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if time.time() - os.fstat(fd).st_mtime < _YOUNG:
                    continue
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                homes = list(folder.glob("home/p2pa*")) if os.fstat(fd).st_uid == os.getuid() else []
                for home in homes:
                    remove_user(home.name)
                shutil.rmtree(folder, ignore_errors=True)
                shutil.rmtree(f"/tmp/ssh-{folder.name}", ignore_errors=True)
            finally:
                os.close(fd)


def _user_of(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.uids().real)
    return -1
