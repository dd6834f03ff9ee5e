"""Friends in the panel: guests, lending, and for whom; over a real board, each with a home of their own."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SCREENSHOTS, Stage
from tests.browser.lab import Book, Panel, Tab, open_in_lab, photograph
from tests.cli_support import Home, address


@dataclass
class People:
    """A board, and friends who use the ``p2p`` command."""

    where: str
    folder: Path
    stack: ExitStack
    homes: dict[str, Home] = field(default_factory=dict)

    def run(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of a friend's; it is ended with the test."""
        if name not in self.homes:
            self.homes[name] = Home(self.folder / name)
        return self.stack.enter_context(self.homes[name].running(*arguments))

    def lend(self, name: str, *options: str) -> None:
        # Their tasks wait for a file of the test's, which those in a sandbox would never see.
        process = self.run(name, "worker", "--cluster", "alice/friends", "--sandbox", "process", *options)
        assert process.stdout is not None
        assert "lends" in process.stdout.readline()


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    with Home(tmp_path / "board").running("board", "--port", "0", "--json") as process, ExitStack() as stack:
        assert process.stdout is not None
        board = json.loads(process.stdout.readline())
        yield People(f"--board {address(board)} --accept-host-key {board['fingerprint']}", tmp_path, stack)


def invite(book: Book, name: str, *options: str, cluster: str = "friends") -> list[str]:
    """An invitation; gives what the guest types behind ``p2p join``."""
    cell = book.do(f"%p2p_invite {cluster} {name} {' '.join(options)}")
    expect(book.output(cell)).to_contain_text("%p2p_join")
    found = re.search(r"%p2p_join (.+)", book.output(cell).inner_text())
    assert found is not None
    return found[1].split()


TRAIN = """
def train(model, trees=0, **options):
    import pathlib, time
    if trees:
        for percent in range(10, 71, 10):
            bar = '█' * (percent // 5)
            print(f'\\r{percent}%|{bar:20}| {trees * percent // 100}/{trees} trees', end='', flush=True)
    while not pathlib.Path(GO).exists():
        time.sleep(0.01)
"""

SCENE = {
    "squares": "print(f'{sum(n * n for n in range(10**6)):,}')",
    "forest": "train('forest', trees=400)",
    "sweep": "[train('svm', gamma=gamma) for gamma in (1e-4, 1e-3, 1e-2)]",
    "embedding": "train('embedding', perplexity=30)",
    "report": "train('all of them', folds=5)",
}


def test_a_guest_is_admitted_by_a_click_and_then_lends_their_machine(
    stage: Stage, lab: Tab, people: People, tmp_path: Path
) -> None:
    hosting = f"%p2p_host friends --owner alice {people.where}"
    host = open_in_lab(lab, "host.ipynb", ["%load_ext p2p_ipython", hosting]).run_all()
    sidebar = lab.sidebar()
    code = invite(host, "bob")
    people.run("bob", "join", *code, "--name", "bob")
    sidebar.button("Let bob in to alice/friends").click()
    expect(sidebar.root).to_contain_text("bob is in alice/friends")
    expect(sidebar.root.locator(".p2p-visitors")).to_have_count(0)
    code = invite(host, "carol", "--yes")
    assert people.run("carol", "join", *code, "--name", "carol").wait(60) == 0

    book = open_in_lab(lab, "friends.ipynb", ["%load_ext p2p_ipython"]).run_all()
    sidebar.button("Connect to alice/friends").click()
    expect(sidebar.state).to_contain_text("connected")  # and nobody else has answered yet
    people.lend("bob", "--name", "studio", "--slots", "2", "--tag", "gpu", "--only", "alice")
    people.lend("carol", "--name", "laptop", "--duration", "2h")
    sidebar.tab("Members")
    expect(sidebar.row("bob (studio)")).to_be_visible()
    expect(sidebar.row("carol (laptop)")).to_be_visible()
    sidebar.tab("Offers")
    expect(sidebar.row("bob (studio)")).to_contain_text("gpu")

    go = tmp_path / "go"
    book.quietly(TRAIN.replace("GO", repr(str(go))))
    cells = [book.do(f"%%p2p {label}\n{source}") for label, source in SCENE.items()]
    sidebar.tab("Tasks")
    expect(sidebar.row("forest")).to_contain_text("70%")
    expect(sidebar.row("sweep")).to_contain_text("running")
    expect(book.output(cells[-1])).to_contain_text("waiting for a free slot of 3")
    lab.clear({book.path})
    book.remove(cells[2:])
    panel = Panel(book.output(book.do("%p2p_panel"))).tab("Members")
    expect(panel.row("carol (laptop)")).to_be_visible()
    expect(sidebar.state).to_have_text("connected")
    pictures(lab, sidebar)
    go.touch()
    expect(sidebar.root).to_contain_text("No task is on its way.")


def test_this_machine_is_lent_from_the_form_in_the_sandbox_that_is_chosen(
    stage: Stage, lab: Tab, people: People
) -> None:
    hosting = f"%p2p_host lenders --owner alice {people.where}"
    book = open_in_lab(lab, "lend.ipynb", ["%load_ext p2p_ipython", hosting]).run_all()
    sidebar = lab.sidebar()
    sidebar.button("Connect to alice/lenders").click()
    expect(sidebar.state).to_contain_text("connected")
    sidebar.tab("Offers").button("Lend this machine …").click()
    form = sidebar.root.get_by_role("form", name="Lend this machine")
    choice = form.get_by_label("Sandbox")
    expect(choice).to_have_value("auto")
    expect(form).to_contain_text("your files, keys and network are out of their reach")
    lab.command("application:toggle-left-area")
    lab.widen_sidebar(430)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / "lend-sandbox.png").write_bytes(form.screenshot())
    choice.select_option("process")
    expect(form).to_contain_text("as you, with your files within their reach")
    (SCREENSHOTS / "lend-process.png").write_bytes(form.screenshot())
    assert lab.axe("#p2p-panel-sidebar") == []

    # A sandbox that isn't there, as its program isn't found: the form stays, and says what to do.
    book.quietly("import os; path, os.environ['PATH'] = os.environ['PATH'], ''")
    choice.select_option("bubblewrap")
    form.get_by_role("button", name="Lend", exact=True).click()
    expect(sidebar.root).to_contain_text("the sandbox bubblewrap can't be used")
    (SCREENSHOTS / "lend-missing.png").write_bytes(lab.page.locator("#p2p-panel-sidebar").screenshot())
    expect(form).to_be_visible()
    book.quietly("os.environ['PATH'] = path")

    choice.select_option("auto")
    form.get_by_role("button", name="Lend", exact=True).click()
    expect(sidebar.root.get_by_role("group", name="This machine, lent to alice/lenders")).to_be_visible()
    offer = sidebar.root.locator("tr[data-id]")
    expect(offer).to_contain_text(re.compile(r"\b(?!no\b)\w+ sandbox"))
    offer.click()
    details = sidebar.root.locator(".p2p-details")
    expect(details.get_by_title("can't reach the lender's files")).to_be_visible()
    (SCREENSHOTS / "offer-sandbox.png").write_bytes(lab.page.locator("#p2p-panel-sidebar").screenshot())
    lab.command("application:toggle-left-area")


def pictures(lab: Tab, sidebar: Panel) -> None:
    """For people to look at: narrow, wide, light, dark, with the notebook beside it."""

    def of_panel(name: str) -> None:
        (SCREENSHOTS / name).write_bytes(lab.page.locator("#p2p-panel-sidebar").screenshot())

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    of_panel("panel-narrow.png")
    lab.command("application:toggle-left-area")
    lab.widen_sidebar(430)
    of_panel("panel-light.png")
    photograph(lab.page, SCREENSHOTS / "readme.png")
    for name in ("Members", "Offers", "Finished", "Timeline"):
        sidebar.tab(name)
        of_panel(f"panel-{name.lower()}.png")
    sidebar.tab("Tasks")
    lab.theme("JupyterLab Dark")
    of_panel("panel-dark.png")
    photograph(lab.page, SCREENSHOTS / "lab-dark.png")
    lab.theme("JupyterLab Light")
    lab.command("application:toggle-left-area")
