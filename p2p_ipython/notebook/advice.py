"""What to do about a task that lacked something which the notebook has."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container
from typing import Any

from p2p_ipython.client.asking import module_advice

_FILE = re.compile("'([^']+)'")
_UNDEFINED = re.compile(r"(?:name|variable) '(\w+)' is not defined")


def advice(
    error: BaseException,
    *,
    home: dict[str, Any],
    sent: Container[str],
    folder: str,
    modules: Container[str],
    installs: Callable[[], bool],
) -> str:
    """Say how a name or a file travels that the task lacked, or how a module is installed; "" for other errors."""
    if words := module_advice(error, modules, "%%p2p --with"):
        return words if installs() else ""
    if isinstance(error, FileNotFoundError):
        name = error.filename if isinstance(error.filename, str) else next(iter(_FILE.findall(str(error))), "")
        within = name.isprintable() and not os.path.isabs(name) and ".." not in name.split("/")  # a worker's words
        there = name and within and os.path.isfile(os.path.join(folder, name))
        return f"{name} is beside this notebook, and a worker doesn't have it: --file {name} sends it." if there else ""
    found = _UNDEFINED.search(str(error))
    if found is None or found[1] not in home or found[1] in sent:
        return ""
    return f"{found[1]} is in this notebook; the cell has it in a string only: --globals +{found[1]} sends it."
