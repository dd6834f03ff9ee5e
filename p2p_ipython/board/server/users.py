"""The users of a board: their names, by their public keys.

A file of users has a line per key, ``NAME ssh-ed25519 AAAA… [comment]``; ``#`` starts a comment line. It is read
again when it has changed (time, size or file), which is looked at whenever a session begins. A line that can't be
used is reported in the log, with its number, and skipped. A key that isn't listed is the user ``public``.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import logging
import os
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from p2p_ipython.board.server.limits import Seldom
from p2p_ipython.board.topics import PUBLIC
from p2p_ipython.errors import ConfigError

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-zA-Z0-9]{1,50}")
MAX_FILE = 4 << 20
"""Largest file of users, bytes: some 20,000 users."""

_ANYONE = uuid.UUID("6f1d4f0c-6f0a-4e58-9d0e-3c7c2d0e5b11")


class Users:
    """Names by key. ``inline`` is name → public key line, for a board that has no file.

    Raises ``ConfigError`` when the file can't be read at the start, or an inline entry is not usable.
    """

    def __init__(self, path: Path | None = None, inline: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._inline: dict[bytes, str] = {}
        for name, line in (inline or {}).items():
            try:
                key, parsed = parse_line(f"{name} {line}")
            except ValueError as error:
                raise ConfigError(
                    f"user {name!r}: {error}", hint="Give a name and a public key, as in id_ed25519.pub."
                ) from None
            self._inline[key] = parsed
        self._from_file: dict[bytes, str] = {}
        self._seen: tuple[int, int, int] | None = None
        self._unread = Seldom()
        self._started = datetime.date.today()
        if path is not None:
            try:
                self._read(path)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"the file of users {path} can't be read: {error}", hint="Give a text file with a user a line."
                ) from None

    def name_of(self, key: bytes) -> str:
        """Return the user whose public key (as in SSH's wire format) this is, or ``public``."""
        if self._path is not None:
            try:
                self._read(self._path)
            except (OSError, ValueError) as error:
                if self._unread.say(time.monotonic()):
                    log.warning("the file of users %s can't be read, its old names hold: %s", self._path, error)
        return self._inline.get(key) or self._from_file.get(key) or PUBLIC

    def describe(self, name: str) -> str:
        """Return what ``user`` answers: name, id, since when, plan, a line each."""
        return f"{name}\n{uuid.uuid5(_ANYONE, name)}\n{self._started.isoformat()}\nfree\n"

    def _read(self, path: Path) -> None:
        status = os.stat(path)
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if seen == self._seen:
            return
        if status.st_size > MAX_FILE:
            raise ValueError(f"it is larger than {MAX_FILE} bytes")
        self._from_file = _parse_file(path.read_text(encoding="utf-8").splitlines(), str(path))
        self._seen = seen


def _parse_file(lines: Iterable[str], source: str) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key, name = parse_line(line)
            if found.get(key, name) != name:
                raise ValueError(f"the key is already {found[key]}'s")
        except ValueError as error:
            log.warning("%s, line %d is skipped: %s", source, number, error)
            continue
        found[key] = name
    return found


def parse_line(line: str) -> tuple[bytes, str]:
    """Read ``NAME KIND BASE64 [comment]`` as (public key, name in lower case). Raises ``ValueError``."""
    words = line.split(None, 3)
    if len(words) < 3:
        raise ValueError("it is not NAME KIND KEY")
    name, kind, text = words[:3]
    if not NAME.fullmatch(name) or name.lower() == PUBLIC:
        raise ValueError("the name must be 1 to 50 letters and digits, and not public")
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the key is not base64") from None
    if key[4 : 4 + int.from_bytes(key[:4])] != kind.encode():
        raise ValueError(f"the key is not of the kind {kind[:40]}")
    return key, name.lower()
