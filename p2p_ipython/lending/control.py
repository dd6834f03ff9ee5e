"""The way from ``p2p lending`` to a worker on this machine: a socket in a folder that only its user can enter.

One connection is one question: a line of JSON, ``{"do": "pause"}``, and a line that answers. Both have bounds, and the
worker waits ``PATIENCE`` seconds at most. Where the system says who is at the other end, another user is refused: the
folder keeps them out, too. A task is kept out by its sandbox; behind ``process``, which is no sandbox, it acts as its
lender in this as in all else.

POSIX only, as workers are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from p2p_ipython.config import data_dir, make_private
from p2p_ipython.errors import ConfigError, P2PError

log = logging.getLogger(__name__)

Command = Literal["state", "pause", "resume", "finish", "stop"]
COMMANDS: tuple[Command, ...] = ("state", "pause", "resume", "finish", "stop")

PATIENCE = 5.0
"""Seconds that either end waits for the other's line."""

MAX_QUESTION = 1024
MAX_ANSWER = 64 << 10

MAX_AT_ONCE = 8
"""Connections that a worker has at a time."""

MAX_WORKERS = 256
"""Workers that are looked for in the folder."""

_NAME = re.compile(r"\d{1,10}-[0-9a-f]{8}\.sock")
_LONGEST = 100  # bytes of a socket's path; some systems take 104


@dataclass(frozen=True)
class WorkerState:
    """How a worker stands. ``words``: why it takes no task now, or ""; ``policy``: its file, "" for none.

    ``conditions``: the policy that counts, as text: the file's, with the options that win over it.
    """

    pid: int
    cluster: str
    name: str
    state: str = "lending"
    words: str = ""
    slots: int = 1
    busy: int = 0
    policy: str = ""
    conditions: str = ""


Heed = Callable[[Command], WorkerState]
"""What a worker does with a command; called on its loop. Returns its state afterwards."""


def folder() -> Path:
    """Return the folder of the sockets. Raises ``ConfigError`` as ``data_dir`` does."""
    return data_dir() / "run"


class Control:
    """The worker's end. Make it, ``open`` it, and ``close`` it, on the loop."""

    def __init__(self, heed: Heed, where: Path | None = None) -> None:
        self._heed = heed
        self._path = (where or folder()) / f"{os.getpid()}-{secrets.token_hex(4)}.sock"
        self._server: asyncio.Server | None = None
        self._at_once = 0

    async def open(self) -> None:
        """Listen. Raises ``ConfigError`` for a folder that others could enter, ``OSError`` if it can't be."""
        make_private(self._path.parent)
        _check_private(self._path.parent)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(self._path) as path:
                listening.bind(path)
            os.chmod(self._path, 0o600)
            self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MAX_QUESTION)
        except BaseException:
            listening.close()
            self._path.unlink(missing_ok=True)
            raise

    async def close(self) -> None:
        """Listen no more. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._at_once += 1
        try:
            if self._at_once <= MAX_AT_ONCE and _is_ours(writer.get_extra_info("socket")):
                async with asyncio.timeout(PATIENCE):
                    writer.write(self._answer(await reader.readuntil(b"\n")))
                    await writer.drain()
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.info("a question about lending was dropped: %s", type(error).__name__)
        finally:
            self._at_once -= 1
            writer.close()

    def _answer(self, line: bytes) -> bytes:
        try:
            command = json.loads(line)["do"]
            if command not in COMMANDS:
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError):
            return _line({"failed": "no such command"})
        try:
            return _line(asdict(self._heed(command)))
        except P2PError as error:
            return _line({"failed": error.message})
        except Exception as error:
            log.exception("a command of the lender failed")
            return _line({"failed": f"{type(error).__name__}: {error}"})


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


# -- the other end --


def workers(where: Path | None = None) -> list[Path]:
    """Return the sockets in the folder, of workers that run and of some that were killed."""
    try:
        found = sorted(path for path in (where or folder()).iterdir() if _NAME.fullmatch(path.name))
    except OSError:
        return []
    return found[:MAX_WORKERS]


def tell(path: Path, command: Command) -> WorkerState | None:
    """Give a worker a command, and return its state; None if it is gone, and its socket with it.

    Raises ``P2PError`` for a worker that refuses or doesn't answer. Blocks, ``PATIENCE`` seconds at most.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as talking:
        talking.settimeout(PATIENCE)
        try:
            with _short(path) as short:
                talking.connect(short)
            if not _is_ours(talking):
                raise P2PError(f"{path} is another user's", hint="Delete it.")
            talking.sendall(_line({"do": command}))
            with talking.makefile("rb") as lines:
                line = lines.readline(MAX_ANSWER)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(OSError):
                path.unlink()  # its worker was killed
            return None
        except OSError as error:
            if command in ("stop", "finish") and isinstance(error, ConnectionError):
                return None
            raise P2PError(f"the worker of process {path.name.partition('-')[0]} doesn't answer: {error}") from None
    try:
        said = json.loads(line)
        if isinstance(said, dict) and "failed" in said:
            raise P2PError(str(said["failed"]))
        return _state(said)
    except (ValueError, TypeError, KeyError):
        raise P2PError("a worker gives no answer", hint="Ask again; p2p lending lists those that run.") from None


def _state(said: Any) -> WorkerState:
    kinds = {"pid": int, "slots": int, "busy": int}
    # A worker that was started before an update knows fewer fields.
    values = {
        each.name: said[each.name] for each in fields(WorkerState) if each.name in said or each.default is MISSING
    }
    if not all(isinstance(value, kinds.get(name, str)) for name, value in values.items()):
        raise TypeError
    return WorkerState(**values)


# -- who may --


def _check_private(place: Path) -> None:
    found = os.lstat(place)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"{place} is open to others", hint=f"Make it yours alone: chmod 700 {place}")


def _is_ours(connection: socket.socket) -> bool:
    """Return whether this user, or root, is at the other end; where it can't be asked, the folder keeps others out."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    form = struct.Struct("3i")
    _pid, user, _group = form.unpack(connection.getsockopt(socket.SOL_SOCKET, option, form.size))
    return user in (os.getuid(), 0)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a path to a socket that is short enough for an address, where the system has a way to one."""
    if len(os.fsencode(path)) <= _LONGEST or not os.path.isdir("/proc/self/fd"):
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
