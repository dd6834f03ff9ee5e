"""IPython in a terminal, where there are no comms and no widgets."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from IPython.core.interactiveshell import InteractiveShell
ip = InteractiveShell.instance()
ip.run_line_magic("load_ext", "p2p_ipython")
print("heavy:", [name for name in ("comm", "ipywidgets", "anywidget", "twisted", "paramiko") if name in sys.modules])
ip.run_line_magic("p2p_panel", "")
ip.run_line_magic("p2p_connect", "--workers 1 --as cluster")
ip.run_cell("cluster")
ip.run_cell("cluster.panel()")
ip.run_line_magic("unload_ext", "p2p_ipython")
"""


def test_the_panel_is_a_few_lines_and_loading_imports_nothing_for_it() -> None:
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "heavy: []" in ran.stdout
    assert "p2p: not connected" in ran.stdout
    assert "<Cluster personal at this machine>" in ran.stdout
    assert "personal, on this machine: connected" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
