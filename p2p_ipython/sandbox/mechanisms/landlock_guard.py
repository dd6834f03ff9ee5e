"""The guard of a runner in the sandbox "landlock": it starts the runner behind sandlock's wall, and clears up after it.

Started by landlock.py as ``python -m p2p_ipython.sandbox.mechanisms.landlock_guard OPTIONS``, with a runner's pipes. It
is outside the wall, where no task can reach it: each process that a task starts stays below it, and ends with the
runner, with the agent, or when the scratch folder holds more than it may.

Standard library and sandlock only; it does nothing while a task runs but look at the scratch folder's size.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from typing import Any, NoReturn

import sandlock

from p2p_ipython.sandbox import processes
from p2p_ipython.sandbox.mechanisms.guarding import Watch, end_as

DISK_FULL = 99
"""The exit code that says that the scratch folder held too much."""

_OF_ANY_FILE = ("chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat")
"""Calls that Landlock doesn't hold: they would change the lender's files, wherever they are."""


def main(options: dict[str, Any]) -> NoReturn:
    """Guard a runner until its end. ``options`` are those of ``landlock.LandlockLaunch``."""
    processes.become_subreaper()
    watch, scratch = Watch(), options["scratch"]
    box = sandlock.Sandbox(
        fs_readable=[*options["shown"], scratch],
        fs_writable=[*options["written"], os.devnull],
        extra_deny_syscalls=list(_OF_ANY_FILE),
        max_memory=options["memory"] or None,
        max_processes=options["processes"],
        no_coredump=True,
        cwd=options["home"],
    )
    code = 1
    try:
        runner = box.popen(options["command"])
        code = watch.until_ended(lambda: _code(runner.wait()), lambda: _full(scratch, options["disk"]))
    except RuntimeError as error:
        os.write(2, f"p2p: the runner can't be started: {error}\n".encode())
    finally:
        processes.end_descendants()
        shutil.rmtree(scratch, ignore_errors=True)
        end_as(code)


def _code(result: Any) -> int:
    return -int(result.signal) if result.signal is not None and result.signal > 0 else int(result.exit_code)


def _full(scratch: str, disk: int) -> int | None:
    """Return the code to end with when the scratch folder holds too much."""
    if _occupied(scratch, disk) <= disk:
        return None
    os.write(2, f"p2p: the scratch folder held more than {disk >> 20} MiB\n".encode())
    return DISK_FULL


def _occupied(folder: str, enough: int) -> int:
    """Return the bytes that a folder's files occupy; it stops counting beyond ``enough``."""
    total, waiting = 0, [folder]
    while waiting and total <= enough:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
