"""The record of tasks' lives: one event, and what is in the record then."""

from __future__ import annotations

import pytest

from p2p_ipython.client import journal as journal_module
from p2p_ipython.client.journal import COLUMNS, Attempt, Entry, Journal, Spans, last_line, spans
from p2p_ipython.client.table import Rows, table
from p2p_ipython.protocol.client_machine import TaskState
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.messages import Terms
from p2p_ipython.protocol.placement import WorkerView
from p2p_ipython.protocol.worker_machine import ANNOUNCE


def worker(name: str = "bob") -> WorkerView:
    certificate = Certificate("c", name.encode(), b"", b"", "worker", 0, f"SHA256:{name}", b"")
    return WorkerView(certificate, name, Terms(slots=1, free=1, python="3.11"), heard=0)


BOB, ANN = worker("bob"), worker("ann")


def journal(*tasks: str, keep: int = 10) -> Journal:
    """A record in which these tasks have been submitted, at 1."""
    made = Journal(keep=keep)
    for task in tasks:
        made.submitted(task, f"label of {task}", "call", 1.0)
    return made


def ended(made: Journal, task: str, state: TaskState = TaskState.DONE, **what: object) -> Journal:
    """The same after this task was sent to bob at 2, begun at 3 and has ended at 10."""
    made.sent(task, BOB, 1, 2.0)
    made.running(task, 3.0 + ANNOUNCE)
    made.ended(task, state, 10, came=state is not TaskState.CANCELLED, **what)  # type: ignore[arg-type]
    return made


def test_a_task_that_was_submitted_waits() -> None:
    made = Journal()
    made.submitted("t", "a label", "cell", 1, cell="c1", needs="3.12", size_in=5, source="x = 1")
    assert made.entries == {"t": Entry("t", "a label", "cell", "c1", "3.12", submitted=1, size_in=5)}
    assert made.source("t") == "x = 1"


def test_the_whole_life_of_a_task_is_in_its_entry() -> None:
    made = journal("t")
    made.sent("t", BOB, 1, 2)
    assert (made.entries["t"].state, made.entries["t"].words) == (TaskState.SENT, "on bob")
    made.running("t", 3 + ANNOUNCE)
    assert (made.entries["t"].state, made.entries["t"].started) == (TaskState.RUNNING, 3)
    made.said("t", "half of it")
    made.ended("t", TaskState.DONE, 10, came=True, seconds=6.5, size_out=99)
    entry = made.entries["t"]
    assert entry == Entry(
        *("t", "label of t", "call", "", "", 1, 0, TaskState.DONE, "done on bob", "bob", b"bob", "SHA256:bob", 1),
        *(2, 3, 10, 6.5, 99, "half of it"),
    )
    assert spans(entry) == Spans(waited=1, travelled=1, ran=6.5, returned=0.5)
    assert (made.done, made.failed, made.cancelled) == (1, 0, 0)
    assert made.usage == {"SHA256:bob": (1, 6.5)}


def test_a_failure_keeps_the_first_line_of_its_error() -> None:
    made = ended(journal("t"), "t", TaskState.FAILED, error="ValueError: no")
    assert (made.entries["t"].words, made.entries["t"].error, made.failed) == ("failed on bob", "ValueError: no", 1)


def test_a_task_that_was_cancelled_says_just_that() -> None:
    made = ended(journal("t"), "t", TaskState.CANCELLED)
    assert (made.entries["t"].words, made.cancelled) == ("cancelled", 1)


def test_an_attempt_that_was_lost_is_kept_and_the_task_says_why_it_waits_again() -> None:
    made = journal("t")
    made.sent("t", BOB, 1, 2)
    made.running("t", 3 + ANNOUNCE)
    made.waiting("t", "after losing bob: the link is gone", 7)
    entry = made.entries["t"]
    assert entry.attempts == (Attempt("bob", 2, 3, 7, b"bob"),)
    assert (entry.state, entry.words) == (TaskState.WAITING, "after losing bob: the link is gone")
    assert (entry.worker, entry.sid, entry.sent, entry.started) == ("", None, 0, 0)
    made.sent("t", ANN, 2, 8)
    assert (entry.words, entry.attempt, entry.sent) == ("on ann", 2, 8)


def test_no_more_attempts_are_kept_than_are_allowed() -> None:
    made = Journal(attempts=2)
    made.submitted("t", "t", "call", 0)
    for number in range(1, 6):
        made.sent("t", BOB, number, number)
        made.waiting("t", "", number)
    assert [tried.sent for tried in made.entries["t"].attempts] == [4, 5]


def test_an_attempt_that_ran_is_not_pushed_out_by_those_that_were_handed_back() -> None:
    made = Journal(attempts=2)
    made.submitted("t", "label", "call", 1)
    made.sent("t", BOB, 1, 2)
    made.running("t", 3 + ANNOUNCE)
    made.waiting("t", "losing bob", 4)
    for number in range(5):
        made.sent("t", ANN, 2 + number, 5 + number)
        made.waiting("t", "losing bob", 5.25 + number)
    assert [(tried.worker, tried.sent) for tried in made.entries["t"].attempts] == [("bob", 2), ("ann", 9)]


def test_of_tasks_that_are_over_only_the_last_are_kept_and_the_numbers_go_on() -> None:
    made = journal("open", *(f"t{number}" for number in range(5)), keep=3)
    for number in range(5):
        ended(made, f"t{number}")
    assert list(made.entries) == ["open", "t2", "t3", "t4"]
    assert made.done == 5


def test_whoever_watches_is_told_of_the_task_that_is_forgotten() -> None:
    touched: list[str] = []
    made = Journal(keep=1, touched=touched.append)
    for task in "ab":
        made.submitted(task, task, "call", 0)
        made.ended(task, TaskState.CANCELLED, 0)
    assert touched == ["a", "a", "b", "b", "a"]
    assert list(made.entries) == ["b"]


def test_what_has_not_changed_is_not_told() -> None:
    touched: list[str] = []
    made = Journal(touched=touched.append)
    made.submitted("t", "t", "call", 0)
    made.sent("t", BOB, 1, 1)
    del touched[:]
    made.said("t", "a line")
    made.said("t", "a line")
    made.placed("t", "on bob")
    assert touched == ["t"]


def test_a_task_that_is_submitted_once_more_begins_anew() -> None:
    made = ended(journal("a", "t", keep=2), "t")
    made.submitted("t", "again", "call", 20)
    assert made.entries["t"] == Entry("t", "again", "call", "", "", 20, 0)
    ended(made, "a")
    ended(made, "t")
    assert list(made.entries) == ["a", "t"]


def test_of_a_worker_that_says_no_time_all_of_it_is_counted() -> None:
    made = ended(journal("t"), "t", seconds=None)
    assert made.entries["t"].seconds == 0
    assert made.usage["SHA256:bob"] == (1, 7)


def test_a_worker_that_boasts_is_believed_no_more_than_the_time_it_had() -> None:
    made = ended(journal("t"), "t", seconds=1e6)
    assert made.usage["SHA256:bob"] == (1, 8)
    assert spans(made.entries["t"]) == Spans(1, 0, 8, 0)


def test_when_a_short_task_began_is_reckoned_from_how_long_it_took() -> None:
    made = journal("t")
    made.sent("t", BOB, 1, 2)
    made.ended("t", TaskState.DONE, 2.5, came=True, seconds=0.25)  # its worker said nothing before
    assert spans(made.entries["t"]) == Spans(waited=1, travelled=0.25, ran=0.25, returned=0)


def test_a_task_that_ends_as_soon_as_it_is_said_to_run_began_before() -> None:
    made = journal("t")
    made.sent("t", BOB, 1, 2)
    made.running("t", 4)  # the word was slow
    made.ended("t", TaskState.DONE, 4, came=True, seconds=1)
    assert spans(made.entries["t"]) == Spans(waited=1, travelled=1, ran=1, returned=0)


def test_work_is_summed_up_by_member() -> None:
    made = journal("a", "b", "c")
    for task in "ab":
        ended(made, task, seconds=2)
    made.sent("c", ANN, 1, 2)
    made.ended("c", TaskState.CANCELLED, 3)  # never begun
    assert made.usage == {"SHA256:bob": (2, 4.0)}


def test_members_that_are_summed_up_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MAX_USERS", 2)
    made = journal("a", "b", "c")
    for task in "abc":
        made.sent(task, worker(task), 1, 2)
        made.running(task, 3.0)
        made.ended(task, TaskState.DONE, 4)
    assert list(made.usage) == ["SHA256:b", "SHA256:c"]
    assert list(made.served) == [b"b", b"c"]


def test_sources_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SOURCES", 10)
    made = Journal()
    for task, size in (("a", 6), ("b", 4), ("c", 3), ("d", 99)):
        made.submitted(task, task, "cell", 0, source="x" * size)
        assert sum(len(made.source(one)) for one in made.entries) <= 10
    assert [len(made.source(task)) for task in "abcd"] == [0, 0, 0, 0]
    made.submitted("e", "e", "cell", 0, source="x" * 10)
    assert made.source("e") == "x" * 10


def test_a_source_goes_with_its_task() -> None:
    made = Journal(keep=0)
    made.submitted("t", "t", "cell", 0, source="x")
    made.ended("t", TaskState.CANCELLED, 0)
    assert made.source("t") == ""


def test_a_task_that_runs_still_runs_until_now() -> None:
    made = journal("t")
    assert spans(made.entries["t"], now=4) == Spans(3, 0, 0, 0)
    made.sent("t", BOB, 1, 5)
    assert spans(made.entries["t"], now=7) == Spans(4, 2, 0, 0)
    made.running("t", 8 + ANNOUNCE)
    assert spans(made.entries["t"], now=20) == Spans(4, 3, 12, 0)


def test_a_clock_that_was_set_back_makes_no_negative_times() -> None:
    made = journal("t")
    made.sent("t", BOB, 1, 0.5)
    made.running("t", 0.4)
    made.ended("t", TaskState.DONE, 0.3, came=True, seconds=5)
    assert spans(made.entries["t"]) == Spans(0, 0, 0, 0)


# --- rows -----------------------------------------------------------------------------------------------------------


def test_rows_say_none_for_what_has_not_happened() -> None:
    (row,) = journal("t").rows()
    assert tuple(row) == COLUMNS
    assert [name for name, value in row.items() if value is None] == [
        *("sent", "started", "ended", "waited", "travelled", "ran", "returned")
    ]


def test_rows_are_a_dataframe_with_times_of_this_zone() -> None:
    pandas = pytest.importorskip("pandas")
    frame = table(ended(journal("t", "u"), "t", seconds=5).rows())
    assert tuple(frame.columns) == COLUMNS
    assert list(frame.state) == ["done", "waiting"]
    assert frame.ended[0] == pandas.Timestamp(10, unit="s", tz="UTC")
    assert frame.ended.dt.tz is not None
    assert pandas.isna(frame.ended[1])
    assert (frame.ran[0], frame.returned[0]) == (5, 2)


def test_a_record_without_tasks_is_a_dataframe_with_all_columns() -> None:
    pytest.importorskip("pandas")
    assert tuple(table([]).columns) == COLUMNS


def test_without_pandas_rows_print_themselves_as_a_table() -> None:
    made = ended(journal("t"), "t", TaskState.FAILED, seconds=5, error="ValueError: " + "x" * 50)
    head, row = repr(Rows(made.rows())).splitlines()
    assert head.split() == ["label", "state", "worker", "waited", "travelled", "ran", "returned", "error"]
    assert row.startswith("label of t  failed  bob     1.000   1.000      5.000  2.000     ValueError: xxx")
    assert row.endswith("…")


# --- lines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "line"),
    [
        (["one\ntwo\n"], "two"),
        (["one\n", "two"], "two"),
        (["half of ", "it"], "half of it"),
        (["half of ", "it\n", "new"], "new"),
        (["\r 10 %", "\r 20 %"], " 20 %"),
        (["10 %\r20 %\r"], "20 %"),
        (["a\r\n"], "a"),
        (["x" * 10_000], "x" * 500),
        (["\n\n"], ""),
    ],
)
def test_the_last_line_is_found_in_what_comes_piece_by_piece(texts: list[str], line: str) -> None:
    unfinished = ""
    for text in texts:
        found, unfinished = last_line(text, unfinished)
    assert found == line


def test_a_line_that_never_ends_does_not_grow() -> None:
    unfinished = ""
    for _ in range(100):
        _, unfinished = last_line("x" * 400, unfinished)
    assert len(unfinished) == 500
