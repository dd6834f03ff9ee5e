"""How quick the panel is in a browser: until it is there, and with many members and tasks.

Run by hand, after ``make front``: ``.venv/bin/python tests/benchmarks/bench_browser.py``. It starts a JupyterLab of its
own and Chromium. Each figure is the median of its repeats.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.browser.lab import Jupyter, browsing, connected_book  # noqa: E402
from tests.browser.server import serving  # noqa: E402

REPEATS = 10

FIRST_PAINT = """async ([path, number]) => {
    const book = [...jupyterapp.shell.widgets('main')].find((one) => one.context?.path === path);
    book.content.activeCellIndex = number;
    const cell = book.content.widgets[number];
    const begun = performance.now();
    let done = 0;
    const ran = jupyterapp.commands.execute('notebook:run-cell').then(() => { done = performance.now(); });
    const shown = () => /connected/.test(cell.node.querySelector('.p2p-panel .p2p-state')?.textContent ?? '');
    while (!shown()) await new Promise(requestAnimationFrame);
    await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    const painted = performance.now();
    await ran;
    return [painted - begun, done - begun];
}"""


def first_paint(browser: Browser, python: Path, folder: Path) -> None:
    """From a click on "Run" on %p2p_panel until the cluster is seen, and until the cell is over."""
    with serving(python, folder) as server:
        jupyter = Jupyter(browser, server)
        book = connected_book(jupyter.lab(), "bench.ipynb")
        cells = [book.write("%p2p_panel") for _ in range(REPEATS + 1)]
        figures = [book.page.evaluate(FIRST_PAINT, [book.path, cell]) for cell in cells]
        jupyter.close()
    first, *others = (painted for painted, _over in figures)
    cell = statistics.median(over for _painted, over in figures[1:])
    print(
        f"%p2p_panel is painted {statistics.median(others):.0f} ms after its cell is run"
        f" (the first one {first:.0f} ms); the cell is over after {cell:.0f} ms"
    )


def deltas(browser: Browser, folder: Path) -> None:
    """A delta of 100 rows, applied and painted, and a snapshot, with 1,000 members and 10,000 tasks."""
    subprocess.run(["node", "tests/bench/build.mjs", str(folder)], cwd=ROOT / "labextension", check=True)
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    # From files a page may load no modules.
    page.route(
        "http://bench.invalid/*", lambda route: route.fulfill(path=folder / route.request.url.rpartition("/")[2])
    )
    page.goto("http://bench.invalid/bench.html")
    for tab in ("tasks", "finished", "members", "offers", "timeline"):
        runs = [page.evaluate("(tab) => window.bench(tab)", tab) for _ in range(3)]
        values = {name: statistics.median(run[name] for run in runs) for name in ("delta", "slow", "snapshot")}
        print(
            f"1,000 members, 10,000 tasks, tab {tab}: a delta of 100 rows {values['delta']:.1f} ms"
            f" (one in 20 takes {values['slow']:.1f} ms or more), a snapshot {values['snapshot']:.0f} ms"
        )
    page.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, browsing() as browser:
        (Path(folder) / "bench").mkdir()
        deltas(browser, Path(folder) / "bench")
        (Path(folder) / "jupyter").mkdir()
        first_paint(browser, Path(sys.executable), Path(folder) / "jupyter")


if __name__ == "__main__":
    main()
