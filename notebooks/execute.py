"""Execute a notebook as JupyterLab's "Run All" would, and keep what came of it.

    python notebooks/execute.py notebooks/01-first-steps.ipynb --to build/demo --picture mandelbrot.png

Writes the executed notebook, a web page of it where nbconvert is installed, and, with ``--picture``, the last
picture in its outputs; prints where they are. Exit status 1 when a cell fails (its error is printed) or there is
no picture.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

CELL_TIMEOUT = 300
"""Seconds a cell may take, more than any machine needs: it ends a notebook that hangs."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute a notebook and keep what came of it.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder for what is written")
    parser.add_argument("--picture", metavar="NAME", help="also keep the last picture, under this name")
    options = parser.parse_args()

    options.to.mkdir(parents=True, exist_ok=True)
    executed = options.to / options.notebook.name
    notebook = nbformat.read(options.notebook, as_version=4)
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    print(f"running {options.notebook}: {count} cells", flush=True)
    failure: CellExecutionError | None = None
    try:
        NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT,
            iopub_timeout=CELL_TIMEOUT,  # a slow machine's last outputs of a cell may come late, too
            kernel_name="python3",
            # It warns that this machine's root could listen to its ports on loopback.
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
            resources={"metadata": {"path": str(options.notebook.parent)}},
        ).execute()
    except CellExecutionError as error:
        failure = error
    nbformat.write(notebook, executed)
    print(f"notebook  {executed.resolve()}")
    if failure is not None:
        print(failure, file=sys.stderr)
        return 1
    if page := _web_page(notebook, executed.with_suffix(".html")):
        print(f"web page  {page.resolve()}")
    if options.picture:
        pictures = list(_pictures(notebook))
        if not pictures:
            print(f"{options.notebook} shows no picture", file=sys.stderr)
            return 1
        picture = options.to / options.picture
        picture.write_bytes(pictures[-1])
        print(f"picture   {picture.resolve()}")
    return 0


def _pictures(notebook: nbformat.NotebookNode) -> Iterator[bytes]:
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                yield base64.b64decode(output["data"]["image/png"])


def _web_page(notebook: nbformat.NotebookNode, path: Path) -> Path | None:
    try:
        from nbconvert import HTMLExporter
    except ImportError:
        return None
    text, _ = HTMLExporter().from_notebook_node(notebook)
    path.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
