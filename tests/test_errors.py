"""Errors say what to do next in the words of the place where they are shown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from p2p_ipython.errors import as_calls


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("Connect again: %p2p_connect, or p2p_ipython.connect().", "Connect again: p2p_ipython.connect()."),
        ("Try %p2p_connect again.", "Try p2p_ipython.connect() again."),
        ("Run %p2p_connect alice/friends.", 'Run p2p_ipython.connect("alice/friends").'),
        ("If you trust bob: %p2p_trust bob, then ask", 'If you trust bob: cluster.trust("bob"), then ask'),
        ("or ask, and %p2p_join its code", "or ask, and p2p join its code"),
    ],
)
def test_hints_for_marimo_name_calls_and_commands(hint: str, said: str) -> None:
    assert as_calls(hint) == said


@pytest.mark.parametrize(("imports", "said"), [("marimo", "p2p_ipython.connect()"), ("math", "%p2p_connect")])
def test_marimo_is_where_its_module_is_and_no_ipython_runs(imports: str, said: str) -> None:
    script = (
        "import sys, types\n"
        f"sys.modules[{imports!r}] = types.ModuleType({imports!r})\n"
        "from p2p_ipython.errors import UsageError\n"
        "print(UsageError('no', hint='Run %p2p_connect.'))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == f"no\nRun {said}.\n"
