"""What an arena asks of this system: a Python that its user may run, a copy of the packages, looks into /proc."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("ipython", "cloudpickle", "psutil", "sandlock")
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
        if path.exists() and (uid == 0 or all(each.stat().st_mode & 0o001 for each in (real, *real.parents))):
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
        todo += [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in found.requires or () if "extra ==" not in need]
    shutil.copytree(
        CHECKOUT / "p2p_ipython",
        site / "p2p_ipython",
        ignore=shutil.ignore_patterns("static", "_labextension"),
    )
    return folder / "bin" / "python", site


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
    """Return the file handle, by which the kernel opens a file without its path, in hexadecimal; "" if there is none."""
    room = ctypes.create_string_buffer(b"\x80\0\0\0", 136)
    mount = ctypes.c_int()
    if ctypes.CDLL(None).name_to_handle_at(-100, os.fsencode(path), room, ctypes.byref(mount), 0) < 0:
        return ""
    return room.raw[: 8 + int.from_bytes(room.raw[:4], sys.byteorder)].hex()


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
    """Return the memory of all processes below one, in a single look at the system: there may be hundreds."""
    below: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                below[int(fields[1])].append((int(name), int(fields[21]) * _PAGE))
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


def user_of(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.uids().real)
    return -1
