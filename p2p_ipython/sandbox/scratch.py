"""Scratch folders: one a runner, named by the agent that made it, so that a later one can clear up after it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path


def make_scratch(parent: Path | None = None) -> Path:
    """Make a folder for one runner, mode 0700, in ``parent`` (default: the system's temporary folder)."""
    return Path(tempfile.mkdtemp(prefix=f"p2p-{os.getpid()}-", dir=parent))


def remove_scratch(folder: Path) -> None:
    """Remove a scratch folder; what can't be removed is left to ``sweep``."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path | None = None) -> list[Path]:
    """Remove the scratch folders of this user's agents that are no more; return which. Call it at an agent's start."""
    swept = []
    for folder in Path(parent or tempfile.gettempdir()).glob("p2p-*-*"):
        pid = folder.name.split("-")[1]
        with contextlib.suppress(OSError):
            if pid.isdigit() and folder.lstat().st_uid == os.getuid() and folder.is_dir() and not _alive(int(pid)):
                remove_scratch(folder)
                swept.append(folder)
    return swept


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
