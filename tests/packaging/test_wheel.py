"""What is distributed: the wheel has the front end and installs without Node, the sdist has sources."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from wheel_support import ROOT, WheelVenv, sdist, wheel, wheel_venv

import p2p_ipython

pytestmark = pytest.mark.timeout(900)

NAME = "@p2p-ipython/labextension"
HOME = f"data/share/jupyter/labextensions/{NAME}/"


@pytest.fixture(scope="module")
def in_wheel() -> dict[str, bytes]:
    """The wheel's files; those of the folder for data are named from ``data/`` on."""
    with zipfile.ZipFile(wheel()) as archive:
        return {re.sub(r"^p2p_ipython-[^/]*\.data/", "", name): archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def installed() -> WheelVenv:
    return wheel_venv()


def test_the_front_end_has_the_package_s_version() -> None:
    package = json.loads((ROOT / "labextension/package.json").read_text(encoding="utf-8"))
    assert package["name"] == NAME
    assert package["version"] == p2p_ipython.__version__


def test_the_wheel_has_what_the_widgets_load(in_wheel: dict[str, bytes]) -> None:
    for name in ("widget.js", "more.js", "widget.css", "card.js", "card.css"):
        assert in_wheel[f"p2p_ipython/static/{name}"], name


def test_what_a_notebook_loads_at_once_is_small(in_wheel: dict[str, bytes]) -> None:
    """A saved notebook may carry it, and a kernel sends it with each widget that it makes."""
    for name, most in (("widget.js", 62_000), ("card.js", 6_000)):
        assert len(in_wheel[f"p2p_ipython/static/{name}"]) <= most, name


def test_the_wheel_has_the_extension_where_jupyterlab_looks_for_it(in_wheel: dict[str, bytes]) -> None:
    package = json.loads(in_wheel[HOME + "package.json"])
    assert package["version"] == p2p_ipython.__version__
    assert HOME + package["jupyterlab"]["_build"]["load"] in in_wheel
    assert json.loads(in_wheel[HOME + "install.json"])["packageName"] == "p2p-ipython"
    assert f"{HOME}schemas/{NAME}/sidebar.json" in in_wheel


def test_the_wheel_has_neither_the_front_end_s_sources_nor_the_extension_twice(in_wheel: dict[str, bytes]) -> None:
    roots = {name.partition("/")[0] for name in in_wheel}
    assert roots == {"p2p_ipython", "data", f"p2p_ipython-{p2p_ipython.__version__}.dist-info"}
    assert not [name for name in in_wheel if name.startswith("p2p_ipython/_labextension")]
    assert not [name for name in in_wheel if re.search(r"\.(tsx?|map)$|node_modules", name)]


def test_the_wheel_has_the_licences_of_all_that_is_bundled(in_wheel: dict[str, bytes]) -> None:
    licences = f"p2p_ipython-{p2p_ipython.__version__}.dist-info/licenses/"
    assert in_wheel[licences + "LICENSE"] == (ROOT / "LICENSE").read_bytes()
    others = in_wheel[licences + "labextension/THIRD-PARTY.txt"]
    bundled = set(json.loads((ROOT / "labextension/package.json").read_text(encoding="utf-8"))["dependencies"])
    bundled = {name for name in bundled if not name.startswith(("@jupyterlab/", "@lumino/"))}  # JupyterLab has those
    for name in bundled:
        assert (ROOT / "labextension/node_modules" / name / "LICENSE").read_bytes() in others, name


def test_the_front_end_fetches_nothing_from_elsewhere(in_wheel: dict[str, bytes]) -> None:
    """No address but those that name a standard, an XML namespace or an error's explanation is in what is loaded."""
    harmless = rb"https?://(www\.w3\.org/|json-schema\.org/|preactjs\.com/)"
    for name, content in in_wheel.items():
        if name.endswith((".js", ".css")):
            found = [url for url in re.findall(rb"https?://[^\s\"'`)\\]+", content) if not re.match(harmless, url)]
            assert not found, f"{name}: {found}"


def test_the_source_distribution_has_sources_only(tmp_path: Path) -> None:
    with tarfile.open(sdist(tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "labextension/package.json", "labextension/yarn.lock", "labextension/.yarnrc.yml",
        "labextension/hatch_build.py", "labextension/src/lab/index.ts", "p2p_ipython/__init__.py", "pyproject.toml",
    } <= names  # fmt: skip
    made = r"(^|/)node_modules/|^labextension/(lib|\.yarn)/|^p2p_ipython/(static|_labextension)/|__pycache__|^build/"
    assert not [name for name in names if re.search(made, name)]


def test_the_wheel_installs_without_node_and_jupyterlab_finds_it(installed: WheelVenv) -> None:
    assert shutil.which("node", path=installed.environ["PATH"]) is None
    done = subprocess.run(
        [installed.python, "-m", "jupyter", "labextension", "list"],
        env=installed.environ, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert re.search(rf"{NAME} v{re.escape(p2p_ipython.__version__)} enabled +OK", lines), lines


def test_an_installed_package_has_its_widgets_files_beside_it(installed: WheelVenv) -> None:
    """The package of the environment, not the one of this checkout."""
    ask = "import p2p_ipython, pathlib; print(pathlib.Path(p2p_ipython.__file__).parent)"
    done = subprocess.run(
        [installed.python, "-c", ask], env=installed.environ, cwd=installed.folder, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    package = Path(done.stdout.strip())
    assert package.is_relative_to(installed.folder)
    assert (package / "static" / "widget.js").is_file()
