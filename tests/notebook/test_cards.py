"""The card of a task that takes a while: its parts, and a browser's side of it at a real kernel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import p2p_ipython
from p2p_ipython.client.journal import Entry
from p2p_ipython.notebook import card as card_module
from p2p_ipython.notebook.card import ANSWERS_WITHIN, KEPT, MOST, UNANSWERED, Card, Cards, Face, line_html
from p2p_ipython.notebook.status_line import _CARD_AFTER, text
from p2p_ipython.protocol.client_machine import TaskState
from tests.notebook.kernels import Comm, Notebook, connected

built = (Path(p2p_ipython.__file__).parent / "static" / "card.js").exists()
pytestmark = pytest.mark.skipif(not built, reason="the front end is not built: run `make front`")

VIEW = "application/vnd.jupyter.widget-view+json"

FACE = Face(label="tile", state="running", words="on worker-1", submitted=1000.0)


# -- its parts --


def test_a_line_shows_the_state_by_a_shape_and_its_text_escaped() -> None:
    shapes = {line_html(state.value, "tile").partition('<path d="')[2] for state in TaskState}
    assert len(shapes) == len(TaskState)
    shown = line_html("failed", "<img src=x onerror=alert(1)>")
    assert "&lt;img src=x" in shown
    assert "<img" not in shown


def test_a_line_ends_with_the_first_line_of_the_error() -> None:
    line = text("tile", "failed on worker-1", 3.2, over=True, error="ZeroDivisionError: division by zero")
    assert line == "tile: failed on worker-1 in 3.2 s – ZeroDivisionError: division by zero"


def test_each_state_of_a_task_is_one_that_a_card_knows() -> None:
    over = {state.value for state in TaskState if Face("tile", state.value, "", 0.0).over}
    assert over == {"done", "failed", "cancelled"}
    assert Entry("id", "tile", "cell", "", "", 0.0, 0).state.value == "waiting"


class Browser:
    """What a card has said to its task, and a way to say something to the card."""

    def __init__(self, cards: Cards) -> None:
        self.said: list[str] = []
        made = cards.make(FACE, lambda: self.said.append("cancel"), self.said.append)
        assert made is not None
        self.card: Card = made
        self._widget, self._layout = made._widget, made._widget.layout

    @property
    def gone(self) -> bool:
        """Whether nothing of the card is left."""
        return self._widget.comm is None and self._layout.comm is None

    async def says(self, content: Any, method: str = "custom") -> None:
        self.card._widget.comm.handle_msg({"content": {"data": {"method": method, "content": content}}})
        await asyncio.sleep(0)


async def loaded(clock: Callable[[], float] = time.monotonic) -> Cards:
    """Cards whose widget is imported."""
    cards = Cards(clock)
    assert cards.make(FACE, lambda: None, lambda _what: None) is None  # the loop doesn't wait for the import
    assert cards._loading is not None
    await asyncio.to_thread(cards._loading.join)
    return cards


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - nobody says when a widget is closed
            await asyncio.sleep(0.005)


async def test_a_card_hears_three_words_of_the_browsers_and_nothing_else() -> None:
    cards = await loaded()
    browser = Browser(cards)
    for junk in (None, 5, {"t": "ready"}, {"t": "ready", "page": 5}, {"t": "ready", "page": "x" * 1000}, {"t": "no"}):
        await browser.says(junk)
    await browser.says({"t": "cancel"}, method="update")
    browser.card._widget.comm.handle_msg({"content": {}})
    await asyncio.sleep(0)
    assert (browser.said, browser.card.ready) == ([], False)
    await browser.says({"t": "ready", "page": "a"})
    await browser.says({"t": "ready", "page": "a"})
    await browser.says({"t": "shown"})
    await browser.says({"t": "cancel"})
    assert browser.said == ["ready", "shown", "cancel"]
    cards.end(browser.card)


async def test_what_the_browser_writes_into_a_cards_state_does_not_count() -> None:
    cards = await loaded()
    browser = Browser(cards)
    widget = browser.card._widget
    data = {"method": "update", "state": {"label": "another", "_esm": "alert(1)"}, "buffer_paths": []}
    widget.comm.handle_msg({"content": {"data": data}, "buffers": []})
    await asyncio.sleep(0)
    assert widget.label == "tile"
    assert "alert(1)" not in widget._esm
    cards.end(browser.card)


async def test_a_card_that_is_over_leaves_no_widget_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_module, "LATE", 0.01)
    cards = await loaded()
    browser, unseen = Browser(cards), Browser(cards)
    await browser.says({"t": "ready", "page": "a"})
    assert not browser.gone
    cards.end(browser.card)
    cards.end(unseen.card)
    assert unseen.gone
    await until(lambda: browser.gone)


async def test_a_page_that_is_being_reloaded_as_the_task_ends_keeps_its_card() -> None:
    cards = await loaded()
    browser, other = Browser(cards), Browser(cards)
    for one in (browser, other):
        await one.says({"t": "ready", "page": "before"})
        cards.end(one.card)
        assert not one.gone
    await browser.says({"t": "ready", "page": "after"})
    for one in (browser, other):
        cards._let_go(one.card)
    assert (browser.gone, other.gone) == (False, True)
    cards.close()
    await until(lambda: browser.gone)


async def test_a_card_stays_for_a_page_that_was_reloaded_and_some_such_are_kept() -> None:
    cards = await loaded()
    browsers = []
    for _ in range(KEPT + 5):
        browsers.append(browser := Browser(cards))
        await browser.says({"t": "ready", "page": "before"})
        await browser.says({"t": "ready", "page": "after"})
        cards.end(browser.card)
    assert [browser.gone for browser in browsers] == [True] * 5 + [False] * KEPT
    cards.close()
    await until(lambda: all(browser.gone for browser in browsers))


async def test_there_are_only_so_many_cards_at_a_time() -> None:
    cards = await loaded()
    all_cards = [Browser(cards).card for _ in range(MOST)]
    assert cards.make(FACE, lambda: None, lambda _what: None) is None
    for card in all_cards:
        cards.end(card)


async def test_where_no_front_end_answers_no_more_cards_are_made() -> None:
    now = [100.0]
    cards = await loaded(lambda: now[0])
    for _ in range(UNANSWERED):
        card = Browser(cards).card
        now[0] += ANSWERS_WITHIN
        cards.end(card)
    assert cards.make(FACE, lambda: None, lambda _what: None) is None


async def test_tasks_that_are_over_before_a_front_end_could_answer_cost_later_ones_no_card() -> None:
    cards = await loaded()
    for _ in range(UNANSWERED + 1):
        cards.end(Browser(cards).card)


async def test_after_one_answer_silence_is_not_taken_for_want_of_a_front_end() -> None:
    now = [100.0]
    cards = await loaded(lambda: now[0])
    browser = Browser(cards)
    await browser.says({"t": "ready", "page": "a"})
    cards.end(browser.card)
    for _ in range(UNANSWERED + 1):
        card = Browser(cards).card
        now[0] += ANSWERS_WITHIN
        cards.end(card)


async def test_a_page_that_comes_later_is_told_what_time_it_is_now() -> None:
    cards = await loaded()
    browser = Browser(cards)
    first = browser.card._widget.get_state()["now"]
    assert first > 1_700_000_000
    await asyncio.sleep(0.01)
    assert browser.card._widget.get_state()["now"] > first
    cards.end(browser.card)


# -- a browser's side, at a real kernel --


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with connected(2) as one:
        assert one.run("%%p2p --wait\n1").value == "1"  # from now on tasks needn't wait for a worker
        yield one


@pytest.fixture
def nb(shared: Notebook, tmp_path: Path) -> Iterator[Notebook]:
    shared.comms.clear()
    yield shared
    for name in ("go", "free", "first", "second"):  # a test that failed must not keep the workers
        (tmp_path / name).touch()


def waits_for(go: Path) -> str:
    return f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)"


def card_of(nb: Notebook) -> Comm:
    """The card that the kernel has made."""

    def find() -> list[Comm]:
        return [comm for comm in nb.comms.values() if comm.widget.get("_model_name") == "AnyModel"]

    nb.until(find)
    return find()[0]


def view(cell: Any) -> str | None:
    """The model that is shown under a cell now."""
    displays = [m["content"] for m in cell.messages if m["msg_type"] in ("display_data", "update_display_data")]
    bundle = displays[-1]["data"]
    return bundle[VIEW]["model_id"] if VIEW in bundle else None


def ready(nb: Notebook, card: Comm, cell: Any) -> None:
    nb.say(card.id, {"method": "custom", "content": {"t": "ready", "page": "one"}})
    nb.until(lambda: view(cell) == card.id)
    nb.say(card.id, {"method": "custom", "content": {"t": "shown"}})


def test_a_card_takes_the_lines_place_when_the_front_end_is_ready_and_gives_it_back(
    nb: Notebook, tmp_path: Path
) -> None:
    cell = nb.run(f"%%p2p tile\n{waits_for(tmp_path / 'go')}")
    card = card_of(nb)
    assert view(cell) is None
    ready(nb, card, cell)
    shown = cell.of("update_display_data")[-1]["data"]
    assert shown["text/plain"].startswith("tile: on worker-")
    assert "tile: on worker-" in shown["text/html"]
    nb.until(lambda: card.widget["state"] == "running" and card.widget["started"])
    (tmp_path / "go").touch()
    nb.until(lambda: card.closed)
    assert set(cell.of("update_display_data")[-1]["data"]) == {"text/plain", "text/html"}
    assert (cell.status_line or "").startswith("tile: done on worker-")
    assert nb.run("from ipywidgets.widgets.widget import _instances\nlen(_instances)").value == "0"
    assert (
        nb.run(
            "import comm\nlen([c for c in comm.get_comm_manager().comms.values() if 'widget' in c.target_name])"
        ).value
        == "0"
    )


def test_a_click_cancels_while_another_cell_computes(nb: Notebook, tmp_path: Path) -> None:
    cell = nb.run(f"%%p2p tile\n{waits_for(tmp_path / 'never')}")
    card = card_of(nb)
    ready(nb, card, cell)
    subshell = nb.subshell()
    busy = nb.start(waits_for(tmp_path / "free")) if subshell is not None else None
    nb.say(card.id, {"method": "custom", "content": {"t": "cancel"}}, subshell=subshell)
    nb.until(lambda: "cancelled" in (cell.status_line or "") and card.closed)
    assert busy is None or not busy.idle
    (tmp_path / "free").touch()
    nb.until(lambda: busy is None or busy.idle)
    assert nb.run("tile.cancelled()").value == "True"


def test_a_card_is_made_and_shown_while_another_cell_computes(nb: Notebook, tmp_path: Path) -> None:
    subshell = nb.subshell()
    if subshell is None:
        pytest.skip("this kernel has no subshells")
    cell = nb.run(f"%%p2p tile\n{waits_for(tmp_path / 'go')}")
    busy = nb.start(waits_for(tmp_path / "free"))
    card = card_of(nb)
    nb.say(card.id, {"method": "custom", "content": {"t": "ready", "page": "one"}}, subshell=subshell)
    nb.until(lambda: view(cell) == card.id)
    assert not busy.idle
    (tmp_path / "go").touch()
    (tmp_path / "free").touch()
    nb.until(lambda: busy.idle and card.closed)


def test_a_task_that_clears_its_output_has_its_line_back_and_when_it_is_calm_its_card(
    nb: Notebook, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    clear = "from IPython.display import clear_output\nclear_output()\nprint('cleared')"
    cell = nb.run(f"%%p2p tile\n{waits_for(first)}\n{clear}\n{waits_for(second)}")
    card = card_of(nb)
    ready(nb, card, cell)
    first.touch()
    nb.until(lambda: view(cell) is None)
    assert (cell.status_line or "").startswith("tile: on worker-")
    nb.until(lambda: view(cell) == card.id and "cleared" in cell.text)
    second.touch()
    nb.until(lambda: card.closed)
    assert view(cell) is None


def test_a_card_that_is_being_drawn_when_its_task_ends_is_left_to_it_for_a_moment(nb: Notebook, tmp_path: Path) -> None:
    cell = nb.run(f"%%p2p tile\n{waits_for(tmp_path / 'go')}")
    card = card_of(nb)
    nb.say(card.id, {"method": "custom", "content": {"t": "ready", "page": "one"}})
    nb.until(lambda: view(cell) == card.id)
    (tmp_path / "go").touch()
    nb.until(lambda: card.widget["state"] == "done")  # the card says so at once
    nb.until(lambda: card.closed)  # and goes, though the front end never says that it has drawn it
    assert (cell.status_line or "").startswith("tile: done on worker-")


def test_a_click_fires_none_of_ipythons_events(nb: Notebook, tmp_path: Path) -> None:
    cell = nb.run(f"%%p2p tile\n{waits_for(tmp_path / 'go')}")
    card = card_of(nb)
    nb.run("fired = []\ncount = lambda *_: fired.append(1)\nget_ipython().events.register('post_execute', count)")
    ready(nb, card, cell)
    (tmp_path / "go").touch()
    nb.until(lambda: card.closed)
    assert nb.run("get_ipython().events.unregister('post_execute', count)\nlen(fired)").value == "1"  # its own cell's


def test_a_task_that_fails_says_why_in_its_line(nb: Notebook) -> None:
    cell = nb.run("%%p2p tile\n1/0")
    nb.until(lambda: "failed" in (cell.status_line or ""))
    assert (cell.status_line or "").endswith(" – ZeroDivisionError: division by zero")


def test_a_short_task_has_no_card(nb: Notebook) -> None:
    for _ in range(20):  # where the machine is busy it may take longer, and has a card then
        nb.comms.clear()
        short = nb.run("%%p2p tile --wait\n1")
        nb.until(lambda short=short: "done" in (short.status_line or ""))
        took, unit = (short.status_line or "").split()[-2:]
        if unit == "ms" and float(took) < 1000 * _CARD_AFTER:
            break
    else:
        pytest.skip("no task is short on this machine now")
    assert not any(comm.widget for comm in nb.comms.values())


def test_a_task_has_no_card_in_a_front_end_that_mixes_cells(nb: Notebook, tmp_path: Path) -> None:
    cell = nb.run(f"%%p2p tile\n{waits_for(tmp_path / 'go')}", cell_id=None)
    nb.run("import time\ntime.sleep(1.5)", cell_id=None)
    (tmp_path / "go").touch()
    nb.run("tile.result()", cell_id=None)
    assert not any(comm.widget for comm in nb.comms.values())
    assert view(cell) is None


def test_a_line_that_no_front_end_takes_the_card_for_stays_a_line(nb: Notebook, tmp_path: Path) -> None:
    cell = nb.run(f"%%p2p tile\n{waits_for(tmp_path / 'go')}")
    card = card_of(nb)
    nb.until(lambda: "s" in (cell.status_line or "").rpartition(",")[2])  # it counts the seconds
    (tmp_path / "go").touch()
    nb.until(lambda: card.closed)
    assert all(VIEW not in c["data"] for c in cell.of("update_display_data"))
