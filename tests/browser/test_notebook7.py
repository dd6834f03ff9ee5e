"""The panel in Notebook 7."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import SCREENSHOTS, Stage
from tests.browser.lab import CONNECT, Jupyter, Panel, photograph, waits_for


def test_the_panel_under_a_cell_and_the_one_at_the_side_are_live(
    stage: Stage, jupyter: Jupyter, tmp_path: Path
) -> None:
    cells = [CONNECT, "%p2p_panel", f"%%p2p tile\n{waits_for(tmp_path / 'go')}"]
    book = jupyter.notebook7("seven.ipynb", cells).run_all()
    panels = [Panel(book.output(1)), book.tab.sidebar()]
    for panel in panels:
        expect(panel.state).to_have_text("connected")
        expect(panel.row("tile")).to_contain_text("running")
    photograph(book.page, SCREENSHOTS / "notebook7.png")
    (tmp_path / "go").touch()
    for panel in panels:
        expect(panel.row("tile")).to_have_count(0)
        panel.tab("Finished")
        expect(panel.row("tile")).to_contain_text("done")
