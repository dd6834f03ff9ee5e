"""Packages that a task has asked for, in front of Python's own: after the standard library, before site-packages.

What their ``.pth`` files say is not heeded, here and in processes that a task starts.

The runner imports it inside the sandbox.
"""

from __future__ import annotations

import os
import sys

from p2p_ipython.task import modules

_OWN = ("site-packages", "dist-packages")


def put_first(folder: str) -> None:
    """Have tasks import from a folder of packages. Call it when all that the runner itself needs has been imported."""
    at = next((at for at, place in enumerate(sys.path) if os.path.basename(place) in _OWN), len(sys.path))
    sys.path.insert(at, folder)
    modules.add_packages(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
