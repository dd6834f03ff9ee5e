"""Keep a worker's process to itself: tasks run as the same user, who may otherwise read its memory and environment.

POSIX only; what can't be done on a system is left out there.
"""

from __future__ import annotations

import ctypes
import os
import sys

from p2p_ipython.sandbox.mechanisms.environment import is_passed
from p2p_ipython.worker import index

_PR_SET_DUMPABLE = 4
_ENV_START = 47
"""Where /proc/self/stat says the environment begins, counted from the state of the process; its end comes next."""

_KEPT = frozenset(
    {"DOCKER_HOST", "HOME", "SSH_AUTH_SOCK", "SSL_CERT_DIR", "SSL_CERT_FILE", "TEMP", "TERM", "TMP", "TMPDIR"}
)
_KEPT_PREFIXES = ("P2P_", "PYTHON", "XDG_")


def harden() -> None:
    """Forget what of the environment a worker doesn't need, and refuse other processes of the user a look inside.

    Call it first of all in a worker's process, before secrets come and before there is a thread. A process of root's
    can still look inside; it finds nothing in the environment that a worker doesn't need.
    """
    index.remember()
    for name in set(os.environ):
        if not (is_passed(name) or name in _KEPT or name.startswith(_KEPT_PREFIXES)):
            del os.environ[name]
    if sys.platform == "linux":
        _wipe_first_environment()
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _wipe_first_environment() -> None:
    """Overwrite the environment that the process was started with: /proc/PID/environ shows it whatever changes."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        begin, end = int(fields[_ENV_START]), int(fields[_ENV_START + 1])
    except (OSError, IndexError):
        return
    for name, value in os.environb.items():
        os.putenv(name, value)  # the C library then has a copy elsewhere
    if 0 < begin < end:
        ctypes.memset(begin, 0, end - begin)
