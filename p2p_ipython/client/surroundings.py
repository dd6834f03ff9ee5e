"""What goes around a task of this process: the notebook's modules and files, and the folder that it works in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from p2p_ipython.errors import CaptureError
from p2p_ipython.task.around import Folder, Part
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.files import MAX_FILE_BYTES, MAX_FILES, Files
from p2p_ipython.task.local_modules import LocalModules
from p2p_ipython.task.payload import IN_BAND, pack_task
from p2p_ipython.task.task import Task


class Surroundings:
    """What goes around this process's tasks on one cluster. From any thread.

    ``folder``: where the tasks of a personal cluster on this machine work unless they are told; "" elsewhere.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._modules = LocalModules(shows_paths=bool(folder))

    def around(
        self, task: Task, store: BufferStore, *, files: Mapping[str, bytes] | None = None, modules: bool = True
    ) -> Task:
        """Return a task with what goes around it; its buffers are in ``store``, pinned. Raises ``CaptureError``."""
        parts: list[Part] = []
        if self._folder and (folder := os.getcwd()) != self._folder:
            parts.append(Folder(folder))
        if modules and task.modules and (needed := self._modules.needed(task.modules)) is not None:
            parts.append(needed)
        if files:
            parts.append(Files(tuple(files), tuple(files.values())))
        # Apart from the rest, and by hash if it isn't small: what stays the same goes once to each worker.
        return replace(task, around=pack_task(parts, store, large=IN_BAND)) if parts else task


def read_files(names: list[str], folder: str) -> dict[str, bytes]:
    """Read the files that are to go with a task: by name, below ``folder``. Raises ``CaptureError``."""
    found: dict[str, bytes] = {}
    room = MAX_FILE_BYTES
    root = Path(folder).resolve()
    for name in names:
        path = (root / name).resolve()
        if root not in path.parents:
            raise CaptureError(
                f"{name[:200]!r} is not below the notebook's folder",
                hint="Copy it there, or read it here and send what you read, in a variable.",
            )
        try:
            size = path.stat().st_size
            if len(found) >= MAX_FILES or size > room:
                raise CaptureError(
                    f"more than {MAX_FILES} files, or {MAX_FILE_BYTES // 1_000_000} MB, can't go with a task",
                    hint="Read them here, and send what the task needs of them, in variables.",
                )
            found[path.relative_to(root).as_posix()] = path.read_bytes()
        except OSError as error:
            raise CaptureError(
                f"the file {name[:200]!r} can't be sent: {error.strerror}",
                hint="Give names below the notebook's folder.",
            ) from None
        room -= size
    return found
