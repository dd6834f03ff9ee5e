"""The environment of a runner that uses this machine's own Python: which of our variables it gets, and what is added.

POSIX only.
"""

from __future__ import annotations

import math
import os
import site
from pathlib import Path

from p2p_ipython.sandbox.launch import LaunchOptions


def runner_environment(
    options: LaunchOptions, home: Path, temporary: Path, modules: Path | None = None
) -> dict[str, str]:
    """Return the runner's environment: a few variables of ours, and what makes it a good guest.

    Everything else stays out: tokens, agent sockets, proxies' passwords. ``modules``: a folder to import from, after
    those of PYTHONPATH.
    """
    env = {name: value for name, value in os.environ.items() if is_passed(name)}
    # Packages that were installed with `pip install --user` are found by the home folder, which is another one there.
    if os.path.isabs(base := site.getuserbase()):  # it isn't for a user without a home folder
        env["PYTHONUSERBASE"] = base
    env |= {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "IPYTHONDIR": str(home / ".ipython"),
        "MPLCONFIGDIR": str(home / ".matplotlib"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # Several slots a machine are how its cores are shared, not several threads a slot.
    most = str(math.ceil(options.cpus) or 1)
    env |= dict.fromkeys(_THREADS, most)
    if options.cpus:
        env["PYTHON_CPU_COUNT"] = most  # from Python 3.13 on
    if modules is not None:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (env.get("PYTHONPATH"), str(modules))))
    if options.graphics is not None:
        env |= options.graphics.variables()
    return env | dict(options.extra_env)


def guard_environment() -> dict[str, str]:
    """Return the variables of ours that the Python of a guard outside the wall needs, and what it starts."""
    return {name: value for name in _GUARDS if (value := os.environ.get(name)) is not None}


def is_passed(name: str) -> bool:
    """Return whether runners get this variable of our environment."""
    return name in _PASSED or name.startswith(_PASSED_PREFIXES)


_PASSED = frozenset(
    {
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "USER",
        "LOGNAME",
        "SHELL",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONNOUSERSITE",
        "CONDA_PREFIX",
        "OPENBLAS_CORETYPE",
        "MKL_DEBUG_CPU_TYPE",
        "MKL_ENABLE_INSTRUCTIONS",
        "MKL_CBWR",
        "NPY_DISABLE_CPU_FEATURES",
        "CUDA_VISIBLE_DEVICES",
    }
)

_PASSED_PREFIXES = ("LC_",)

_GUARDS = ("PATH", "LANG", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH")

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
