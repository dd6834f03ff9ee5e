"""JupyterLab and Notebook 7 in a real Chromium: open notebooks, run cells, look at what people see.

All of it belongs to one thread, in which Playwright's synchronous interface is at home: the test's own would be
one with an event loop as long as Playwright runs. conftest.py runs the tests of this folder there.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.browser.server import Server

T = TypeVar("T")

DEADLINE = 30.0
"""Seconds that anything may take before a test fails."""

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing leaves this machine, whatever is asked for
]

NOT_OURS = ["(reading 'schema')", "(reading 'promise')", "Command 'filebrowser:open-path' not registered"]
"""Errors of Notebook 7 and JupyterLab themselves."""

CONNECT = "%load_ext p2p_ipython\n%p2p_connect --workers 2 --as cluster"

AXE = Path(__file__).parents[2] / "labextension" / "node_modules" / "axe-core" / "axe.min.js"


def chromium() -> str | None:
    """The browser of this machine."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser without a window."""
    expect.set_options(timeout=DEADLINE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Watch:
    """Where a window's pages went, other than to the server, and what went wrong in them."""

    def __init__(self, context: BrowserContext, server: Server) -> None:
        self._home = urlsplit(server.url).netloc
        self._foreign: list[str] = []
        self._errors: list[str] = []
        context.on("request", lambda request: self._asked(request.url))
        context.on("weberror", lambda error: self._errors.append(f"{error.error.message}\n{error.error.stack}"))
        context.on("page", lambda page: page.on("websocket", lambda socket: self._asked(socket.url)))

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https", "ws", "wss", "ftp"} and parts.netloc != self._home:
            self._foreign.append(url)

    def take(self) -> tuple[list[str], list[str]]:
        """What was seen since the last time: addresses elsewhere, and errors."""
        seen = (self._foreign, [error for error in self._errors if not any(known in error for known in NOT_OURS)])
        self._foreign, self._errors = [], []
        return seen


class Tab:
    """A page of JupyterLab (``app`` "lab") or Notebook 7 ("notebook")."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server

    def until(self, what: str, *arguments: Any) -> Any:
        """Evaluate a JavaScript function, which may be async, until it gives something true; gives that."""
        return until(lambda: self.page.evaluate(what, *arguments), what)

    def settled(self) -> None:
        """Wait until the application is there, what covers it at the start is gone, and its address's file is open.

        The file browser opens that file, in its own time. It would otherwise come to the front of a later test.
        """
        self.until("""async () => {
            if (!('jupyterapp' in window)) return false;
            await jupyterapp.restored;
            return !document.querySelector('#jupyterlab-splash, .jp-mod-restoring');
        }""")

    def clear(self, keep: set[str]) -> None:
        """Close the documents that are open, but for those to keep; save nothing of them."""
        self.page.evaluate(
            """(keep) => {
                for (const one of [...jupyterapp.shell.widgets('main')])
                    if (!keep.includes(one.context?.path)) one.dispose();
            }""",
            sorted(keep),
        )

    def reload(self) -> None:
        self.page.reload()
        self.settled()

    def command(self, name: str, **arguments: Any) -> Any:
        """Execute one of the application's commands and wait for it."""
        return self.page.evaluate(
            "async ([name, args]) => { await jupyterapp.commands.execute(name, args); }", [name, arguments]
        )

    def sidebar(self) -> Panel:
        """JupyterLab's sidebar, opened."""
        self.page.evaluate("() => jupyterapp.shell.activateById('p2p-panel-sidebar')")
        return Panel(self.page.locator("#p2p-panel-sidebar"))

    def widen_sidebar(self, width: int) -> None:
        """Drag its edge."""
        at = self.page.locator("#jp-main-split-panel > .lm-SplitPanel-handle:not(.lm-mod-hidden)").last.bounding_box()
        sidebar = self.page.locator("#p2p-panel-sidebar").bounding_box()
        assert at is not None
        assert sidebar is not None
        x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + sidebar["width"] - width, y, steps=3)
        self.page.mouse.up()

    def theme(self, name: str) -> None:
        self.command("apputils:change-theme", theme=name)
        self.until("(name) => document.body.dataset.jpThemeName === name", name)
        self.settled()

    def axe(self, selector: str) -> list[str]:
        """What axe-core finds wrong in a part of the page; nothing, one hopes."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("async (selector) => (await axe.run(selector)).violations", selector)
        return [
            f"{one['id']}: {one['help']}: " + "; ".join(f"{n['html'][:200]} ({n['any']})" for n in one["nodes"])
            for one in found
        ]


class Book:
    """A notebook that is open in a tab, with its kernel."""

    def __init__(self, tab: Tab, path: str) -> None:
        self.tab = tab
        self.page = tab.page
        self.path = path

    FIND = "const book = [...jupyterapp.shell.widgets('main')].find((one) => one.context?.path === path);"

    def ready(self) -> Book:
        """Wait until its kernel is there and computes nothing."""
        self.tab.until(
            f"""async (path) => {{
                if (!('jupyterapp' in window)) return false;
                {self.FIND}
                if (!book?.context.isReady || !book.sessionContext.isReady) return false;
                const kernel = book.sessionContext.session?.kernel;
                return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
            }}""",
            self.path,
        )
        return self

    def front(self) -> Book:
        """Bring it to the front."""
        self.page.evaluate(f"(path) => {{ {self.FIND} jupyterapp.shell.activateById(book.id); }}", self.path)
        self.tab.until("(path) => jupyterapp.shell.currentWidget?.context?.path === path", self.path)
        return self

    def _select(self, number: int) -> None:
        self.page.evaluate(
            f"([path, number]) => {{ {self.FIND} book.content.activeCellIndex = number; }}", [self.path, number]
        )

    def active_cell(self) -> int:
        return int(self.page.evaluate(f"(path) => {{ {self.FIND} return book.content.activeCellIndex; }}", self.path))

    def start(self, number: int, command: str = "notebook:run-cell") -> None:
        """Run a cell, and don't wait for it."""
        self._select(number)
        self.page.evaluate("(command) => { void jupyterapp.commands.execute(command); }", command)

    def run(self, number: int) -> None:
        """Run a cell and wait until the kernel is done with it."""
        self._select(number)
        self.page.evaluate("async () => { await jupyterapp.commands.execute('notebook:run-cell'); }")

    def run_all(self) -> Book:
        """Run all cells and wait until the kernel is done with them."""
        self.page.evaluate("async () => { await jupyterapp.commands.execute('notebook:run-all-cells'); }")
        return self

    def close(self) -> None:
        """Close it; its kernel stays."""
        self.page.evaluate(f"(path) => {{ {self.FIND} book.dispose(); }}", self.path)

    def remove(self, numbers: Sequence[int]) -> None:
        """Delete cells."""
        self.page.evaluate(
            f"""([path, numbers]) => {{
                {self.FIND}
                for (const number of numbers) book.content.model.sharedModel.deleteCell(number);
            }}""",
            [self.path, sorted(numbers, reverse=True)],
        )

    def emptied(self) -> Book:
        """Without its cells; the kernel stays."""
        self.page.evaluate(
            f"""(path) => {{
                {self.FIND}
                const model = book.content.model.sharedModel;
                model.deleteCellRange(0, model.cells.length);
            }}""",
            self.path,
        )
        return self

    def write(self, source: str) -> int:
        """A new cell at the end; its number."""
        return int(
            self.page.evaluate(
                f"""([path, source]) => {{
                    {self.FIND}
                    const model = book.content.model.sharedModel;
                    model.insertCell(model.cells.length, {{ cell_type: 'code', source }});
                    return model.cells.length - 1;
                }}""",
                [self.path, source],
            )
        )

    def do(self, source: str) -> int:
        """Run a new cell at the end to its end; its number."""
        number = self.write(source)
        self.run(number)
        return number

    def quietly(self, source: str) -> None:
        """Run code in its kernel without a cell."""
        self.page.evaluate(
            f"""async ([path, code]) => {{
                {self.FIND}
                await book.sessionContext.session.kernel.requestExecute({{ code, silent: true }}).done;
            }}""",
            [self.path, source],
        )

    def cell(self, number: int) -> Locator:
        """A cell as it is on the page."""
        return self.page.locator(
            f".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-viewport > [data-windowed-list-index='{number}']"
        )

    def output(self, number: int) -> Locator:
        """What is under a cell."""
        return self.cell(number).locator(".jp-Cell-outputArea")

    def save(self) -> dict[str, Any]:
        """Save it; gives the file."""
        self.page.evaluate(f"async (path) => {{ {self.FIND} await book.context.save(); }}", self.path)
        saved: dict[str, Any] = json.loads((self.tab.server.files / self.path).read_text(encoding="utf-8"))
        return saved

    def computes(self, number: int) -> bool:
        """Whether a cell runs now, or waits for its turn."""
        return self.cell(number).locator(".jp-InputPrompt").inner_text() == "[*]:"

    def restart(self) -> None:
        """Restart its kernel."""
        self.page.evaluate(
            f"async (path) => {{ {self.FIND} await book.sessionContext.session.kernel.restart(); }}", self.path
        )
        self.ready()


def until(look: Callable[[], T], what: str = "") -> T:
    """Look again and again until there is something true; gives it. Playwright's events come in meanwhile."""
    end = time.monotonic() + DEADLINE
    while not (found := look()):
        assert time.monotonic() < end, f"this never came true: {what}"
        time.sleep(0.02)
    return found


def photograph(page: Page, path: Path) -> None:
    """Take a picture of what is seen. (Playwright would write it by a thread that it leaves behind.)"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page.screenshot())


def write_notebook(path: Path, cells: Sequence[str]) -> None:
    """A notebook file that asks no question about its kernel."""
    code = [
        {
            "cell_type": "code",
            "id": f"cell-{i}",
            "source": source,
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
        for i, source in enumerate(cells)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(
        json.dumps({"cells": code, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8"
    )


class Jupyter:
    """A browser's window on a server, in which tabs are opened."""

    def __init__(self, browser: Browser, server: Server, width: int = 1280, height: int = 800) -> None:
        self.server = server
        self._context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
        self._context.set_default_timeout(DEADLINE * 1000)
        self.watch = Watch(self._context, server)
        self.keep: set[str] = set()
        self._lab: Tab | None = None

    def close(self) -> None:
        self._context.close()

    def clear(self) -> None:
        """Close all but JupyterLab's tab, and what is open in that; end all kernels. Notebooks to keep are kept."""
        for page in self._context.pages:
            if self._lab is None or page is not self._lab.page:
                page.close()
        if self._lab is not None:
            self._lab.clear(self.keep)
        self.server.end_kernels(self.keep)

    def photograph(self, path: Path) -> None:
        """Pictures of all tabs."""
        for number, page in enumerate(self._context.pages):
            photograph(page, path.with_name(f"{path.name}-{number}.png"))

    def lab(self) -> Tab:
        """JupyterLab; the same tab each time."""
        if self._lab is None:
            page = self._context.new_page()
            page.goto(f"{self.server.url}lab?reset&token={quote(self.server.token)}")
            self._lab = Tab(page, self.server)
            self._lab.settled()
        return self._lab

    def notebook7(self, path: str, cells: Sequence[str]) -> Book:
        """A notebook in Notebook 7, in a tab of its own."""
        write_notebook(self.server.files / path, cells)
        page = self._context.new_page()
        page.goto(f"{self.server.url}notebooks/{quote(path)}?token={quote(self.server.token)}")
        return Book(Tab(page, self.server), path).ready()


def open_in_lab(tab: Tab, path: str, cells: Sequence[str]) -> Book:
    """A notebook in a JupyterLab that is there."""
    write_notebook(tab.server.files / path, cells)
    tab.command("docmanager:open", path=path)
    return Book(tab, path).ready()


def connected_book(tab: Tab, path: str, *cells: str) -> Book:
    """A notebook whose first cell has connected it to a personal cluster of two workers."""
    book = open_in_lab(tab, path, [CONNECT, *cells])
    book.run(0)
    return book


class Panel:
    """The panel, wherever it is shown."""

    def __init__(self, place: Locator) -> None:
        self.root = place.locator(".p2p-panel")

    @property
    def state(self) -> Locator:
        """How things stand with the cluster."""
        return self.root.locator(".p2p-state")

    def tab(self, name: str) -> Panel:
        """Choose a tab."""
        self.root.get_by_role("tab", name=name).click()
        return self

    def row(self, name: str) -> Locator:
        """The row of a task, a member or an offer, by its name."""
        return self.root.locator("tr[data-id]").filter(has=self.root.page.get_by_text(name, exact=True))

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)


def waits_for(go: Path) -> str:
    """Code that runs until a file is there."""
    return f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)"
