"""Containers whose agent and guard were both killed by force: found at the start of the next guard, and ended.

A runner's scratch folder says whether it is still in use: agent and guard hold a lock on it (see scratch.py). Docker's
containers are labelled with it. In those of other engines a part of it is mounted, which no task can change.

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
    """End the processes of a container of an engine without a daemon; they are known by what is mounted in them.

    With ``others`` those that are left of containers which had their scratch folders beside this one.
    """
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if (found := _OURS.search(Path("/proc", name, "mountinfo").read_text("utf-8", "replace"))) is None:
                continue
            own = found["scratch"] == scratch.name
            if (found["gone"] or is_left(scratch.parent / found["scratch"])) if others else own:
                os.kill(int(name), signal.SIGKILL)


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
