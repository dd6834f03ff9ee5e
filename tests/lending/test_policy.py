"""The policy as a value, and what it decides."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.errors import ConfigError
from p2p_ipython.lending.policy import (
    Hours,
    Limits,
    MachineFacts,
    Member,
    Moment,
    Policy,
    TaskFacts,
    allows,
    parse_hours,
    standing,
)
from p2p_ipython.lending.policy_file import TEMPLATE, PolicyError, amended, load, parse, shown

MONDAY, SATURDAY, SUNDAY = 0, 5, 6
FREE = MachineFacts(idle=1e9, mains=True, load=0.0)
CAROL = Member("carol", ("SHA256:c1", "SHA256:c2"))
ME = Member("bob", ("SHA256:b",), own=True, known=False)


def at(day: int, clock: str) -> Moment:
    hour, minute = clock.split(":")
    return Moment(day, int(hour) * 60 + int(minute))


@pytest.mark.parametrize(
    ("hours", "moment", "within"),
    [
        ("22:00-07:00", at(MONDAY, "23:30"), True),
        ("22:00-07:00", at(MONDAY, "06:59"), True),
        ("22:00-07:00", at(MONDAY, "07:00"), False),
        ("22-7", at(MONDAY, "21:59"), False),
        ("Mon-Fri 18:00-08:00", at(SATURDAY, "07:59"), True),  # Friday's night
        ("Mon-Fri 18:00-08:00", at(SATURDAY, "18:00"), False),
        ("Mon-Fri 18:00-08:00", at(MONDAY, "07:00"), False),  # Sunday's night
        ("Sat,Sun", at(SUNDAY, "12:00"), True),
        ("Sat,Sun", at(MONDAY, "00:00"), False),
        ("sun 20-4", at(MONDAY, "03:59"), True),  # over the end of the week
        ("Fri-Mon 8-9", at(SUNDAY, "08:30"), True),
        ("0-24", at(SUNDAY, "23:59"), True),
        ("20:00-00:00", at(SUNDAY, "23:59"), True),
        ("20:00-00:00", at(MONDAY, "00:00"), False),
    ],
)
def test_hours_cover_what_they_say(hours: str, moment: Moment, within: bool) -> None:
    assert parse_hours(hours).covers(moment) is within


@pytest.mark.parametrize(
    "text", ["", " ", "8", "8-", "25-3", "8:60-9", "Mon 8-9 Tue", "8-9 Mon", "Moon", "8-8", "24-3", "Mon-", "-"]
)
def test_what_are_no_hours_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no hours"):
        parse_hours(text)


hours_drawn = st.builds(
    Hours, st.frozensets(st.integers(0, 6), min_size=1), st.integers(0, 1439), st.integers(1, 1440)
).filter(lambda hours: hours.start != hours.end)
moments = st.builds(Moment, st.integers(0, 6), st.integers(0, 1439))


@given(hours_drawn, moments)
def test_hours_are_read_as_they_are_shown_and_begin_when_they_say(hours: Hours, now: Moment) -> None:
    assert parse_hours(str(hours)) == hours
    later = now.day * 1440 + now.minute + hours.until(now)
    assert hours.covers(Moment(later // 1440 % 7, later % 1440))


@pytest.mark.parametrize(
    ("policy", "machine", "why"),
    [
        (Policy(), MachineFacts(), None),
        (Policy(hours=(parse_hours("22-7"),)), FREE, "hours"),
        (Policy(hours=(parse_hours("22-7"), parse_hours("Mon"))), FREE, None),
        (Policy(idle=600), FREE, None),
        (Policy(idle=600), replace(FREE, idle=599.0), "in-use"),
        (Policy(idle=600), replace(FREE, idle=None), "in-use"),
        (Policy(mains=True), replace(FREE, mains=False), "battery"),
        (Policy(mains=True), replace(FREE, mains=None), "battery"),
        (Policy(mains=True), FREE, None),
        (Policy(load=1.5), replace(FREE, load=1.6), "load"),
        (Policy(load=1.5), replace(FREE, load=None), "load"),
        (Policy(load=1.5), replace(FREE, load=1.5), None),
        (Policy(gpu_load=0.1), replace(FREE, gpu_load=0.2), "load"),
        (Policy(gpu_load=0.1), FREE, "load"),  # it can't be told
        (Policy(gpu_load=0.1), replace(FREE, gpu_load=0.1), None),
        (Policy(bytes_in=10), replace(FREE, bytes_in=10), "bytes"),
        (Policy(bytes_out=10), replace(FREE, bytes_out=10), "bytes"),
        (Policy(bytes_out=10), replace(FREE, bytes_in=10), None),
    ],
)
def test_nothing_is_taken_while_a_condition_is_not_met(policy: Policy, machine: MachineFacts, why: str | None) -> None:
    refusal = standing(policy, at(MONDAY, "12:00"), machine)
    assert (refusal and refusal.why) == why
    refusal = allows(policy, CAROL, TaskFacts(), at(MONDAY, "12:00"), machine)
    assert (refusal and refusal.why) == why


@pytest.mark.parametrize(
    ("policy", "member", "task", "why"),
    [
        (Policy(who="known"), CAROL, TaskFacts(), None),
        (Policy(who="known"), replace(CAROL, known=False), TaskFacts(), "who"),
        (Policy(who=("carol",)), CAROL, TaskFacts(), None),
        (Policy(who=("SHA256:c2",)), CAROL, TaskFacts(), None),
        (Policy(who=("dave",)), CAROL, TaskFacts(), "who"),
        (Policy(who=("dave",)), ME, TaskFacts(), None),
        (Policy(who="known"), ME, TaskFacts(), None),
        (Policy(input=10), CAROL, TaskFacts(10), None),
        (Policy(input=10), CAROL, TaskFacts(11), "input"),
        (Policy(input=10), ME, TaskFacts(11), "input"),
        (Policy(bytes_in=10), CAROL, TaskFacts(11), "bytes"),
        (Policy(), CAROL, TaskFacts(packages=("polars",)), "packages"),
        (Policy(packages=("numpy",)), CAROL, TaskFacts(packages=("numpy", "polars")), "packages"),
        (Policy(packages=("numpy", "polars")), CAROL, TaskFacts(packages=("polars",)), None),
        (Policy(packages=("Scikit_Learn",)), CAROL, TaskFacts(packages=("scikit-learn",)), None),
        (Policy(packages="ask"), CAROL, TaskFacts(packages=("polars",)), None),
        (Policy(packages="any"), CAROL, TaskFacts(packages=("polars",)), None),
        (Policy(), ME, TaskFacts(packages=("polars",)), None),
    ],
)
def test_a_task_is_taken_if_its_member_and_its_size_may(
    policy: Policy, member: Member, task: TaskFacts, why: str | None
) -> None:
    refusal = allows(policy, member, task, at(MONDAY, "12:00"), FREE)
    assert (refusal and refusal.why) == why


def test_a_refusal_says_when_the_hours_begin() -> None:
    policy = Policy(hours=(parse_hours("Mon-Fri 18-8"),))
    for moment, when in ((at(MONDAY, "12:00"), "begin 18:00"), (at(SATURDAY, "09:00"), "begin Mon 18:00")):
        refusal = standing(policy, moment, FREE)
        assert refusal is not None
        assert str(refusal).endswith(when)


# -- the file --

FULL = """
who = ["bob", "SHA256:abc"]
hours = ["Mon-Fri 18:00-08:00", "Sat,Sun"]
idle = "10m"
mains = true
load = 1.5
slots = 2
input = "1G"
bytes_in = "20G"
bytes_out = 1000
network = true
mounts = ["/data:ro"]
packages = ["polars"]
tags = ["gpu"]
[limits]
memory = "4G"
cpus = 0.5
time = "1h"
"""


def test_a_policy_is_read_whole() -> None:
    policy = parse(FULL)
    assert policy == Policy(
        who=("bob", "SHA256:abc"),
        hours=(parse_hours("Mon-Fri 18-8"), parse_hours("Sat,Sun")),
        idle=600,
        mains=True,
        load=1.5,
        slots=2,
        input=1 << 30,
        bytes_in=20 << 30,
        bytes_out=1000,
        network=True,
        mounts=("/data:ro",),
        packages=("polars",),
        tags=("gpu",),
        limits=Limits(memory=4 << 30, cpus=0.5, time=3600),
    )
    assert parse(shown(policy)) == policy


def test_the_template_is_a_policy_without_conditions_also_where_its_lines_count() -> None:
    assert parse(TEMPLATE) == Policy()
    counted = re.sub(r"(?m)^# (?=\w+ = )", "", TEMPLATE)
    assert parse(counted).limits == Limits(4 << 30, 2, 1 << 30, 256, 3600)


names = st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,5})?", fullmatch=True)
texts = st.text(min_size=1, max_size=20)
sizes = st.integers(1, 1 << 50)
policies = st.builds(
    Policy,
    who=st.sampled_from(["all", "known"]) | st.lists(texts, min_size=1, unique=True).map(tuple),
    hours=st.lists(hours_drawn, unique=True).map(tuple),
    idle=st.floats(0.001, 1e8),
    mains=st.booleans(),
    load=st.floats(0.01, 1e5),
    slots=st.integers(1, 256),
    input=sizes,
    mounts=st.lists(texts, unique=True).map(tuple),
    packages=st.sampled_from(["never", "ask", "any"]) | st.lists(names, min_size=1, unique=True).map(tuple),
    limits=st.builds(Limits, memory=sizes, processes=st.integers(1, 1000), time=st.floats(0.1, 1e6)),
)


@given(policies)
def test_a_policy_is_read_as_it_is_shown(policy: Policy) -> None:
    assert parse(shown(policy)) == policy


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("idle = ", "line 1, column 8", "invalid value"),
        ('who = "all"\nhours = [', "line 2, column 10", "invalid value"),
        ('who = "all"\n\n  idel = "10m"', "line 3, column 3", "no key 'idel'"),
        ('who = "all"\nidle = "soon"', "line 2, column 8", "idle: 'soon' is not a duration"),
        ("who = 3", "line 1, column 7", "who is '3', which is not"),
        ("who = []", "line 1, column 7", "which is not all, known or names"),
        ("mains = 1", "line 1, column 9", "true or false"),
        ('hours = ["Moon"]', "line 1, column 9", "'Moon' are no hours"),
        ('[limits]\nmemory = "2X"', "line 2, column 10", "not a size"),
        ('limits.memory = "2X"', "line 1, column 17", "not a size"),
        ('tags = ["x"]\n[limits]\ntags = 3', "line 3, column 1", "no key 'tags' in [limits]"),
        ('memory = "2G"', "line 1, column 1", "no key 'memory'"),
        ("limits = 3", "line 1, column 10", "limits is a table"),
        ('tags = ["No Tag"]', "line 1, column 8", "tags"),
        ('who = "all"\nwho = "known"', "line 2, column 14", "cannot overwrite"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_to_do(text: str, place: str, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(text, "lending.toml")
    assert caught.value.message.startswith(f"lending.toml, {place}: ")
    assert words in caught.value.message
    assert caught.value.hint


@given(st.text(max_size=60) | st.lists(st.sampled_from([*FULL.split(), "\n", "[[", '"""', "a.b"])).map(" ".join))
def test_any_text_is_a_policy_or_a_mistake(text: str) -> None:
    said = ""
    try:
        parse(text)
    except PolicyError as error:
        said = error.message
    assert not said or re.match(r"policy, line \d+, column \d+: ", said)


def test_options_win_over_the_file() -> None:
    policy = parse('who = "known"\nslots = 2\n[limits]\nmemory = "4G"\ndisk = "1G"')
    given_ = {"slots": 3, "who": None, "hours": ["22-7"], "limits.memory": 5}
    assert amended(policy, given_) == replace(
        policy, slots=3, hours=(parse_hours("22-7"),), limits=Limits(memory=5, disk=1 << 30)
    )
    with pytest.raises(PolicyError, match=r"^the options: hours: 'Moon' are no hours"):
        amended(policy, {"hours": ["Moon"]})


def test_a_file_that_is_missing_too_long_or_no_text_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "lending.toml"
    for data, words in (
        (None, "there is no policy"),
        (b"#" * 70_000, "longer than"),
        (b"# \n# \xff", "line 2, column 3"),
    ):
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(PolicyError, match=words):
            load(path)
