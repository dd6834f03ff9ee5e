"""The files on a virtual machine's disk: Python with its packages, the system's libraries that these need, a few tools.

The machine shows them at their own paths, as other sandboxes do, but of /usr only these parts: the whole of it would
take gigabytes of disk. ``fingerprint`` says whether a disk has them as they are now.

Linux only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import site
import stat
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from p2p_ipython.sandbox.mechanisms.elf import libraries
from p2p_ipython.sandbox.mechanisms.python_files import SYSTEM, links_of, python_files
from p2p_ipython.sandbox.mechanisms.shown import ETC, FIRST, SCRATCH, name_texts, roots

_FORMAT = 1
"""Raise it when disks of earlier versions are of no use any more."""

_PROGRAMS = (
    *("sh", "bash", "env", "cat", "ls", "cp", "mv", "rm", "ln", "mkdir", "rmdir", "touch", "chmod", "stat", "du", "df"),
    *("head", "tail", "sort", "uniq", "wc", "cut", "tr", "tee", "seq", "date", "echo", "printf", "true", "false", "id"),
    *("test", "expr", "pwd", "sleep", "kill", "ps", "uname", "nproc", "basename", "dirname", "readlink", "realpath"),
    *("mktemp", "md5sum", "sha256sum", "grep", "sed", "awk", "find", "xargs", "diff", "tar", "gzip", "gunzip", "xz"),
)
"""Programs that tasks start most; see LEAVES in qemu.py."""

_DATA = ("/usr/share/zoneinfo", "/usr/share/ca-certificates", "/usr/lib/locale/C.utf8", "/usr/share/terminfo")
_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "scratch", "var", "etc", "root")
_NOT_NEEDED = ("include", "share", "test", "idlelib", "turtledemo")
"""Folders of a base environment, and of its standard library, that no task imports."""

TASK = 1000
"""The user and group that tasks run as in a machine."""

LARGEST = 1 << 20
"""Files on a disk, at most."""


def places() -> list[Path]:
    """Return the folders and files of Python's: where it is, its packages, and what of both is below /usr.

    Raises ``ConfigError`` as ``python_files`` does.
    """
    below_system = [Path(each) for each in (*sys.path, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))]
    below_system = [each for each in below_system if SYSTEM in each.parents and each.exists()]
    programs = [each for each in links_of(Path(sys.executable)) if SYSTEM in each.parents]
    return list(dict.fromkeys([*python_files().shown, *below_system, *programs]))


def left_out() -> set[Path]:
    """Return the folders among ``places`` that no task needs."""
    base = Path(sys.base_prefix)
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": str(base), "base": str(base)}))
    found = {folder / name for folder in (base, library) for name in _NOT_NEEDED if base != SYSTEM or folder == library}
    found |= set(library.glob("config-*"))
    if sys.prefix != sys.base_prefix and str(library / "site-packages") not in sys.path:
        found.add(library / "site-packages")
    package = python_files().package
    return found | {package / "static", package / "_labextension"}


def files(folders: list[Path], without: set[Path]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each file, folder and link below ``folders``, the folders themselves first. Raises ``OSError``."""
    todo = [str(each) for each in folders]
    hidden = {str(each) for each in without}
    for place in todo:
        yield place, os.lstat(place)
    todo = [place for place in todo if os.path.isdir(place) and not os.path.islink(place)]
    while todo:
        with contextlib.suppress(PermissionError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.path in hidden:
                    continue
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    todo.append(entry.path)
                yield entry.path, found


def fingerprint() -> str:
    """Return what changes whenever the files do: their names, sizes and times. Takes 6 µs a file.

    Compiled modules, which come and go, don't count. Raises ``ConfigError`` as ``python_files`` does, ``OSError``.
    """
    made = hashlib.sha256(f"{_FORMAT} {sys.executable}".encode())
    for place in ("/etc/ld.so.cache",):  # newer whenever a library of the system's is another one
        with contextlib.suppress(FileNotFoundError):
            made.update(str(os.stat(place).st_mtime_ns).encode())
    lines = sorted(
        f"{place} {found.st_size} {found.st_mtime_ns} {found.st_mode}"
        for place, found in files(places(), left_out())
        if not stat.S_ISDIR(found.st_mode) and not place.endswith(".pyc")
    )
    made.update("\n".join(lines).encode("utf-8", "surrogateescape"))
    return made.hexdigest()[:32]


def environment() -> str:
    """Return a name of this environment, whatever is in it."""
    return hashlib.sha256(f"{sys.prefix} {sys.executable}".encode()).hexdigest()[:12]


def system_files(found: list[str]) -> list[Path]:
    """Return what of the system belongs to the disk: tools, data, and the libraries that these and ``found`` need."""
    programs = [Path(folder, name) for name in _PROGRAMS for folder in ("/usr/bin", "/bin")]
    tools = [link for each in programs if each.exists() for link in links_of(each)]
    shared = [Path(each) for each in found if ".so" in os.path.basename(each) or "/bin/" in each]
    linked = [link for each in libraries([*tools, *shared]) for link in links_of(each)]
    etc = [Path("/etc", name) for name in ETC]
    data = [Path(each) for each in _DATA]
    return [each for each in dict.fromkeys([*tools, *linked, *etc, *data]) if os.path.lexists(each)]


def start_script() -> str:
    """Return the first script on the disk: it becomes Python, with what that needs to start."""
    env = {"PATH": "/usr/bin:/bin", "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1", "IPYTHONDIR": "/nowhere"}
    if libraries_at := os.environ.get("LD_LIBRARY_PATH"):
        env["LD_LIBRARY_PATH"] = libraries_at
    if os.path.isabs(base := site.getuserbase()):
        env["PYTHONUSERBASE"] = base
    first = str(python_files().package / "sandbox" / "inside" / "machine.py")
    words = [sys.executable, "-I", "-S", first, json.dumps({"imports": IMPORTS, "env": env, "user": TASK})]
    return (
        f"#!/bin/sh\nexec env -i {shlex.join([f'{name}={value}' for name, value in env.items()])} {shlex.join(words)}\n"
    )


IMPORTS = "import p2p_ipython.sandbox.inside.runner, p2p_ipython.sandbox.inside.capture_output, " + ", ".join(
    f"p2p_ipython.sandbox.inside.{name}" for name in ("channel", "execute", "shell", "tidy")
)
"""What a machine imports before it is saved: what a runner does, and a first cell."""


def skeleton() -> tuple[list[str], dict[str, tuple[str, int]], dict[str, str]]:
    """Return what else a disk has: folders, files as (text, mode), links."""
    etc = name_texts(TASK, TASK, SCRATCH / "home")
    texts = {f"/etc/{name}": (text, 0o644) for name, text in etc.items()}
    texts[FIRST[1]] = (start_script(), 0o755)
    links = {str(place): str(target) for place, target in roots() if target is not None}
    return [f"/{name}" for name in _FOLDERS], texts, links
