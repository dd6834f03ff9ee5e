"""The start of a container's guard: the engine's command first, and then what the guard needs to watch it.

Python takes as long to load that as the engine does for its own first steps; so a runner doesn't wait for it. This file
is run by its path, with a guard's OPTIONS (see container_guard.py), and without site-packages: -I and -S.

Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Start the engine unless it needs an image first, and become the guard."""
    options, engine = json.loads(sys.argv[1]), 0
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what an engine leaves to the system is below us
    command = options["command"]
    if "image" not in options:
        try:
            engine = os.posix_spawn(
                command[0],
                command,
                os.environ,
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them
            )
        except OSError:
            pass  # the guard tries again, and reports it
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))
    from p2p_ipython.sandbox.mechanisms import container_guard

    container_guard.main(options, engine)


if __name__ == "__main__":
    main()
