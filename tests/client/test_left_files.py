"""Files that came with a result: their names are a worker's words, and are checked before anything is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from frame_support import read_result

from p2p_ipython.client.arrived import Arrived
from p2p_ipython.client.left_files import TaskFiles
from p2p_ipython.errors import NotKept, UsageError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def left(*names: str, label: str = "tile", trusted: bool = False, **more: Any) -> TaskFiles:
    entries = [{"what": "file", "name": name, "codec": "bytes", "segments": [[3, None]], **more} for name in names]
    header = {"ok": True, "segments": [], "attached": entries}
    arrived = Arrived(read_result(header), b"abc" * len(names), {}, "bob")
    return TaskFiles(arrived.taken_apart()[1], label, trusted=lambda: trusted)


def test_a_file_is_bytes_and_is_saved_by_its_name() -> None:
    files = left("a.png", "sub/b.csv")
    assert dict(files) == {"a.png": b"abc", "sub/b.csv": b"abc"}
    assert [str(path) for path in files.save()] == ["p2p-files/tile/a.png", "p2p-files/tile/sub/b.csv"]
    assert Path("p2p-files/tile/sub/b.csv").read_bytes() == b"abc"
    assert files.words() == "a.png, 3 bytes; sub/b.csv, 3 bytes"


@pytest.mark.parametrize(
    "name",
    [
        *("../up", "/etc/cron.d/x", "a/../../b", "a//b", "", ".", "a/.", "C:x", "a\\b", "x\n", "\x1b[2J", "x ", "x."),
        *(".bashrc", ".ipython/profile_default/startup/x.txt", "a/.env", "run.py", "x.PY", "m.so", "x.pth", "n.ipynb"),
        *("go.sh", "a.pyc", "setup.cfg", "pyproject.toml"),
    ],
)
def test_a_name_that_leads_elsewhere_or_would_be_loaded_is_not_used_unasked(name: str) -> None:
    files = left(name)
    with pytest.raises(UsageError, match="not saved unasked") as caught:
        files[name].save()
    assert "\x1b" not in str(caught.value)
    assert not Path("p2p-files").exists()
    assert files[name].save("here.bin").read_bytes() == b"abc", "a path of one's own is one's own business"


def test_of_ones_own_workers_code_is_saved_but_nothing_leads_elsewhere() -> None:
    assert left("run.py", trusted=True).save() == [Path("p2p-files/tile/run.py")]
    with pytest.raises(UsageError):
        left("../run.txt", trusted=True).save()


def test_nothing_is_written_over_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    Path("p2p-files/tile").mkdir(parents=True)
    os.symlink(tmp_path / "precious", "p2p-files/tile/a.png")
    os.symlink(tmp_path / "new", "p2p-files/tile/b.png")
    for name in ("a.png", "b.png"):
        with pytest.raises(FileExistsError):
            left(name)[name].save()
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "new").exists()


def test_a_label_is_no_path() -> None:
    for label in ("../../x", "a/b", "..", "In[3]", "\x1b[2J"):
        (path,) = left("a.png", label=label).save()
        assert len(path.parts) == 3
        assert path.parts[0] == "p2p-files"
        assert path.parts[1] not in ("", ".", "..")


def test_a_file_that_stayed_behind_and_one_that_is_unknown_are_told_apart() -> None:
    files = left("big", codec="left", segments=[], at="300000000")
    assert files.words() == "big, 300.0 MB"
    with pytest.raises(NotKept, match="stayed behind"):
        files["big"]
    with pytest.raises(KeyError, match="has left no file 'other'"):
        files["other"]
