"""The guard of a runner in the sandbox "firejail": it starts firejail, and ends it when the scratch folder is full.

Started by firejail.py as ``python -m p2p_ipython.sandbox.mechanisms.firejail_guard OPTIONS``, with a runner's pipes. It
is outside the wall, where no task can reach it. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from functools import partial
from typing import Any, NoReturn

from p2p_ipython.sandbox import processes
from p2p_ipython.sandbox.mechanisms.guarding import Watch, clear_up
from p2p_ipython.sandbox.scratch import full

TRIES = 3
"""How often firejail is started at most."""

BEGUN = 9
"""A descriptor that what firejail has started writes to, once, and closes."""


def main(options: dict[str, Any]) -> NoReturn:
    """Guard a runner until its end. ``options`` are those of ``firejail.FirejailLaunch``."""
    processes.become_subreaper()
    watch, scratch = Watch(), options["scratch"]
    # The kernel counts all that the user runs, so the limit has to leave room for what is there already.
    limit = f"--rlimit-nproc={processes.of_this_user() + options['processes']}"
    code = 1
    try:
        firejail, *words = options["command"]
        run = partial(_run, [firejail, limit, f"--keep-fd={BEGUN}", *words], frames=os.dup(1))
        code = watch.until_ended(run, partial(full, scratch, options["disk"]))
    except OSError as error:
        os.write(2, f"p2p: the runner can't be started: {error}\n".encode())
    finally:
        clear_up(scratch, code)


def _run(command: list[str], *, frames: int) -> int:
    """Run firejail to its end; start it anew while it fails before it has started anything.

    It checks its own mounts, and was seen to find them wrong once in some hundred starts on a busy machine.
    """
    begun, begins = os.pipe()
    os.set_blocking(begun, False)
    os.dup2(begins, BEGUN)
    for _ in range(TRIES):
        code = subprocess.Popen(command, stdout=frames, pass_fds=(BEGUN,)).wait()
        with contextlib.suppress(BlockingIOError):
            if os.read(begun, 1):
                break
    return code


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
