"""Parts of an arena: processes that speak lines of JSON, files that are put right, peaks that were seen."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEADLINE = 20.0


class Side:
    """A process that reads and writes lines of JSON, and all that it has written."""

    def __init__(self, command: list[str], **how: Any) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how)
        self._lines: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def say(self, **what: Any) -> None:
        """Send a line; it is lost if the process has ended."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.process.stdin.flush()

    def take(
        self, wanted: Callable[[dict[str, Any]], bool], deadline: float = DEADLINE, *, keep: bool = False
    ) -> dict[str, Any] | None:
        """Wait for a line that is ``wanted``, and remove it unless ``keep``; None if there is none in time."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self._lines if wanted(line)), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._ended, deadline)
            line = found()
            if line is not None and not keep:
                self._lines.remove(line)
            return line

    def take_all(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Remove all lines that are ``wanted``, and return them."""
        with self._news:
            taken = [line for line in self._lines if wanted(line)]
            self._lines = [line for line in self._lines if not wanted(line)]
            return taken

    def close(self) -> None:
        """End the process's input, then the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(1)  # a survivor may hold the pipe
        if not self._reader.is_alive():
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                with contextlib.suppress(ValueError):  # what an attack wrote to it
                    self._lines.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@dataclass
class Peaks:
    """The most that was seen at a time while an attack ran: processes, and bytes of memory and disk."""

    processes: int = 0
    memory: int = 0
    shared: int = 0
    disk: int = 0
    agent: int = 0


@dataclass
class Tree:
    """Files as they are to be. ``files``: their bytes; ``modes``: mode, owner, group, and a file's time of change."""

    root: Path
    deep: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    prints: dict[str, str] = field(default_factory=dict)

    def take(self) -> Tree:
        """Remember the files as they are now."""
        self.modes, self.prints = self._look(self.files)
        return self

    def changes(self) -> list[str]:
        """Return what has been changed since, in words."""
        modes, prints = self._look(None)
        words = dict.fromkeys(self.modes.keys() - modes.keys(), "removed")
        words |= dict.fromkeys(modes.keys() - self.modes.keys(), "created")
        words |= {name: "touched" for name in modes.keys() & self.modes.keys() if modes[name] != self.modes[name]}
        words |= {name: "changed" for name in prints.keys() & self.prints.keys() if prints[name] != self.prints[name]}
        return [f"{word} {self.root / name}" for name, word in sorted(words.items())]

    def restore(self) -> None:
        """Put the files back as they were."""
        modes, _ = self._look(None)
        for name in modes:
            if stat.S_IFMT(modes[name][0]) != stat.S_IFMT(self.modes.get(name, (0,))[0]):
                _remove(self.root / name)
        for name, (mode, uid, gid, when) in sorted(self.modes.items()):
            path = self.root / name
            if stat.S_ISDIR(mode):
                path.mkdir(exist_ok=True)
            elif name in self.files:
                _remove(path)
                path.write_bytes(self.files[name])
            if path.exists() and not path.is_symlink():
                with contextlib.suppress(PermissionError):
                    os.chown(path, uid, gid)
                path.chmod(stat.S_IMODE(mode))
                if when:
                    os.utime(path, ns=(when, when))

    def _look(self, keep: dict[str, bytes] | None) -> tuple[dict[str, tuple[int, int, int, int]], dict[str, str]]:
        modes: dict[str, tuple[int, int, int, int]] = {}
        prints: dict[str, str] = {}
        for path in self.root.rglob("*") if self.deep else self.root.iterdir():
            name = str(path.relative_to(self.root))
            found = path.lstat()
            regular = stat.S_ISREG(found.st_mode)
            modes[name] = (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns if regular else 0)
            if regular:
                data = path.read_bytes()
                prints[name] = hashlib.sha256(data).hexdigest()
                if keep is not None:
                    keep[name] = data
        return modes, prints


def _remove(path: Path) -> None:
    """Remove a file or a folder, whichever it is by now."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
