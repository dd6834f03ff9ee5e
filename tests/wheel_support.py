"""The wheel, built from this checkout's sources, and an environment in which it is installed.

For the tests of packaging and of browsers. Both are made under build/, by whichever of the tests' processes asks first,
and kept for as long as nothing changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"
SOURCE = BUILD / "wheel-source"
WHEELS = BUILD / "wheel"
ENVIRONMENT = BUILD / "wheel-venv"
SOURCES = ("p2p_ipython", "labextension", "pyproject.toml", "README.md", "LICENSE", ".gitignore")
MADE = ("static", "_labextension", "lib", "node_modules", ".yarn", "__pycache__")
WITH_IT = ("jupyterlab>=4.4", "notebook>=7.4", "numpy")
DEADLINE = 600


@dataclass(frozen=True)
class WheelVenv:
    """An environment with the wheel, JupyterLab, Notebook 7 and numpy, and without Node."""

    folder: Path
    wheel: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def environ(self) -> dict[str, str]:
        """The process's environment, but with the programs of this one and of the system, without Node."""
        environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        return {**environ, "PATH": path_without_node(self.folder / "bin"), "VIRTUAL_ENV": str(self.folder)}


def path_without_node(first: Path) -> str:
    """A PATH of folders that hold no Node."""
    folders = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    bare = [str(folder) for folder in folders if not any((folder / name).exists() for name in ("node", "nodejs"))]
    return os.pathsep.join([str(first), *bare])


def wheel() -> Path:
    """The wheel of the sources as they are. It is built from a copy of them that has never been built in, with the
    modules of Node that `make front` has fetched, so that nothing that lies about in the checkout gets into it."""
    with alone("wheel"):
        _copy_sources()
        key = _digest(SOURCE, *SOURCES)
        if (built := _kept(WHEELS, key)) is not None:
            return built
        shutil.rmtree(WHEELS, ignore_errors=True)
        _build("--wheel", "--outdir", str(WHEELS), str(SOURCE))
        (WHEELS / "key").write_text(key)
        found = _kept(WHEELS, key)
        assert found is not None
        return found


def sdist(folder: Path) -> Path:
    """The source distribution of the sources as they are, made in ``folder``."""
    with alone("wheel"):
        _copy_sources()
        _build("--sdist", "--outdir", str(folder), str(SOURCE))
    (found,) = folder.glob("*.tar.gz")
    return found


def wheel_venv() -> WheelVenv:
    """An environment with the wheel as it is now."""
    here = wheel()
    with alone("wheel-venv"):
        there = WheelVenv(ENVIRONMENT, here)
        key, mark = _digest(here.parent, here.name), ENVIRONMENT / "key"
        if mark.exists() and mark.read_text() == key and there.python.exists():
            return there
        mark.unlink(missing_ok=True)
        pip = [str(there.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        if there.python.exists():
            _run([*pip, "--force-reinstall", "--no-deps", str(here)], there.environ)
        else:
            venv.create(ENVIRONMENT, with_pip=True, clear=True)
        _run([*pip, str(here), *WITH_IT], there.environ)
        mark.write_text(key)
        return there


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Only one of the tests' processes at a time."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _kept(folder: Path, key: str) -> Path | None:
    mark = folder / "key"
    if not mark.exists() or mark.read_text() != key:
        return None
    return next(folder.glob("*.whl"), None)


def _copy_sources() -> None:
    """Bring the copy of the sources up to date; its node_modules are links to the files of the checkout's."""
    modules = "labextension/node_modules"
    SOURCE.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        target = SOURCE / name
        if name == "labextension":
            for entry in target.glob("*"):
                if entry.name != "node_modules":
                    _remove(entry)
        else:
            _remove(target)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns(*MADE), dirs_exist_ok=True)
        else:
            shutil.copy2(ROOT / name, target)
    state = f"{modules}/.yarn-state.yml"
    if (ROOT / state).exists() and not (
        (SOURCE / state).exists() and (SOURCE / state).read_bytes() == (ROOT / state).read_bytes()
    ):
        _remove(SOURCE / modules)
        shutil.copytree(ROOT / modules, SOURCE / modules, symlinks=True, copy_function=os.link)
        (SOURCE / state).unlink()  # not a link: it would change with the checkout's, and look up to date
        shutil.copy2(ROOT / state, SOURCE / state)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _digest(folder: Path, *names: str) -> str:
    """Of the files' names and contents, what is fetched or built left out."""
    whole = hashlib.sha256()
    for name in names:
        for file in sorted((folder / name).rglob("*")) if (folder / name).is_dir() else [folder / name]:
            where = file.relative_to(folder)
            if file.is_file() and not set(MADE) & set(where.parts):
                whole.update(f"{where}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return whole.hexdigest()


def _build(*arguments: str) -> None:
    programs = str(Path(sys.executable).parent)
    environ = {**os.environ, "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])}
    environ.pop("SKIP_JUPYTER_BUILDER", None)
    _run([sys.executable, "-m", "build", *arguments], environ)


def _run(command: list[str], environ: dict[str, str]) -> None:
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")
