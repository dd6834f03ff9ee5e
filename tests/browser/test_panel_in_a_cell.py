"""The panel that %p2p_panel shows under a cell of JupyterLab, on a real personal cluster."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from playwright.sync_api import expect

from tests.browser.conftest import Stage
from tests.browser.lab import CONNECT, Book, Panel, Tab, connected_book, open_in_lab, until, waits_for

HOSTILE = "<img src=x onerror=window.hacked=1>"


def shown(book: Book) -> Panel:
    """The panel, under a new cell."""
    panel = Panel(book.output(book.do("%p2p_panel")))
    expect(panel.state).to_have_text("connected")
    return panel.tab("Tasks")


def test_it_shows_members_offers_and_unfinished_tasks(stage: Stage, book: Book, tmp_path: Path) -> None:
    panel = shown(book)
    expect(panel.root).to_contain_text("No task is on its way.")
    book.do(f"%%p2p tile\nprint('it runs')\n{waits_for(tmp_path / 'go')}")
    expect(panel.row("tile")).to_contain_text("running")
    expect(panel.row("tile")).to_contain_text("it runs")
    expect(panel.root).to_contain_text("1 of 2 slots busy")
    panel.tab("Members")
    expect(panel.row("worker-1")).to_be_visible()
    expect(panel.row("worker-2")).to_be_visible()
    expect(panel.root).to_contain_text("this kernel")
    panel.tab("Offers")
    expect(panel.row("worker-1")).to_be_visible()
    panel.tab("Tasks")
    (tmp_path / "go").touch()
    expect(panel.root).to_contain_text("No task is on its way.")
    panel.tab("Finished")
    expect(panel.row("tile").first).to_contain_text("done")


def test_a_task_is_cancelled_a_moment_after_the_click_unless_that_is_undone(
    stage: Stage, book: Book, tmp_path: Path
) -> None:
    panel = shown(book)
    for name in ("stays", "goes"):
        book.do(f"%%p2p {name}\n{waits_for(tmp_path / 'go')}")
    panel.button("Cancel stays").click()
    panel.button("Undo: don't cancel stays").click()
    panel.button("Cancel goes").click()
    expect(panel.row("goes")).to_contain_text("cancelling in")
    expect(panel.row("goes")).to_have_count(0)
    expect(panel.row("stays")).to_contain_text("running")
    state = book.do("stays.cancelled(), goes.cancelled()")
    expect(book.output(state)).to_contain_text("(False, True)")
    (tmp_path / "go").touch()
    panel.tab("Finished")
    expect(panel.row("goes")).to_contain_text("cancelled")
    expect(panel.row("stays")).to_contain_text("done")


def test_what_a_task_is_called_prints_and_says_is_text_and_never_html(stage: Stage, book: Book, tmp_path: Path) -> None:
    panel = shown(book)
    code = f"print({HOSTILE!r})\n{waits_for(tmp_path / 'go')}\nraise ValueError({HOSTILE!r})"
    book.do(f'%%p2p --label "{HOSTILE}"\n{code}')
    expect(panel.row(HOSTILE)).to_contain_text("running")
    expect(panel.row(HOSTILE).locator(".p2p-said")).to_have_text(HOSTILE)
    panel.row(HOSTILE).click()
    expect(panel.root.locator(".p2p-details .p2p-output")).to_contain_text(HOSTILE)
    (tmp_path / "go").touch()
    panel.tab("Finished")
    expect(panel.row(HOSTILE)).to_contain_text("failed")
    panel.row(HOSTILE).click()
    expect(panel.root.locator(".p2p-error")).to_contain_text(f"ValueError: {HOSTILE}")
    assert panel.root.locator("img, script, iframe").count() == 0
    assert book.page.evaluate("() => 'hacked' in window") is False


def test_after_a_reload_of_the_page_it_is_live_again(stage: Stage, lab: Tab, tmp_path: Path) -> None:
    book = open_in_lab(lab, "reloaded.ipynb", [CONNECT, "%p2p_panel"]).run_all()
    panel = Panel(book.output(1))
    expect(panel.state).to_have_text("connected")
    book.save()
    lab.reload()
    book.ready().front()
    expect(panel.state).to_have_text("connected")
    book.do(f"%%p2p tile\n{waits_for(tmp_path / 'go')}")
    expect(panel.row("tile")).to_contain_text("running")
    (tmp_path / "go").touch()
    expect(panel.row("tile")).to_have_count(0)


def test_when_the_kernel_has_ended_each_view_says_so_and_keeps_the_last_state(stage: Stage, lab: Tab) -> None:
    book = connected_book(lab, "ended.ipynb", "%p2p_panel")
    book.run(1)
    lab.command("notebook:create-output-view")
    views = [Panel(book.output(1)), Panel(lab.page.locator(".jp-LinkedOutputView"))]
    for view in views:
        expect(view.state).to_have_text("connected")
    book.front().restart()
    for view in views:
        expect(view.state).to_have_text("no kernel")
        expect(view.root).to_contain_text("personal, on this machine")
        expect(view.button("Disconnect")).to_have_count(0)


def test_while_another_cell_computes_it_is_up_to_date_and_its_buttons_work(
    stage: Stage, lab: Tab, tmp_path: Path
) -> None:
    book = connected_book(lab, "busy-cell.ipynb")
    panel = shown(book)
    for name in ("first", "second"):
        book.do(f"%%p2p {name}\n{waits_for(tmp_path / name)}")
    computing = book.write(waits_for(tmp_path / "free"))
    book.start(computing)
    until(lambda: book.computes(computing))
    (tmp_path / "first").touch()
    expect(panel.row("first")).to_have_count(0)
    panel.button("Cancel second").click()
    expect(panel.row("second")).to_have_count(0)
    panel.tab("Finished")
    expect(panel.row("second")).to_contain_text("cancelled")
    assert book.computes(computing)
    (tmp_path / "free").touch()


def test_a_saved_notebook_shows_its_last_state_without_any_script(stage: Stage, lab: Tab) -> None:
    cells = ["%p2p_panel", "%%p2p tile --wait\n6 * 7", "%p2p_disconnect"]
    book = connected_book(lab, "saved.ipynb", *cells)
    for number in (1, 2, 3):
        book.run(number)
    until(lambda: "As it was on" in json.dumps(book.save()))
    notebook = nbformat.read(lab.server.files / book.path, as_version=4)
    output = notebook.cells[1].outputs[-1]  # before it, where the widget was
    notebook.cells = [notebook.cells[1]]
    page, _resources = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    for words in ("personal, on this machine", "closed", "tile", "✓ done", "As it was on"):
        assert words in page
    assert "<script" not in output["data"]["text/html"]
