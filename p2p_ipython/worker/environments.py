"""Environments: packages that tasks ask for, installed once for each member, in folders that tasks only read.

::

    cache/environments/MEMBER/HASH/        the packages, as uv unpacks them: one environment
    cache/environments/MEMBER/HASH.lock    its lock, whose time is that of its last use, with its size in bytes
    cache/environments/MEMBER/HASH.new/    one that is being made

The hash is over the requirements and the Python. While a runner uses an environment, its slot holds a shared lock on
it; a worker that makes or removes one holds an exclusive lock. So several workers of this user can share them. The one
that has not been used for longest is removed when all together take more than ``MOST_IN_ALL``.

No program of an environment is ever started here, and nothing is imported from it: a runner's ``sys.path`` gets the
folder, without what its ``.pth`` files say (see inside/runner.py).

POSIX only. Belongs to the worker's loop, and doesn't block it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from p2p_ipython.config import cache_dir, make_private
from p2p_ipython.errors import UsageError
from p2p_ipython.protocol.packages import name_of, packages_words
from p2p_ipython.protocol.plain import size_words
from p2p_ipython.sandbox.scratch import occupied
from p2p_ipython.task.requirements import requirements
from p2p_ipython.worker.installer import Installer, NoPackages, Pin, pins_words

log = logging.getLogger(__name__)

MOST_IN_ALL = 10 << 30
"""Bytes of all environments of this user, but for those that are being made."""

MOST_FILES = 200_000
"""Files and folders of one environment."""

_TICK = 1.0
"""Seconds between two words about an environment that is being made."""

_AGAIN = 0.1

Said = Callable[[str], None]


class Environment:
    """An environment in use: it stays until ``close``."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock

    def close(self) -> None:
        """Note that no runner uses it any more. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Environments:
    """See the module. ``is_own``: whether a fingerprint is the lender's, whose clusters share environments."""

    def __init__(
        self,
        installer: Installer,
        *,
        is_own: Callable[[str], bool] = lambda _member: False,
        place: Path | None = None,
        most: int = MOST_IN_ALL,
    ) -> None:
        self._installer = installer
        self._is_own = is_own
        self._place = place
        self._most = most

    async def get(self, member: str, packages: Sequence[str], said: Said = lambda _words: None) -> Environment:
        """Return an environment with packages for a task of a member, made now if there is none.

        ``said`` is called with what happens meanwhile, for people. Raises ``NoPackages``.
        """
        try:
            asked = requirements(packages)  # what came by a link is checked again, by its grammar
        except UsageError as error:
            raise NoPackages(error.message) from None
        try:
            folder = await asyncio.to_thread(self._folder, "own" if self._is_own(member) else member, asked)
            lock = None
            while lock is None:
                lock = await self._ready(folder, asked, said)
        except OSError as error:
            log.info("an environment can't be made: %s", error)
            raise NoPackages(f"they can't be kept there: {error.strerror or 'the system refuses'}") from None
        return Environment(folder, lock)

    async def _ready(self, folder: Path, asked: tuple[str, ...], said: Said) -> int | None:
        """Return a descriptor that holds an environment, made now if there is none; None if it was removed just then.

        Raises ``NoPackages``, ``OSError``.
        """
        lock = await self._locked(folder, asked, said)
        try:
            if not _is_there(folder):
                await self._make(folder, asked, said, lock)
            os.utime(lock)
            # Between the two locks, another worker may take its own.
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if os.fstat(lock).st_nlink and _is_there(folder):
                    held, lock = lock, -1
                    return held
            return None
        finally:
            if lock >= 0:
                os.close(lock)

    def _folder(self, member: str, asked: tuple[str, ...]) -> Path:
        """Return where an environment is, or would be; the folder above it is there."""
        place = (self._place or cache_dir() / "environments").absolute()
        make_private(place)
        kind = [asked, platform.python_implementation(), sys.version, platform.machine()]
        folder = place.resolve() / _hash(member) / _hash(json.dumps(kind))
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        return folder

    async def _locked(self, folder: Path, asked: Sequence[str], said: Said) -> int:
        """Return a descriptor that locks an environment: one that is ready for use, one to be made to make it."""
        while True:
            lock = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                for how in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                    with contextlib.suppress(BlockingIOError):
                        fcntl.flock(lock, how | fcntl.LOCK_NB)
                        if os.fstat(lock).st_nlink and (how == fcntl.LOCK_EX or _is_there(folder)):
                            return lock
                        break  # removed just now
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
            said(f"waiting until {packages_words(asked, 120)} is there, for another task, too")
            await asyncio.sleep(_AGAIN)

    async def _make(self, folder: Path, asked: Sequence[str], said: Said, lock: int) -> None:
        """Make an environment. Raises ``NoPackages``, ``OSError``."""
        new = folder.with_suffix(".new")
        await asyncio.to_thread(_remove, new)
        new.mkdir(mode=0o700)
        begun = time.monotonic()
        telling = asyncio.create_task(_tell(said, words := [f"finding {packages_words(asked, 120)}"], begun))
        try:
            async with asyncio.timeout(self._installer.bounds.seconds):
                pins = await self._installer.find(asked, new)
                words[0] = f"installing {pins_words(pins, [name_of(each) for each in asked])}"
                target = await self._installer.unpack(pins, new)
                size = await asyncio.to_thread(_settle, target)
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(size).encode(), 0)
            target.rename(folder)
            await asyncio.to_thread(self._make_room, folder)
            if not _is_there(folder):
                raise NoPackages("other environments that are in use take all the room there is for them")
            log.info("installed %s in %.1f s", _names(pins), time.monotonic() - begun)
        except TimeoutError:
            most = self._installer.bounds.seconds
            raise NoPackages(f"they were not installed within {most:g} s") from None
        finally:
            if not _is_there(folder):
                _lock_of(folder).unlink(missing_ok=True)  # else what can't be installed would leave one each
            telling.cancel()
            await asyncio.shield(asyncio.gather(asyncio.to_thread(_remove, new), telling, return_exceptions=True))

    def _make_room(self, newest: Path) -> None:
        """Remove the environments that have not been used for longest, until the others fit; at last the newest."""
        place = newest.parent.parent
        found = sorted(
            (lock.stat().st_mtime, lock.with_suffix("")) for lock in place.glob("*/*.lock") if not lock.is_symlink()
        )
        sizes = {folder: _size(folder) for _, folder in found}
        total = sum(sizes.values())
        for _, folder in [each for each in found if each[1] != newest]:
            if total <= self._most:
                return
            if _drop(folder):
                log.info("removed an environment of %s that was not used for longest", size_words(sizes[folder]))
                total -= sizes[folder]
        if total > self._most:
            _remove(newest)


async def _tell(said: Said, words: list[str], begun: float) -> None:
    while True:
        seconds = time.monotonic() - begun
        said(words[0] + (f" ({seconds:.0f} s)" if seconds >= 1 else ""))
        await asyncio.sleep(_TICK)


def _names(pins: Sequence[Pin]) -> str:
    return ", ".join(f"{name} {version}" for name, version in pins)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _is_there(folder: Path) -> bool:
    return folder.is_dir()


def _lock_of(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def _size(folder: Path) -> int:
    try:
        return int(_lock_of(folder).read_bytes()[:20] or 0) if _is_there(folder) else 0
    except (OSError, ValueError):
        return MOST_IN_ALL


def _drop(folder: Path) -> bool:
    """Remove an environment that nobody uses; return whether it is gone."""
    try:
        lock = os.open(_lock_of(folder), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
        _remove(folder.with_suffix(".new"))
        _lock_of(folder).unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _settle(folder: Path) -> int:
    """Have all in a folder belong to this user, who alone may change it; return its bytes.

    Only files and folders are left. Raises ``NoPackages`` for too many, ``OSError``.
    """
    count, waiting = 0, [folder]
    while waiting:
        place = waiting.pop()
        _take(place, 0o755)
        for entry in os.scandir(place):
            if (count := count + 1) > MOST_FILES:
                raise NoPackages(f"they have more than {MOST_FILES:,} files")
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                waiting.append(Path(entry.path))
            elif stat.S_ISREG(mode):
                _take(Path(entry.path), 0o755 if mode & stat.S_IXUSR else 0o644)
            else:
                os.unlink(entry.path)
    return occupied(str(folder), sys.maxsize)


def _take(place: Path, mode: int) -> None:
    if os.geteuid() == 0:
        os.chown(place, 0, 0, follow_symlinks=False)
    os.chmod(place, mode)
