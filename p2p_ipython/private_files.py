"""Private files: read whole and bounded, written atomically, locked between processes and between threads.

Assumes a folder that only its user can enter. Promises: a file is never readable by others, not for a moment. A reader
sees the old text or the new one, whole, also after a crash. A symlink in its place is refused, not followed.
Works on Linux, macOS and Windows.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
import time
from pathlib import Path
from types import TracebackType

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOOK = 0.005  # seconds between two attempts to get a lock
_STEP = 1_000_000  # ns by which each writing advances a file's time at least; coarser clocks would repeat one

# Names that some system lacks. Not to follow links; not to wait for the other end of a pipe; not to change line ends.
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"))


class NotAFile(OSError):
    """Something is there that is no plain file: a link, a folder, a device."""


def read(path: Path, limit: int) -> bytes | None:
    """Return the file's bytes, ``limit + 1`` at most, or None if there is no file. Raises ``OSError``, ``NotAFile``."""
    try:
        _refuse_links(path)
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAFile(f"{path} is not a plain file")
        return file.read(limit + 1)


def write(path: Path, data: bytes) -> None:
    """Replace the file, mode 0600, on the disk when this returns. The caller holds a lock. Raises ``OSError``.

    Its ``stamp`` is another one afterwards, whatever the system's clock does.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        before = _refuse_links(path).st_mtime_ns
    except FileNotFoundError:
        before = 0
    temporary.unlink(missing_ok=True)  # a crash may have left it
    _fill(temporary, data)
    try:
        made = temporary.stat().st_mtime_ns
        os.utime(temporary, ns=(made, max(made, before + _STEP)))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def create(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file that is not there yet, on the disk when this returns. Needs no lock: the first of two wins.

    Raises ``FileExistsError`` if anything is there, a dangling link too, and other kinds of ``OSError``.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    _fill(temporary, data, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: only a crash could show a part of the file
        _fill(path, data, mode)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def remove(path: Path) -> None:
    """Delete the file, if it is there. The caller holds the lock. Raises ``OSError``."""
    path.unlink(missing_ok=True)
    _sync_folder(path.parent)


def put_aside(path: Path) -> Path:
    """Rename a file that can't be used, so that nothing replaces it; return its new path.

    The caller holds the lock. Raises ``OSError``.
    """
    day = time.strftime("%Y%m%d", time.gmtime())
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{day}-{number}")).exists():
        number += 1
    os.rename(path, aside)
    return aside


def stamp(path: Path) -> tuple[int, ...] | None:
    """Return something that changes whenever ``write`` has replaced the file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


class Lock:
    """A lock that one holder in all processes has, until ``release`` or the end of its process.

    ``acquire`` makes it. The file stays: deleting it would let two have the lock.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, path: Path, *, wait: float = 0.0) -> Lock | None:
        """Take the lock; return None if somebody else has it for ``wait`` seconds. Raises ``OSError``."""
        end = time.monotonic() + wait
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            while not _try_lock(descriptor):
                if time.monotonic() >= end:
                    os.close(descriptor)
                    return None
                time.sleep(_LOOK)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Let others have the lock. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            _unlock(descriptor)  # closing is not enough: a fork may have a copy
        finally:
            os.close(descriptor)

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _fill(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a new file, and have it on the disk; leave nothing if that fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _refuse_links(path: Path) -> os.stat_result:
    """Look at the file; raise ``NotAFile`` for a link. (Not every system has ``O_NOFOLLOW``.)"""
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise NotAFile(f"{path} is a symbolic link")
    return found


if sys.platform == "win32":

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def _sync_folder(folder: Path) -> None:
        """Do nothing: Windows has no way to ask for this, nor need."""

else:

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _sync_folder(folder: Path) -> None:
        """Make a renaming last through a crash of the system."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
