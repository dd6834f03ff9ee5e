"""Reading the board's commands, and the texts that it answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.board.server import commands
from p2p_ipython.board.server.commands import Bad, Help, Ls, Services, Stream, Unknown, WhoAmI, format_duration, parse
from p2p_ipython.board.server.limits import Bucket
from p2p_ipython.board.topics import Direction, Dispatch


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (None, Help()),
        ("", Help()),
        ("help me", Help()),
        ("an 'open quote", Help()),
        ("ls", Ls()),
        ("user", WhoAmI()),
        ("p2p", Services()),
        ("sftp", Unknown()),
        ("pipe t -r", Stream(Direction.PIPE, "t", replay=True)),
        ("pipe -r", Stream(Direction.PIPE, replay=True)),
        ("pipe -r t", Stream(Direction.PIPE, "t", replay=True)),
        ("pipe t u -r", Stream(Direction.PIPE, "t")),
        ("pipe t --r -c=false", Stream(Direction.PIPE, "t", replay=True)),
        ("pipe 'a b' -a 'alice, bob'", Stream(Direction.PIPE, "a b", access=("alice", "bob"))),
        ("pipe t -a=SHA256:x=", Stream(Direction.PIPE, "t", access=("SHA256:x=",))),
        ("pipe t -- -r", Stream(Direction.PIPE, "t")),
        (
            "sub t -k -p -d round_robin",
            Stream(Direction.SUB, "t", keep=True, public=True, dispatch=Dispatch.ROUND_ROBIN),
        ),
        ("pub t -e -b=0 -t 1m30s", Stream(Direction.PUB, "t", empty=True, block=False, timeout=90)),
    ],
)
def test_a_line_is_read_as_the_service_reads_it(line, command):
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("pipe t -z", "flag provided but not defined: -z"),
        ("pipe t -k", "flag provided but not defined: -k"),
        ("pipe t ---r", "bad flag syntax: ---r"),
        ("pipe t -=x", "bad flag syntax: -=x"),
        ("pipe t -a", "flag needs an argument: -a"),
        ("pipe t -r=perhaps", 'invalid boolean value "perhaps" for -r: parse error'),
        ("pub t -t soon", 'invalid value "soon" for flag -t: parse error'),
        ("pub t -t 5", 'invalid value "5" for flag -t: parse error'),
        ("pipe t -h", "Usage: pipe <topic> [args...]"),
        ("sub help", "Usage: sub <topic> [args...]"),
    ],
)
def test_a_flag_that_cannot_be_read_is_answered_with_the_usage(line, first):
    answer = parse(line)
    assert isinstance(answer, Bad)
    assert answer.usage.startswith(f"{first}\n")
    assert "Args:\n  -a string\n" in answer.usage


def test_attack_an_access_list_of_any_length_is_refused():
    assert isinstance(parse("pipe t -a " + ",".join("x" * 2000)), Bad)


@given(st.text())
def test_any_line_is_read_without_an_exception(line):
    parse(line)
    parse(f"pipe t {line}")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (1, "1s"), (1.5, "1.5s"), (0.1, "100ms"), (90, "1m30s"), (60, "1m0s"), (2592000, "720h0m0s")],
)
def test_durations_are_written_as_go_writes_them(seconds, text):
    assert format_duration(seconds) == text
    assert commands.parse_duration(text) == seconds


def test_a_bucket_lets_a_burst_pass_and_then_asks_for_silence_in_proportion():
    bucket = Bucket(rate=100, burst=1000, at=0)
    assert bucket.take(1000, now=0) == 0
    assert bucket.take(50, now=0) == 0.5
    assert not bucket.full(now=5)
    assert bucket.take(0, now=0.5) == 0
    assert bucket.full(now=100)
    assert bucket.take(1000, now=100) == 0
