"""The disk of virtual machines: made by ``p2p sandbox build qemu``, one for an environment as it is, read-only.

A machine's files are in a folder of their own below the user's cache folder: kernel, initrd, disk, and states of
machines that have started. The folder is complete when it has its name. It is named by the environment and its
fingerprint; those of earlier fingerprints are removed when a new one is made.

Linux only.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from p2p_ipython.config import cache_dir, make_private
from p2p_ipython.errors import ConfigError
from p2p_ipython.private_files import Lock
from p2p_ipython.sandbox.mechanisms import machine_files, machine_kernel
from p2p_ipython.sandbox.mechanisms.install import install_with
from p2p_ipython.sandbox.mechanisms.shown import FIRST

KEPT = 3
"""Environments whose disks are kept."""

_NEW = ".new-"


@dataclass(frozen=True)
class Disk:
    """A folder with what a machine starts from."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def image(self) -> Path:
        return self.folder / "disk"

    @property
    def without_kvm(self) -> Path:
        """A file that says that no machine came up by KVM when it was tried."""
        return self.folder / "without-kvm"


def parent() -> Path:
    """Return the folder of all disks, which need not be there. Raises ``ConfigError`` if there is no home folder."""
    return cache_dir() / "machines"


def find() -> Disk | None:
    """Return the disk of this environment as it is now; None if it has none. Takes 0.3 s for 50 000 files.

    Raises ``ConfigError`` as ``machine_files.fingerprint`` does.
    """
    folder = parent() / f"{machine_files.environment()}-{machine_files.fingerprint()}"
    if not folder.is_dir():
        return None
    _found[:] = [Disk(folder)]
    return _found[0]


def known() -> Disk | None:
    """Return the disk that ``find`` found last in this process; look for one if it is gone, or there was none.

    So a worker keeps its disk, and its runners don't wait until all files have been looked at. Raises as ``find`` does.
    """
    return _found[-1] if _found and _found[-1].image.exists() else find()


_found: list[Disk] = []


def build(say: Callable[[str], None], try_out: Callable[[Disk], None]) -> Disk:
    """Make the disk of this environment, unless it is there; ``try_out`` says whether it works.

    Raises ``ConfigError``, and what ``try_out`` raises; nothing is left then. Raises ``OSError``.
    """
    above = parent()
    make_private(above)
    with _locked(above):
        for folder in above.glob(f"{_NEW}*"):
            shutil.rmtree(folder, ignore_errors=True)
        if (found := find()) is not None:
            try_out(found)
            return found
        if shutil.which("mksquashfs") is None:
            raise ConfigError("mksquashfs is not installed", hint=install_with("squashfs-tools"))
        made = Disk(Path(tempfile.mkdtemp(prefix=_NEW, dir=above)))
        try:
            before = machine_files.fingerprint()
            machine_kernel.prepare(made.folder, FIRST[1], say)
            say("packing this environment")
            _pack(made.image)
            for file in (made.kernel, made.initrd, made.image):
                file.chmod(0o400)
            if machine_files.fingerprint() != before:
                raise ConfigError("the environment changed while it was packed", hint="Build it again.")
            try_out(made)
            final = Disk(above / f"{machine_files.environment()}-{before}")
            made.folder.rename(final.folder)
        except BaseException:
            shutil.rmtree(made.folder, ignore_errors=True)
            raise
        _remove_others(final.folder)
        return final


@contextlib.contextmanager
def _locked(above: Path) -> Iterator[None]:
    lock = Lock.acquire(above / "lock", wait=1.0)
    if lock is None:
        raise ConfigError("another process is building a disk for virtual machines", hint="Wait for its end.")
    with lock:
        yield


def _remove_others(final: Path) -> None:
    """Remove the disks that this environment has had, and the oldest of other environments."""
    others = [each for each in final.parent.iterdir() if each.is_dir() and each != final]
    ours = final.name.partition("-")[0]
    of_others = [each for each in others if not each.name.startswith(f"{ours}-")]
    kept = sorted(of_others, key=lambda each: each.stat().st_mtime, reverse=True)[: KEPT - 1]
    for folder in set(others) - set(kept):
        shutil.rmtree(folder, ignore_errors=True)


def _pack(target: Path) -> None:
    """Write the disk's image: a file system that is compressed. Raises ``ConfigError``, ``OSError``."""
    command = ["mksquashfs", "-", str(target), "-tar", "-comp", "zstd", "-Xcompression-level", "3", "-noappend"]
    command += ["-no-progress", "-quiet"]
    with tempfile.TemporaryFile() as words:
        packer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=words, stderr=words)
        assert packer.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                with tarfile.open(fileobj=packer.stdin, mode="w|", bufsize=1 << 20) as archive:
                    _fill(archive)
                packer.stdin.close()
            code = packer.wait()
        except BaseException:
            packer.kill()
            packer.wait()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                packer.stdin.close()
        if code:
            words.seek(0)
            said = " ".join(words.read().decode("utf-8", "replace").split())[-500:]
            raise ConfigError(f"the disk can't be written: {said or f'mksquashfs ends with {code}'}")


def _fill(archive: tarfile.TarFile) -> None:
    folders, texts, links = machine_files.skeleton()
    made = set(links) | set(texts) | {"/"}

    def add_folder(place: Path) -> None:
        for each in (*reversed(place.parents), place):
            if str(each) not in made:
                made.add(str(each))
                archive.addfile(_entry(str(each), tarfile.DIRTYPE, 0o755))

    def add(place: str, found: os.stat_result) -> None:
        place = _through_links(place, links)
        if place in made:
            return
        if stat.S_ISDIR(found.st_mode):
            add_folder(Path(place))
            return
        add_folder(Path(place).parent)
        made.add(place)
        if stat.S_ISLNK(found.st_mode):
            entry = _entry(place, tarfile.SYMTYPE, 0o777)
            entry.linkname = os.readlink(place)
            archive.addfile(entry)
        elif stat.S_ISREG(found.st_mode):
            with contextlib.suppress(PermissionError), open(place, "rb") as file:
                entry = _entry(place, tarfile.REGTYPE, 0o755 if found.st_mode & stat.S_IXUSR else 0o644)
                now = os.fstat(file.fileno())
                entry.size, entry.mtime = now.st_size, int(now.st_mtime)
                archive.addfile(entry, file)

    for name in folders:
        add_folder(Path(name))
    for name, target in links.items():
        entry = _entry(name, tarfile.SYMTYPE, 0o777)
        entry.linkname = target
        archive.addfile(entry)
    for name, (text, mode) in texts.items():
        add_folder(Path(name).parent)
        entry = _entry(name, tarfile.REGTYPE, mode)
        entry.size = len(text.encode())
        archive.addfile(entry, io.BytesIO(text.encode()))
    seen = []
    for place, found in machine_files.files(machine_files.places(), machine_files.left_out()):
        add(place, found)
        seen.append(place)
        if len(seen) > machine_files.LARGEST:
            raise ConfigError(f"this environment has more than {machine_files.LARGEST} files")
    for place, found in machine_files.files(machine_files.system_files(seen), set()):
        add(place, found)


def _through_links(place: str, links: dict[str, str]) -> str:
    """Return a path without a link at the root in it: /lib/x is /usr/lib/x."""
    top = f"/{Path(place).parts[1]}" if place != "/" else place
    if top in links and place != top:
        return os.path.normpath(os.path.join("/", links[top])) + place[len(top) :]
    return place


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name[1:])
    entry.type, entry.mode, entry.mtime = kind, mode, int(time.time()) if kind != tarfile.REGTYPE else 0
    return entry
