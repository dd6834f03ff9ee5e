"""What starts a program that installs packages: behind bubblewrap where that runs tasks, with bounds in any case.

Behind bubblewrap it sees the system's programs, Python's files, how names are resolved and whom TLS trusts, and can
write to one folder. It has the machine's network, because the lender's index may be in a private one. The program is
the lender's, and runs no code of a package: the wall is for packages that would trick it.

POSIX only.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from p2p_ipython.sandbox.launch import LaunchOptions, Mount
from p2p_ipython.sandbox.mechanisms.bubblewrap import files, walls
from p2p_ipython.sandbox.mechanisms.ids import as_stranger, stranger

_RESOLVING = ("resolv.conf", "nsswitch.conf", "hosts", "host.conf", "gai.conf")

_BOUNDS = Path(__file__).parent.parent / "inside" / "install.py"


def bounded(command: list[str], *, size: int, seconds: float) -> list[str]:
    """Return what runs a command with bounds: bytes of a file, seconds of a processor."""
    return [sys.executable, "-I", "-S", str(_BOUNDS), str(size), str(int(seconds)), *command]


def behind_bubblewrap(folder: Path, command: list[str], shown: Iterable[Path]) -> list[str]:
    """Return what runs a command that can write to ``folder`` only, and can read what is ``shown`` besides.

    Of root's it is run by a user that nobody is, who gets the folder: only root may go through those above it.
    Raises ``OSError``, ``ConfigError``.
    """
    other = stranger()
    if other is not None:
        folder.chmod(0o755)  # bwrap enters it when it has given up root's rights
        for place in (folder, *folder.rglob("*")):
            os.chown(place, other, other, follow_symlinks=False)
    mounts = (*(Mount(str(place)) for place in shown), Mount(str(folder), writable=True))
    words = [*walls(other is not None), *files(LaunchOptions(mounts=mounts), {}, late=_resolving())]
    return [shutil.which("bwrap") or "bwrap", *words, "--chdir", str(folder), "--", *as_stranger(other), *command]


def _resolving() -> list[str]:
    found = [place for name in _RESOLVING if (place := Path("/etc", name)).is_file()]
    return [word for place in found for word in ("--ro-bind", str(place), str(place))]
