"""Folders and files that a lender shares with tasks on purpose: ``--mount PATH[:ro|:rw]``, read and checked.

A mount is what the lender names, and nothing that they could have meant to keep: their home folder, their SSH keys,
our own data. A task that can write to a folder can put a link in the place of whatever is in there; so no mount lies
in another one, and none that can be written to holds Python's packages. Sockets in a mounted folder can be reached.

POSIX only.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from p2p_ipython.config import data_dir
from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.launch import Mount
from p2p_ipython.sandbox.mechanisms.python_files import python_files

_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/etc", "/usr")
"""Places that sandboxes make or show themselves; with what is below them."""


def read_mounts(texts: Sequence[str]) -> tuple[Mount, ...]:
    """Return what the texts name, by its real path. Raises ``ConfigError``, also for what mustn't be shared."""
    found: list[Mount] = []
    for text in texts:
        name, colon, how = text.rpartition(":")
        if not colon or how not in ("ro", "rw"):
            name, how = text, "ro"
        mount = _checked(name, writable=how == "rw")
        for other in found:
            if _overlap(Path(mount.path), Path(other.path)):
                raise ConfigError(
                    f"{mount.path} and {other.path} can't both be shared: one is in the other",
                    hint="Share one of them only.",
                )
        found.append(mount)
    return tuple(found)


def own_folder(folder: str) -> tuple[Mount, ...]:
    """Return a notebook's folder as its own user's tasks see it in a sandbox: without .git, dot files, environment.

    Tasks can write there; of root's workers only if everybody may. A home folder, or one that holds it, isn't shown.
    """
    place = _real(folder)
    if _is_in(_real("~"), place) or _overlap(place, _real("~/.ssh")) or _overlap(place, _real(str(data_dir()))):
        return ()
    lacks = _strangers_lack(place, writable=True) if os.geteuid() == 0 else ""
    if lacks == "read":
        return ()
    hidden = [str(each) for each in place.iterdir() if each.name.startswith(".") and not each.is_symlink()]
    environment = Path(sys.prefix).resolve()
    if _is_in(environment, place) and not any(_is_in(environment, Path(each)) for each in hidden):
        hidden.append(str(environment))
    return (Mount(str(place), not lacks, tuple(hidden)),)


def mounts_text(mounts: Sequence[Mount]) -> str:
    """Describe what is shared, in the middle of a sentence; "" for nothing."""
    how = {False: "to read", True: "to read and write, shared by all who are lent to"}
    return " and ".join(f"{each.path} ({how[each.writable]})" for each in mounts)


def _checked(name: str, *, writable: bool) -> Mount:
    given = Path(name).expanduser()
    try:
        place = given.resolve(strict=True)
    except (OSError, RuntimeError):
        raise ConfigError(f"there is no {name!r} to share", hint="Give a folder or a file: --mount PATH:ro") from None
    if not (place.is_dir() or place.is_file()):
        raise ConfigError(f"{place} can't be shared: it is neither a folder nor a file")
    home, own = _real("~"), _real(str(data_dir()))
    temporary = {_real(each) for each in (tempfile.gettempdir(), "/tmp", "/var/tmp")}  # noqa: S108 - not used
    if _is_in(home, place):
        _refuse(place, "your home folder, with your keys, is in it" if place != home else "it is your home folder")
    if _overlap(place, keys := _real("~/.ssh")):
        _refuse(place, f"your SSH keys are in {keys}")
    if _overlap(place, own):
        _refuse(place, f"p2p keeps its keys and clusters in {own}")
    if place in temporary or any(_is_in(place, Path(each)) for each in _SYSTEM):
        _refuse(place, "it is the system's own")
    if writable and (packages := [each for each in python_files().shown if _overlap(place, each.resolve())]):
        _refuse(place, f"tasks could change the worker's own Python in {packages[0]}")
    if os.geteuid() == 0 and (lacks := _strangers_lack(place, writable=writable)):
        raise ConfigError(
            f"{place} can't be shared: a worker of root's runs tasks as nobody in particular, who may not {lacks} it",
            hint=f"Allow it to all (chmod o+{'rwx' if writable else 'rx'}), or run the worker as another user.",
        )
    return Mount(str(place), writable)


def _refuse(place: Path, why: str) -> NoReturn:
    hint = "Share a folder that holds nothing but what tasks need."
    raise ConfigError(f"{place} can't be shared: {why}", hint=hint)


def _strangers_lack(place: Path, *, writable: bool) -> str:
    mode = place.stat().st_mode
    if not mode & 0o4 or (place.is_dir() and not mode & 0o1):
        return "read"
    return "write to" if writable and not mode & 0o2 else ""


def _real(path: str) -> Path:
    return Path(os.path.realpath(os.path.expanduser(path)))


def _overlap(one: Path, other: Path) -> bool:
    return _is_in(one, other) or _is_in(other, one)


def _is_in(place: Path, folder: Path) -> bool:
    return place == folder or folder in place.parents
