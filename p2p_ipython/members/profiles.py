"""The profiles of the shared clusters that this user is a member of, on disk.

One file for each cluster, named by its title. The keys in it are secret: the folder is 0700, the files 0600
(``private_files.py``). The fields of a profile, and its text, are in profile.py.

Promises: one that can't be read is reported and put aside under another name. Nothing is silently replaced or lost. One
that a newer version has written is left alone.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from p2p_ipython import private_files
from p2p_ipython.config import data_dir, make_private
from p2p_ipython.errors import ConfigError
from p2p_ipython.members.profile import MAX_PROFILE, VERSION, NewerProfile, Profile, WrongProfile, parse, text_of
from p2p_ipython.protocol.roster import is_title, parse_title

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds to wait for the folder's lock, which is held for milliseconds
_TRIES = 5
_SUFFIX = ".json"


class Profiles:
    """The profiles in one folder. Any number of processes and threads may use it at the same time."""

    def __init__(self, folder: Path | None = None) -> None:
        """``folder`` is made, and closed to others, on first use; None is the user's own. Reads nothing yet."""
        self._given = folder

    @property
    def _folder(self) -> Path:
        return data_dir() / "clusters" if self._given is None else self._given

    def find(self, title: str) -> Profile | None:
        """Return the profile of a cluster, or None. Raises ``ConfigError`` for one that can't be used."""
        path = self._path(title)
        with self._locked(path):
            return _read(path, title)[0]

    def load(self, title: str) -> Profile:
        """Return the profile of a cluster. Raises ``ConfigError`` if there is none or it can't be used."""
        profile = self.find(title)
        if profile is None:
            near = self.similar(title)
            raise ConfigError(
                f"you are not a member of {title} yet",
                hint=f"Is it {near}, which you are in?"
                if near
                else "Ask its owner for an invitation, and give its code to `p2p join CODE`.",
            )
        return profile

    def similar(self, title: str) -> str:
        """Return the known title that comes closest to a mistyped ``title``; "" if none is close."""
        return next(iter(difflib.get_close_matches(title, [profile.title for profile in self.all()], n=1)), "")

    def all(self) -> list[Profile]:
        """Return all profiles, by title. Those that can't be used are reported in the log and left out."""
        try:
            if not self._folder.is_dir():
                return []
        except (ConfigError, OSError):  # without a home folder, or with one of somebody else's, no cluster is known
            return []
        found = []
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                title = _title(path.name)
                if title is None or self._path(title) != path:
                    log.warning("%s is no cluster's profile; it is left alone", path)
                elif profile := self.find(title):
                    found.append(profile)
            except ConfigError as error:
                log.warning("%s", error)
        return sorted(found, key=lambda profile: profile.title)

    def save(self, profile: Profile) -> None:
        """Write a profile, in place of the one with the same title. Raises ``ConfigError``.

        An older one that can't be read is put aside first, and reported in the log.
        """
        path = self._path(profile.title)
        with self._locked(path):
            try:
                _, others = _read(path, profile.title)
            except DamagedProfile as error:
                log.warning("%s", error)
                others = {}
            _write(path, profile, others)

    def change(self, title: str, edit: Callable[[Profile], Profile]) -> Profile:
        """Replace a profile by what ``edit`` makes of it, with nobody in between; return the new one.

        ``edit`` is called once and must not come back to the profiles. Raises what it raises, and ``ConfigError``.
        """

        def changed(before: Profile | None) -> Profile:
            if before is None:
                raise ConfigError(f"the profile of {title} is gone", hint="Was the cluster left? Join it again.")
            return edit(before)

        return self.put(title, changed)

    def put(self, title: str, edit: Callable[[Profile | None], Profile]) -> Profile:
        """Change or make a profile, as ``change`` does; ``edit`` gets None if there is none yet."""
        path = self._path(title)
        with self._locked(path):
            before, others = _read(path, title)
            after = edit(before)
            if after.title != title:
                raise ValueError(f"the profile of {title} can't become that of {after.title}")
            if after != before:
                _write(path, after, others)
            return after

    def revise(self, title: str, edit: Callable[[Profile], Profile]) -> Profile:
        """Change a profile, as ``change`` does, by an edit that may take long: a key signs, and its agent may ask.

        Nobody is kept waiting: ``edit`` is called again if another process has changed the profile meanwhile. Raises
        what it raises, and ``ConfigError``.
        """
        for _ in range(_TRIES):
            before = self.load(title)
            after = edit(before)

            def take_place(now: Profile, before: Profile = before, after: Profile = after) -> Profile:
                if now != before:
                    raise _Overtaken
                return after

            try:
                return self.change(title, take_place)
            except _Overtaken:
                continue
        raise ConfigError(
            f"the profile of {title} is changed by others again and again", hint="Try again when they are done."
        )

    def remove(self, title: str) -> None:
        """Forget a cluster, if it is known. Raises ``ConfigError``."""
        path = self._path(title)
        with self._locked(path):
            try:
                private_files.remove(path)
            except OSError as error:
                raise _unusable(path, error) from None

    def stamp(self, title: str) -> tuple[int, ...] | None:
        """Return something that changes whenever the profile does; None if there is none. Cheap."""
        return private_files.stamp(self._path(title))

    def hosting(self, title: str) -> private_files.Lock | None:
        """Become the process that hosts a cluster; return None if another one does. Doesn't wait.

        It lasts until ``release()`` (or the end of a ``with`` block), or until the process ends, however it ends.
        Raises ``ConfigError``.
        """
        path = self._path(title)
        self._make_folder()
        try:
            return private_files.Lock.acquire(path.with_name(f".{path.stem}.hosting"))
        except OSError as error:
            raise _unusable(path, error) from None

    def _path(self, title: str) -> Path:
        owner, name = parse_title(title)
        # Some file systems take A and a for one letter, so capitals are written %41.
        safe = "".join(f"%{ord(letter):02X}" if letter.isupper() else letter for letter in name)
        return self._folder / f"{owner}@{safe}{_SUFFIX}"

    def _make_folder(self) -> None:
        try:
            make_private(self._folder)
            if self._folder.stat().st_mode & 0o077:
                self._folder.chmod(0o700)
        except OSError as error:
            raise _unusable(self._folder, error) from None

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Be the only process that reads or writes. (Windows can't replace a file that is being read.)"""
        self._make_folder()
        try:
            lock = private_files.Lock.acquire(path.with_name(".lock"), wait=_PATIENCE)
        except OSError as error:
            raise _unusable(path, error) from None
        if lock is None:
            raise ConfigError(
                f"{self._folder} is in use by another process for {_PATIENCE:g} s",
                hint="A process of p2p_ipython may be stopped or hanging; end it and try again.",
            )
        with lock:
            yield


class _Overtaken(Exception):
    """Another process has changed a profile since it was read."""


def _title(filename: str) -> str | None:
    """Return the title that a file's name means, or None."""
    title = unquote(filename.removesuffix(_SUFFIX)).replace("@", "/", 1)
    return title if is_title(title) else None


# --- one file ---------------------------------------------------------------------------------------


class DamagedProfile(ConfigError):
    """A profile that could not be read, and was put aside."""


def _read(path: Path, title: str) -> tuple[Profile | None, dict[str, Any]]:
    """Return the profile, and the fields of its file that are not ours. The caller holds the lock."""
    try:
        data = private_files.read(path, MAX_PROFILE)
    except private_files.NotAFile as error:
        raise ConfigError(str(error), hint="Move it away, or put a plain file there.") from None
    except OSError as error:
        raise _unusable(path, error) from None
    if data is None:
        return None, {}
    try:
        profile, fields = parse(data)
        if profile.title != title:
            raise WrongProfile("it is of another cluster than its name says")
    except NewerProfile as newer:
        raise ConfigError(
            f"{path} was written by a newer p2p_ipython (its version is {newer}, {VERSION} is known here)",
            hint="Update p2p_ipython: pip install -U p2p-ipython",
        ) from None
    except WrongProfile as wrong:
        try:
            aside = private_files.put_aside(path)
        except OSError as error:
            raise _unusable(path, error) from None
        raise DamagedProfile(
            f"the profile of {title} is damaged ({wrong}); it was kept as {aside}",
            hint="Repair it and give it its name back, or join the cluster again.",
        ) from None
    return profile, fields


def _write(path: Path, profile: Profile, others: dict[str, Any]) -> None:
    try:
        private_files.write(path, text_of(profile, others))
    except WrongProfile as wrong:
        raise ConfigError(f"a profile of {profile.title} can't be kept: {wrong}") from None
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path} can't be used: {error.strerror or error}",
        hint="Look at who owns the folder and whether the disk is full, or set P2P_DATA to another folder.",
    )
