"""JupyterLab's sidebar and status bar: bound to the notebook in front and to whatever kernel that has."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Stage
from tests.browser.lab import CONNECT, Book, Panel, Tab, connected_book, open_in_lab, until, waits_for


@pytest.fixture
def sidebar(stage: Stage, lab: Tab) -> Panel:
    return stage.run(lab.sidebar)


def test_it_says_what_to_type_before_it_is_loaded_and_then_shows_the_cluster(
    stage: Stage, lab: Tab, sidebar: Panel
) -> None:
    book = open_in_lab(lab, "first.ipynb", ["%p2p_connect --workers 2"])
    expect(sidebar.state).to_have_text("not loaded")
    expect(sidebar.root).to_contain_text("%load_ext p2p_ipython")
    load = lab.page.get_by_role("button", name="Load It in This Kernel")
    load.click()
    expect(sidebar.state).to_have_text("not connected")
    expect(load).to_be_hidden()
    book.run(0)
    expect(sidebar.state).to_have_text("connected")
    expect(sidebar.root).to_contain_text("2 workers")
    expect(lab.page.locator(".p2p-status")).to_contain_text("2 workers")


def test_a_cluster_is_connected_and_disconnected_by_its_buttons(stage: Stage, lab: Tab, sidebar: Panel) -> None:
    book = open_in_lab(lab, "buttons.ipynb", ["%load_ext p2p_ipython"]).run_all()
    sidebar.button("On this machine").click()
    expect(sidebar.state).to_have_text("connected")
    expect(book.output(book.do("%p2p 6 * 7\n_p2p.result()"))).to_contain_text("42")
    expect(sidebar.tab("Finished").row("6 * 7")).to_be_visible()  # else it is asked whether to give the task up
    sidebar.button("Disconnect").click()
    expect(sidebar.state).to_have_text("closed")
    expect(sidebar.button("On this machine")).to_be_enabled()


def test_the_keyboard_stays_in_the_panel_when_the_focused_element_goes(stage: Stage, lab: Tab, sidebar: Panel) -> None:
    open_in_lab(lab, "keys.ipynb", ["%load_ext p2p_ipython"]).run(0)
    sidebar.root.get_by_label("On a board").fill("127.0.0.1:1")
    sidebar.button("Connect").press("Enter")
    dismiss = sidebar.root.get_by_role("button", name="Dismiss")
    expect(dismiss).to_be_focused()
    dismiss.press("Enter")
    expect(sidebar.button("On this machine")).to_be_focused()


def test_after_a_restart_of_the_kernel_it_says_so_and_then_lives_again(stage: Stage, lab: Tab, sidebar: Panel) -> None:
    book = open_in_lab(lab, "restarted.ipynb", [CONNECT]).run_all()
    expect(sidebar.state).to_have_text("connected")
    book.restart()
    expect(sidebar.state).to_have_text("not loaded")
    book.run(0)
    expect(sidebar.state).to_have_text("connected")


def test_after_a_reload_of_the_page_it_is_live_again(stage: Stage, lab: Tab, sidebar: Panel, tmp_path: Path) -> None:
    book = open_in_lab(lab, "again.ipynb", [CONNECT]).run_all()
    expect(sidebar.state).to_have_text("connected")
    book.save()
    lab.reload()
    book.ready().front()
    sidebar = lab.sidebar()
    expect(sidebar.state).to_have_text("connected")
    book.do(f"%%p2p tile\n{waits_for(tmp_path / 'go')}")
    expect(sidebar.row("tile")).to_contain_text("running")
    (tmp_path / "go").touch()
    expect(sidebar.row("tile")).to_have_count(0)


def test_it_follows_the_notebook_in_front_and_keeps_two_clusters_apart(
    stage: Stage, lab: Tab, sidebar: Panel, tmp_path: Path
) -> None:
    books = {}
    for name, workers in (("one", 1), ("two", 2)):
        books[name] = open_in_lab(
            lab,
            f"{name}.ipynb",
            [f"%load_ext p2p_ipython\n%p2p_connect --workers {workers}", f"%%p2p {name}\n{waits_for(tmp_path / 'go')}"],
        ).run_all()
    expect(sidebar.row("two")).to_be_visible()
    books["one"].front()
    expect(sidebar.row("one")).to_be_visible()
    expect(sidebar.root).to_contain_text("1 worker")
    expect(sidebar.row("two")).to_have_count(0)
    books["two"].front()
    expect(sidebar.row("two")).to_be_visible()
    expect(sidebar.root).to_contain_text("2 workers")
    expect(sidebar.row("one")).to_have_count(0)
    (tmp_path / "go").touch()
    expect(sidebar.row("two")).to_have_count(0)
    count, panels = tmp_path / "count", "[c for c in comms.values() if c.target_name == 'p2p_ipython:panel']"

    def listeners() -> str:
        """How many panels the kernel of the notebook in the back talks to."""
        books["one"].quietly(
            "import pathlib\ncomms = get_ipython().kernel.comm_manager.comms\n"
            f"pathlib.Path({str(count)!r}).write_text(str(len({panels})))"
        )
        return count.read_text()

    until(lambda: listeners() == "0")


def test_from_a_task_one_sees_its_source_and_output_and_gets_to_its_cell(
    stage: Stage, lab: Tab, sidebar: Panel, tmp_path: Path
) -> None:
    book = connected_book(lab, "cells.ipynb", "%%p2p tile\nprint('it ran')", "1", "2")
    book.run(1)
    book.run(3)
    sidebar.tab("Finished").row("tile").click()
    details = sidebar.root.locator(".p2p-details")
    expect(details.locator(".p2p-source")).to_contain_text("print('it ran')")
    expect(details.locator(".p2p-output")).to_have_text("it ran")
    assert book.active_cell() == 3
    sidebar.button("Go to the cell of tile").click()
    until(lambda: book.active_cell() == 1)


def test_while_a_cell_computes_it_is_up_to_date_and_its_buttons_work(
    stage: Stage, lab: Tab, sidebar: Panel, tmp_path: Path
) -> None:
    book = open_in_lab(
        lab,
        "busy.ipynb",
        [
            CONNECT,
            f"%%p2p first\n{waits_for(tmp_path / 'first')}",
            f"%%p2p second\n{waits_for(tmp_path / 'second')}",
            waits_for(tmp_path / "free"),
        ],
    )
    for number in range(3):
        book.run(number)
    expect(sidebar.row("second")).to_contain_text("running")
    book.start(3)
    until(lambda: book.computes(3))
    (tmp_path / "first").touch()
    expect(sidebar.row("first")).to_have_count(0)
    sidebar.button("Cancel second").click()
    expect(sidebar.row("second")).to_have_count(0)
    sidebar.tab("Finished")
    expect(sidebar.row("second")).to_contain_text("cancelled")
    assert book.computes(3)
    (tmp_path / "free").touch()


def test_a_long_list_keeps_its_place_when_tabs_rows_and_widths_change_and_has_an_end(
    stage: Stage, book: Book, sidebar: Panel, tmp_path: Path
) -> None:
    speak, go = tmp_path / "speak", tmp_path / "go"
    job = f"{waits_for(speak)}\nprint('it says so', flush=True)\n{waits_for(go)}"
    book.do(f"for _ in range(300):\n    cluster.submit(exec, {job!r}, {{}})")
    scroller, row = sidebar.root.locator(".p2p-scroller"), "tr[data-id][aria-rowindex='{}']"
    middle, last = (sidebar.root.locator(row.format(number)) for number in (150, 301))

    def high() -> float:
        return float(sidebar.root.locator("tr[data-id]").first.evaluate("(row) => row.getBoundingClientRect().height"))

    def heights(letters: str) -> int:
        """How many different ones rows have when letters are so large."""
        return int(
            sidebar.root.evaluate(
                """(panel, letters) => {
                    panel.style.setProperty("--jp-ui-font-size1", letters);
                    const rows = [...panel.querySelectorAll("tr[data-id]")];
                    return new Set(rows.map((row) => row.getBoundingClientRect().height)).size;
                }""",
                letters,
            )
        )

    expect(sidebar.root.get_by_role("tab", name="Tasks")).to_contain_text("300")
    before = high()
    scroller.evaluate("(list) => { list.scrollTop = list.scrollHeight; }")
    expect(last).to_be_in_viewport()
    sidebar.tab("Members")
    expect(sidebar.row("worker-1")).to_be_visible()
    sidebar.tab("Tasks")
    expect(last).to_be_in_viewport()
    speak.touch()
    until(lambda: high() > before)  # there is output to show
    assert heights(letters="20px") == heights(letters="13px") == 1
    scroller.evaluate("(list) => { list.scrollTop = list.scrollHeight; }")
    expect(last).to_be_in_viewport()
    tall = high()
    scroller.evaluate("(list, top) => { list.scrollTop = top; }", 147 * tall)
    expect(middle).to_be_in_viewport()
    book.tab.widen_sidebar(700)
    until(lambda: high() < tall)  # each is one line now
    expect(middle).to_be_in_viewport()
