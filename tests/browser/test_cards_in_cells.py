"""Cells that run elsewhere, as people see them in JupyterLab: output, a card while it takes, a line when it is over."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Stage
from tests.browser.lab import Book, Tab, connected_book, until, waits_for


def test_a_tasks_output_and_how_it_ended_are_shown_under_its_cell(stage: Stage, book: Book) -> None:
    tile = book.do("%%p2p tile\nprint('from afar')\n6 * 7")
    expect(book.output(tile)).to_contain_text("from afar")
    expect(book.output(tile)).to_contain_text("done on worker-")
    expect(book.output(book.do("tile.result()"))).to_contain_text("42")


def test_a_task_that_takes_a_while_has_a_card_that_ticks_and_becomes_a_line(
    stage: Stage, book: Book, tmp_path: Path
) -> None:
    tile = book.do(f"%%p2p tile\n{waits_for(tmp_path / 'go')}")
    card = book.output(tile).locator(".p2p-card")
    expect(card).to_contain_text("on worker-")
    ticking = card.locator(".p2p-card-time")
    expect(ticking).to_have_text(re.compile(r"^\d+ s$"))
    expect(ticking).not_to_have_text(ticking.inner_text())
    (tmp_path / "go").touch()
    expect(book.output(tile)).to_contain_text("tile: done on worker-")
    expect(card).to_have_count(0)
    saved = json.dumps(book.save())
    assert "tile: done on worker-" in saved
    assert "widget-view" not in saved


def test_a_card_cancels_its_task_unless_that_is_undone(stage: Stage, book: Book, tmp_path: Path) -> None:
    cells = {name: book.do(f"%%p2p {name}\n{waits_for(tmp_path / 'go')}") for name in ("stays", "goes")}
    book.output(cells["stays"]).get_by_role("button", name="Cancel stays").click()
    book.output(cells["stays"]).get_by_role("button", name="Undo: don't cancel stays").click()
    book.output(cells["goes"]).get_by_role("button", name="Cancel goes").click()
    expect(book.output(cells["goes"])).to_contain_text("cancelling in")
    expect(book.output(cells["goes"])).to_contain_text("goes: cancelled after")
    expect(book.output(cells["stays"]).locator(".p2p-card")).to_contain_text("on worker-")
    (tmp_path / "go").touch()
    expect(book.output(cells["stays"])).to_contain_text("stays: done on worker-")


def test_a_card_cancels_while_another_cell_computes(stage: Stage, lab: Tab, tmp_path: Path) -> None:
    book = connected_book(lab, "computing.ipynb")
    goes = book.do(f"%%p2p goes\n{waits_for(tmp_path / 'never')}")
    book.output(goes).get_by_role("button", name="Cancel goes").wait_for()
    computing = book.write(waits_for(tmp_path / "free"))
    book.start(computing)
    until(lambda: book.computes(computing))
    book.output(goes).get_by_role("button", name="Cancel goes").click()
    expect(book.output(goes)).to_contain_text("goes: cancelled after")
    assert book.computes(computing)
    (tmp_path / "free").touch()


def test_after_a_reload_of_the_page_a_card_is_live_again(stage: Stage, lab: Tab, tmp_path: Path) -> None:
    book = connected_book(lab, "reloaded-card.ipynb")
    tile = book.do(f"%%p2p tile\n{waits_for(tmp_path / 'go')}")
    card = book.output(tile).locator(".p2p-card")
    expect(card).to_contain_text("on worker-")
    book.save()
    lab.reload()
    book.ready().front()
    expect(card).to_contain_text("on worker-")
    (tmp_path / "go").touch()
    expect(book.output(tile)).to_contain_text("done on worker-")
