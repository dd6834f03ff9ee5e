"""The members of each cluster that the lender knows: those who were there when the lender last said yes.

The file holds, for each cluster, the fingerprints that the lender has said yes to (``known``), and those that the
lender has been told of (``named``), so that a newcomer is named once. The first worker for a cluster says yes to all
who are there: its lender has just chosen to lend to them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from p2p_ipython import private_files
from p2p_ipython.config import data_dir, make_private
from p2p_ipython.errors import ConfigError, P2PError, UsageError
from p2p_ipython.private_files import Lock
from p2p_ipython.protocol.roster import Roster

MAX_FILE = 4 << 20
"""Bytes of the file."""

MAX_CLUSTERS = 50
MAX_KEYS = 16_000
"""Fingerprints of one cluster: a roster has 1000 members of 16 keys."""

_PATIENCE = 5.0


@dataclass(frozen=True)
class Known:
    """The keys of one cluster. ``known``: None while the lender has never lent to it."""

    known: frozenset[str] | None = None
    named: frozenset[str] = frozenset()


class KnownMembers:
    """The file. From any thread; reading and writing take milliseconds."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or data_dir() / "lending-known.json"

    def stamp(self) -> tuple[int, ...] | None:
        """Return something that changes with the file."""
        return private_files.stamp(self.path)

    def of(self, cluster: str) -> Known:
        """Return what is known of a cluster, by its id. Raises ``ConfigError`` for a file that can't be read."""
        entry = self._read().get(cluster)
        if entry is None:
            return Known()
        return Known(frozenset(entry["known"]), frozenset(entry["named"]))

    def say_yes(self, cluster: str, keys: Collection[str]) -> None:
        """Note that the lender knows the members with these keys. Raises ``ConfigError``."""
        self._change(cluster, known=keys)

    def welcome(self, roster: Roster, names: Sequence[str] = ()) -> tuple[str, ...]:
        """Say yes to members with these names or fingerprints, or to all of a roster; return their names.

        Raises ``UsageError`` for a name that no member has, ``ConfigError``.
        """
        found = [roster.member(name) or roster.named(name) for name in names] or list(roster.members)
        members = [member for member in found if member is not None]
        if len(members) < len(found):
            unknown = names[found.index(None)]
            there = ", ".join(member.name for member in roster.members)
            raise UsageError(f"nobody in {roster.title} is called {unknown[:80]!r}", hint=f"Its members: {there}.")
        self.say_yes(roster.cluster, [key for member in members for key in member.keys])
        return tuple(member.name for member in members)

    def have_named(self, cluster: str, keys: Collection[str]) -> None:
        """Note that the lender has been told of the members with these keys. Raises ``ConfigError``."""
        self._change(cluster, named=keys)

    def _change(self, cluster: str, *, known: Collection[str] = (), named: Collection[str] = ()) -> None:
        try:
            make_private(self.path.parent)
            lock = Lock.acquire(self.path.with_suffix(".lock"), wait=_PATIENCE)
            if lock is None:
                raise P2PError(f"{self.path} is in use by another program", hint="Try again.")
            with lock:
                entries = self._read()
                entry = entries.pop(cluster, {"known": [], "named": []})
                merged = {"known": [*entry["known"], *known], "named": [*entry["named"], *named, *known]}
                entries[cluster] = {what: list(dict.fromkeys(keys))[-MAX_KEYS:] for what, keys in merged.items()}
                while len(entries) > MAX_CLUSTERS:
                    del entries[next(iter(entries))]
                private_files.write(self.path, json.dumps(entries).encode())
        except OSError as error:
            raise ConfigError(f"the members that you know can't be kept: {error}") from None

    def _read(self) -> dict[str, dict[str, list[str]]]:
        broken = ConfigError(f"{self.path} can't be read", hint="Delete it: workers make it anew.")
        try:
            data = private_files.read(self.path, MAX_FILE)
            entries = json.loads(data) if data is not None else {}
        except (OSError, ValueError, RecursionError):
            raise broken from None
        if not isinstance(entries, dict):
            raise broken
        for entry in entries.values():
            if not isinstance(entry, dict) or not all(_are_texts(entry.get(what)) for what in ("known", "named")):
                raise broken
        return entries


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
