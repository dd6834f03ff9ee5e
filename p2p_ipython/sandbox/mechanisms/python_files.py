"""The files that this machine's own Python needs, and nothing beside them: what a sandbox has to show to a runner.

POSIX only.
"""

from __future__ import annotations

import contextlib
import json
import os
import site
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import unquote

from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.launch import LaunchOptions, Missing

SYSTEM = Path("/usr")
"""The system's programs and libraries. Sandboxes show it whole; its folders at the root are links to it, or shown."""


@dataclass(frozen=True)
class PythonFiles:
    """``shown``: folders and files to show read-only at their own paths; ``package``: this package's own among them.

    ``left_out``: places that are not shown.
    """

    shown: tuple[Path, ...]
    package: Path
    left_out: tuple[str, ...]

    def link_package(self, modules: Path) -> None:
        """Make a folder in which this package is found: one that can't be listed is searched for modules in vain.

        That is so with a project's folder, which is not shown. Raises ``OSError``.
        """
        modules.mkdir()
        (modules / self.package.name).symlink_to(self.package)


def python_files(options: LaunchOptions | None = None) -> PythonFiles:
    """Return what the running interpreter needs to start again, with the packages that it has.

    Further folders are those of ``options.path``, but for what a mount shows, and what holds a mount or the home.
    Folders of editable installs, and others that a ``.pth`` file names, are left out unless they are among these: a
    project's folder holds more than its modules.

    Raises ``ConfigError`` for an environment that is a home folder, or holds it.
    """
    package = Path(__file__).parent.parent.parent  # this package, wherever it lies
    wanted = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), Path(sys.base_exec_prefix)]
    for prefix in wanted:
        _refuse_a_home(prefix)
    if site.ENABLE_USER_SITE:
        wanted.append(Path(site.getusersitepackages()))
    wanted += [package, *_modules(options or LaunchOptions()), *links_of(Path(sys.executable))]
    shown: list[Path] = []
    for place in wanted:
        for each in (place, place.resolve()):
            if each.exists() and not _is_below(each, [SYSTEM, *shown]):
                shown = [kept for kept in shown if not _is_below(kept, [each])] + [each]
    # The first entry is a script's folder, or the one where we were started, unless -P keeps it out.
    left_out = [
        entry
        for entry in sys.path[not sys.flags.safe_path :]
        if os.path.isdir(entry)
        and not _is_below(Path(entry), [SYSTEM, *shown])
        and not _is_below(Path(entry).resolve(), [SYSTEM, *shown])
        and Path(entry).resolve() != package.resolve().parent
    ]
    return PythonFiles(tuple(shown), package, tuple(left_out))


def named_left_out() -> list[str]:
    """Return the folders of Python's that tasks can't import from, those of editable installs among them.

    Reads the records of all packages, so it takes a moment. Raises as ``python_files`` does.
    """
    files = python_files()
    found = dict.fromkeys(files.left_out)
    for each in distributions():
        with contextlib.suppress(ValueError, AttributeError, TypeError):  # a record that is no record
            told = json.loads(each.read_text("direct_url.json") or "{}")
            place = unquote(str(told.get("url", "")).removeprefix("file://"))
            own = Path(place).resolve() in files.package.resolve().parents
            if told.get("dir_info", {}).get("editable") and os.path.isdir(place) and not own:
                found[place] = None
    return list(found)


def _modules(options: LaunchOptions) -> list[Path]:
    """Return the folders of ``options.path`` that are in no mount, and hold neither a mount nor the home."""
    mounts = [Path(each.path) for each in options.mounts]
    inside = [*mounts, Path(os.path.realpath(os.path.expanduser("~")))]
    found = []
    for folder in map(Path, options.path):
        place = folder.resolve()
        if not _is_below(place, mounts) and not any(_is_below(each, [place]) for each in inside):
            found.append(folder)
    return found


def out_of_reach() -> Missing | None:
    """Return why runners of root's, which are not root, can't reach their Python; None if they can."""
    if os.geteuid() != 0 or not (closed := closed_folders(shown := python_files().shown)):
        return None
    hint = "Run the worker as another user, from an environment of theirs; or use bubblewrap or landlock."
    place = next(place for place in shown if closed[0] in place.parents)
    return Missing(f"Python is at {place}, and only root can enter {closed[0]}", hint)


def closed_folders(places: Iterable[Path]) -> list[Path]:
    """Return the outermost folders over ``places`` that nobody but their owner can enter."""
    found: list[Path] = []
    for place in places:
        for folder in reversed(place.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                found += [folder] if folder not in found else []
                break
    return found


def closed_above(place: Path) -> Path | None:
    """Return the folder by which runners of root's, which are not root, can't reach a place; None if they can."""
    return next(iter(closed_folders([place])), None) if os.geteuid() == 0 else None


def _refuse_a_home(prefix: Path) -> None:
    homes = {Path(home).resolve() for home in (os.path.expanduser("~"), os.environ.get("HOME", "")) if home}
    place = prefix.resolve()
    if place == Path("/") or any(_is_below(home, [place]) for home in homes if home != Path("/")):
        raise ConfigError(
            f"Python's environment is {prefix}, which holds your own files, so a sandbox can't show it to tasks",
            hint="Install p2p-ipython in an environment of its own (python3 -m venv ~/p2p), and lend from there.",
        )


def links_of(program: Path) -> list[Path]:
    """Return the places that a program's name leads through, link by link."""
    found = [program]
    while program.is_symlink() and len(found) < 40:
        program = Path(os.path.normpath(program.parent / program.readlink()))
        found.append(program)
    return found


def _is_below(place: Path, folders: list[Path]) -> bool:
    return any(place == folder or folder in place.parents for folder in folders)
