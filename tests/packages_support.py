"""Wheels that a test makes, in a folder that is a lender's index."""

from __future__ import annotations

import io
import socket
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2p_ipython.worker.installer import find_uv


def needs_uv() -> str:
    """Return uv's path; skip a test where there is none."""
    found = find_uv()
    if found is None:
        pytest.skip("uv is not installed")
    return found


def needs_registry() -> None:
    """Skip a test where the index of packages that uv uses by itself can't be reached."""
    try:
        socket.create_connection(("pypi.org", 443), 10).close()
    except OSError as error:
        pytest.skip(f"the index of packages can't be reached: {error}")


class Index:
    """A folder of wheels, and the variables by which a lender's uv takes packages from there only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = {"UV_FIND_LINKS": str(folder), "PIP_NO_INDEX": "1"}

    def wheel(
        self, name: str, version: str = "1.0", files: Mapping[str, str | bytes] | None = None, needs: Iterable[str] = ()
    ) -> Path:
        """Add a wheel; without ``files`` it has a module of its name, which says its version."""
        files = {f"{name}.py": f"version = {version!r}\n"} if files is None else files
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "".join(f"Requires-Dist: {each}\n" for each in needs)
        records = {
            **files,
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        listed = "".join(f"{each},,\n" for each in (*records, f"{info}/RECORD"))
        place = self.folder / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as made:
            for each, text in {**records, f"{info}/RECORD": listed}.items():
                made.writestr(each, text)
        return place

    def sdist(self, name: str, setup: str, version: str = "1.0") -> None:
        """Add a source distribution, which runs ``setup`` if it is built."""
        texts = {"PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "setup.py": setup}
        with tarfile.open(self.folder / f"{name}-{version}.tar.gz", "w:gz") as made:
            for each, text in texts.items():
                entry = tarfile.TarInfo(f"{name}-{version}/{each}")
                entry.size = len(text)
                made.addfile(entry, io.BytesIO(text.encode()))


@contextmanager
def silent_index() -> Iterator[str]:
    """Yield the address of an index that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"
