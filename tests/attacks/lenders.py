"""Lenders whose Python is where people have it, and what a friend's task sees of each.

::

    with Home("user") as home:
        python, site = environment("venv", home)
        task(home, python, "bubblewrap", "1 + 1")

Each interpreter is given the packages that the lender's side needs, by links to one copy of them: a test of twenty
environments takes no gigabyte. Linux only.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from arena_parts import DEADLINE, Side
from arena_system import NotOffered, compile_package, make_environment, remove_user

from p2p_ipython.sandbox.scratch import lock
from p2p_ipython.task import safe

INTERPRETERS = ("debian", "user-install", "venv", "pyenv", "uv")
"""Debian's own with packages of /usr/local, or of the user's; others in the home: a venv of it, one that was built,
and a venv of one that was unpacked."""

_VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
_SYSTEM = Path("/usr/bin", _VERSION)
_LOCAL = Path("/usr/local/lib", _VERSION, "dist-packages")


class Home:
    """A user's home, mode 0700, with files that no task may see. Root's is a folder that only root can enter."""

    def __init__(self, user: str, packages: Path) -> None:
        if os.getuid() != 0:
            raise NotOffered("only root can make users")
        if not _SYSTEM.exists():
            raise NotOffered(f"{_SYSTEM} is not there")
        self.user, self.packages = user, packages
        self._close = contextlib.ExitStack()

    def __enter__(self) -> Home:
        folder = Path(tempfile.mkdtemp(prefix="p2pattacks-"))
        self._close.callback(shutil.rmtree, folder, ignore_errors=True)
        self._close.callback(os.close, lock(folder))
        folder.chmod(0o755)
        self.name, self.ids = "root", (0, 0)
        if self.user == "user":
            self.name = f"p2pa{secrets.token_hex(4)}"
            self._close.callback(remove_user, self.name)
            subprocess.run(["useradd", "--no-create-home", self.name], check=True, capture_output=True)
            self.ids = tuple(int(subprocess.check_output(["id", flag, self.name])) for flag in ("-u", "-g"))
        self.folder = folder / "home" / self.name
        self.folder.mkdir(parents=True)
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.scratch.chmod(0o1777)
        self.hidden: list[Path] = []
        self.hide(self.folder)
        self.hide(self.folder / "project")
        self.folder.chmod(0o700)
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()

    def hide(self, folder: Path) -> None:
        """Put a file there that no task may read."""
        folder.mkdir(parents=True, exist_ok=True)
        self.hidden.append(folder / "canary")
        self.hidden[-1].write_text("a secret")

    def own(self) -> None:
        """Make the user the owner of all folders in the home; files are links, and stay root's."""
        for path in (self.folder, *self.folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                os.chown(path, *self.ids)
        for path in self.hidden:
            os.chown(path, *self.ids)


def shared_packages(folder: Path) -> Path:
    """Make the one copy of the packages; return its folder."""
    python, site = make_environment(folder, _SYSTEM)
    compile_package(python, site / "p2p_ipython")
    (site / "friends_module.py").write_text("VALUE = 7\n")
    return site


def environment(kind: str, home: Home) -> tuple[list[str], Path]:
    """Make an interpreter that has the packages. Return the words that start it, and its site-packages."""
    if kind == "debian":
        if not _LOCAL.is_dir():
            raise NotOffered(f"there is no {_LOCAL}")
        site = home.scratch.parent / "dist-packages"
        _link(home.packages, site)
        become = ["setpriv", f"--reuid={home.ids[0]}", f"--regid={home.ids[1]}", "--clear-groups", "--"]
        script = f'mount --bind "$0" {_LOCAL} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, str(site), *become, str(_SYSTEM)], site
    if kind == "user-install":
        site = home.folder / ".local/lib" / _VERSION / "site-packages"
        _link(home.packages, site)
        home.hide(home.folder / ".local/share")
        return [str(_SYSTEM)], site
    if kind == "venv":
        return _venv(home, home.folder / "project/.venv", _SYSTEM)
    if Path(sys.base_prefix) in (Path("/usr"), Path("/usr/local")):
        raise NotOffered("this Python is the system's")
    place = home.folder / (".pyenv/versions/3.x" if kind == "pyenv" else ".local/share/uv/python/cpython-3.x")
    home.hide(place.parent)
    _link(Path(sys.base_prefix), place, but=("site-packages", "test", "share", "include"))
    moved = ["env", f"LD_LIBRARY_PATH={place / 'lib'}"]  # a copy doesn't look for its library where it is
    if kind == "uv":
        words, site = _venv(home, home.folder / "project/.venv", place / "bin" / _VERSION)
        return [*moved, *words], site
    site = place / "lib" / _VERSION / "site-packages"
    _link(home.packages, site)
    return [*moved, str(place / "bin" / _VERSION)], site


def _venv(home: Home, folder: Path, python: Path) -> tuple[list[str], Path]:
    site = folder / "lib" / _VERSION / "site-packages"
    _link(home.packages, site)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(python)
    (folder / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    return [str(folder / "bin" / "python")], site


def _link(source: Path, target: Path, but: tuple[str, ...] = ()) -> None:
    ignore = shutil.ignore_patterns(*but)
    try:
        shutil.copytree(source, target, copy_function=os.link, symlinks=True, ignore=ignore)
    except (OSError, shutil.Error):  # on another file system
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True, ignore=ignore)


def task(home: Home, python: list[str], mechanism: str, source: str, **names: Any) -> Any:
    """Return the value of a task that the lender runs behind a mechanism. Raises ``NotOffered``."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": str(home.folder), "USER": home.name}
    how: dict[str, Any] = {"env": env, "cwd": "/", "start_new_session": True}
    if python[0] != "unshare":
        how |= {"user": home.ids[0], "group": home.ids[1], "extra_groups": []}
    script = Path(__file__).with_name("worker_side.py").read_text()
    agent = Side([*python, "-P", "-c", script], stderr=subprocess.DEVNULL, **how)
    try:
        agent.say(mechanism=mechanism, secret="", file_secret="", scratch=str(home.scratch), memory=0,
                  output_limit=1 << 20, mounts=[], own="", network=False)  # fmt: skip
        line = agent.take(lambda line: line["event"] in ("ready", "refused"), 3 * DEADLINE)
        assert line is not None, f"no worker starts with {python}"
        if line["event"] == "refused":
            raise NotOffered(line["words"])
        agent.say(do="run", slot=0, id="task", owner="friend", source=source, names=names)
        over = agent.take(lambda line: line["event"] == "over", 3 * DEADLINE)
        assert over is not None, "the task doesn't end"
        assert over["ok"], over.get("error") or over.get("death")
        return safe.decode([tuple(each) for each in over["segments"]], base64.b64decode(over["body"]), {})
    finally:
        agent.close()
