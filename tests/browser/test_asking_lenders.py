"""A lender in JupyterLab: asked before a friend's task runs, by a card in the panel; policy, news and log."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.conftest import SCREENSHOTS, Stage
from tests.browser.lab import Tab, open_in_lab
from tests.browser.test_friends import People, invite
from tests.browser.test_friends import people as people  # noqa: PLC0414 - a fixture

CELL = '''\
import numpy as np

def simulate(steps, rng):
    """A random walk, its furthest point, and <b>no HTML</b>."""
    path = np.cumsum(rng.choice([-1, 1], size=steps))
    return int(np.abs(path).max())

walks = [simulate(10_000, np.random.default_rng(seed)) for seed in range(200)]
best = max(walks)
print(f"{best = }")'''

FRIEND = f"""
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "p2p_ipython")
shell.run_line_magic("p2p_connect", "alice/askers")
for name in ("walk", "again"):
    shell.run_cell_magic("p2p", f"--bind best {{name}}", {CELL!r})
    print("sent", name, flush=True)
    sys.stdin.readline()
"""


def test_a_lender_is_asked_by_a_card_and_reads_the_log(stage: Stage, lab: Tab, people: People) -> None:
    hosting = f"%p2p_host askers --owner alice {people.where}"
    book = open_in_lab(lab, "ask.ipynb", ["%load_ext p2p_ipython", hosting]).run_all()
    code = invite(book, "carol", "--yes", cluster="askers")
    assert people.run("carol", "join", *code, "--name", "carol").wait(60) == 0
    sidebar = lab.sidebar()
    sidebar.button("Connect to alice/askers").click()
    expect(sidebar.state).to_contain_text("connected")
    sidebar.tab("Offers").button("Lend this machine …").click()
    form = sidebar.root.get_by_role("form", name="Lend this machine")
    form.get_by_label("Ask me before each task").check()
    form.get_by_role("button", name="Lend", exact=True).click()
    lent = sidebar.root.get_by_role("group", name="This machine, lent to alice/askers")
    expect(lent).to_contain_text("to members you know; after your yes")

    friend = subprocess.Popen(
        [sys.executable, "-c", FRIEND],
        env=people.homes["carol"].environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    people.stack.callback(friend.communicate)
    people.stack.callback(friend.kill)
    card = sidebar.root.locator(".p2p-questions li")
    expect(card).to_contain_text("carol asks to run walk on")
    expect(card).to_contain_text("Data can carry code: the sandbox is what holds it.")
    expect(card.locator("pre")).to_contain_text("its furthest point, and <b>no HTML</b>.")
    expect(card).to_contain_text("binds best")
    expect(card).to_contain_text("no answer within 1 min")
    lab.command("application:toggle-left-area")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    pictures(lab, "ask-narrow")
    lab.widen_sidebar(430)
    assert lab.axe("#p2p-panel-sidebar") == []
    pictures(lab, "ask")
    sidebar.button("Run walk of carol once").click()
    expect(card).to_have_count(0)
    assert friend.stdin is not None
    friend.stdin.write("\n")
    friend.stdin.flush()
    expect(card).to_contain_text("carol asks to run again on")
    sidebar.button("Don't run again of carol").click()
    expect(card).to_have_count(0)

    log = sidebar.root.get_by_role("region", name="Lending log for alice/askers")

    def opened() -> None:
        if not log.is_visible():  # the panel is drawn anew with another theme
            sidebar.button("Policy and log of lending to alice/askers").click()
        expect(log.locator("tbody tr")).to_have_count(2)

    opened()
    expect(log.locator("tbody tr").nth(0)).to_contain_text("refused: its lender has said no")
    expect(log.locator("tbody tr").nth(1)).to_contain_text("done")
    expect(sidebar.root.get_by_role("region", name="Policy for alice/askers")).to_contain_text('who = "known"')
    assert lab.axe("#p2p-panel-sidebar") == []
    pictures(lab, "lend-log", opened)
    lab.command("application:toggle-left-area")


def pictures(lab: Tab, name: str, ready: Callable[[], None] = lambda: None) -> None:
    """For people to look at, light and dark."""
    for theme in ("Dark", "Light"):
        lab.theme(f"JupyterLab {theme}")
        ready()
        picture = lab.page.locator("#p2p-panel-sidebar").screenshot()
        (SCREENSHOTS / f"{name}-{theme.lower()}.png").write_bytes(picture)
