"""A Jupyter server of the tests' own, with JupyterLab and Notebook 7, that knows nothing of this machine's user."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli_support import Home

DEADLINE = 90.0
"""Seconds that the server may take to come up."""

IDLE = 600
"""Seconds without kernels after which a server ends by itself, should all else fail."""

RUN = """
import os, signal, sys
from p2p_ipython import lifeline
lifeline.hold(lambda: os.kill(os.getpid(), signal.SIGTERM))
from jupyterlab.labapp import main
sys.exit(main())
"""
"""JupyterLab, which ends with its tests, and ends its kernels then, also when they are killed."""


@dataclass(frozen=True)
class Server:
    """A server that runs: where it is, and the folder that it shows."""

    url: str
    token: str
    files: Path

    def request(self, path: str, method: str = "GET") -> Any:
        """Ask its REST interface."""
        request = urllib.request.Request(
            f"{self.url}{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return json.loads(answer.read() or b"null")

    def end_kernels(self, keep: Collection[str] = ()) -> None:
        """End the kernels, and so their clusters, but for those of notebooks to keep."""
        for session in self.request("api/sessions"):
            if session["path"] not in keep:
                self.request(f"api/sessions/{session['id']}", "DELETE")


@contextmanager
def serving(python: Path, folder: Path) -> Iterator[Server]:
    """Run the Jupyter server of the environment that ``python`` is of. All that it keeps is in ``folder``."""
    environment, files = _environment(python, folder), folder / "files"
    files.mkdir()
    _settings(folder / "config" / "lab" / "user-settings")
    arguments = [
        *("--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"),
        f"--ServerApp.root_dir={files}",
        f"--ServerApp.shutdown_no_activity_timeout={IDLE}",
        f"--MappingKernelManager.cull_idle_timeout={IDLE}",
        "--MappingKernelManager.cull_connected=True",
        "--LabApp.expose_app_in_browser=True",
        "--JupyterNotebookApp.expose_app_in_browser=True",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-P", "-c", RUN, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        server = Server(_url(process, folder), environment["JUPYTER_TOKEN"], files)
        yield server
        server.end_kernels()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _environment(python: Path, folder: Path) -> dict[str, str]:
    """That of a person called alice, who has an SSH key, and nothing of this machine's user's."""
    kept = {
        k: v for k, v in Home(folder / "home").environment.items() if not k.startswith(("JUPYTER", "PYTEST", "SSH_"))
    }
    return {
        **kept,
        "LOGNAME": "alice",
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "config" / "lab" / "user-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "config" / "lab" / "workspaces"),
        "JUPYTER_TOKEN": secrets.token_urlsafe(24),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _settings(folder: Path) -> None:
    """No news from the network, and no question about it in front of everything."""
    plugin = folder / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}), encoding="utf-8")


def _url(process: subprocess.Popen[bytes], folder: Path) -> str:
    """Where it listens: it says so in a file of its runtime folder."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        for path in (folder / "runtime").glob("jpserver-*.json"):
            try:
                return str(json.loads(path.read_text(encoding="utf-8"))["url"])
            except ValueError:  # it is being written
                pass
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"the Jupyter server didn't come up:\n{(folder / 'log').read_text(errors='replace')}")
