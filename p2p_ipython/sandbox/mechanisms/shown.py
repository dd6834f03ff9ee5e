"""What a sandbox shows of this system beside /usr and Python's files: links at the root, and the harmless part of /etc.

Standard library only. POSIX only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

NAME = "task"
"""What the user is called that runs tasks in a sandbox."""

SCRATCH = Path("/scratch")
"""The runner's scratch folder, as the runner sees it."""

FIRST = ("/bin/sh", "/start")
"""The first command of a container: a script that becomes its runner."""

SHARED_MEMORY = 64 << 20
"""Bytes of /dev/shm in a sandbox."""

ETC = ("ld.so.cache", "alternatives", "localtime", "fonts", "ssl/certs", "ssl/openssl.cnf")
"""Of /etc: how libraries are found, the time zone, fonts, and whom TLS trusts."""

_ROOTS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def roots() -> Iterator[tuple[Path, Path | None]]:
    """Yield the folders at the root that programs and libraries are in, each with what it is a link to, if it is."""
    for name in _ROOTS:
        place = Path("/", name)
        if place.is_symlink():
            yield place, place.readlink()
        elif place.is_dir():
            yield place, None


def name_files(folder: Path, user: int, group: int, home: Path) -> dict[str, Path]:
    """Write the few files of /etc that name users and this machine to ``folder``; return them by name."""
    return write_files(folder, name_texts(user, group, home))


def name_texts(user: int, group: int, home: Path) -> dict[str, str]:
    """Return the texts of these files by name."""
    return {
        "passwd": f"root:x:0:0:root:/:/bin/false\n{NAME}:x:{user}:{group}::{home}:/bin/sh\n",
        "group": f"root:x:0:\n{NAME}:x:{group}:\n",
        "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    }


def write_files(folder: Path, texts: dict[str, str]) -> dict[str, Path]:
    """Write files that everybody may read to ``folder``; return them by name."""
    files = {}
    for name, text in texts.items():
        files[name] = folder / name
        files[name].write_text(text)
        files[name].chmod(0o644)
    return files
