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
        process = self.run(name, "worker", "--cluster", "alice/friends", "--sandbox", "process", *options)
        assert process.stdout is not None
        assert "lends" in process.stdout.readline()


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    with Home(tmp_path / "board").running("board", "--port", "0", "--json") as process, ExitStack() as stack:
        assert process.stdout is not None
        board = json.loads(process.stdout.readline())
        yield People(f"--board {address(board)} --accept-host-key {board['fingerprint']}", tmp_path, stack)


def invite(book: Book, name: str, *options: str) -> list[str]:
    """An invitation; gives what the guest types behind ``p2p join``."""
    cell = book.do(f"%p2p_invite friends {name} {' '.join(options)}")
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
