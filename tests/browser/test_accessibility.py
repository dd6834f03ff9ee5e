"""axe-core finds nothing wrong in the panel, the sidebar, the status bar's item and a cell's card, in any theme."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Stage
from tests.browser.lab import Book, Panel, Tab, waits_for

TABS = ["Tasks", "Finished", "Members", "Offers", "Timeline"]


@pytest.fixture
def _usual_theme(stage: Stage, lab: Tab) -> Iterator[None]:
    yield
    stage.run(lambda: lab.theme("JupyterLab Light"))


@pytest.mark.usefixtures("_usual_theme")
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"])
def test_axe_finds_nothing_wrong(theme: str, stage: Stage, lab: Tab, book: Book, tmp_path: Path) -> None:
    lab.theme(theme)
    sidebar = lab.sidebar()
    book.do("%%p2p fails\nraise ValueError('no')")
    number = book.do("%p2p_panel")
    tile = book.do(f"%%p2p tile\nprint('12 %')\n{waits_for(tmp_path / 'go')}")
    expect(book.output(tile).locator(".p2p-card")).to_be_visible()
    found = [*lab.axe(".p2p-status"), *lab.axe(".jp-OutputArea .p2p-card")]
    places = {".jp-OutputArea .p2p-panel": Panel(book.output(number)), "#p2p-panel-sidebar": sidebar}
    for where, panel in places.items():
        expect(panel.tab("Tasks").row("tile")).to_contain_text("running")
        for name in TABS:
            panel.tab(name)
            found += [f"{name}: {one}" for one in lab.axe(where)]
    (tmp_path / "go").touch()
    assert found == []
