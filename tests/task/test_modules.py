"""Modules of the notebook's: which travel, and that they are there for their own task only."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2p_ipython.errors import CaptureError
from p2p_ipython.task import local_modules
from p2p_ipython.task.local_modules import LocalModules
from p2p_ipython.task.modules import Entry, Modules


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def needed(*roots: str) -> dict[str, str]:
    found = LocalModules(shows_paths=False).needed(roots)
    return {entry.name: entry.file for entry in found.entries} if found is not None else {}


def text_of(found: Modules | None) -> bytes | None:
    return bytes(found.text) if found is not None else None


def test_what_a_module_imports_comes_along_and_nothing_else(home: Path) -> None:
    (home / "one_of_ours.py").write_text("import two_of_ours, json\nfrom os import path\n")
    (home / "two_of_ours.py").write_text("def f():\n    from pack_of_ours.sub import part\n")
    (home / "other.py").write_text("")
    (home / "secret.txt").write_text("x")
    package = home / "pack_of_ours" / "sub"
    package.mkdir(parents=True)
    (home / "pack_of_ours" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("from .. import more\nfrom . import gone\n")
    (home / "pack_of_ours" / "more.py").write_text("")
    (home / "pack_of_ours" / "unused.py").write_text("")
    assert set(needed("one_of_ours", "numpy", "json", "nothing_at_all")) == {
        *("one_of_ours", "two_of_ours", "pack_of_ours", "pack_of_ours.sub", "pack_of_ours.sub.part"),
        "pack_of_ours.more",
    }
    assert needed("pack_of_ours.more")["pack_of_ours.more"] == "pack_of_ours/more.py"


def test_folders_that_were_put_on_the_path_are_the_notebooks_own(home: Path) -> None:
    (home / "far").mkdir()
    (home / "far" / "far_module.py").write_text("")
    assert needed("far_module") == {}
    sys.path.append("far")
    assert needed("far_module") == {"far_module": "far_module.py"}


def test_the_folder_is_that_of_now_and_so_are_its_modules(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = LocalModules(shows_paths=False)
    assert one.needed(["late_of_ours"]) is None
    (home / "late_of_ours.py").write_text("value = 1\n")
    found = one.needed(["late_of_ours"])
    assert text_of(found) == b"value = 1\n", "it was written after the first task"
    assert one.needed(["late_of_ours"]) is found, "nothing is packed anew"
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "there_of_ours.py").write_text("value = 2\n")
    assert one.needed(["there_of_ours"]) is None
    monkeypatch.chdir(elsewhere)
    assert text_of(one.needed(["there_of_ours"])) == b"value = 2\n", "the notebook works in another folder now"


def test_a_folder_without_a_file_of_its_own_is_a_package_if_a_module_of_it_is_needed(home: Path) -> None:
    (home / "plain_of_ours" / "deep").mkdir(parents=True)
    (home / "plain_of_ours" / "part.py").write_text("from .deep import more")
    (home / "plain_of_ours" / "deep" / "more.py").write_text("value = 3")
    (home / "data_of_ours").mkdir()
    assert set(needed("plain_of_ours.part", "data_of_ours")) == {
        *("plain_of_ours", "plain_of_ours.part", "plain_of_ours.deep", "plain_of_ours.deep.more")
    }
    assert needed("plain_of_ours", "data_of_ours") == {}
    importlib.invalidate_caches()
    importlib.import_module("plain_of_ours.part")
    assert "plain_of_ours.part" in needed("plain_of_ours"), "what is loaded comes along"
    found = LocalModules(shows_paths=False).needed(["plain_of_ours"])
    assert found is not None
    leave = found.enter()
    for name in [name for name in sys.modules if name.startswith("plain_of_ours")]:
        del sys.modules[name]
    (home / "plain_of_ours" / "part.py").unlink()
    assert importlib.import_module("plain_of_ours.deep.more").value == 3
    leave()


def test_more_than_may_travel_is_refused_in_words(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_modules, "MAX_TEXT", 10)
    (home / "large_one.py").write_text("a = 1\n")
    (home / "large_two.py").write_text("import large_one\n"[:9] + "\n")
    (home / "large_all.py").write_text("import large_one as o")
    with pytest.raises(CaptureError, match="more than") as caught:
        needed("large_one", "large_two")
    assert "--no-modules" in caught.value.hint
    with pytest.raises(CaptureError, match="more than"):
        needed("large_all")


def modules(**texts: str) -> Modules:
    entries = tuple(Entry(name, False, f"{name}.py", len(text.encode())) for name, text in texts.items())
    return Modules(entries, "".join(texts.values()).encode())


def test_modules_are_there_for_their_task_and_renewed_when_they_change() -> None:
    leave = modules(ours_a="import ours_b\nvalue = ours_b.value", ours_b="value = 1").enter()
    first = importlib.import_module("ours_a")
    assert first.value == 1
    leave()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("ours_a")
    leave = modules(ours_a="import ours_b\nvalue = ours_b.value", ours_b="value = 1").enter()
    assert importlib.import_module("ours_a") is first, "the same text is the same module"
    leave()
    leave = modules(ours_a="import ours_b\nvalue = ours_b.value", ours_b="value = 2").enter()
    assert importlib.import_module("ours_a").value == 2, "also if only what it imports has changed"
    leave()


def test_a_module_takes_the_place_of_none_that_the_environment_has() -> None:
    leave = modules(fractions="raise SystemError", sys="", numpy="raise SystemError").enter()
    try:
        assert importlib.import_module("fractions").Fraction
        assert importlib.import_module("numpy").array
    finally:
        leave()
