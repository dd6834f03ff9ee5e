"""Which sandbox runs tasks: the choice, and the self-test that it rests on.

A mechanism is offered when it has passed its self-test on this very system: a task that is run by it tries to read and
erase a file of the home folder, to write beside it and into Python's packages, to call a listener and a socket of the
lender's, and to look into and end another process. What it did is looked at from outside, and what it could see comes
back as plain data. A passed test is remembered until the machine or the package is another one, or boots.

POSIX only.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import pickle
import secrets
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from p2p_ipython import private_files
from p2p_ipython.config import Settings, data_dir, make_private
from p2p_ipython.errors import ConfigError, P2PError
from p2p_ipython.protocol.frames import Buffer
from p2p_ipython.protocol.messages import NO_WALL
from p2p_ipython.protocol.task_frames import Result, Task
from p2p_ipython.sandbox.launch import AUTO, BY_NAME, MECHANISMS, LaunchOptions, Missing, mechanism, unable
from p2p_ipython.sandbox.mechanisms import internet, machine_trial
from p2p_ipython.sandbox.mechanisms.python_files import named_left_out
from p2p_ipython.task import safe
from p2p_ipython.worker import probe
from p2p_ipython.worker.slot_base import Death, ResultListener, TaskSlot
from p2p_ipython.worker.slots import Slot

log = logging.getLogger(__name__)

DEADLINE = 90.0
"""Seconds that a self-test may take; most of it is for a runner that starts on a busy machine."""

_FILE = "sandboxes.json"
_LARGEST = 64 << 10


@dataclass(frozen=True)
class Verdict:
    """What is known of a mechanism on this system.

    ``missing``: why it can't be tried. ``holes``: what a task reached in the self-test, in words. ``seconds``: how long
    its runner took to start, 0.0 if it didn't.
    """

    name: str
    missing: Missing | None = None
    holes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether others may be lent to behind it."""
        return self.missing is None and not self.holes and self.name != NO_WALL

    @property
    def is_automatic(self) -> bool:
        """Whether ``auto`` may choose it."""
        return self.name not in (NO_WALL, *BY_NAME)

    @property
    def leaves(self) -> str:
        """What a task can still do behind it, in words."""
        return mechanism(self.name).LEAVES

    @property
    def is_no_wall(self) -> bool:
        """Whether it is the mechanism that isn't meant to hold."""
        return self.name == NO_WALL

    @property
    def words(self) -> str:
        """The verdict in a sentence's end: "passes its self-test" and the like."""
        if self.name == NO_WALL:
            return "protects from nothing: tasks run as you, with your files in reach"
        if self.missing is not None:
            return self.missing.why
        return f"fails its self-test: {'; '.join(self.holes)}" if self.holes else "passes its self-test"


async def choose(asked: str, *, lends_to_others: bool, options: LaunchOptions, settings: Settings) -> str:
    """Return the name of the mechanism to run tasks by.

    ``asked`` is one of ``CHOICES``, or "" for the default: ``auto`` for a worker that lends to others, ``process`` for
    one whose tasks are all its own user's. Raises ``ConfigError`` when the one asked for can't be used, or none can.
    """
    asked = asked or (AUTO if lends_to_others else NO_WALL)
    if asked == NO_WALL:
        _refuse_without_walls(options)
        return asked
    if asked != AUTO:
        mechanism(asked)
        if (cannot := unable(asked, options)) is not None:
            what, others = cannot
            hint = f"Use one that can, --sandbox {' or '.join(others)}; or ask for less."
            raise ConfigError(f"the sandbox {asked} can't {what}", hint=hint)
        verdict = await examined(asked, options, settings)
        if not verdict.holds:
            hint = verdict.missing.hint if verdict.missing is not None else ""
            raise ConfigError(f"the sandbox {asked} can't be used: it {_as_verb(verdict)}", hint=hint or _OTHERS)
        return asked
    verdicts = []
    for name in MECHANISMS:
        if Verdict(name).is_automatic and unable(name, options) is None:
            verdicts.append(await examined(name, options, settings))
            if verdicts[-1].holds:
                return name
    why = "; ".join(f"{verdict.name}: {verdict.words}" for verdict in verdicts)
    hints = [verdict.missing.hint for verdict in verdicts if verdict.missing is not None and verdict.missing.hint]
    raise ConfigError(
        f"no sandbox{_that_can(options)} works on this system, so it can't be lent to others safely ({why})",
        hint=f"{hints[0] if hints else 'p2p sandbox shows what each of them lacks.'} Without any,"
        f" --sandbox {NO_WALL} runs tasks as you, with your files in reach.",
    )


def _refuse_without_walls(options: LaunchOptions) -> None:
    for option, given, what in (("mount", options.mounts, "files are"), ("network", options.network, "networks are")):
        if given:
            raise ConfigError(
                f"--{option} needs a sandbox: {NO_WALL} has no walls, so all your {what} in reach anyway",
                hint=f"Leave --{option} out, or ask for a sandbox: --sandbox {AUTO}",
            )


def _that_can(options: LaunchOptions) -> str:
    given = {"the internet": options.network, "graphics cards": options.graphics is not None}
    what = " and ".join(name for name, is_wanted in given.items() if is_wanted)
    return f" that can give tasks {what}" if what else ""


async def automatic(settings: Settings) -> str:
    """Return the name of the mechanism that ``auto`` takes here. Raises ``ConfigError`` if none works."""
    return await choose(AUTO, lends_to_others=True, options=LaunchOptions(), settings=settings)


_OTHERS = "p2p sandbox shows which ones work here."


def _as_verb(verdict: Verdict) -> str:
    return verdict.words if verdict.missing is None else f"isn't there ({verdict.words})"


def left_out() -> str:
    """Say which of Python's folders tasks in a sandbox can't import from; "" for none. Blocks for a moment."""
    try:
        found = named_left_out()
    except ConfigError:  # no sandbox can show this Python at all, which they say themselves
        return ""
    return (
        f"Tasks can't import what is in {', '.join(found)}: it isn't a part of Python's own folders." if found else ""
    )


async def test(name: str | None, settings: Settings) -> list[Verdict]:
    """Run the self-tests of all mechanisms, or of one. Raises ``ConfigError`` for a name that none has."""
    if name is not None:
        mechanism(name)
    return [await examine(each, LaunchOptions(), settings) for each in ((name,) if name else MECHANISMS)]


def build(options: LaunchOptions, say: Callable[[str], None]) -> Path:
    """Make the disk of virtual machines, and save one for ``options``; return the disk's folder. Takes a minute.

    Raises ``ConfigError``, ``OSError``.
    """
    return machine_trial.build(options, say).folder


async def examined(name: str, options: LaunchOptions, settings: Settings) -> Verdict:
    """Return the verdict on a mechanism: the remembered one if it passed, else that of a self-test now."""
    missing = await asyncio.to_thread(_missing, name, options)
    if missing is not None or name == NO_WALL:
        return Verdict(name, missing)
    kind = name + (" with network" if options.network else "") + (" with cards" if options.graphics is not None else "")
    known = await asyncio.to_thread(_remembered)
    if isinstance(seconds := known.get(kind), float):
        return Verdict(name, seconds=seconds)
    verdict = await _tested(name, options, settings)
    if verdict.holds:
        await asyncio.to_thread(_remember, kind, verdict.seconds)
    return verdict


async def examine(name: str, options: LaunchOptions, settings: Settings) -> Verdict:
    """Run a mechanism's self-test, whatever is remembered; takes a second or so."""
    missing = await asyncio.to_thread(_missing, name, options)
    return Verdict(name, missing) if missing is not None else await _tested(name, options, settings)


async def _tested(name: str, options: LaunchOptions, settings: Settings) -> Verdict:
    """Run the self-test of a mechanism that lacks nothing."""
    watch = _Watch()
    slot = Slot(options, watch, settings, mechanism=name)
    begun = time.monotonic()
    try:
        await slot.start()
    except (ConfigError, OSError, RuntimeError) as error:
        said = error.message if isinstance(error, ConfigError) else str(error)
        return Verdict(name, holes=(f"a runner does not start: {' '.join(said.split())[:500]}",))
    seconds = time.monotonic() - begun
    try:
        with _Surroundings() as around:
            names = pickle.dumps({"given": around.given})
            source = f"{inspect.getsource(probe)}\nreach(given)"
            slot.run(Task("self-test", 1, "cell", ((len(names), None),), source=source, reply="safe"), names)
            try:
                reached = await asyncio.wait_for(watch.over, DEADLINE)
            except TimeoutError:
                reached = [f"the self-test did not end within {DEADLINE:g} s"]
            signalled = probe.SIGNALLED in reached
            damage = await asyncio.to_thread(around.damage, signalled=signalled)
            # The number of the process may be that of another one behind the wall.
            holes = dict.fromkeys([*(hole for hole in reached if hole != probe.SIGNALLED), *damage])
    except OSError as error:
        holes = dict.fromkeys([f"the self-test can't be set up: {error}"])
    finally:
        await slot.close()
    return Verdict(name, holes=tuple(holes), seconds=seconds)


def _missing(name: str, options: LaunchOptions) -> Missing | None:
    """Return what the system lacks for a mechanism and what is asked of it; blocks."""
    missing = mechanism(name).available()
    return missing or (internet.lacks() if options.network else None)


class _Watch(ResultListener):
    """Listens to the slot of a self-test; ``over`` is what its task has reached."""

    def __init__(self) -> None:
        self.over: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    def _end(self, reached: list[str]) -> None:
        if not self.over.done():
            self.over.set_result(reached)

    def on_result(self, slot: TaskSlot, result: Result, body: Buffer) -> None:
        if result.failure is not None:
            self._end([f"the self-test failed: {result.failure.message[:200]}"])
            return
        try:
            reached = safe.decode(result.segments, result.inline(body), {})
        except P2PError as error:
            reached = [f"the self-test's result can't be read: {error.message}"]
        self._end([str(each) for each in reached] if isinstance(reached, list) else ["the self-test gave no list"])

    def on_died(self, slot: TaskSlot, task_id: str | None, death: Death) -> None:
        self._end([f"the self-test's runner ended: {death.detail[:200]}"])


class _Surroundings:
    """Things of the lender's that a task must not reach, made for a self-test and removed after it."""

    def __enter__(self) -> _Surroundings:
        self._ending = contextlib.ExitStack()
        try:
            self._make()
        except BaseException:
            self._ending.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def _make(self) -> None:
        secret, self._homes = secrets.token_hex(16), []
        folder = Path(self._ending.enter_context(tempfile.TemporaryDirectory(prefix="p2p-test-")))
        for place in dict.fromkeys((Path.home(), folder)):
            with contextlib.suppress(OSError):
                descriptor, name = tempfile.mkstemp(prefix=".p2p-test-", dir=place)
                os.close(descriptor)
                self._ending.callback(Path(name).unlink, missing_ok=True)
                self._homes.append(Path(name))
        packages = sysconfig.get_paths()
        beside = {Path.home(), folder, Path(tempfile.gettempdir()), Path("/var/tmp")}  # noqa: S108 - a task's aim
        self._places = [
            Path(place, f".p2p-test-{secret}") for place in {*beside, *map(Path, (packages["purelib"], sys.prefix))}
        ]
        for file in self._places:
            self._ending.callback(_remove, file)
        self._listeners = list(self._listening(folder))
        words = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
        self._other = subprocess.Popen(words, env={"P2P_SELF_TEST": secret})
        self._ending.callback(self._other.wait)
        self._ending.callback(self._other.kill)
        self.given: dict[str, Any] = {
            "files": [str(file) for file in self._homes],
            "places": [str(file) for file in self._places],
            "listeners": [[family, address] for family, address, _ in self._listeners],
            "processes": [self._other.pid],
            "secret": secret,
        }

    def _listening(self, folder: Path) -> Iterator[tuple[str, Any, socket.socket]]:
        addresses: list[tuple[str, Any]] = [("AF_INET", (address, 0)) for address in internet.own_addresses()]
        addresses.append(("AF_UNIX", str(folder / "agent")))
        if sys.platform == "linux":
            addresses.append(("AF_UNIX", f"\0p2p-test-{secrets.token_hex(8)}"))
        for family, address in addresses:
            listener = self._ending.enter_context(socket.socket(getattr(socket, family)))
            listener.bind(address)
            listener.listen()
            listener.setblocking(False)
            yield family, listener.getsockname() if family == "AF_INET" else address, listener

    def damage(self, *, signalled: bool) -> list[str]:
        """Return what the task has done, in words; ``signalled``: it has sent a signal to a process, perhaps ours."""
        found = []
        if not all(file.exists() for file in self._homes):
            found.append("a task can erase files")
        if any(file.exists() for file in self._places):
            found.append("a task can write outside its scratch folder")
        for family, _, listener in self._listeners:
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                found.append("a task can reach this machine's network" if family == "AF_INET" else _SOCKETS)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._other.wait(_DYING if signalled else 0)
            found.append("a task can end other processes")
        return found


_DYING = 3.0
"""Seconds that a process which was told to end may take for it."""


_SOCKETS = "a task can reach sockets such as those of a key agent"


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()


# --- what is remembered -----------------------------------------------------------------------------------------


def _here() -> str:
    """Return what a remembered verdict depends on: boot, system, user, package and Python."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return " ".join((boot, os.uname().release, str(os.geteuid()), version("p2p-ipython"), sys.executable))


def _remembered() -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, ConfigError):
        found = json.loads(private_files.read(data_dir() / _FILE, _LARGEST) or b"null")
        if isinstance(found, dict) and found.get("here") == _here() and isinstance(found.get("seconds"), dict):
            return dict(found["seconds"])
    return {}


def _remember(name: str, seconds: float) -> None:
    try:
        make_private(data_dir())
        lock = private_files.Lock.acquire(data_dir() / f"{_FILE}.lock", wait=1.0)
        if lock is None:
            return
        try:
            known = _remembered() | {name: seconds}
            private_files.write(data_dir() / _FILE, json.dumps({"here": _here(), "seconds": known}).encode())
        finally:
            lock.release()
    except (OSError, ConfigError) as error:
        log.debug("the self-test's verdict can't be kept: %s", error)
