"""Find and end the processes that a task has started, however far they ran.

A process that daemonises leaves its parent, its group and its session. On Linux it can't leave its nearest
ancestor that is a *subreaper*: the runner and its warden are, so each descendant stays in sight. On macOS,
which has no subreapers, a daemon gets away; the group is ended there.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict

_HAS_WAITID = hasattr(os, "waitid")
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT if _HAS_WAITID else 0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> bool:
    """Let orphaned descendants of this process become its children. False where the system can't (macOS)."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent's thread ends (Linux); ``parent`` is who that must be.

    Ends the process at once where the parent has gone already.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    import ctypes

    return ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0  # type: ignore[no-any-return]


def has_children() -> bool:
    """Whether this process has a child, dead or alive. Costs a microsecond."""
    try:
        if _HAS_WAITID:
            os.waitid(os.P_ALL, 0, _LOOK)
        else:  # macOS before Python 3.13; reaps one, and nobody waits for it any more
            os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


_alone = 0
"""The process that can send signals to its own descendants only, if this is it."""


def alone() -> None:
    """Note that this process can send signals to none but its descendants. Raises ``RuntimeError`` if it isn't so."""
    global _alone  # noqa: PLW0603 - it is a fact about the process
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        _alone = os.getpid()
    else:
        raise RuntimeError("this process can send signals to its parent")


def end_descendants(deadline: float = 5.0) -> bool:
    """Kill all descendants of this process and reap its children, for at most ``deadline`` seconds.

    Returns whether none is left. Kills in rounds, because a process may fork while it is being looked for.
    """
    until = time.monotonic() + deadline
    pause = 0.0005
    while True:
        # -1 is all that this process can send signals to, except itself.
        for pid in [-1] if _alone == os.getpid() else descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not has_children():
            return True
        if time.monotonic() > until:
            return False
        time.sleep(pause)
        pause = min(0.05, pause * 2)


def descendants(root: int) -> list[int]:
    """Return the process ids below ``root``, parents first."""
    below: dict[int, list[int]] = defaultdict(list)
    for pid, parent in _parents():
        below[parent].append(pid)
    found: list[int] = []
    level = [root]
    while level:
        level = [child for pid in level for child in below.get(pid, ())]
        found += level
    return found


def end_those_in(scratch: str) -> None:
    """Kill the processes, of any parent, whose temporary folder is in ``scratch`` (Linux).

    For what a runner's tasks have started when even the warden was killed; ends by itself after some rounds.
    """
    mark = b"TMPDIR=" + os.fsencode(scratch) + b"/"
    for _ in range(20):
        found = [pid for pid, _ in _parents() if _has_mark(pid, mark)] if os.path.exists("/proc/self/environ") else []
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # ours by now if we are a subreaper
        time.sleep(0.01)


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read()
    except OSError:
        return False


def of_this_user() -> int:
    """Return how many processes and threads this user has now (Linux)."""
    total, user = 0, b"\nUid:\t%d\t" % os.getuid()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/status", "rb") as file:
                said = file.read()
                total += int(said.partition(b"\nThreads:")[2].split(None, 1)[0]) if user in said else 0
    return total


def _parents() -> list[tuple[int, int]]:
    """All (process id, its parent's) that can be seen."""
    if not os.path.exists("/proc/self/stat"):
        text = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, timeout=5, check=False).stdout
        return [(int(pid), int(parent)) for pid, parent in (line.split() for line in text.splitlines())]
    found: list[tuple[int, int]] = []
    names: list[str] = []
    with contextlib.suppress(PermissionError):  # a child of a runner's behind Landlock sees nothing there
        names = os.listdir("/proc")
    for name in names:
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name of a program may hold spaces and parentheses; the state and the parent follow the last one.
                found.append((int(name), int(file.read().rpartition(b")")[2].split()[1])))
    return found
