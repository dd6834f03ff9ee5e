"""The magics' parts without a kernel: options, lines of status, the order of output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from p2p_ipython.errors import BoardUnreachable, LocalProtocolError
from p2p_ipython.notebook.magics import GlobalsOption, load, split_globals, unload
from p2p_ipython.notebook.output import CellOutput, CurrentCell, table
from p2p_ipython.notebook.status_line import text


@pytest.fixture
def ip() -> Iterator[InteractiveShell]:
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell(config=config)
    yield shell
    unload(shell)
    InteractiveShell.clear_instance()


class Kernel:
    """The part of a kernel that output needs: it keeps what was sent."""

    def __init__(self) -> None:
        self.iopub_socket = object()
        self.session = self
        self.sent: list[tuple[str, Any, dict[str, Any]]] = []

    def send(self, _socket: object, kind: str, content: dict[str, Any], *, parent: Any, ident: bytes) -> None:
        assert ident == f"topic.{kind}".encode()
        self.sent.append((kind, parent["id"], content))

    def _topic(self, kind: str) -> bytes:
        return f"topic.{kind}".encode()

    @property
    def order(self) -> list[tuple[str, str]]:
        return [
            (kind, content.get("text") or content.get("data", {}).get("text/plain", ""))
            for kind, _, content in self.sent
        ]


class Shell:
    """A shell whose current cell the test chooses."""

    def __init__(self, *, cell_ids: bool) -> None:
        self.kernel = Kernel()
        self.events = self
        self.cell_ids = cell_ids
        self.hooks: dict[str, Any] = {}
        self.begin("first")

    def register(self, event: str, hook: Any) -> None:
        self.hooks[event] = hook

    def begin(self, cell: str) -> None:
        self.parent = {"id": cell, "metadata": {"cellId": cell} if self.cell_ids else {}}
        if self.hooks:
            self.hooks["pre_run_cell"](None)

    def end(self) -> None:
        self.hooks["post_run_cell"](None)

    def get_parent(self) -> dict[str, Any]:
        return self.parent


def stream(words: str) -> dict[str, Any]:
    return {"kind": "stream", "name": "stdout", "text": words}


@pytest.mark.parametrize(
    ("line", "rest", "option"),
    [
        ("tile --wait", "tile --wait", GlobalsOption(True, (), ())),
        ("tile --globals none --wait", "tile --wait", GlobalsOption(False, (), ())),
        ("--globals +x -y tile", "tile", GlobalsOption(True, ("x",), ("y",))),
        ("--globals=none,+x,+y", "", GlobalsOption(False, ("x", "y"), ())),
        ("--globals '+x -y' --once", "--once", GlobalsOption(True, ("x",), ("y",))),
        ("tile --label 'a  b'", "tile --label 'a  b'", GlobalsOption(True, (), ())),
    ],
)
def test_names_to_add_and_leave_out_are_taken_from_the_line(line: str, rest: str, option: GlobalsOption) -> None:
    assert split_globals(line) == (rest, option)


@pytest.mark.parametrize("line", ["--globals", "--globals tile", "--globals --wait", "--globals +1"])
def test_globals_without_names_is_refused(line: str) -> None:
    with pytest.raises(UsageError):
        split_globals(line)


@pytest.mark.parametrize(
    ("state", "seconds", "over", "line"),
    [
        ("on worker-1", 0.5, False, "tile: on worker-1"),
        ("on worker-1", 3.7, False, "tile: on worker-1, 3 s"),
        ("on worker-1", 58, False, "tile: on worker-1, 55 s"),
        ("on worker-1", 60, False, "tile: on worker-1, 1 min"),
        ("on worker-1", 155, False, "tile: on worker-1, 2 min 30 s"),
        ("done on worker-1", 0.0123, True, "tile: done on worker-1 in 12 ms"),
        ("failed on worker-1", 3.21, True, "tile: failed on worker-1 in 3.2 s"),
        ("done on worker-1", 119.6, True, "tile: done on worker-1 in 2 min 0 s"),
        ("cancelled", 2, True, "tile: cancelled after 2.0 s"),
    ],
)
def test_a_status_line_says(state: str, seconds: float, over: bool, line: str) -> None:
    assert text("tile", state, seconds, over=over) == line


def test_output_names_its_cell_as_parent_when_others_run() -> None:
    shell = Shell(cell_ids=True)
    current = CurrentCell(shell)
    output = CellOutput(shell, current)
    shell.end()
    shell.begin("second")
    output(stream("late"))
    assert [(kind, parent) for kind, parent, _ in shell.kernel.sent] == [("stream", "first")]


def test_output_waits_for_the_next_cell_where_nobody_listens_between_cells() -> None:
    shell = Shell(cell_ids=False)
    current = CurrentCell(shell)
    output = CellOutput(shell, current)
    shell.end()
    output(stream("one"))
    output(stream("two"))
    assert not shell.kernel.sent
    shell.begin("second")
    output(stream("three"))
    assert shell.kernel.order == [("stream", "one"), ("stream", "two"), ("stream", "three")]
    assert {parent for _, parent, _ in shell.kernel.sent} == {"second"}


def test_the_status_line_is_one_display_that_is_updated_when_it_changes() -> None:
    shell = Shell(cell_ids=True)
    output = CellOutput(shell, CurrentCell(shell))
    for words in ("a", "a", "<b>"):
        output.show(words)
    assert shell.kernel.order == [("display_data", "a"), ("update_display_data", "<b>")]
    (one, two) = [content for _, _, content in shell.kernel.sent]
    assert one["transient"] == two["transient"]
    assert "&lt;b&gt;" in two["data"]["text/html"]


@pytest.mark.parametrize("wait", [True, False])
def test_the_status_line_comes_back_when_a_task_clears_its_output(wait: bool) -> None:
    shell = Shell(cell_ids=True)
    output = CellOutput(shell, CurrentCell(shell))
    output.show("status")
    output({"kind": "clear_output", "content": {"wait": wait}})
    output(stream("x"))
    output(stream("y"))
    kinds = [
        ("display_data", "status"),
        ("clear_output", ""),
        ("display_data", "status"),
        ("stream", "x"),
        ("stream", "y"),
    ]
    assert shell.kernel.order == kinds


def test_what_is_not_trusted_is_shown_as_plain_text() -> None:
    shell = Shell(cell_ids=True)
    output = CellOutput(shell, CurrentCell(shell), rich=False)
    output({"kind": "display_data", "content": {"data": {"text/html": "<script>", "text/plain": "t"}, "metadata": 3}})
    assert shell.kernel.sent[0][2] == {"data": {"text/plain": "t"}, "metadata": {}, "transient": {}}


def test_a_terminal_prints(capsys: pytest.CaptureFixture[str], ip: InteractiveShell) -> None:
    output = CellOutput(ip, CurrentCell(ip))
    output.show("no status lines")
    output(stream("out\n"))
    output({"kind": "stream", "name": "stderr", "text": "err\n"})
    output({"kind": "display_data", "content": {"data": {"text/plain": "figure"}}})
    output({"kind": "clear_output", "content": {}})
    assert tuple(capsys.readouterr()) == ("out\nfigure\n", "err\n")


def test_tables_are_aligned_and_escaped() -> None:
    shown = table(("name", "size"), [("a", "1"), ("<b>", "22")], "caption")
    assert shown["text/plain"] == "caption\nname  size\na     1\n<b>   22"
    assert "<td" in shown["text/html"]
    assert "&lt;b&gt;" in shown["text/html"]
    assert "<b>" not in shown["text/html"]


def test_loading_twice_leaves_one_set_of_magics_and_unloading_none(ip: InteractiveShell) -> None:
    hooks = len(ip.events.callbacks["pre_run_cell"])
    load(ip)
    load(ip)
    assert len(ip.events.callbacks["pre_run_cell"]) == hooks + 1
    unload(ip)
    assert len(ip.events.callbacks["pre_run_cell"]) == hooks
    assert not [name for kind in ip.magics_manager.magics.values() for name in kind if name.startswith("p2p")]
    assert not ip.Completer.custom_matchers


def test_options_are_completed(ip: InteractiveShell) -> None:
    load(ip)

    def completed(line: str) -> set[str]:
        with provisionalcompleter():
            return {c.text for c in ip.Completer.completions(line, len(line))}

    assert completed("%%p2p --w") == {"--wait"}
    assert completed("%p2p_connect --") >= {"--cluster", "--workers", "--accept-host-key"}
    assert not {c for c in completed("x --w") if c.startswith("--")}


def test_our_errors_are_short_in_ipython_and_our_own_bugs_are_not(ip: InteractiveShell, capsys: Any) -> None:
    for error in (BoardUnreachable("no answer", hint="Try again."), LocalProtocolError("a bug")):
        try:
            raise error
        except Exception:
            ip.showtraceback()
    shown = capsys.readouterr().out
    short, _, long = shown.partition("Try again.")
    assert "no answer" in short
    assert "Traceback" not in short
    assert "Traceback" in long
