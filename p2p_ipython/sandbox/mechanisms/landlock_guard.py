"""The guard of a runner in the sandbox "landlock": it starts the runner behind sandlock's wall, and clears up after it.

Started by landlock.py as ``python -m p2p_ipython.sandbox.mechanisms.landlock_guard OPTIONS``, with a runner's pipes. It
is outside the wall, where no task can reach it: each process that a task starts stays below it, and ends with the
runner, with the agent, or when the scratch folder holds more than it may.

Standard library and sandlock only; it does nothing while a task runs but look at the scratch folder's size.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NoReturn

import sandlock

from p2p_ipython.sandbox import processes
from p2p_ipython.sandbox.mechanisms.guarding import MEMORY_FULL, OVER, Watch, clear_up, full

_OF_ANY_FILE = ("chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat")
"""Calls that Landlock doesn't hold: they would change the lender's files, wherever they are."""


def main(options: dict[str, Any]) -> NoReturn:
    """Guard a runner until its end. ``options`` are those of ``landlock.LandlockLaunch``."""
    processes.become_subreaper()
    watch, scratch = Watch(), options["scratch"]
    box = sandlock.Sandbox(
        fs_readable=[*options["shown"], scratch],
        fs_writable=[*options["written"], os.devnull],
        fs_denied=options["hidden"],
        extra_deny_syscalls=list(_OF_ANY_FILE),
        max_memory=options["memory"] or None,
        max_processes=options["processes"],
        no_coredump=True,
        cwd=options["home"],
    )
    code = 1
    try:
        runner = box.popen(options["command"])
        code = watch.until_ended(
            lambda: _code(runner.wait(), options["memory"]), lambda: full(scratch, options["disk"])
        )
    except RuntimeError as error:
        os.write(2, f"p2p: the runner can't be started: {error}\n".encode())
    finally:
        clear_up(scratch, code)


def _code(result: Any, memory: int) -> int:
    if memory and result.reason == sandlock.ExitReason.KILLED:  # by sandlock, which doesn't say so, or by the task
        words = "It was killed, as a task is whose processes together want far more memory than they may have."
        os.write(2, f"{OVER} {words}\n".encode())
        return MEMORY_FULL
    return -int(result.signal) if result.signal is not None and result.signal > 0 else int(result.exit_code)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
