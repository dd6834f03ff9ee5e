"""How things are told to a panel: rows, the static view, what is shown of a task, what may be asked."""

from __future__ import annotations

import base64
import html
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from frame_support import read_result
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.client.arrived import Arrived
from p2p_ipython.client.errands import Visitor
from p2p_ipython.client.future import Future
from p2p_ipython.client.journal import Attempt, Entry
from p2p_ipython.client.lending_state import LendingState
from p2p_ipython.client.status import SANDBOX_HELP
from p2p_ipython.errors import UsageError, WorkerLost
from p2p_ipython.lending.record import Entry as LogRecord
from p2p_ipython.members.invitation_messages import Guest
from p2p_ipython.members.inviting import Question
from p2p_ipython.notebook.panel import rows, static
from p2p_ipython.notebook.panel.asked import ARGUMENTS, Code, Do, Hello, checked, read
from p2p_ipython.notebook.panel.shown import CUT, MOST_IMAGES, MOST_OUTPUTS, MOST_TEXT, shown
from p2p_ipython.protocol.client_machine import TaskState
from p2p_ipython.protocol.messages import CardKind, Terms
from p2p_ipython.protocol.questions import asked
from tests.notebook.panel.contract_support import fits

HOSTILE = '<img src=x onerror="window.pwned=1">\'&'
TERMS = Terms(slots=2, free=1, python="3.11", platform="Linux x86_64", cores=8, memory=1 << 33)
KEY = "SHA256:" + "a" * 43
OTHER_KEY = "SHA256:" + "o" * 43


# --- rows ---


def test_a_task_that_waits_leaves_out_what_has_not_happened() -> None:
    entry = Entry("1", "tile", "cell", "c1", "3.11", 1000.12345, 7)
    assert rows.task(entry) == {
        "label": "tile",
        "kind": "cell",
        "state": "waiting",
        "needs": "3.11",
        "submitted": 1000.12345,
        "sizeIn": 7,
        "cell": "c1",
    }


def test_tasks_that_a_loop_submits_within_a_millisecond_keep_their_order() -> None:
    at = 1_790_000_000.0
    told = [rows.task(Entry(str(n), "f", "call", "", "", at + n * 12e-6, 7))["submitted"] for n in range(50)]
    assert len(set(told)) == 50
    assert told == sorted(told)


def test_a_task_that_is_over_tells_all() -> None:
    entry = Entry("1", "f" * 500, "call", "", "", 1.0, 7, TaskState.FAILED, "failed on w", "w", b"s", KEY, 2)
    entry.sent, entry.started, entry.ended, entry.size_out = 2.0, 3.0, 4.0, 9
    entry.said, entry.error = "last", "ValueError: no"
    told = rows.task(entry)
    assert (told["sent"], told["started"], told["ended"], told["sizeOut"]) == (2.0, 3.0, 4.0, 9)
    assert (told["said"], told["error"], told["attempt"], told["worker"]) == ("last", "ValueError: no", 2, "w")
    assert len(told["label"]) == rows.NAME


def test_attempts_that_were_lost_while_they_ran_are_told_and_those_that_were_handed_back_are_not() -> None:
    entry = Entry("1", "f", "call", "", "", 1.0, 7)
    entry.attempts = (Attempt("w" * 500, 2.0, 0.0, 3.0),)
    assert "tried" not in rows.task(entry)
    entry.attempts += (Attempt("v", 4.0, 5.00049, 6.0),)
    assert rows.task(entry)["tried"] == [("v", 4.0, 5.0, 6.0)]


@pytest.mark.parametrize(
    ("said", "told"),
    [(1.5, 1.5), (4321.98765, 4321.988), (1e-9, 0.001), (0.0, None), (-1.0, None), (math.inf, None), (math.nan, None)],
)
def test_how_long_a_task_ran_is_told_once_it_is_over_if_its_worker_says_something_sensible(
    said: float, told: float | None
) -> None:
    entry = Entry("1", "f", "call", "", "", 1.0, 7, TaskState.RUNNING)
    entry.sent, entry.started, entry.seconds = 2.0, 3.0, said
    assert "ran" not in rows.task(entry)
    entry.ended, entry.state = 5000.0, TaskState.DONE
    assert rows.task(entry).get("ran") == told


def test_a_member_is_told_by_what_it_offers_and_noise_in_its_round_trip_is_no_news() -> None:
    def told(rtt: float | None) -> Any:
        return rows.member(name="bob", roles=["worker"], key=KEY, trust=rows.PLAIN, terms=TERMS, busy=1, rtt=rtt)

    assert told(0.0123449) == told(0.0123411)
    assert told(None) == told(math.inf) == told(-1.0)
    assert told(0.5)["slots"] == 2
    assert "me" not in told(0.5)


def test_an_offer_says_what_is_free_as_far_as_it_is_known() -> None:
    def free(terms: Terms, *, busy: int, own: bool) -> int:
        told = rows.offer("bob", terms, busy=busy, own=own, state="up", only="", mine=True)
        return int(told.get("free", 0))

    assert free(TERMS, busy=0, own=True) == 2
    assert free(TERMS, busy=0, own=False) == 1
    assert free(TERMS, busy=2, own=False) == 0
    assert free(Terms(2, 2, "3.11", paused=True), busy=0, own=True) == 0


def test_an_offer_names_its_sandbox_if_there_is_one() -> None:
    def sandbox(terms: Terms) -> object:
        return rows.offer("bob", terms, busy=0, own=False, state="up", only="", mine=True).get("sandbox")

    assert sandbox(replace(TERMS, sandbox="bubblewrap")) == "bubblewrap"
    assert sandbox(TERMS) is None


def test_an_offer_names_its_graphics_cards_if_there_are_some() -> None:
    def cards(terms: Terms) -> object:
        return rows.offer("bob", terms, busy=0, own=False, state="up", only="", mine=True).get("cards")

    assert cards(replace(TERMS, cards=(CardKind(2, "NVIDIA A40", 45 << 30),))) == "2 × NVIDIA A40 with 45 GiB"
    assert cards(TERMS) is None


def test_the_static_view_names_graphics_cards_and_escapes_them() -> None:
    said = snapshot()
    said["put"]["offers"] = {"0": {"cards": "<b>A40</b>"}}
    assert "&lt;b&gt;A40&lt;/b&gt;" in static.page(said)
    assert "<b>A40" not in static.page(said)


def test_keys_are_told_by_names_where_they_are_known() -> None:
    other = "SHA256:" + "b" * 43
    assert rows.names_of([KEY, other], {KEY: "bob"}) == f"bob, {other[:15]}"


def test_a_visitor_and_a_lending_have_ids_of_their_own() -> None:
    id, told = rows.visitor(Visitor("alice/friends", HOSTILE, KEY, "bob", invited=True))
    assert (id, told["name"], told["invited"]) == (f"alice/friends {KEY}", HOSTILE, True)
    assert told["note"] == f"They call themselves {HOSTILE}."
    state = LendingState(
        "7", "alice/friends", "w", "lending", only=("bob", OTHER_KEY), usage={KEY: (2, 1.5), "x": (1, 0.5)}
    )
    assert rows.lending(state, {OTHER_KEY: "carol"}) == (
        "7",
        {
            "title": "alice/friends",
            "name": "w",
            "state": "lending",
            "slots": 1,
            "only": "bob, carol",
            "tasks": 3,
            "seconds": 2.0,
        },
    )


def test_a_lending_says_its_policy_and_news_and_what_is_asked() -> None:
    question = asked(
        3, until=5.0, name="bob", key=KEY, label=HOSTILE, run="cell", source="x\x1b[2J", size=2, options="", same=True
    )
    state = LendingState(
        "7",
        "alice/friends",
        "w",
        "lending",
        policy="after your yes",
        conditions="ask = true",
        news=("x" * 9000, "b"),
        logged=2,
        question=question,
    )
    _, told = rows.lending(state, {})
    assert (told["policy"], told["conditions"], told["logged"]) == ("after your yes", "ask = true", 2)
    assert [len(words) for words in told["news"]] == [rows.NEWS, 1]
    id, row = rows.question(state, question)
    assert id == "3"
    assert (row["title"], row["worker"], row["label"], row["source"]) == ("alice/friends", "w", HOSTILE, "x[2J")
    assert "cut" not in row


def test_an_entry_of_the_log_is_harmless_text_and_says_what_is_not_known() -> None:
    told = rows.log_entry(LogRecord(1.0, "c", "", KEY, "\x1bfit", "ab", "refused", why="no\u202e"))
    assert (told["member"], told["label"], told["why"]) == (KEY, "fit", "no")
    assert (told["cpu"], told["memory"]) == (-1, -1)
    assert rows.log_entry(LogRecord(1.0, "c", "bob", KEY, "fit", "ab", "done", cpu=0.12345))["cpu"] == 0.123


def test_what_is_to_be_known_before_one_says_yes_is_told_with_a_visitor() -> None:
    plain = Visitor("alice/friends", "bob", KEY, "bob")
    assert "note" not in rows.visitor(plain)[1]
    own = rows.visitor(replace(plain, own=True, invited=True))[1]["note"]
    assert own == "It would be a machine of your own, and count as you."
    guest = Guest("bob", "", KEY)
    also = Question(plain.title, "bob", guest, own=False, another_key=True).also
    another = rows.visitor(replace(plain, also=also, invited=True))[1]["note"]
    assert another == "bob is in already, by another key: both keys will count as theirs."


# --- the static view ---


def snapshot(tasks: int = 1, members: int = 1) -> dict[str, Any]:
    task = {"label": HOSTILE, "state": "failed", "error": HOSTILE, "worker": HOSTILE, "submitted": 1.0, "ended": 3.5}
    member = {"name": HOSTILE, "roles": ["worker"], "state": HOSTILE, "here": True, "slots": 2, "python": HOSTILE}
    cluster = {"title": HOSTILE, "words": HOSTILE, "note": HOSTILE, "board": HOSTILE, "me": HOSTILE, "failed": tasks}
    return {
        "now": 1000.0,
        "set": {"cluster": cluster},
        "put": {
            "tasks": {str(number): task for number in range(tasks)},
            "members": {str(number): member for number in range(members)},
        },
    }


def test_what_is_said_of_one_task_stands_in_place_of_a_reason_that_does_not_hold_for_it() -> None:
    said = snapshot()
    said["set"]["cluster"]["reasons"] = {"": "waiting for a free slot of 1"}
    said["put"]["tasks"] = {
        "a": {"label": "fit", "state": "waiting", "words": "waiting for bob's yes"},
        "b": {"label": "fit", "state": "waiting", "words": "after losing bob"},
    }
    page = static.page(said)
    assert "waiting for a free slot of 1, after losing bob" in page
    assert "waiting for bob&#x27;s yes" in page
    assert page.count("waiting for a free slot of 1") == 1


def test_all_text_in_the_static_view_is_escaped() -> None:
    said = snapshot()
    said["put"]["tasks"]["w"] = {
        "label": HOSTILE,
        "state": "waiting",
        "needs": "3.9",
        "words": HOSTILE,
        "said": HOSTILE,
    }
    said["set"]["cluster"]["reasons"] = {"3.9": HOSTILE}
    page = static.page(said, HOSTILE)
    assert "<img" not in page
    assert 'onerror="' not in page
    assert page.count("&lt;img src=x onerror=&quot;") >= 14


def test_the_static_view_has_neither_script_nor_addresses() -> None:
    page = static.page(snapshot())
    assert not [word for word in ("<script", "http", "url(", "<style", "href", "<iframe") if word in page]


def test_a_long_table_ends_with_how_many_more_there_are() -> None:
    page = static.page(snapshot(tasks=1234, members=60))
    assert "… and 1,184 more" in page
    assert "… and 10 more" in page
    assert page.count("<tr") == 2 * (static.MOST_ROWS + 1)


def test_the_static_view_says_in_which_sandbox_a_worker_runs_tasks() -> None:
    said = snapshot(members=3)
    said["put"]["offers"] = {"0": {"sandbox": "bubblewrap"}, "1": {}}
    page = static.page(said)
    assert f'title="{html.escape(SANDBOX_HELP)}">sandbox</th>' in page
    assert (page.count(">bubblewrap</td>"), page.count(">no sandbox</td>")) == (1, 1)


def test_the_static_view_says_how_long_a_task_ran_not_how_long_it_waited() -> None:
    said = snapshot()
    said["put"]["tasks"]["0"] |= {"sent": 61.0, "started": 62.0, "ended": 65.0}
    assert "3.0 s" in static.page(said)


def test_the_static_view_of_nothing_says_so() -> None:
    assert "No cluster" in static.page({"now": 0.0})
    assert static.text({"now": 0.0}).startswith("p2p: not connected")


# --- what is shown of a task ---


class NoOwner:
    def trusts(self, signer: str) -> bool:
        return signer in getattr(self, "trusted", ())

    def withdraw(self, task_id: str) -> None: ...
    def why(self, task_id: str) -> str:
        return ""


def made(*outputs: dict[str, Any]) -> Future[Any]:
    future: Future[Any] = Future("1", "tile", NoOwner(), lambda arrived: None)
    future.outputs.extend(outputs)
    return future


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"kind": "stream", "name": name, "text": text}


def test_what_is_shown_keeps_to_the_contract() -> None:
    picture = {"kind": "display_data", "content": {"data": {"image/png": base64.b64encode(b"png").decode()}}}
    words = {"kind": "display_data", "content": {"data": {"text/plain": "a"}}}
    fits(shown("1/0", made(stream("a"), picture, words)), "Shown")


def test_what_a_task_has_printed_is_shown_in_order_and_together() -> None:
    future = made(stream("a"), stream("b"), stream("c", "stderr"), stream("d"))
    assert shown("1/0", future) == {
        "source": "1/0",
        "outputs": [stream("ab"), stream("c", "stderr"), stream("d")],
        "error": "",
    }
    assert future.outputs[0] == stream("a")


def test_of_very_long_output_the_end_is_shown() -> None:
    outputs = shown("", made(stream("x" * MOST_TEXT), stream("e", "stderr"), stream("y" * 10)))["outputs"]
    assert outputs[0]["text"].startswith(CUT + "x")
    assert sum(len(told["text"]) for told in outputs) == MOST_TEXT + len(CUT)


def test_what_is_left_out_of_many_outputs_is_said_once() -> None:
    long = [{"kind": "display_data", "content": {"data": {"text/plain": str(n % 10) * 20_000}}} for n in range(50)]
    outputs = shown("", made(*long))["outputs"]
    assert [told["text"].removeprefix(CUT)[:1] for told in outputs] == ["", *"0123456789"]
    assert sum(CUT in told["text"] for told in outputs) == 1
    short = [stream(str(n % 10), ("stdout", "stderr")[n % 2]) for n in range(3 * MOST_OUTPUTS)]
    outputs = shown("", made(*short))["outputs"]
    assert outputs[0] == {"kind": "text", "text": CUT}
    assert outputs[1:] == short[-MOST_OUTPUTS:]


def test_pictures_are_shown_if_that_is_what_they_are_and_html_never() -> None:
    picture = base64.b64encode(b"png").decode()

    def display(**data: Any) -> dict[str, Any]:
        return {"kind": "display_data", "content": {"data": {name.replace("_", "/"): v for name, v in data.items()}}}

    outputs = shown(
        "",
        made(
            display(image_png=picture + "\n"),
            display(image_png='"><script>', text_plain="a figure"),
            display(text_html="<b>"),
            {"kind": "display_data", "content": {}},
        ),
    )["outputs"]
    assert outputs == [
        {"kind": "image", "mime": "image/png", "data": picture},
        {"kind": "text", "text": "a figure"},
    ]


def test_a_display_is_shown_as_it_was_updated_last() -> None:
    def display(kind: str, text: str, name: Any) -> dict[str, Any]:
        return {"kind": kind, "content": {"data": {"text/plain": text}, "transient": {"display_id": name}}}

    future = made(
        display("display_data", "0 of 2", "bar"),
        display("display_data", "other", ["odd"]),
        stream("a"),
        display("update_display_data", "2 of 2", "bar"),
        display("update_display_data", "of nothing", "gone"),
        {"kind": "update_display_data", "content": {"transient": "odd"}},
        stream("b"),
    )
    expected = [{"kind": "text", "text": "2 of 2"}, {"kind": "text", "text": "other"}, stream("ab")]
    assert shown("", future)["outputs"] == expected
    assert future.outputs[0]["content"]["data"] == {"text/plain": "0 of 2"}


def test_cleared_output_is_not_shown() -> None:
    future = made(stream("a"), {"kind": "clear_output", "content": {"wait": True}}, stream("b"))
    assert shown("", future)["outputs"] == [stream("b")]


def test_of_an_animation_the_last_picture_is_shown() -> None:
    picture = base64.b64encode(b"x" * (MOST_IMAGES // 4)).decode()
    frame = {"kind": "display_data", "content": {"data": {"image/png": picture}}}
    future = made(*[{"kind": "clear_output", "content": {"wait": True}}, frame] * 8)
    assert shown("", future)["outputs"] == [{"kind": "image", "mime": "image/png", "data": picture}]


def test_an_error_is_shown_as_it_came_and_nothing_is_unpickled() -> None:
    future = made()
    error = {"kind": "exception", "traceback": "\x1b[31mValueError\x1b[39m: no", "message": "no", "payload": "pickle"}
    future._promise.arrived(Arrived(read_result({"ok": False, "segments": [], "error": error}), b"", {}, "w"))
    assert shown("", future)["error"] == "ValueError: no"


def test_an_error_of_ours_is_shown_with_its_hint() -> None:
    future = made()
    future._promise.failed(WorkerLost("gone", hint="Try again."))
    assert shown("", future)["error"] == "gone\nTry again."


def test_of_a_task_whose_future_is_gone_the_source_is_shown() -> None:
    assert shown("1/0", None) == {"source": "1/0", "outputs": [], "error": ""}


# --- what may be asked ---


def test_a_hello_and_an_action_are_read() -> None:
    assert read({"t": "hello", "v": 1, "view": "widget"}) == Hello("widget")
    assert read({"t": "do", "id": 3, "action": "cancel", "args": {"task": "1"}}) == Do(3, "cancel", {"task": "1"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["t", "id", "action", "args"]), inner),
    max_leaves=10,
)


@given(json_values)
def test_whatever_a_browser_sends_is_read_or_refused(data: Any) -> None:
    asked = read(data)
    if isinstance(asked, Do):
        try:
            checked(asked)
        except UsageError:
            pass


@given(
    st.sampled_from(sorted(ARGUMENTS)),
    st.dictionaries(st.sampled_from(["task", "title", "slots", "only"]), json_values),
)
def test_arguments_are_of_their_kind_or_refused(action: str, args: dict[str, Any]) -> None:
    try:
        given_ = checked(Do(1, action, args))
    except UsageError:
        return
    assert given_.keys() == ARGUMENTS[action].keys()
    kinds = {"text": str, "list of texts": tuple, "whole number": int, "number": float, "yes or no": bool}
    assert all(isinstance(given_[name], kinds[kind]) for name, kind in ARGUMENTS[action].items())
    json.dumps(given_)


@pytest.mark.parametrize(
    ("action", "args"),
    [
        ("format", {}),
        ("__class__", {}),
        ("cancel", {"task": 7}),
        ("cancel", {"task": "x" * 501}),
        ("connect", {"target": "a\nb"}),
        ("lend", {"slots": 1.5}),
        ("lend", {"slots": -1}),
        ("lend", {"slots": True}),
        ("lend", {"hours": math.nan}),
        ("lend", {"hours": math.inf}),
        ("lend", {"only": "bob"}),
        ("lend", {"only": ["bob"] * 17}),
        ("lend", {"tags": [1]}),
        ("lend", {"gpu": 1}),
    ],
)
def test_arguments_that_can_not_be_are_refused(action: str, args: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        checked(Do(1, action, args))


def test_a_widgets_second_module_is_all_that_more_asks_for() -> None:
    assert read({"t": "more", "path": "../secret", "id": 7}) == Code()


@pytest.mark.parametrize(
    "data", [None, [], "hello", {"t": "do"}, {"t": "do", "id": True, "action": "show", "args": {}}]
)
def test_what_is_no_message_is_none(data: Any) -> None:
    assert read(data) is None
