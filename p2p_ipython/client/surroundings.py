"""What goes around a task of this process: the notebook's modules, files and settings, and its folder."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from p2p_ipython.errors import CaptureError
from p2p_ipython.task.around import Folder, Part
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.capture import Captured, freeze
from p2p_ipython.task.environment import Environment, EnvironmentChanges, named
from p2p_ipython.task.files import MAX_FILE_BYTES, MAX_FILES, Files
from p2p_ipython.task.local_modules import LocalModules
from p2p_ipython.task.payload import IN_BAND, Packed, in_pieces, pack_task
from p2p_ipython.task.relayed import Relay
from p2p_ipython.task.settings import Collector
from p2p_ipython.task.setup import Setup
from p2p_ipython.task.task import PYTHON, Task


class Surroundings:
    """What goes around this process's tasks on one cluster. From any thread.

    ``folder``: where the tasks of a personal cluster on this machine work unless they are told; "" elsewhere.
    ``shared``: its machines are other people's.
    """

    def __init__(self, folder: str, *, shared: bool = False) -> None:
        self._folder = folder
        self._modules = LocalModules(shows_paths=bool(folder))
        self._lock = threading.RLock()
        self._settings = Collector()
        self._environment = None if shared else EnvironmentChanges(same_machine=bool(folder))
        self._setup: Setup | None = None
        self._setup_needs: tuple[frozenset[str], bool] = frozenset(), False
        self._last: tuple[list[Part], Packed] | None = None

    def parts(
        self, *, seed: Part | None = None, env: Iterable[str] = (), loggers: tuple[str, ...] = ()
    ) -> tuple[Part, ...]:
        """Return the notebook's settings as they are now, for a task that is submitted now.

        ``seed``: of its random numbers. ``env``: names of environment entries to send wherever it runs. ``loggers``:
        those whose records are relayed. Raises ``CaptureError``.
        """
        with self._lock:
            changes = self._environment.collect() if self._environment is not None else None
            found: tuple[Part | None, ...] = (changes, named(env), self._setup, self._settings.collect(), seed)
            found = (*found, Relay(loggers)) if loggers else found
        return tuple(part for part in found if part is not None)

    def noted(
        self,
        task: Task,
        *,
        seed: Part | None = None,
        env: Iterable[str] = (),
        files: Mapping[str, bytes] | None = None,
        loggers: tuple[str, ...] = (),
    ) -> Task:
        """Return a task that is submitted now with ``files``, the ``parts`` of now, and what its set-up cell needs."""
        with self._lock:
            parts = self.parts(seed=seed, env=env, loggers=loggers)
            if files:  # first: a set-up cell may read them
                parts = (Files(tuple(files), tuple(files.values())), *parts)
            modules, needs_python = self._setup_needs
        python = PYTHON if needs_python else task.needs_python
        return replace(task, parts=parts, modules=task.modules | modules, needs_python=python)

    def set_up(self, captured: Captured | None, store: BufferStore) -> None:
        """Have a cell run in each new runner before its first task of this notebook; none any more without one.

        Raises as ``freeze`` does.
        """
        if captured is None:
            with self._lock:
                self._setup, self._setup_needs = None, (frozenset(), False)
            return
        packed = freeze(captured, store)
        try:
            names = tuple(map(bytes, in_pieces(packed.segments, packed.inline, packed.large)))
        finally:
            store.unpin(packed.large)
        digest = hashlib.sha256(captured.source.encode("utf-8", "replace"))
        for piece in names:
            digest.update(hashlib.sha256(piece).digest())
        with self._lock:
            self._setup = Setup(digest.hexdigest(), captured.source, names)
            self._setup_needs = captured.modules | packed.modules, packed.needs_python

    def around(self, task: Task, store: BufferStore, *, modules: bool = True) -> Task:
        """Return a noted task with what goes around it, whose buffers are pinned, too. Raises ``CaptureError``."""
        parts: list[Part] = [part for part in task.parts if isinstance(part, Environment)]
        folder = os.getcwd() if self._folder or (modules and task.modules) else ""  # once: it takes 20 µs
        if self._folder and folder != self._folder:
            parts.append(Folder(folder))
        if modules and task.modules and (needed := self._modules.needed(task.modules, folder)) is not None:
            parts.append(needed)
        parts += (part for part in task.parts if not isinstance(part, Environment))
        if not parts:
            return task
        packed = self._packed(parts, store)
        store.unpin(ref for ref in packed.large if ref in task.large)  # one pin a task
        return replace(task, around=packed, parts=())

    def _packed(self, parts: list[Part], store: BufferStore) -> Packed:
        last = self._last
        if last is not None and parts == last[0]:
            with suppress(KeyError):  # forgotten
                store.pin(last[1].large)
                return last[1]
        # Apart from the rest, and by hash if it isn't small: what stays the same goes once to each worker.
        packed = pack_task(parts, store, large=IN_BAND)
        if not any(isinstance(part, Files) for part in parts):  # these may take much memory
            self._last = parts, packed
        return packed


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
