"""The lending log: a line for each task that has run on this machine. Only its user can read it.

Lines are JSON. A line has no source text, only the source's hash: what a friend runs is theirs, and the lender can
compare. All workers of this user write to one file. It is renamed when it is full, and then replaces the one before:
so the log has a bound.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from p2p_ipython.config import data_dir, make_private
from p2p_ipython.private_files import Lock
from p2p_ipython.protocol.plain import plain

log = logging.getLogger(__name__)

MAX_LOG = 2 << 20
"""Bytes of a log that is full. Two are kept."""

MAX_LINE = 4096

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True)
class Entry:
    """A task that is over. ``time`` is its end, Unix seconds; ``source`` the hash of its text.

    ``key`` is the fingerprint that signed for it. ``cpu`` is seconds of processors, ``memory`` the most bytes seen at
    one time; -1 where that is not known. ``outcome``: "done", "failed", "died", "lost", "recalled", "stopped" (by the
    lender's hand), or "refused" with ``why``.
    """

    time: float
    cluster: str
    member: str
    key: str
    label: str
    source: str
    outcome: str
    seconds: float = 0.0
    cpu: float = -1.0
    memory: int = -1
    bytes_in: int = 0
    bytes_out: int = 0
    why: str = ""


class LendingLog:
    """The file. Writing takes some 20 µs; a disk that is full costs lines, and nothing else."""

    def __init__(self, path: Path | None = None, limit: int = MAX_LOG) -> None:
        self.path = path or data_dir() / "lending.log"
        self._limit = limit
        self._failed = False

    def write(self, entry: Entry) -> None:
        """Append an entry."""
        fields = asdict(entry)
        for name in ("cluster", "member", "label", "why"):
            fields[name] = plain(fields[name], 200)
        for name in ("time", "seconds", "cpu"):
            fields[name] = round(fields[name], 3)
        line = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        try:
            if not self.path.parent.exists():
                make_private(self.path.parent)
            descriptor = os.open(self.path, _FLAGS, 0o600)
            try:
                os.write(descriptor, line[: MAX_LINE - 1] + b"\n" if len(line) > MAX_LINE else line)
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            if size > self._limit:
                self._rotate()
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.warning("the lending log can't be written: %s", error)
            self._failed = True

    def _rotate(self) -> None:
        lock = Lock.acquire(self.path.with_name(f".{self.path.name}.lock"))
        if lock is None:
            return  # another worker does it
        with lock:
            if self.path.stat().st_size > self._limit:
                os.replace(self.path, self._older)

    @property
    def _older(self) -> Path:
        return self.path.with_name(f"{self.path.name}.1")

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, the oldest first. Lines that can't be read are left out."""
        for path in (self._older, self.path):
            try:
                with path.open("rb") as file:
                    for line in file:
                        if (entry := _entry(line)) is not None:
                            yield entry
            except OSError:
                continue

    def today(self) -> tuple[int, int]:
        """Return the bytes that tasks have brought and taken along since midnight."""
        since = midnight(time.time())
        today = [entry for entry in self.entries() if entry.time >= since]
        return sum(entry.bytes_in for entry in today), sum(entry.bytes_out for entry in today)


def midnight(now: float) -> float:
    """Return the beginning of the day where this machine is, Unix seconds."""
    day = time.localtime(now)
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 0, 0, 0, 0, 0, -1))


def _entry(line: bytes) -> Entry | None:
    try:
        entry = Entry(**json.loads(line))
        numbers = (entry.time, entry.seconds, entry.cpu, entry.memory, entry.bytes_in, entry.bytes_out)
        texts = (entry.cluster, entry.member, entry.key, entry.label, entry.source, entry.outcome, entry.why)
    except (ValueError, TypeError, RecursionError):
        return None
    good = all(isinstance(each, int | float) for each in numbers) and all(isinstance(each, str) for each in texts)
    return entry if good else None
