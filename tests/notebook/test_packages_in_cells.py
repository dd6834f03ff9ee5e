"""``%%p2p --with`` and metadata in a cell, in a real kernel with a personal cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from packages_support import Index, needs_uv

from tests.notebook.kernels import Notebook, connected


@pytest.fixture
def nb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    needs_uv()
    index = Index(tmp_path / "index")
    for version in ("1.0", "2.0"):
        index.wheel("tiny", version)
    index.wheel("pyyaml", "9.0", files={"yaml9.py": "version = 9\n"})
    for name, value in {**index.environment, "P2P_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()
    with connected(cwd=tmp_path / "work") as one:
        yield one


def test_a_cell_has_the_packages_that_it_asks_for_and_an_error_says_how(nb: Notebook) -> None:
    failed = nb.run("%%p2p --wait\nimport tiny\ntiny.version")
    assert "No module named 'tiny'" in failed.traceback
    assert "tiny is not installed there: %%p2p --with tiny has it installed first." in failed.traceback
    assert (
        nb.run("%%p2p --with 'tiny < 2, pyyaml' --wait\nimport tiny, yaml9\ntiny.version, yaml9.version").value
        == "('1.0', 9)"
    )
    assert "Installed first: tiny<2" in nb.run("%%p2p --dry-run --with tiny<2\n1").text
    # It takes no name for the future's, and none of these for its own.
    nb.done("%%p2p --with tiny>=2 later\nimport tiny\ntiny.version")
    assert nb.run("later.result(60)").value == "'2.0'"
    cell = "%%p2p --wait\n# /// script\n# dependencies = ['tiny==1.0']\n# ///\nimport tiny\ntiny.version"
    assert nb.run(cell).value == "'1.0'"
    missing = nb.run("%%p2p --with absent-here --wait\n1")
    assert missing.error is not None
    assert missing.error["ename"] == "NotInstalled"
    assert "absent-here: Because absent-here was not found" in missing.traceback
    # An error of another kind, and a module that the task's code doesn't name, get no advice.
    assert "has it installed first" not in nb.run("%%p2p --wait\n__import__('other_thing')").traceback


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (
            "%%p2p --with 'tiny @ https://example.org/tiny.whl'\n1",
            "names a place, and packages come from the lender's own",
        ),
        (
            "%%p2p\n# /// script\n# [tool.uv]\n# index-url = 'https://example.org'\n# ///\n1",
            "the metadata has [tool.uv]",
        ),
        ("%%p2p --setup --with tiny\n1", "takes no packages"),
        ("%%p2p --python 3.x\n1", "is no version of Python"),
    ],
)
def test_what_can_not_be_asked_for_is_said_at_once(nb: Notebook, cell: str, words: str) -> None:
    ran = nb.run(cell)
    assert words in (ran.traceback if ran.error is not None else ran.text)
