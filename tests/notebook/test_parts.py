"""The magics' parts without a kernel: options, lines of status, the order of output."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic_arguments import parse_argstring
from traitlets.config import Config

from p2p_ipython.client.errands import Visitor
from p2p_ipython.client.hosted import find_visitor, knock_line
from p2p_ipython.client.printing import printed
from p2p_ipython.client.status import ClusterStatus
from p2p_ipython.errors import BoardUnreachable, ConfigError, LocalProtocolError, NotConnected
from p2p_ipython.errors import UsageError as OurUsageError
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.notebook.dry_run import caption
from p2p_ipython.notebook.lending import LendingMagics
from p2p_ipython.notebook.lines import GlobalsOption, split_globals
from p2p_ipython.notebook.magics import P2PMagics, load, unload
from p2p_ipython.notebook.notice import Notice
from p2p_ipython.notebook.output import CellOutput, CurrentCell, table
from p2p_ipython.notebook.panel.registration import Registration
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


def test_output_knows_its_cell_where_cells_are_kept_apart() -> None:
    assert [CellOutput(shell, CurrentCell(shell)).cell for shell in (Shell(cell_ids=True), Shell(cell_ids=False))] == [
        "first",
        "",
    ]


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
    output.show("<b>", html="<b>another look</b>")  # of the same words
    assert shell.kernel.sent[-1][2]["data"]["text/html"] == "<b>another look</b>"
    assert len(shell.kernel.sent) == 3


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
    printed.drain(10)
    assert tuple(capsys.readouterr()) == ("out\nfigure\n", "err\n")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([1], "1 name would travel, about 1 byte. Nothing was sent."),
        ([1000, 2000], "2 names would travel, about 3.0 kB. Nothing was sent."),
        ([None], "1 name can't be sent, so the cell would be refused. Nothing was sent."),
        (
            [20, None, None],
            "1 name would travel, about 20 bytes. 2 names can't be sent, so the cell would be refused. "
            "Nothing was sent.",
        ),
    ],
)
def test_a_dry_run_sums_up_what_travels_and_what_can_not(sizes: list[int | None], words: str) -> None:
    assert caption(sizes) == words


def test_tables_are_aligned_and_escaped() -> None:
    shown = table(("name", "size"), [("a", "1"), ("<b>", "22")], "caption")
    assert shown["text/plain"] == "caption\nname  size\na     1\n<b>   22"
    assert "<td" in shown["text/html"]
    assert "&lt;b&gt;" in shown["text/html"]
    assert "<b>" not in shown["text/html"]
    assert shown["text/html"].startswith("<div>caption</div><table>")


def test_loading_twice_leaves_one_set_of_magics_and_unloading_none(ip: InteractiveShell) -> None:
    hooks = len(ip.events.callbacks["pre_run_cell"])
    load(ip)
    load(ip)
    assert len(ip.events.callbacks["pre_run_cell"]) == hooks + 1
    unload(ip)
    assert len(ip.events.callbacks["pre_run_cell"]) == hooks
    assert not [name for kind in ip.magics_manager.magics.values() for name in kind if name.startswith("p2p")]
    assert not ip.Completer.custom_matchers


def test_what_was_unloaded_is_kept_by_nobody(ip: InteractiveShell) -> None:
    magics = load(ip)
    assert magics in ip.configurables
    unload(ip)
    assert not [one for one in ip.configurables if type(one).__module__.startswith("p2p_ipython")]


def test_unloading_ends_the_rest_when_a_part_of_it_fails(ip: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    connect: Any = Somewhere
    magics = load(ip, connect)
    magics.p2p_connect("")
    cluster = here(magics)

    def fail(*_: object) -> None:
        raise TimeoutError("the loop is busy")

    monkeypatch.setattr(LendingMagics, "end", fail)
    monkeypatch.setattr(Registration, "close", fail)
    hooks = len(ip.events.callbacks["pre_run_cell"])
    with pytest.raises(TimeoutError, match="the loop is busy"):
        unload(ip)
    assert cluster.closed
    assert len(ip.events.callbacks["pre_run_cell"]) == hooks - 1
    monkeypatch.undo()
    assert magics.registration is not None
    magics.registration.close()


def test_a_cluster_that_is_joined_when_the_extension_is_unloaded_already_is_left_again(ip: InteractiveShell) -> None:
    made: list[Somewhere] = []

    def connect(**given: Any) -> Any:
        unload(ip)  # while a panel's connecting goes on in a thread of its own
        made.append(Somewhere(**given))
        return made[0]

    with pytest.raises(OurUsageError, match="unloaded meanwhile"):
        load(ip, connect).connect_to("", lambda _words: None)
    assert made[0].closed


class Somewhere:
    """A cluster as far as connecting is concerned; ``refused`` when it can't be reached."""

    refused: ClassVar[set[str | None]] = set()

    def __init__(self, *, target: str | None, cluster: str | None, **_: Any) -> None:
        if target in self.refused:
            raise BoardUnreachable("no answer")
        self.target = target
        self.cluster = cluster
        self.closed = False
        self.tasks = 0

    def status(self) -> ClusterStatus:
        return ClusterStatus("", "", "", "", "", (), (), pending=self.tasks // 2, running=self.tasks - self.tasks // 2)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def magics(ip: InteractiveShell) -> P2PMagics:
    connect: Any = Somewhere
    return load(ip, connect)


def here(magics: P2PMagics) -> Any:
    return magics.cluster


def test_a_connect_that_fails_leaves_the_cluster_that_works(
    magics: P2PMagics, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    magics.p2p_connect("")
    first = here(magics)
    monkeypatch.setattr(Somewhere, "refused", {"nowhere"})
    with pytest.raises(BoardUnreachable):
        magics.p2p_connect("nowhere")
    assert here(magics) is first
    assert not first.closed
    capsys.readouterr()
    magics.p2p_connect("")
    assert capsys.readouterr().out.startswith("Still connected: a personal cluster")


def test_connecting_elsewhere_leaves_the_old_cluster_last_and_says_so(
    magics: P2PMagics, capsys: pytest.CaptureFixture[str]
) -> None:
    magics.p2p_connect("")
    first = here(magics)
    magics.p2p_connect("there --cluster mine")
    second = here(magics)
    assert (first.closed, second.closed, second.target, second.cluster) == (True, False, "there", "mine")
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "Connected: the board at there, cluster mine. Put %%p2p on top of a cell to run it there.",
        "Left: a personal cluster on this machine.",
    ]


def test_connecting_elsewhere_is_refused_while_tasks_are_not_over(
    magics: P2PMagics, capsys: pytest.CaptureFixture[str]
) -> None:
    magics.p2p_connect("")
    first = here(magics)
    first.tasks = 2
    with pytest.raises(OurUsageError, match="where 2 tasks are unfinished") as caught:
        magics.p2p_connect("there")
    assert "%p2p_disconnect" in caught.value.hint
    magics.p2p_connect("")  # the same again is harmless
    assert here(magics) is first
    assert not first.closed
    capsys.readouterr()
    magics.p2p_disconnect("")
    assert capsys.readouterr().out == "Disconnected. 2 unfinished tasks are cancelled.\n"
    assert first.closed
    magics.p2p_connect("there")
    assert here(magics).target == "there"


def test_disconnecting_without_tasks_just_says_so(magics: P2PMagics, capsys: pytest.CaptureFixture[str]) -> None:
    magics.p2p_connect("there")
    assert here(magics).cluster is None  # no name was given
    capsys.readouterr()
    magics.p2p_disconnect("")
    magics.p2p_disconnect("")
    assert capsys.readouterr().out == "Disconnected.\nNot connected.\n"


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("p2p_status", "--foo", "takes no arguments: --foo"),
        ("p2p_disconnect", "now", "takes no arguments: now"),
        ("p2p_connect", "--help", r"%p2p_connect\?"),
        ("p2p", "--help", r"%p2p\?"),
        ("p2p", "x = 5", "one expression; for statements, write %%p2p"),
        ("p2p", "import os", "one expression"),
        ("p2p", "1; 2", "one expression"),
    ],
)
def test_a_line_that_a_magic_does_not_take_is_refused(magics: P2PMagics, name: str, line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        getattr(magics, name)(line)


def test_help_on_a_cell_is_pointed_to(magics: P2PMagics) -> None:
    with pytest.raises(UsageError, match=r"%%p2p\?"):
        magics.p2p("--help", "1")


def test_options_are_completed(ip: InteractiveShell) -> None:
    load(ip)

    def completed(line: str) -> set[str]:
        with provisionalcompleter():
            return {c.text for c in ip.Completer.completions(line, len(line))}

    assert completed("%%p2p --wa") == {"--wait"}
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


def visitor(name: str, key: str = "A", **options: Any) -> Visitor:
    return Visitor("alice/friends", name, f"SHA256:{key * 43}", **{"called": name, **options})


def test_a_visitor_is_found_by_name_and_by_how_the_key_begins() -> None:
    bob, mallory, carol = visitor("bob", "B"), visitor("bob", "M"), visitor("<carol>", "C", called="carol")
    waiting = [bob, mallory, carol]
    assert find_visitor(waiting, "carol") == find_visitor(waiting, "<carol>") == carol
    assert find_visitor(waiting, "SHA256:MMMM") == find_visitor(waiting, "MMMMMM") == mallory
    with pytest.raises(ConfigError, match="2 of those") as caught:
        find_visitor(waiting, "bob")
    assert bob.fingerprint in caught.value.hint
    assert mallory.fingerprint in caught.value.hint
    for nobody in ("dave", "", "B", "SHA256:"):  # a letter or two are no fingerprint
        with pytest.raises(ConfigError, match="nobody called"):
            find_visitor(waiting, nobody)
    with pytest.raises(ConfigError) as early:
        find_visitor([], "dave", invited=True)
    assert early.value.hint.startswith("Nobody waits now. A guest with a code is here once they have typed it")


def test_what_strangers_call_themselves_is_text_and_a_crowd_is_cut_short() -> None:
    line = knock_line(visitor("<img src=x> approve me", called="img"), by_key=False)
    assert line.startswith("img, who calls himself '<img src=x> approve me', knocks at alice/friends, with the key SHA")
    assert line.endswith("%p2p_approve img   or   %p2p_refuse img")
    shell = Shell(cell_ids=True)
    Notice(CellOutput(shell, CurrentCell(shell))).show(line, line)
    html = shell.kernel.sent[0][2]["data"]["text/html"]
    assert "&lt;img src=x&gt;" in html
    assert "<img" not in html


def test_buttons_go_with_the_last_visitor_and_come_back_in_their_place() -> None:
    shell = Shell(cell_ids=True)
    notice = Notice(CellOutput(shell, CurrentCell(shell)), lambda _visitor, _yes: None)
    bob, carol = visitor("bob", "B"), visitor("carol", "C")
    for waiting in [(), (bob,), (bob, carol), (), (), (carol,)]:
        notice.show("text", "news", waiting)
    kind = "application/vnd.jupyter.widget-view+json"
    first, gone, again = [entry for entry in shell.kernel.sent if "text/html" not in entry[2]["data"]]
    assert [first[0], gone[0], again[0]] == ["display_data", "update_display_data", "update_display_data"]
    assert first[2]["transient"] == gone[2]["transient"] == again[2]["transient"]
    assert gone[2]["data"] == {}  # a view that is left would be an error in the saved notebook
    assert first[2]["data"][kind]["model_id"] != again[2]["data"][kind]["model_id"]


def test_a_notice_in_a_terminal_prints_what_is_new(capsys: pytest.CaptureFixture[str], ip: InteractiveShell) -> None:
    notice = Notice(CellOutput(ip, CurrentCell(ip)), lambda _visitor, _yes: None)
    notice.progress("going to the board")
    notice.show("the whole", "bob knocks")
    notice.show("the whole, again", "")
    printed.drain(10)
    assert capsys.readouterr().out == "bob knocks\n"


def test_errors_in_a_notebook_speak_of_magics() -> None:
    error = OurUsageError("there is none", hint="Host one: p2p host NAME, then p2p worker --cluster NAME")
    assert error._render_traceback_()[1] == "Host one: %p2p_host NAME, then p2p worker --cluster NAME"
    assert "p2p host NAME" in str(error)


def test_titles_of_known_clusters_are_completed(
    ip: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2P_DATA", str(tmp_path))
    for title in ("alice/friends", "alice/family"):
        name = title.partition("/")[2]
        profile = Profile(
            title, f"SHA256:x/{name}", "host", "", "", "", "", "SHA256:x", "p2p-" + "0" * 32, bytes(32), b""
        )
        Profiles().save(profile)
    load(ip)

    def completed(line: str) -> set[str]:
        with provisionalcompleter():
            return {c.text for c in ip.Completer.completions(line, len(line))}

    assert completed("%p2p_connect alice/f") == {"alice/friends", "alice/family"}
    assert completed("%p2p_leave alice/fr") == {"alice/friends"}
    assert not {c for c in completed("%p2p_connect alice/friends al") if "/" in c}


def test_magics_for_friends_refuse_what_makes_no_sense(ip: InteractiveShell, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("P2P_DATA", str(tmp_path))
    load(ip)
    friends = ip.magics_manager.registry["FriendsMagics"]
    with pytest.raises(UsageError, match="name the cluster"):
        friends.p2p_invite("")
    with pytest.raises(UsageError, match="--board is for --own"):
        friends.p2p_invite("friends bob --board there")
    with pytest.raises(ConfigError, match="no code of an invitation"):
        friends.p2p_join("nonsense")
    with pytest.raises(ConfigError, match="not a duration"):
        friends.p2p_host("friends --duration soon")
    with pytest.raises(ConfigError, match="nobody called 'bob'"):
        friends.p2p_approve("bob")
    with pytest.raises(NotConnected):
        friends.p2p_trust("bob")
    with pytest.raises(ConfigError, match="are in no cluster called friends"):
        friends.p2p_trust("friends bob")
    with pytest.raises(ConfigError, match="are in no cluster called friends"):
        friends.p2p_leave("friends")
    with pytest.raises(UsageError, match=r"%p2p_host\?"):
        friends.p2p_host("--help")


# -- options --


@pytest.mark.parametrize("action", P2PMagics.p2p.parser._actions, ids=lambda action: action.dest)
def test_no_option_takes_the_name_of_the_future(action: argparse.Action) -> None:
    if not action.option_strings or action.dest == "help":
        return
    value = "+x" if action.dest == "globals" else "7" if action.type is int else "value"
    given = action.option_strings[-1] + ("" if action.nargs == 0 else f" {value}")
    for line in (f"{given} tile", f"tile {given}", f"{given} {given} tile" if action.nargs != 0 else f"{given} tile"):
        rest, _ = split_globals(line)
        assert parse_argstring(P2PMagics.p2p, rest).name == "tile", line
