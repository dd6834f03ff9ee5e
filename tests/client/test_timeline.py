"""The timeline: where each task is drawn, in seconds and lanes; and that what is drawn is a picture of it."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p_ipython.client.journal import Attempt, Entry
from p2p_ipython.client.timeline import COLOURS, Band, Plan, Timeline, arrange, describe, draw, span, ticks, timeline
from p2p_ipython.protocol.client_machine import TaskState

NUMBERS = itertools.count()
SVG = "{http://www.w3.org/2000/svg}"


def task(
    submitted: float,
    sent: float = 0,
    started: float = 0,
    ended: float = 0,
    *,
    worker: str = "bob",
    seconds: float = 0,
    state: TaskState | None = None,
    label: str = "tile",
    attempts: tuple[Attempt, ...] = (),
    error: str = "",
) -> Entry:
    """A task with these times; its state follows from them."""
    if state is None:
        named = ((ended, TaskState.DONE), (started, TaskState.RUNNING), (sent, TaskState.SENT))
        state = next((state for when, state in named if when), TaskState.WAITING)
    entry = Entry(str(next(NUMBERS)), label, "cell", "", "", submitted, 0, state)
    entry.sent, entry.started, entry.ended, entry.seconds = sent, started, ended, seconds
    entry.attempts, entry.error = attempts, error
    if sent:
        entry.worker, entry.sid, entry.words = worker, worker.encode(), f"{state.value} on {worker}"
    return entry


def parts(plan: Plan) -> list[tuple[str, int, tuple[float, ...], str]]:
    """Worker, lane, the five times, outcome: of each bar."""
    return [
        (band.name, bar.lane, (bar.waited, bar.sent, bar.started, bar.ran, bar.ended), bar.outcome)
        for band in plan.bands
        for bar in band.bars
    ]


def texts(svg: str) -> list[str]:
    """What can be read in a picture, or pointed at."""
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter() if element.tag in (f"{SVG}text", f"{SVG}title")]


# --- geometry -------------------------------------------------------------------------------------------------------


def test_a_task_is_drawn_from_its_submission_to_its_end() -> None:
    plan = arrange([task(100, 101, 102, 110, seconds=7)], now=200)
    assert (plan.begin, plan.length, plan.tasks) == (100, 10, 1)
    assert parts(plan) == [("bob", 0, (0, 1, 2, 9, 10), "done")]


def test_tasks_that_ran_one_after_the_other_share_a_lane_and_begin_where_the_last_one_ended() -> None:
    plan = arrange([task(0.5, 1, 2, 5), task(0.5, 4, 5, 8)], now=9)
    assert parts(plan) == [
        ("bob", 0, (0, 0.5, 1.5, 4.5, 4.5), "done"),
        ("bob", 0, (4.5, 4.5, 4.5, 7.5, 7.5), "done"),  # it was sent ahead: of its way nothing is left to draw
    ]


def test_tasks_that_ran_at_the_same_time_have_lanes_of_their_own() -> None:
    plan = arrange([task(1, 1, 2, 5), task(1, 1, 3, 6), task(1, 1, 5, 7)], now=9)
    assert [lane for _, lane, _, _ in parts(plan)] == [0, 1, 0]
    assert plan.bands[0].lanes == 2


def test_each_worker_has_a_band_and_they_are_in_the_order_of_their_names() -> None:
    plan = arrange([task(1, 1, 2, 5, worker=name) for name in ("carol", "ann", "bob")], now=9)
    assert [band.name for band in plan.bands] == ["ann", "bob", "carol"]


def test_slots_that_did_nothing_are_drawn_too_and_count_in_how_busy_the_worker_was() -> None:
    plan = arrange([task(0.1, 1, 1, 6)], now=9, slots={b"bob": 2})
    assert plan.bands[0].lanes == 2
    assert plan.bands[0].busy == pytest.approx(0.5)


def test_how_busy_a_worker_was_counts_from_when_the_first_task_was_sent() -> None:
    plan = arrange([task(1, 10, 10, 15), task(1, 10, 10, 20, worker="ann")], now=50)
    assert {band.name: band.busy for band in plan.bands} == {"ann": pytest.approx(1.0), "bob": pytest.approx(0.5)}


def test_what_is_being_stopped_still_runs() -> None:
    svg = made(task(1, 2, 3, state=TaskState.STOPPING)).svg
    assert svg.count('fill-opacity=".3"') == made(task(1, 2, 3)).svg.count('fill-opacity=".3"') > 0
    assert "runs" in texts(svg)


def test_what_still_runs_is_drawn_until_now() -> None:
    plan = arrange([task(1, 2, 3)], now=11)
    assert plan.length == 10
    assert parts(plan) == [("bob", 0, (0, 1, 2, 10, 10), "running")]


def test_an_attempt_that_was_lost_is_drawn_where_it_ran() -> None:
    lost = Attempt("ann", 2, 3, 6, b"ann")
    plan = arrange([task(1, 7, 8, 9, attempts=(lost,))], now=11)
    assert parts(plan) == [
        ("ann", 0, (0, 1, 2, 5, 5), "lost"),
        ("bob", 0, (5, 6, 7, 8, 8), "done"),  # it waits again from the loss on
    ]


def test_an_attempt_that_was_handed_back_did_not_run_and_is_not_drawn() -> None:
    plan = arrange([task(1, 7, 8, 9, attempts=(Attempt("ann", 2, 0, 3, b"ann"),))], now=11)
    assert [name for name, *_ in parts(plan)] == ["bob"]


def test_how_many_wait_rises_with_submissions_and_falls_as_tasks_are_sent() -> None:
    lost = Attempt("ann", 2, 3, 4, b"ann")
    plan = arrange([task(1, 5, 6, 9, attempts=(lost,)), task(1, 3, 4, 9)], now=11)
    assert plan.queue == ((0, 2), (1, 1), (2, 0), (3, 1), (4, 0))


def test_what_was_never_sent_waits_until_it_was_cancelled_or_until_now() -> None:
    entries = [task(1), task(1, ended=3, state=TaskState.CANCELLED)]
    assert arrange(entries, now=5).queue == ((0, 2), (2, 1), (4, 0))


def test_without_tasks_there_is_nothing_to_arrange() -> None:
    assert arrange([], now=5) == Plan(5, 0.0, 0)


TIMES = st.floats(0, 1000) | st.just(0.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TIMES, TIMES, TIMES, TIMES, TIMES, st.sampled_from("abc")), max_size=12))
def test_whatever_the_times_are_bars_run_forward_and_don_t_overlap_and_it_can_be_drawn(
    given: list[tuple[float, float, float, float, float, str]],
) -> None:
    entries = [task(a, b, c, d, seconds=e, worker=name) for a, b, c, d, e, name in given]
    plan = arrange(entries, now=500)
    for band in plan.bands:
        assert 0 <= band.busy <= 1
        ends = dict.fromkeys(range(band.lanes), float("-inf"))
        for bar in sorted(band.bars, key=lambda bar: bar.started):
            assert bar.waited <= bar.sent <= bar.started <= bar.ran <= bar.ended + 1e-6
            assert bar.started >= ends[bar.lane]
            ends[bar.lane] = bar.ended
    assert all(waiting >= 0 for _, waiting in plan.queue)
    ElementTree.fromstring(draw(plan))


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (10, [0, 2, 4, 6, 8, 10]),
        (0.35, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35]),
        (100, [0, 15, 30, 45, 60, 75, 90]),
        (200, [0, 30, 60, 90, 120, 150, 180]),
        (600, [0, 120, 240, 360, 480, 600]),
        (86400, [0, 14400, 28800, 43200, 57600, 72000, 86400]),
    ],
)
def test_ticks_are_round(length: float, expected: list[float]) -> None:
    assert ticks(length) == pytest.approx(expected)


@given(st.floats(1e-3, 1e7))
def test_there_are_neither_too_few_ticks_nor_too_many(length: float) -> None:
    assert 2 <= len(ticks(length)) <= 12
    assert ticks(length)[-1] <= length * (1 + 1e-6)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 ms"),
        (0.0004, "0.4 ms"),
        (0.012, "12 ms"),
        (1.239, "1.24 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_lengths_of_time_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert span(seconds) == words


# --- the picture ----------------------------------------------------------------------------------------------------


def made(*entries: Entry) -> Timeline:
    return timeline(entries, now=20.0, slots={})


def test_the_parts_of_a_task_are_told_apart_by_shape_and_pattern_not_by_colour_alone() -> None:
    root = ElementTree.fromstring(made(task(1, 3, 5, 12, seconds=5)).svg)
    (group,) = [
        g for g in root.iter(f"{SVG}g") if (title := g.find(f"{SVG}title")) is not None and "tile" in (title.text or "")
    ]
    dashes = [e.get("stroke-dasharray") for e in group.iter(f"{SVG}path")]
    fills = [(e.get("fill") or "").partition("-")[2].rstrip(")") for e in group.iter(f"{SVG}rect")]
    heights = [e.get("height") for e in group.iter(f"{SVG}rect")]
    assert dashes == ["2 2.5"]
    assert fills == ["travelled", "returned", ""]
    assert heights == ["7", "7", "13"]


def test_each_part_that_is_drawn_is_in_the_legend() -> None:
    lost = Attempt("ann", 2, 3, 6, b"ann")
    all_kinds = made(
        task(1, 7, 8, 9, attempts=(lost,)),
        task(1, 2, 3, 4, state=TaskState.FAILED),
        task(1, 2, 5, 6, state=TaskState.CANCELLED),
        task(1, 2, 7),
    )
    legend = ["waited", "way there", "ran", "runs", "way back", "failed", "cancelled", "worker lost"]
    assert set(legend) <= set(texts(all_kinds.svg))
    assert "worker lost" not in texts(made(task(1, 2, 3, 4)).svg)


def test_pointing_at_a_task_tells_its_figures() -> None:
    svg = made(task(1, 2, 4, 10, seconds=5, error="ValueError: no", state=TaskState.FAILED, label="tile 7")).svg
    (title,) = [text for text in texts(svg) if text.startswith("tile 7")]
    assert title.splitlines() == [
        "tile 7",
        "failed on bob",
        "waited 1.00 s, travelled 2.00 s",
        "ran 5.00 s, returned 1.00 s",
        "ValueError: no",
    ]


def test_which_attempt_it_was_is_said_as_the_journal_says_it() -> None:
    entry = task(1, 7, 8, 9, attempts=(Attempt("ann", 2, 3, 6, b"ann"),))
    entry.attempt = 7  # of the others, most were handed back and aren't kept
    svg = made(entry).svg
    assert [text.splitlines()[1] for text in texts(svg) if text.startswith("tile")] == [
        "was lost",
        "done on bob, attempt 7",
    ]


def test_its_colours_can_be_seen_on_white_and_on_almost_black() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for colour in COLOURS.values():
        own = luminance(colour)
        assert (luminance("#ffffff") + 0.05) / (own + 0.05) >= 3
        assert (own + 0.05) / (luminance("#1e1e1e") + 0.05) >= 3


def test_text_of_strangers_is_inert() -> None:
    evil = '<img src=x onerror="alert(1)">&"\'</title></svg><script>'
    svg = made(task(1, 2, 3, 4, label=evil, worker=evil, error=evil, state=TaskState.FAILED)).svg
    root = ElementTree.fromstring(svg)  # one well-formed tree
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "defs", "pattern", "path", "circle", "rect", "g", "text", "title")
    }
    assert evil in texts(svg)
    assert "<script" not in svg
    assert "<img" not in svg


def test_no_script_no_style_sheet_and_nothing_from_elsewhere_is_in_it() -> None:
    root = ElementTree.fromstring(made(task(1, 2, 3, 4)).svg)
    attributes = [(name, value) for element in root.iter() for name, value in element.attrib.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name.endswith("href")]
    urls = [value for _, value in attributes if "url(" in value or "://" in value]
    assert all(value.startswith("url(#p2p") for value in urls)


def test_two_pictures_on_a_page_don_t_take_one_another_s_patterns() -> None:
    one, other = made(task(1, 2, 3, 4)), made(task(1, 2, 3, 5))
    ids = [{e.get("id") for e in ElementTree.fromstring(t.svg).iter() if e.get("id")} for t in (one, other)]
    assert all(ids)
    assert not ids[0] & ids[1]


def test_it_has_a_text_for_who_can_t_see_it() -> None:
    root = ElementTree.fromstring(made(task(1, 2, 3, 4), task(1, 2, 3, 6)).svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Timeline: 2 tasks in 5.00 s, on 1 worker; bob   50% busy, 2 tasks, 2 slots"


def test_its_text_says_how_well_workers_were_used() -> None:
    plan = Plan(0, 3.09, 12, (Band("bob", 2, 8, 0.76, ()), Band("ann (box)", 1, 4, 1.0, ())))
    assert describe(plan).splitlines() == [
        "12 tasks in 3.09 s, on 2 workers",
        "  bob         76% busy, 8 tasks, 2 slots",
        "  ann (box)  100% busy, 4 tasks, 1 slot",
    ]


def test_without_tasks_it_says_so() -> None:
    nothing = made()
    assert repr(nothing) == str(nothing) == "No tasks yet."
    assert texts(nothing.svg) == ["No tasks yet."]


def test_two_hundred_tasks_are_less_than_two_hundred_kilobytes() -> None:
    entries = [task(1, 1 + n, 2 + n, 3 + n, seconds=0.5) for n in range(200)]
    assert len(made(*entries).svg) < 200_000
