"""uv, as a worker runs it: finds the versions of packages, and unpacks their wheels into a folder.

It runs without the worker's keys and home, with few variables, and with bounds on seconds and bytes. It builds nothing
(wheels only), reads no file of settings, and takes packages from the lender's own index: the one that the variables of
uv or pip name (index.py). It is told packages on its input, and no other word comes from a task.

POSIX only. Belongs to the worker's loop, and doesn't block it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from p2p_ipython.errors import P2PError
from p2p_ipython.protocol.packages import canonical_name, packages_words
from p2p_ipython.protocol.plain import plain, size_words
from p2p_ipython.sandbox.mechanisms.installer import behind_bubblewrap, bounded
from p2p_ipython.sandbox.mechanisms.python_files import links_of
from p2p_ipython.sandbox.scratch import occupied
from p2p_ipython.worker.index import index_places, index_variables, without_index

log = logging.getLogger(__name__)

SECONDS = 600.0
"""Seconds that finding and unpacking the packages of one environment may take."""

MOST_BYTES = 4 << 30
"""Bytes of one environment, and of what has been fetched for it, while it is made."""

MOST_PACKAGES = 200
"""Packages of one environment, with those that others need."""

LEAST_FREE = 1 << 30
"""Bytes that stay free on the disk."""

_TOO_LARGE = os.strerror(errno.EFBIG)
_LOOK = 0.5
_SAID = 64 << 10

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})==([A-Za-z0-9][A-Za-z0-9.!+*_-]{0,99})")


class NoPackages(P2PError):
    """Packages can't be installed; the message says why, to the member whose task asked for them."""


class Bounds(NamedTuple):
    """What making one environment may take."""

    seconds: float = SECONDS
    size: int = MOST_BYTES
    packages: int = MOST_PACKAGES


class Pin(NamedTuple):
    """A package and its version, as the index has them."""

    name: str
    version: str


def find_uv() -> str | None:
    """Return the path of uv: the one beside this Python, that of its module, or the one on the PATH; None if none."""
    beside = Path(sys.executable).parent / "uv"
    if os.access(beside, os.X_OK):
        return str(beside)
    if importlib.util.find_spec("uv") is not None:
        with contextlib.suppress(ImportError, AttributeError, OSError):
            from uv import find_uv_bin  # an optional part

            return str(find_uv_bin())
    return shutil.which("uv")


class Installer:
    """See the module. ``walled``: behind bubblewrap, which has passed its test here."""

    def __init__(self, uv: str, *, walled: bool, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - immutable
        self.bounds = bounds
        self._uv = os.path.abspath(uv)
        self._walled = walled

    async def find(self, requirements: Sequence[str], folder: Path) -> list[Pin]:
        """Return the packages that fulfil the requirements, with those that they need. Raises ``NoPackages``.

        ``folder`` is empty at first, and stays the installer's until ``unpack`` is over.
        """
        for name in ("home", "tmp", "cache", "packages"):
            (folder / name).mkdir(exist_ok=True)
        words = ["pip", "compile", "-", *self._usual(), "--no-header", "--no-annotate", "--quiet"]
        said = await self._run(folder, words, requirements)
        pins = [_pin(line) for line in said.splitlines() if line.strip()]
        if len(pins) > self.bounds.packages:
            raise NoPackages(
                f"they need {len(pins)} packages, and an environment here has at most {self.bounds.packages}"
            )
        return pins

    async def unpack(self, pins: Sequence[Pin], folder: Path) -> Path:
        """Unpack packages, and return the folder that they are in. Raises ``NoPackages``."""
        target = folder / "packages"
        words = ["pip", "install", *self._usual(), "--no-deps", "--quiet", "--target", str(target), "--requirements"]
        # Not compiled: with pandas' own tests that took eight times as long as the rest, on a busy machine.
        await self._run(folder, [*words, "-"], [f"{name}=={version}" for name, version in pins])
        return target

    def _usual(self) -> list[str]:
        alone = ["--no-index"] if without_index() else []
        return [*alone, "--no-config", "--only-binary", ":all:", "--python", sys.executable, "--color", "never"]

    async def _run(self, folder: Path, words: list[str], told: Sequence[str]) -> str:
        """Run uv; return what it says. Raises ``NoPackages``."""
        out_file, wrong = folder / "said", folder / "wrong"
        command = bounded([self._uv, *words], size=self.bounds.size, seconds=2 * self.bounds.seconds)
        with contextlib.ExitStack() as opened:
            out, errors = (opened.enter_context(each.open("wb")) for each in (out_file, wrong))
            if self._walled:
                command = await asyncio.to_thread(behind_bubblewrap, folder, command, self._shown())
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=out,
                stderr=errors,
                cwd=folder,
                env=_environment(folder),
                start_new_session=True,
            )
        try:
            await self._watched(process, folder, "".join(f"{line}\n" for line in told).encode())
        finally:
            await _end(process)
        if process.returncode != 0:
            said = _beginning(wrong)
            raise NoPackages(self._too_large() if _TOO_LARGE in said else _why(said))
        return _beginning(out_file)

    async def _watched(self, process: asyncio.subprocess.Process, folder: Path, told: bytes) -> None:
        """Wait for the end, and look at the folder meanwhile. Raises ``NoPackages`` if it takes too much."""
        ending = asyncio.ensure_future(process.communicate(told))
        try:
            while True:
                done, _ = await asyncio.wait([ending], timeout=_LOOK)
                most = self.bounds.size
                if await asyncio.to_thread(occupied, str(folder), most) > most:
                    raise NoPackages(self._too_large())
                if shutil.disk_usage(folder).free < LEAST_FREE:
                    raise NoPackages("there is no room on its disk")
                if done:
                    return
        finally:
            ending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await ending

    def _too_large(self) -> str:
        return f"they take more than the {size_words(self.bounds.size)} that an environment may have here"

    def _shown(self) -> list[Path]:
        """Return what it has to read that a wall would hide: uv itself, and what variables name."""
        places = [*links_of(Path(self._uv)), Path(self._uv).resolve()]
        places += map(Path, index_places())
        return [place for place in dict.fromkeys(places) if place.exists() and place != Path("/")]


def _environment(folder: Path) -> dict[str, str]:
    return index_variables() | {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "UV_CACHE_DIR": str(folder / "cache"),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "UV_HTTP_TIMEOUT": "30",
        "UV_KEYRING_PROVIDER": "disabled",
        "NO_COLOR": "1",
    }


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process and all that it has started, also when we are cancelled meanwhile."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(asyncio.ensure_future(process.wait()))


def _beginning(file: Path) -> str:
    """Return what a program has written, as far as there is room: the file is the program's, and may be a link."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as opened:
        return opened.read(_SAID).decode("utf-8", "replace")


def _pin(line: str) -> Pin:
    found = _PIN.fullmatch(line.strip())
    if found is None:
        raise NoPackages("the index has a package whose name or version is none")
    return Pin(canonical_name(found[1]), found[2])


def pins_words(pins: Sequence[Pin], asked: Sequence[str]) -> str:
    """Return packages for people, those that were ``asked`` for first: "numpy 2.1, pandas 2.2 and 3 more"."""
    first = sorted(pins, key=lambda pin: pin.name not in asked)
    return packages_words([f"{name} {version}" for name, version in first], 120)


def _why(said: str) -> str:
    """Return in a sentence's end why uv has failed, by what it says. No place and no address is in it."""
    text = " ".join(line.strip() for line in said.splitlines() if "cause:" in line or "Because" in line)
    text = text.replace("cause:", "").strip()
    if "wheels" in text and "Because" in text:
        return plain(f"{_without_places(text)} Only wheels are installed, and none of theirs fits this machine.", 600)
    if "Because" in text:
        return plain(_without_places(text), 600)
    log.info("uv has failed: %s", plain(re.sub(r"//[^/@\s]*@", "//…@", said), 2000))
    if "Failed to fetch" in said or "error sending request" in said:
        return "its index of packages can't be reached"
    return "they can't be installed"


def _without_places(text: str) -> str:
    return re.sub(r"\S*[/\\]\S*", "…", text)


def missing_words() -> str:
    """Return what a lender without uv can do."""
    return "install uv (pip install 'p2p-ipython[packages]') to have packages installed for tasks"
