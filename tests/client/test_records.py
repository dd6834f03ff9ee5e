"""What a bridge notes down while tasks live: a whole cluster in memory, on virtual time; and how text is made plain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from p2p_ipython.board.base import BoardReport, BoardState
from p2p_ipython.client.follow import Changes
from p2p_ipython.client.records import Records
from p2p_ipython.client.status import standing
from p2p_ipython.client.words import ERROR, LINE, as_line, error_line
from p2p_ipython.config import Settings
from p2p_ipython.protocol.client_machine import Changed, ClientMachine, TaskState
from p2p_ipython.protocol.placement import WorkerState
from p2p_ipython.protocol.task_frames import TaskFailure
from p2p_ipython.rehearsal import Participant, Rehearsal, run


async def until(condition: Callable[[], Any]) -> None:
    """Let virtual time pass until something holds."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("never")


def entry(cluster: Participant, future: Any) -> Any:
    return cluster.client.records.journal.entries[future.task_id]


def fails() -> None:
    raise LookupError("no such\nthing")


def test_a_task_that_is_done_says_where_and_how_large_and_whose_machine_it_was() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            future = cluster.submit(bytes, 5000)
            await future
            found = entry(cluster, future)
            (worker,) = cluster.client.machine.workers.values()
            assert (found.state, found.words, found.kind, found.needs) == (
                *(TaskState.DONE, "done on me (worker-1)", "call", ""),
            )
            assert (found.sid, found.signer) == (worker.sid, worker.certificate.signer)
            assert 0 < found.submitted <= found.sent <= found.started <= found.ended <= time.time()
            assert found.size_in > 10
            assert found.size_out > 5000
            assert cluster.client.records.journal.usage[found.signer][0] == 1

    run(work())


def test_a_task_that_fails_has_the_first_line_of_its_error() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            future = cluster.submit(fails)
            with pytest.raises(LookupError):
                await future
            assert entry(cluster, future).state is TaskState.FAILED
            assert entry(cluster, future).error == "LookupError: no such"

    run(work())


def test_a_task_whose_worker_is_lost_says_so_while_it_waits_and_keeps_the_attempt() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            future = cluster.submit(asyncio.sleep, 60)
            await until(future.running)
            await cluster.remove_worker(0)
            await until(lambda: entry(cluster, future).state is TaskState.WAITING)
            found = entry(cluster, future)
            assert found.words.startswith("after losing me (worker-1): ")
            (tried,) = found.attempts
            assert (tried.worker, found.worker) == ("me (worker-1)", "")
            assert cluster.client.reasons() == {"": "waiting for a worker: none is here"}
            # What is said of the one task is the reason that all have, and what is peculiar to it.
            assert cluster.submitted.why(future.task_id) == f"waiting for a worker: none is here, {found.words}"
            await cluster.add_worker()
            await future
            assert found.attempt == 2

    run(work())


def test_a_task_whose_worker_s_link_reconnects_says_so_until_it_is_back() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            future = cluster.submit(asyncio.sleep, 60)
            await until(future.running)
            (end,) = cluster.client.links.values()
            cluster.links.cut(end.link, away=5)  # type: ignore[arg-type]
            await until(lambda: "reconnecting" in entry(cluster, future).words)
            await until(lambda: entry(cluster, future).words == "on me (worker-1)")
            await future

    run(work())


def test_a_task_that_is_cancelled_is_recorded_as_that_also_before_it_was_taken() -> None:
    async def work() -> None:
        async with Rehearsal(workers=0) as cluster:
            waits, at_once = cluster.submit(pow, 2, 3), cluster.submit(pow, 2, 3)
            at_once.cancel()
            await until(lambda: len(cluster.client.records.journal.entries) == 2)
            waits.cancel()
            await until(lambda: entry(cluster, waits).state is TaskState.CANCELLED)
            assert entry(cluster, at_once).state is TaskState.CANCELLED
            assert cluster.client.records.journal.cancelled == 2

    run(work())


def test_closing_ends_all_that_is_open_in_the_record_too() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            futures = [cluster.submit(asyncio.sleep, 60) for _ in range(3)]
            await until(futures[0].running)
        assert {entry(cluster, future).state for future in futures} == {TaskState.CANCELLED}

    run(work())


def test_who_is_taken_out_of_the_cluster_finds_his_tasks_failed_with_the_reason() -> None:
    async def work() -> None:
        async with Rehearsal(workers=0) as cluster:
            bob = await cluster.add_client("bob")
            future = bob.submit(pow, 2, 3)
            await until(lambda: bob.client.records.journal.entries)
            cluster.take_out("bob")
            await until(future.done)
            assert entry(bob, future).state is TaskState.FAILED
            assert entry(bob, future).error.startswith("pow can't run: ")

    run(work())


def test_a_follower_hears_of_the_task_of_its_worker_and_that_numbers_have_changed() -> None:
    async def work() -> None:
        async with Rehearsal(workers=1) as cluster:
            await until(lambda: [w.state for w in cluster.client.machine.workers.values()] == [WorkerState.UP])
            follower = cluster.client.records.feed.follow(lambda: None)
            future = cluster.submit(pow, 2, 3)
            await future
            changes = follower.take()
            assert changes.tasks == {future.task_id}
            assert changes.sessions == set(cluster.client.machine.workers)
            assert changes.facts

    run(work())


def test_a_follower_hears_of_workers_that_come_and_go() -> None:
    async def work() -> None:
        async with Rehearsal(workers=0) as cluster:
            records = cluster.client.records
            follower = records.feed.follow(lambda: None)
            await cluster.add_worker()
            await until(lambda: [w.state for w in cluster.client.machine.workers.values()] == [WorkerState.UP])
            (sid,) = cluster.client.machine.workers
            assert follower.take().sessions == {sid}
            await cluster.remove_worker(0)
            await until(lambda: not cluster.client.machine.workers and not records.presence.sessions)
            assert follower.take().sessions == {sid}

    run(work())


def test_other_clients_are_seen_to_come_and_go_and_no_task_is_said_to_have_changed() -> None:
    async def work() -> None:
        async with Rehearsal(workers=0) as cluster:
            records = cluster.client.records
            futures = [cluster.submit(pow, 2, 3) for _ in range(100)]
            await until(lambda: len(records.journal.entries) == 100)
            follower = records.feed.follow(lambda: None)
            bob = await cluster.add_client("bob")
            await until(lambda: records.presence.sessions)
            (seen,) = records.presence.sessions.values()
            assert (seen.name, seen.role, seen.offer) == ("bob", "client", None)
            await bob.client.close()
            await until(lambda: not records.presence.sessions)
            changes = follower.take()
            assert changes.sessions == {seen.certificate.sid}
            assert changes.facts
            assert not changes.tasks
            assert all(not future.done() for future in futures)

    run(work())


def test_who_is_silent_is_seen_to_have_gone_without_a_word() -> None:
    async def work() -> None:
        async with Rehearsal(workers=0, presence=10) as cluster:
            records = cluster.client.records
            bob = await cluster.add_client("bob")
            await until(lambda: records.presence.sessions)
            follower = records.feed.follow(lambda: None)
            (sid,) = records.presence.sessions
            await bob.client.close(farewell=False)
            await until(lambda: not records.presence.sessions)
            assert follower.take().sessions == {sid}

    run(work())


def test_a_follower_hears_when_there_is_something_to_say_of_what_keeps_us_from_the_others() -> None:
    async def work() -> None:
        async with Rehearsal(workers=0) as cluster:
            records, membership = cluster.client.records, cluster.client.membership
            bob = await cluster.add_client("bob")
            await until(lambda: membership.answered)
            await bob.client.close()
            await asyncio.sleep(10)
            follower, records.since = records.feed.follow(lambda: None), 0.0
            membership.refused = "waiting for alice's approval"
            await until(lambda: follower.facts)
            assert records.since > 0

    run(work())


def test_a_round_trip_is_told_when_it_has_changed_by_more_than_a_fifth() -> None:
    settings = Settings()
    records = Records(settings)
    follower = records.feed.follow(lambda: None)
    told = []
    for rtt in (0.1, 0.11, 0.13, 0.11, 0.1):
        records.tick(0, {b"s": rtt})
        told.append(follower.take().sessions == {b"s"})
    assert told == [True, False, True, False, True]


def test_a_worker_that_the_machine_forgets_is_told() -> None:
    settings = Settings()
    records = Records(settings)
    follower = records.feed.follow(lambda: None)
    records.follow([Changed(b"s")], ClientMachine(settings, now=0))
    assert follower.take() == Changes(frozenset(), frozenset([b"s"]), facts=True)


def test_since_when_one_stands_as_one_does_is_kept_while_only_the_words_change() -> None:
    records = Records(Settings())
    follower = records.feed.follow(lambda: None)
    records.stands("reconnecting")
    records.since = 0.0
    records.stands("reconnecting")  # the next try
    assert records.since == 0
    assert follower.take().facts
    records.stands("connected")
    assert records.since > 0


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("two\nlines", "two"),
        ("\n\n after empty ones", "after empty ones"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\tb", "a b"),
        ("safe\u202egnp.exe", "safegnp.exe"),
        ("bell\x07 and \x1b]0;title\x07", "bell and ]0;title"),
        ("<img onerror=x>", "<img onerror=x>"),  # text: whoever shows it escapes it
        ("x" * 200, "x" * 99 + "…"),
        ("\x00" * 10_000, ""),
    ],
)
def test_a_stranger_s_text_becomes_one_plain_line_of_bounded_length(text: str, line: str) -> None:
    assert as_line(text, LINE) == line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ({"class": "builtins.ValueError", "message": "no"}, "ValueError: no"),
        ({"class": "a.b.Odd", "message": ""}, "Odd"),
        ({"class": "a.Odd", "message": "one\ntwo"}, "Odd: one"),
        ({}, ""),
        ({"class": "E", "message": "x" * 10_000}, "E: " + "x" * (ERROR - 4) + "…"),
    ],
)
def test_what_a_worker_says_of_an_error_becomes_one_line(error: dict[str, str], line: str) -> None:
    assert error_line(TaskFailure.read({"kind": "exception", **error})) == line


@pytest.mark.parametrize(
    ("report", "trouble", "alone", "expected"),
    [
        (BoardReport(BoardState.CONNECTED), "", "", ("connected", "connected", "")),
        (BoardReport(BoardState.CONNECTED, "it stalls"), "", "", ("connected", "connected", "it stalls")),
        (
            BoardReport(BoardState.CONNECTED),
            *("", "; waiting for a member to answer"),
            ("connected", "connected; waiting for a member to answer", ""),
        ),
        (
            BoardReport(BoardState.CONNECTED),
            *("waiting for alice's approval", "; x"),
            ("waiting", "waiting for alice's approval", ""),
        ),
        (
            BoardReport(BoardState.RECONNECTING, "3rd try: no answer at h:22"),
            *("trouble", ""),
            ("reconnecting", "reconnecting, 3rd try", "no answer at h:22"),
        ),
        (BoardReport(BoardState.RECONNECTING, "gone"), "", "", ("reconnecting", "reconnecting", "gone")),
        (BoardReport(BoardState.FAILED, "refused"), "", "", ("lost", "lost", "refused")),
        (BoardReport(BoardState.CLOSED), "", "", ("closed", "closed", "")),
    ],
)
def test_how_one_stands_is_said_in_words(
    report: BoardReport, trouble: str, alone: str, expected: tuple[str, str, str]
) -> None:
    assert standing(report, trouble, alone) == expected


def test_who_has_been_taken_out_is_lost_whatever_the_board_is() -> None:
    report = BoardReport(BoardState.RECONNECTING, "1st try: x")
    assert standing(report, "alice took us out", "", expelled=True) == ("lost", "alice took us out", "")
