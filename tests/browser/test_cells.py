"""Cells that run elsewhere, as a person sees them in JupyterLab."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Stage
from tests.browser.lab import Tab, open_in_lab

CONNECT = "%load_ext p2p_ipython\n%p2p_connect --workers 2 --as cluster"


def test_a_tasks_output_and_how_it_ended_are_shown_under_its_cell(stage: Stage, lab: Tab) -> None:
    book = open_in_lab(lab, "cells.ipynb", [CONNECT, "%%p2p tile\nprint('from afar')\n6 * 7"])
    book.run_all()
    expect(book.output(1)).to_contain_text("from afar")
    expect(book.output(1)).to_contain_text("done on worker-")
    assert "42" in book.output(book.do("tile.result()")).inner_text()
