"""A sandbox shows what the lender's Python needs, wherever that is, and nothing beside it.

All mechanisms that are here are tried when ``P2P_ALL_INTERPRETERS`` is set, as ``make attacks`` does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from arena_system import NotOffered
from lenders import INTERPRETERS, Home, environment, shared_packages, task

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these lenders are on Linux")

MECHANISMS = ("bubblewrap", "landlock", *(("podman",) if os.environ.get("P2P_ALL_INTERPRETERS") else ()))

LOOK = """
import friends_module, os, sys
read = []
for path in hidden:
    try:
        read.append(open(path).read())
    except OSError:
        pass
listed = []
for folder in folders:
    try:
        listed += os.listdir(folder)
    except OSError:
        pass
written = []
for folder in (sys.prefix, sys.base_prefix, os.path.dirname(friends_module.__file__)):
    try:
        open(os.path.join(folder, "planted"), "w").close()
        written.append(folder)
    except OSError:
        pass
try:
    import project_module
    project = "imported"
except ModuleNotFoundError:
    project = "left out"
[friends_module.VALUE, os.path.dirname(friends_module.__file__), read, listed, written, project]
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_packages(tmp_path_factory.mktemp("packages") / "env")


@pytest.fixture(params=["user", "root"])
def home(request: pytest.FixtureRequest, packages: Path) -> Iterator[Home]:
    try:
        with Home(request.param, packages) as made:
            yield made
    except NotOffered as why:
        pytest.skip(str(why))


def test_without_walls_a_task_reads_what_is_beside(home: Home) -> None:
    python, _ = environment("venv", home)
    home.own()
    value, _, read, *_ = task(home, python, "process", LOOK, hidden=list(map(str, home.hidden)), folders=[])
    assert (value, read) == (7, ["a secret"] * len(home.hidden))


@pytest.mark.parametrize("kind", INTERPRETERS)
def test_a_task_has_the_lenders_packages_and_sees_nothing_beside_them(home: Home, kind: str) -> None:
    try:
        python, site = environment(kind, home)
    except NotOffered as why:
        pytest.skip(str(why))
    project = home.folder / "project" / "src"
    home.hide(project)
    (project / "project_module.py").write_text("")
    (site / "project.pth").write_text(f"{project}\n")  # as an editable install leaves it
    home.own()
    tried = 0
    for mechanism in MECHANISMS:
        folders = sorted({str(each.parent) for each in home.hidden})
        hidden = [str(each) for each in home.hidden]
        try:
            value, place, read, listed, written, imported = task(
                home, python, mechanism, LOOK, hidden=hidden, folders=folders
            )
        except NotOffered:
            continue
        tried += 1
        assert value == 7, mechanism
        assert Path(place).name == site.name, mechanism
        assert read == [], mechanism
        assert "canary" not in listed, mechanism
        assert written == [], mechanism
        assert imported == "left out", mechanism
    if not tried:
        pytest.skip("no sandbox is offered here")
