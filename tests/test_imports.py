"""What takes long to load is loaded when it is needed, not before; fresh interpreters say what they hold."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "asyncssh",
    "autobahn",
    "blake3",
    "cloudpickle",
    "cryptography",
    "ipywidgets",
    "joblib",
    "nacl",
    "numpy",
    "paramiko",
    "psutil",
    "rich",
    "twisted",
    "wormhole",
}


def loaded_after(statements: str, ipython_dir: Path | str = os.devnull) -> set[str]:
    """Top-level modules that a fresh interpreter holds after ``statements``."""
    report = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{statements}\n{report}"],
        env={**os.environ, "IPYTHONDIR": str(ipython_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import p2p_ipython") & (HEAVY | {"IPython", "asyncio"})


def test_loading_the_extension_loads_neither_clusters_nor_panels() -> None:
    shell = "from IPython.core.interactiveshell import InteractiveShell as S\nshell = S.instance()\n"
    late = [
        f"p2p_ipython.{name}"
        for name in ("client.cluster", "protocol.messages", "notebook.panel.panels", "notebook.panel.pump")
    ]
    assert all(importlib.util.find_spec(name) for name in late)  # a name that is no module's would prove nothing
    look = f"import sys\nassert not set({late}) & set(sys.modules)"
    loaded_after(f"{shell}shell.run_line_magic('load_ext', 'p2p_ipython')\n{look}")


def test_joblib_hears_of_the_cluster_once_it_is_imported_and_without_one_no_cluster_is_loaded() -> None:
    shell = "from IPython.core.interactiveshell import InteractiveShell as S\nshell = S.instance()\n"
    load = f"{shell}shell.run_line_magic('load_ext', 'p2p_ipython')\n"
    look = "import sys\nassert 'joblib' not in sys.modules\nimport joblib\nassert 'p2p' in joblib.parallel.BACKENDS\n"
    loaded_after(f"{load}{look}assert 'p2p_ipython.client.cluster' not in sys.modules")


def test_loading_the_extension_loads_nothing_heavy(tmp_path: Path) -> None:
    plain = "from IPython.core.interactiveshell import InteractiveShell\nshell = InteractiveShell.instance()\n"
    before = loaded_after(plain, tmp_path)
    after = loaded_after(plain + "shell.run_line_magic('load_ext', 'p2p_ipython')", tmp_path)
    assert "p2p_ipython" in after
    assert not (after - before) & HEAVY


@pytest.mark.parametrize("arguments", [[], ["board"], ["worker"], ["bench"], ["setup"], ["doctor"], ["whoami"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    text = (
        "import contextlib, io, p2p_ipython.cli\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        f"    p2p_ipython.cli.main({[*arguments, '--help']!r})"
    )
    assert not loaded_after(text) & (HEAVY | {"IPython"})


def test_public_names_are_resolved_on_first_use() -> None:
    assert "asyncio" not in loaded_after("import p2p_ipython; p2p_ipython.P2PError")
    assert "asyncio" in loaded_after("import p2p_ipython; p2p_ipython.Future")
