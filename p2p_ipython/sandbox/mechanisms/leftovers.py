"""Containers whose agent and guard were both killed by force: found at the start of the next guard, and ended.

A runner's scratch folder says whether it is still in use: agent and guard hold a lock on it (see scratch.py). Docker's
containers are labelled with it. In those of other engines a part of it is mounted, which no task can change; and the
engines' own processes have their home there.

Standard library only. Linux only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
from pathlib import Path

from p2p_ipython.sandbox.mechanisms.shown import FIRST

_DEADLINE = 10.0

_OURS = re.compile(rf"/(?P<scratch>p2p-\d+-\w+)/(?:root|start)(?P<gone>//deleted)? (?:/|{FIRST[1]}) ")
"""A container's root or script, in a line of mountinfo (see proc(5)): where it lies, and where it is mounted.

With a root that is gone, all that was mounted in it is gone.
"""

_HOME = re.compile(rb"(?:^|\0)HOME=(/[^\0]*/p2p-\d+-\w+)/(?:podman|apptainer)(?:\0|$)")


def mark(scratch: Path) -> str:
    """Return what tells others where a scratch folder is, and which folder that is in: /tmp isn't the same for all."""
    parent = scratch.parent.stat()
    return f"{parent.st_dev}:{parent.st_ino}:{scratch}"


def end_labelled(listing: list[str], forget: list[str]) -> None:
    """End Docker's containers that are left; ``listing`` prints them as a name, a space, and ``mark``."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(listing, capture_output=True, text=True, timeout=_DEADLINE, check=True).stdout
        for line in told.splitlines():
            name, _, marked = line.partition(" ")
            scratch = Path(marked.split(":", 2)[-1])
            with contextlib.suppress(OSError):
                if mark(scratch) == marked and (not scratch.exists() or is_left(scratch)):
                    subprocess.run([*forget, name], capture_output=True, timeout=_DEADLINE, check=False)


def end_processes(scratch: Path, *, others: bool = False) -> None:
    """End the processes of a container of an engine without a daemon, those of the engine included.

    With ``others`` those that are left of containers which had their scratch folders beside this one.
    """
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if (of := _inside(name) or _of_engine(name)) is None:
                continue
            folder, gone = of
            if (gone or is_left(scratch.parent / folder)) if others else folder == scratch.name:
                os.kill(int(name), signal.SIGKILL)


def _inside(pid: str) -> tuple[str, bool] | None:
    """Return the scratch folder's name of a process in a container, and whether it is gone."""
    found = _OURS.search(Path("/proc", pid, "mountinfo").read_text("utf-8", "replace"))
    return (found["scratch"], found["gone"] is not None) if found else None


def _of_engine(pid: str) -> tuple[str, bool] | None:
    """Return the same of a process of the engine: its home is there."""
    found = _HOME.search(Path("/proc", pid, "environ").read_bytes())
    if found is None:
        return None
    folder = os.fsdecode(found[1])
    return os.path.basename(folder), not os.path.exists(f"/proc/{pid}/root{folder}")  # as it sees it


def is_left(scratch: Path) -> bool:
    """Whether nobody uses a scratch folder any more. Raises ``OSError`` when that can't be known."""
    fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
