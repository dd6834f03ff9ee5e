"""Sweeps as people see them in JupyterLab: one line with a bar under the cell, one row in the panel."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SCREENSHOTS, Stage
from tests.browser.lab import Book, Panel, Tab, photograph, waits_for


@pytest.fixture
def sidebar(stage: Stage, lab: Tab) -> Panel:
    return stage.run(lab.sidebar)


def cell_of_sweep(go: Path) -> str:
    """A cell of which the settings 2 and 3 wait for a file; 0 fails."""
    waits = waits_for(go).replace("\n", "\n    ")
    return f'%%p2p scores --each "alpha in [0, 1, 2, 4, 8, 16]"\nif alpha > 1:\n    {waits}\nround(8 / alpha, 2)'


def test_a_sweep_has_one_card_with_a_bar_and_in_the_end_a_line_with_its_errors(
    stage: Stage, lab: Tab, book: Book, tmp_path: Path
) -> None:
    scores = book.do(cell_of_sweep(tmp_path / "go"))
    card = book.output(scores).locator(".p2p-card")
    expect(card).to_have_count(1)
    expect(card).to_contain_text("1 of 6 done, 1 failed")
    expect(card.locator(".p2p-card-bar")).to_be_visible()
    photograph(lab.page, SCREENSHOTS / "sweep-card.png")
    (tmp_path / "go").touch()
    expect(book.output(scores)).to_contain_text("scores: 5 of 6 done, 1 failed in")
    expect(book.output(scores)).to_contain_text("alpha=0: ZeroDivisionError: division by zero")
    expect(card).to_have_count(0)
    values = book.do("import p2p_ipython\np2p_ipython.gather(scores, errors='skip')")
    expect(book.output(values)).to_contain_text("[8.0, 4.0, 2.0, 1.0, 0.5]")
    photograph(lab.page, SCREENSHOTS / "sweep-line.png")


def test_the_card_of_a_sweep_cancels_all_of_it(stage: Stage, book: Book, tmp_path: Path) -> None:
    scores = book.do(cell_of_sweep(tmp_path / "never"))
    book.output(scores).get_by_role("button", name="Cancel scores").click()
    expect(book.output(scores)).to_contain_text("scores: 1 of 6 done, 1 failed, 4 cancelled in")


def test_a_sweep_is_a_row_of_the_panel_with_buttons_to_cancel_it_and_to_run_it_again(
    stage: Stage, lab: Tab, book: Book, sidebar: Panel, tmp_path: Path
) -> None:
    lab.widen_sidebar(560)
    book.do(cell_of_sweep(tmp_path / "go"))
    row = sidebar.root.locator(".p2p-together").first
    expect(row).to_contain_text("1 of 6 done, 1 failed")
    photograph(lab.page, SCREENSHOTS / "sweep-row.png")
    row.get_by_role("button", name="Cancel all of scores").click()
    row.get_by_role("button", name="Cancel all:").click()
    expect(row).to_contain_text("4 cancelled")
    (tmp_path / "go").touch()
    row.get_by_role("button", name="Run 5 of scores again").click()
    expect(row).to_contain_text("5 of 6 done, 1 failed")
    photograph(lab.page, SCREENSHOTS / "sweep-row-failed.png")


def test_a_task_that_says_how_far_it_is_has_a_bar_in_its_card(
    stage: Stage, lab: Tab, book: Book, tmp_path: Path
) -> None:
    waits = waits_for(tmp_path / "go").replace("\n", "\n        ")
    slow = book.do(
        "%%p2p slow\nimport time\nfrom tqdm.auto import tqdm\nfor n in tqdm(range(8), desc='steps'):\n"
        f"    time.sleep(0.15)\n    if n == 4:\n        {waits}"
    )
    card = book.output(slow).locator(".p2p-card")
    expect(card).to_contain_text("steps: 4 of 8")
    expect(card.locator(".p2p-card-bar")).to_be_visible()
    photograph(lab.page, SCREENSHOTS / "progress-card.png")
    (tmp_path / "go").touch()
    expect(book.output(slow)).to_contain_text("slow: done on worker-")
