"""JupyterLab's commands: what the palette and the menus do with the notebook in front."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Stage
from tests.browser.lab import Book, Jupyter, Tab, open_in_lab

RUN_CELL, CONNECT_PERSONAL = "p2p-ipython:run-cell", "p2p-ipython:connect-personal"


def test_a_cell_is_run_on_the_cluster_also_one_with_a_magic_of_its_own(stage: Stage, book: Book) -> None:
    for source in ("print('from', 'afar')", "%%bash\necho from afar", "%%p2p\nprint('from', 'afar')"):
        cell = book.write(source)
        book.start(cell, RUN_CELL)
        expect(book.output(cell)).to_contain_text("from afar")
        expect(book.output(cell)).to_contain_text("done on worker-")
    assert ["".join(cell["source"]).count("%%p2p") for cell in book.save()["cells"][1:]] == [1, 1, 1]


def test_one_command_loads_the_extension_and_connects(stage: Stage, lab: Tab) -> None:
    book = open_in_lab(lab, "commanded.ipynb", ["1"])
    sidebar = lab.sidebar()
    expect(sidebar.state).to_have_text("not loaded")
    lab.command(CONNECT_PERSONAL)
    expect(sidebar.state).to_have_text("connected")
    expect(book.output(book.do("%p2p 6 * 7\n_p2p.result()"))).to_contain_text("42")


def test_where_nothing_listens_to_a_notebook_any_more_its_console_says_so_until_it_is_open_again(
    stage: Stage, lab: Tab
) -> None:
    book = open_in_lab(lab, "shared.ipynb", ["%load_ext p2p_ipython"]).run_all()
    sidebar = lab.sidebar()
    expect(sidebar.state).to_have_text("not connected")
    lab.command("notebook:create-console")
    lab.until("() => jupyterapp.shell.currentWidget?.console?.sessionContext.isReady")
    expect(sidebar.state).to_have_text("not connected")
    console = lab.page.evaluate("() => jupyterapp.shell.currentWidget.id")
    book.close()
    expect(sidebar.state).to_have_text("no kernel")
    lab.command("docmanager:open", path="shared.ipynb")
    book.ready()
    lab.page.evaluate("(id) => jupyterapp.shell.activateById(id)", console)
    lab.until("(id) => jupyterapp.shell.currentWidget?.id === id", console)
    expect(sidebar.state).to_have_text("not connected")


def test_the_commands_are_in_the_palette_and_say_what_they_take(stage: Stage, jupyter: Jupyter, lab: Tab) -> None:
    described = lab.page.evaluate(
        """async () => {
            const { commands } = jupyterapp;
            const ours = commands.listCommands().filter((id) => id.startsWith("p2p-ipython:"));
            return Promise.all(ours.map(async (id) => [
                commands.label(id), commands.caption(id), (await commands.describedBy(id)).args?.type
            ]));
        }"""
    )
    assert len(described) == 6
    assert all(label and caption and takes == "object" for label, caption, takes in described)
