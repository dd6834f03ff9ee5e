"""The panel's comms in a real kernel, with the front end's half played by the test."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from tests.notebook.kernels import DEADLINE, Cell, Notebook, connected, notebook
from tests.notebook.panel.contract_support import keeps
from tests.notebook.panel.test_panel_hub import Reader

HERE, PANEL = "p2p_ipython:here", "p2p_ipython:panel"
VIEW = "application/vnd.jupyter.widget-view+json"


class Browser(Notebook):
    """A front end that has comms of its own, and reads those of the kernel."""

    def __init__(self, manager: KernelManager, client: Any) -> None:
        super().__init__(manager, client)
        self.messages: list[dict[str, Any]] = []  # of comms
        self.readers: dict[str, Reader] = {}

    def _take(self, message: dict[str, Any]) -> None:
        super()._take(message)
        if message["msg_type"].startswith("comm_"):
            self.messages.append(message)
            self._hear(message["content"])

    def _hear(self, content: dict[str, Any]) -> None:
        data = content.get("data", {})
        said = data.get("content") if data.get("method") == "custom" else data
        if isinstance(said, dict) and "t" in said:
            keeps(said)
        if isinstance(said, dict) and said.get("t") == "snapshot":
            self.readers[content["comm_id"]] = Reader(said)
        elif isinstance(said, dict) and said.get("t") == "delta":
            self.readers[content["comm_id"]].read(said)

    def _seen(self) -> object:
        return [message["content"] for message in self.messages[-3:]]

    def send(self, kind: str, content: dict[str, Any]) -> None:
        self.client.shell_channel.send(self.client.session.msg(kind, content))

    def open(self, target: str = PANEL, **data: Any) -> str:
        comm = uuid.uuid4().hex
        self.send("comm_open", {"comm_id": comm, "target_name": target, "data": data})
        return comm

    def tell(self, comm: str, *, custom: bool = False, **data: Any) -> None:
        self.send("comm_msg", {"comm_id": comm, "data": {"method": "custom", "content": data} if custom else data})

    def sidebar(self) -> str:
        """Open one, and wait for what there is to see."""
        comm = self.open()
        self.tell(comm, t="hello", v=1, view="sidebar")
        self.until(lambda: comm in self.readers)
        return comm

    def do(
        self, comm: str, action: str, *, custom: bool = False, then: Callable[[], object] = lambda: None, **args: Any
    ) -> dict[str, Any]:
        """Ask for something, do what is to be done ``then``, and wait for what came of it."""
        number = len(self.messages)
        self.tell(comm, custom=custom, t="do", id=number, action=action, args=args)
        then()
        found: list[dict[str, Any]] = []

        def answered() -> bool:
            for message in self.messages[number:]:
                data = message["content"].get("data", {})
                said = data.get("content") if custom else data
                if isinstance(said, dict) and said.get("t") == "did" and said["id"] == number:
                    found.append(said)
            return bool(found)

        self.until(answered)
        return found[0]

    def comms_of(self, target: str) -> list[str]:
        """Those that the kernel says it has."""
        request = self.client.session.msg("comm_info_request", {"target_name": target})
        self.client.shell_channel.send(request)
        while True:
            reply = self.client.get_shell_msg(timeout=DEADLINE)
            if reply["parent_header"].get("msg_id") == request["header"]["msg_id"]:
                return list(reply["content"]["comms"])

    def closed(self, comm: str) -> bool:
        return any(m["msg_type"] == "comm_close" and m["content"]["comm_id"] == comm for m in self.messages)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("home")
    home, key = str(folder), folder / ".ssh" / "id_ed25519"
    key.parent.mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "a secret", "-f", str(key)], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
    with connected(2, name="", environment={**environment, "HOME": home, "P2P_DATA": home}, kind=Browser) as browser:
        yield browser


@pytest.fixture
def browser(loaded: Browser) -> Browser:
    """With the cluster connected, whatever the test before has done."""
    loaded.run("%p2p_connect --workers 2")
    return loaded


def test_the_kernel_says_that_the_extension_is_loaded(browser: Browser) -> None:
    assert len(browser.comms_of(HERE)) == 1


def test_a_sidebar_sees_a_task_from_its_beginning_to_its_end_and_can_look_into_it(browser: Browser) -> None:
    panel = browser.readers[browser.sidebar()]
    browser.run("%%p2p tile --wait\nprint('hello')", cell_id="the-cell")
    browser.until(
        lambda: any(row["label"] == "tile" and row["state"] == "done" for row in panel.tables["tasks"].values())
    )
    task, row = next((id, row) for id, row in panel.tables["tasks"].items() if row["label"] == "tile")
    assert (row["cell"], row["said"], row["kind"]) == ("the-cell", "hello", "cell")
    comm = next(id for id, reader in browser.readers.items() if reader is panel)
    did = browser.do(comm, "show", task=task)
    assert did["ok"]
    assert did["data"]["source"].strip() == "print('hello')"
    assert did["data"]["outputs"] == [{"kind": "stream", "name": "stdout", "text": "hello\n"}]


def test_a_task_is_cancelled_from_the_panel_also_while_the_kernel_computes(browser: Browser, tmp_path: Path) -> None:
    comm = browser.sidebar()
    panel = browser.readers[comm]
    browser.run("%%p2p long\nimport time\ntime.sleep(120)")
    free = tmp_path / "free"
    busy = browser.start(f"import pathlib, time\nwhile not pathlib.Path({str(free)!r}).exists(): time.sleep(0.01)")

    def running() -> list[str]:
        return [id for id, row in panel.tables["tasks"].items() if row["label"] == "long" and row["state"] == "running"]

    browser.until(running)
    assert not busy.idle  # the panel hears of it all the same
    task = running()[0]
    cancelled = browser.do(comm, "cancel", task=task, then=free.touch)  # without a subshell it is heard only then
    assert cancelled["say"] == "Cancelled."
    browser.until(lambda: panel.tables["tasks"][task]["state"] == "cancelled")
    again = browser.do(comm, "cancel", task=task)
    assert (again["ok"], again["say"].split("\n")[0]) == (False, "the task has ended already")
    browser.until(lambda: busy.idle)


def test_a_sweep_is_a_row_and_can_be_cancelled_and_run_again_from_the_panel(browser: Browser, tmp_path: Path) -> None:
    comm = browser.sidebar()
    panel = browser.readers[comm]
    go = tmp_path / "go"
    source = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n1 / n"
    browser.done(f'%%p2p sweep --each "n in range(3)"\n{source}')

    def group() -> dict[str, Any]:
        return next((row for row in panel.tables["groups"].values() if row["label"] == "sweep"), {})

    browser.until(lambda: group().get("words") == "0 of 3 done")
    id = next(id for id, row in panel.tables["groups"].items() if row["label"] == "sweep")
    assert browser.do(comm, "halt", group=id)["say"] == "Cancelled."
    browser.until(lambda: group()["words"] == "0 of 3 done, 3 cancelled")
    assert group()["again"] == 3
    go.touch()
    assert browser.do(comm, "again", group=id)["ok"]
    browser.until(lambda: group()["words"] == "2 of 3 done, 1 failed")
    assert (group()["state"], group()["over"], group()["failed"]) == ("failed", 3, 1)
    browser.done("del sweep, _p2p")
    assert not browser.do(comm, "again", group="nonsense")["ok"]


def test_how_far_a_task_says_that_it_is_is_in_its_row(browser: Browser, tmp_path: Path) -> None:
    panel = browser.readers[browser.sidebar()]
    go = tmp_path / "go"
    browser.done(
        "%%p2p slow\nimport pathlib, time, p2p_ipython\nfor n in p2p_ipython.progress(range(8), label='steps'):\n"
        f"    time.sleep(0.11)\n    while n == 4 and not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)"
    )
    browser.until(lambda: any(row.get("part") == 0.5 for row in panel.tables["tasks"].values()))
    (row,) = (row for row in panel.tables["tasks"].values() if row.get("part") == 0.5)
    assert row["at"].startswith("steps: 4 of 8")
    go.touch()


@pytest.mark.parametrize(
    ("action", "args", "say"),
    [
        ("cancel", {"task": "nonsense"}, "the task has ended already"),
        ("cancel", {"task": ["x"]}, "task should be a text"),
        ("__init__", {}, "a panel can't ask for '__init__'"),
        ("trust", {"member": "bob"}, "in a personal cluster all workers are your own"),
        ("approve", {"key": "SHA256:x", "title": "alice/friends"}, "this person no longer waits"),
        ("invite", {"title": "nobody/nothing"}, "nobody/nothing"),
        ("lend", {"title": "nobody/nothing"}, "nobody/nothing"),
        ("pause", {"lending": "nonsense"}, "that is lent no more"),
        ("connect", {"target": "nobody/nothing\x00"}, "target should be a text"),
    ],
)
def test_what_can_not_be_done_is_answered_by_a_sentence(
    browser: Browser, action: str, args: dict[str, Any], say: str
) -> None:
    did = browser.do(browser.sidebar(), action, **args)
    assert not did["ok"]
    assert say in did["say"]
    assert "Traceback" not in did["say"]


def test_nonsense_from_the_browser_changes_nothing(browser: Browser) -> None:
    comm = browser.sidebar()
    for data in ({}, {"t": "do"}, {"t": "do", "id": "x", "action": "cancel", "args": {}}, {"t": "bye"}):
        browser.tell(comm, **data)
    browser.send("comm_msg", {"comm_id": comm, "data": [1]})
    browser.tell(comm, t="hello", v=1)
    count = len(browser.messages)
    browser.until(lambda: any(m["content"]["data"].get("t") == "snapshot" for m in browser.messages[count:]))


def test_a_panel_leaves_and_joins_a_cluster_as_the_magics_do(browser: Browser) -> None:
    comm = browser.sidebar()
    panel = browser.readers[comm]
    browser.run("%%p2p long\nimport time\ntime.sleep(120)")
    refused = browser.do(comm, "connect", target="127.0.0.1:1")
    assert "1 task is unfinished" in refused["say"]
    did = browser.do(comm, "disconnect")
    assert did["say"] == "Disconnected. 1 unfinished task is cancelled."
    browser.until(lambda: panel.parts["cluster"]["state"] == "closed")
    assert "Not connected" in browser.run("%p2p_disconnect\nimport gc\ngc.collect();").shown
    another = browser.readers[browser.sidebar()]
    assert [row["state"] for row in another.tables["tasks"].values()][-1] == "cancelled"  # what there was is kept
    assert "disconnect" not in panel.parts["means"]["can"]
    failed = browser.do(comm, "connect", target="127.0.0.1:1")
    assert not failed["ok"]
    assert "id_ed25519 has a passphrase" in failed["say"]  # which nobody can type here
    assert "ssh-add" in failed["say"]
    assert browser.do(comm, "connect", target="")["say"].startswith("Connected: a personal cluster")
    browser.until(lambda: panel.parts["cluster"]["state"] == "connected")
    assert "Still connected" in browser.run("%p2p_connect").shown
    assert browser.run("%p2p 6 * 7\n_p2p.result()").error is None
    browser.run("%p2p_disconnect")


def test_a_cluster_that_was_opened_by_python_is_seen_when_there_is_no_other(browser: Browser) -> None:
    browser.run("%p2p_disconnect")
    comm = browser.sidebar()
    panel = browser.readers[comm]
    browser.run("import p2p_ipython\nmine = p2p_ipython.connect(workers=1)")
    browser.until(lambda: panel.parts["cluster"]["state"] == "connected")
    browser.run("mine.close()")
    browser.until(lambda: panel.parts["cluster"]["state"] == "closed")


def widget_of(cell: Cell) -> str:
    return next(
        content["data"][VIEW]["model_id"]
        for content in reversed([*cell.of("display_data"), *cell.of("execute_result")])
        if VIEW in content["data"]
    )


def test_the_widget_hears_what_the_sidebar_hears_and_can_do_the_same(browser: Browser) -> None:
    comm = browser.sidebar()
    model = widget_of(browser.run("%p2p_panel", cell_id="panel-cell"))
    browser.tell(model, custom=True, t="hello", v=1, view="widget")
    browser.until(lambda: model in browser.readers)
    browser.run("%%p2p long\nimport time\ntime.sleep(120)")
    widget, sidebar = browser.readers[model], browser.readers[comm]

    def running() -> list[str]:
        return [id for id, row in widget.tables["tasks"].items() if row["state"] == "running"]

    browser.until(running)
    assert browser.do(model, "cancel", custom=True, task=running()[0])["ok"]
    browser.until(lambda: not running() and widget.state() == sidebar.state())


def test_a_widget_gets_the_text_of_its_second_module_and_of_nothing_else_and_a_sidebar_none(browser: Browser) -> None:
    comm = browser.sidebar()
    model = widget_of(browser.run("%p2p_panel", cell_id="panel-cell"))

    def sent(to: str) -> list[Any]:
        said = [m["content"]["data"] for m in browser.messages if m["content"].get("comm_id") == to]
        return [data.get("content") or data for data in said if (data.get("content") or data).get("t") == "more"]

    browser.tell(comm, t="more")
    browser.tell(model, custom=True, t="more", name="../../pyproject.toml", file="widget.js")
    browser.until(lambda: sent(model))
    browser.run("'what was asked of the sidebar before that is answered by now'")
    more = files("p2p_ipython") / "static" / "more.js"
    assert sent(model) == [{"t": "more", "code": more.read_text("utf-8")}]
    assert sent(comm) == []


def html_of(cell: Cell) -> dict[str, Any]:
    """What the cell's HTML says now, and as text."""
    found = [content["data"] for kind in ("display_data", "update_display_data") for content in cell.of(kind)]
    return dict([data for data in found if "text/html" in data][-1])


def test_a_cell_has_html_and_text_besides_the_widget_and_nothing_of_the_cluster_is_in_the_widgets_state(
    browser: Browser,
) -> None:
    panel = browser.readers[browser.sidebar()]
    browser.until(lambda: any(row["name"] == "worker-1" for row in panel.tables["members"].values()))
    cell = browser.run("%p2p_panel", cell_id="panel-cell")
    assert [data["data"].keys() for data in cell.of("display_data")] == [
        {VIEW, "text/plain"},
        {"text/html", "text/plain"},
    ]
    value = browser.run("from IPython import get_ipython\nget_ipython().magics_manager.registry['P2PMagics'].cluster")
    both = value.of("execute_result")[-1]["data"]
    assert both.keys() == {VIEW, "text/html", "text/plain"}
    for data in (html_of(cell), both):
        assert "worker-1" in data["text/html"]
        assert data["text/plain"].startswith("personal, on this machine: connected")
    opened = [m["content"]["data"] for m in browser.messages if m["msg_type"] == "comm_open"]
    panels = [data["state"] for data in opened if "Panel" in data.get("state", {}).get("_anywidget_id", "")]
    assert panels
    assert not any("worker-1" in str(state) or "SHA256" in str(state) for state in panels)


def test_a_panel_of_one_cluster_is_shown_like_that_of_the_notebooks(browser: Browser) -> None:
    browser.run("from IPython import get_ipython\nthis = get_ipython().magics_manager.registry['P2PMagics'].cluster")
    cell = browser.run("this.panel()", cell_id="another-cell")
    assert cell.value is None
    model = widget_of(cell)
    browser.tell(model, custom=True, t="hello", v=1, view="widget")
    browser.until(lambda: model in browser.readers)
    browser.run("%p2p_disconnect\n%p2p_connect --workers 1")
    browser.until(lambda: browser.readers[model].parts["cluster"]["state"] == "closed")
    assert browser.readers[browser.sidebar()].parts["cluster"]["state"] == "connected"
    browser.run("del this\n%p2p_disconnect")


def test_after_the_user_has_closed_all_widgets_the_panel_has_a_new_one(browser: Browser) -> None:
    before = widget_of(browser.run("%p2p_panel", cell_id="closed"))
    browser.run("import ipywidgets\nipywidgets.Widget.close_all()")
    model = widget_of(browser.run("%p2p_panel", cell_id="closed"))
    assert model not in (before, "None")
    browser.tell(model, custom=True, t="hello", v=1, view="widget")
    browser.until(lambda: model in browser.readers)


def test_the_saved_html_of_a_cluster_that_is_forgotten_stays_as_it_was(browser: Browser) -> None:
    cell = browser.run(
        "import gc, p2p_ipython\nfrom IPython.display import display\n"
        "other = p2p_ipython.connect(workers=1)\nprint(other.submit(pow, 2, 3).result(60))\ndisplay(other.panel())",
        cell_id="forgotten",
    )
    assert "1 done" in html_of(cell)["text/plain"]
    browser.run(
        "import time, weakref\nother.close()\nseen = weakref.ref(other)\ndel other\n"
        "while seen() is not None:  # the loop may be busy with it for a moment\n"
        "    gc.collect()\n    time.sleep(0.01)"
    )
    browser.run("%p2p_disconnect\n%p2p_connect --workers 2")  # all that is shown is saved
    browser.run("get_ipython().magics_manager.registry['P2PMagics'].cluster.panel()", cell_id="next")
    browser.until(lambda: cell.of("update_display_data")[-1]["data"] == {})  # the widget is gone
    assert "1 done" in html_of(cell)["text/plain"]
    assert "No cluster" not in html_of(cell)["text/html"]


def test_the_saved_html_says_how_a_hostile_task_ended_and_that_the_cluster_is_closed(browser: Browser) -> None:
    cell = browser.run("%p2p_panel", cell_id="panel-cell")
    model = widget_of(cell)
    browser.tell(model, custom=True, t="hello", v=1, view="widget")
    browser.until(lambda: model in browser.readers)
    browser.run("%%p2p x --label '<img src=x onerror=alert(1)>'\nprint('<script>alert(2)</script>')\n1/0")

    browser.until(lambda: "&lt;img src=x onerror=alert(1)&gt;" in html_of(cell)["text/html"])
    browser.until(lambda: "1 failed" in html_of(cell)["text/html"])
    assert "<img" not in html_of(cell)["text/html"]
    assert "<script" not in html_of(cell)["text/html"]
    views = [content for content in cell.of("update_display_data") if VIEW in content["data"]]
    assert views == []  # the view that the user looks at is left alone
    browser.run("%p2p_disconnect")
    browser.until(lambda: "closed" in html_of(cell)["text/plain"])


def test_a_notebook_without_a_person_gets_no_widget(browser: Browser) -> None:
    cell = browser.run("%p2p_panel", cell_id=None)
    assert cell.of("display_data")[-1]["data"].keys() == {"text/html", "text/plain"}


def test_pages_that_were_closed_without_a_word_are_forgotten_in_the_end(browser: Browser) -> None:
    comms = [browser.sidebar() for _ in range(9)]
    browser.until(lambda: browser.closed(comms[0]))
    assert not browser.closed(comms[-1])
    browser.send("comm_close", {"comm_id": comms[-1], "data": {}})
    assert comms[-1] not in browser.comms_of(PANEL)


def test_a_front_end_that_closes_the_presence_comm_does_not_hide_it_from_others(browser: Browser) -> None:
    here = browser.comms_of(HERE)
    for comm in here:  # as a front end does that has no such target
        browser.send("comm_close", {"comm_id": comm, "data": {}})
    assert browser.comms_of(HERE) == here
    browser.run("%unload_ext p2p_ipython")
    browser.until(lambda: all(browser.closed(comm) for comm in here))
    assert browser.comms_of(HERE) == []
    browser.run("%load_ext p2p_ipython")
    browser.run("%p2p_connect --workers 2")


def test_unloading_closes_the_comms_and_leaves_html_and_loading_again_begins_anew(browser: Browser) -> None:
    comm = browser.sidebar()
    here = browser.comms_of(HERE)
    cell = browser.run("%p2p_panel", cell_id="panel-cell")
    model = widget_of(cell)
    browser.run("%unload_ext p2p_ipython")
    browser.until(lambda: all(browser.closed(one) for one in (comm, model, *here)))
    assert browser.comms_of(HERE) == browser.comms_of(PANEL) == []
    assert cell.of("update_display_data")[-1]["data"] == {}  # where the widget was
    assert "As it was on" in html_of(cell)["text/html"]
    threads = browser.run("import threading\n[t.name for t in threading.enumerate() if 'panel' in t.name]")
    assert threads.value == "[]"
    browser.run("%load_ext p2p_ipython")
    assert browser.comms_of(HERE) != here
    assert browser.readers[browser.sidebar()].parts["cluster"]["state"] == "none"


def test_what_a_panel_needs_is_imported_once_a_cluster_is_joined_and_nothing_runs() -> None:
    look = "import sys\n[name in sys.modules for name in ('anywidget', 'p2p_ipython.notebook.panel.widget')]"
    with notebook(kind=Browser) as browser:
        browser.run("%load_ext p2p_ipython")
        assert browser.run(look).value == "[False, False]"
        browser.run("%p2p_connect --workers 1")
        browser.until(lambda: browser.run(look).value == "[True, True]")


def test_the_end_of_the_kernel_leaves_html_in_the_cell() -> None:
    with notebook(kind=Browser) as browser:
        browser.run("%load_ext p2p_ipython\n%p2p_connect --workers 1")
        cell = browser.run("%p2p_panel", cell_id="panel-cell")
        assert VIEW in cell.of("display_data")[0]["data"]
        browser.run("%p2p 1\n_p2p.result()")
        browser.client.shutdown()
        browser.until(lambda: any(content["data"] == {} for content in cell.of("update_display_data")))
        assert "1 done" in html_of(cell)["text/plain"]
