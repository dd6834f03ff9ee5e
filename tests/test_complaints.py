"""Complaints about peers: logged once a peer and minute, and printed nowhere unless the program has set up logging."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from p2p_ipython.jobs import COMPLAIN_EVERY, MAX_PEERS, Complaints

log = logging.getLogger("p2p_ipython.tests")


def test_one_complaint_a_peer_and_minute_is_logged_and_the_others_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    complaints = Complaints(log, lambda: now)
    for _ in range(1000):
        complaints.about("bob", "a lie about %s", "sizes")
    complaints.about("carol", "another")
    assert caplog.messages == ["a lie about sizes", "another"]
    now = COMPLAIN_EVERY
    complaints.about("bob", "a lie about %s", "counts", error=ValueError("x"))
    assert caplog.messages[2:] == ["a lie about counts (999 more like this in the meantime)"]
    assert caplog.records[2].levelno == logging.ERROR


def test_peers_without_end_take_bounded_memory() -> None:
    complaints = Complaints(log, lambda: 0.0)
    for number in range(2 * MAX_PEERS):
        complaints.about(str(number), "a lie")
    assert len(complaints._last) == MAX_PEERS


PROVOKED = """
import asyncio, gc, logging, sys
from p2p_ipython import loop as loops

async def fails():
    raise ValueError("in a task")

def now():
    raise ValueError("in a callback")

async def work():
    loops.adopt()
    from twisted.internet import defer
    asyncio.get_running_loop().call_soon(now)
    task = asyncio.ensure_future(fails())
    await asyncio.wait([task])
    del task
    defer.fail(ValueError("in a Deferred"))
    gc.collect()
    logging.getLogger("p2p_ipython.link.tls").error("nonsense", exc_info=ValueError("in a handler"))

if sys.argv[1:]:
    logging.basicConfig()
loops.background().run(work())
"""


@pytest.mark.parametrize("logs", [False, True])
def test_nothing_that_peers_provoke_is_printed_unless_the_program_logs(logs: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROVOKED, *(["log"] if logs else [])], capture_output=True, text=True, check=True
    )
    places = ("in a task", "in a callback", "in a Deferred", "in a handler")
    if logs:
        assert [place for place in places if place not in done.stderr] == []
    else:
        assert (done.stdout, done.stderr) == ("", "")


CALLED = """
import asyncio, logging
from p2p_ipython import loop as loops

def fails(secret):
    raise ValueError("in a callback")

async def work():
    loops.adopt()
    asyncio.get_running_loop().call_soon(fails, "p2p-a-secret-topic")
    await asyncio.sleep(0)
    await asyncio.sleep(0)

logging.basicConfig()
asyncio.run(work())
"""


def test_what_a_program_of_ours_logs_of_a_failed_callback_has_not_what_it_was_called_with() -> None:
    done = subprocess.run([sys.executable, "-c", CALLED], capture_output=True, text=True, check=True)
    assert "ValueError: in a callback" in done.stderr
    assert "secret-topic" not in done.stderr


WARNED = """
import logging
from p2p_ipython import loop as loops
loops.background()
for part in ("client.cluster", "client.local", "members.membership", "members.profiles"):
    logging.getLogger(f"p2p_ipython.{part}").warning("%s warns", part)
"""


def test_what_the_user_should_know_is_printed_without_any_setup_of_logging() -> None:
    done = subprocess.run([sys.executable, "-c", WARNED], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        f"{part} warns" for part in ("client.cluster", "client.local", "members.membership", "members.profiles")
    ]
