"""The wall that a runner builds around itself where nothing outside does: Landlock, and a filter of system calls.

Its warden stays outside, where no task can reach it. What a runner may do is told by the mechanism "landlock"; from
``enter`` on it has no right to more, and nor has anything that it starts.

Root's runner becomes another user first. Folders that only root can enter are closed to that one, and may hold Python:
then the runner sees a file system in which they hold nothing but what it is shown.

Linux only. Standard library only.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from typing import Any

from p2p_ipython.sandbox import landlock, processes, seccomp


def enter(told: dict[str, Any]) -> int:
    """Give up all but what ``told`` names (the mechanism's ``wall_of``). Call it before any thread starts.

    Returns how many processes and threads the user has besides. Raises ``OSError`` if the kernel refuses.
    """
    warden, user = os.getppid(), told["user"]
    places = [*told["read"], *told["write"]]
    if user is None:
        others = processes.of_this_user()
    else:
        others = 0
        _uncover(told["closed"], places)
        _become(user)
        processes.die_with_parent(warden)  # the kernel has forgotten it
    rights = {"read": landlock.READ, "write": landlock.WRITE, "use": landlock.USE}
    landlock.restrict((path, right) for name, right in rights.items() for path in told[name])
    seccomp.without_namespaces()
    processes.alone()
    importlib.invalidate_caches()  # folders that were seen before may be closed now
    return others


_NEW_MOUNTS = 0x20000  # of unshare(2)
_BIND, _RECURSIVE, _PRIVATE, _NO_SETUID, _NO_DEVICES = 4096, 16384, 1 << 18, 2, 4  # of mount(2)
_DUMPABLE, _DROP_CAPABILITY = 4, 24  # of prctl(2)


def _uncover(closed: list[str], places: list[str]) -> None:
    """Put an open folder over each of ``closed``, for this process only, with what ``places`` are in it."""
    if not closed:
        return
    _checked(ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS), "no file system of its own")
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    kept = [(each, os.open(each, os.O_PATH)) for each in places if any(each.startswith(f"{f}/") for f in closed)]
    for folder in closed:
        _mount("tmpfs", folder, "tmpfs", _NO_SETUID | _NO_DEVICES, "mode=755,size=1m")
    for place, descriptor in kept:
        way = f"/proc/self/fd/{descriptor}"
        if os.path.isdir(way):
            os.makedirs(place, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            open(place, "a").close()
        _mount(way, place, None, _BIND | _RECURSIVE)
        os.close(descriptor)
    os.chdir(os.getcwd())


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if each is None else os.fsencode(each) for each in (source, target, kind, data)]
    call = ctypes.CDLL(None, use_errno=True).mount
    _checked(call(*words[:3], ctypes.c_ulong(flags), words[3]), f"{target} can't be mounted")


def _become(user: int) -> None:
    """Become another user, in a group of the same number and in no other, without any capability."""
    control = ctypes.CDLL(None).prctl
    for capability in range(64):
        control(_DROP_CAPABILITY, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    control(_DUMPABLE, 1, 0, 0, 0)  # else /proc/self is root's


def _checked(result: int, words: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{words}: {os.strerror(number)}")
