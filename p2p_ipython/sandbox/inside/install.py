"""Become a program that installs packages, with bounds: run by its path, and without site-packages (-I -S).

Arguments: the most bytes of a file, the most seconds of a processor, and the command. The command ends with its
starter, gives way to all others on its machine, and what it writes can be read by everybody.

Standard library only. POSIX only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(size: int, seconds: int, command: list[str]) -> None:
    """Set the bounds, and become the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0o022)
    with contextlib.suppress(OSError):
        os.nice(10)
    for what, most in ((resource.RLIMIT_FSIZE, size), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # the one there is may be lower
            resource.setrlimit(what, (most, most))
    os.execv(command[0], command)  # noqa: S606 - it takes the place of this program


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
