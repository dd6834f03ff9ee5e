"""Records of loggers that come from tasks: which are handled here, by which logger, whatever a stranger sends."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.client.display import harmless
from p2p_ipython.client.relaying import MOST, Relayed, relays
from p2p_ipython.client.task_options import TaskOptions
from p2p_ipython.errors import UsageError
from p2p_ipython.task import relayed
from p2p_ipython.task.relayed import Relay, read


def content(**given: Any) -> dict[str, Any]:
    told = {"logger": "p2p_lib.part", "level": 30, "message": "m %s", "filename": "f.py", "line": 3, "function": "f"}
    return {**told, "created": time.time(), "error": "", **given}


def test_a_record_is_for_its_logger_if_that_is_here_and_else_for_the_chosen_one_above() -> None:
    before = set(logging.root.manager.loggerDict)
    found = read(content(logger="p2p_lib.unknown"), ("p2p_lib", ""), "bob")
    assert found is not None
    assert (found[0].name, found[1].name, found[1].p2p_worker) == ("p2p_lib", "p2p_lib.unknown", "bob")
    assert found[1].getMessage() == "m %s"
    assert set(logging.root.manager.loggerDict) - before <= {"p2p_lib"}
    known = logging.getLogger("p2p_lib.known")
    found = read(content(logger="p2p_lib.known"), ("p2p_lib",), "bob")
    assert found is not None
    assert found[0] is known


@pytest.mark.parametrize(
    "wrong",
    [
        {"logger": "other"}, {"logger": "p2p_library"}, {"logger": 5},
        {"level": "x"}, {"level": True}, {"level": 1 << 40},
        {"message": "x" * 10_001}, {"line": -1}, {"created": None}, {"error": []}, {"logger": "p2p_lib." + "x" * 300},
    ],
)  # fmt: skip
def test_what_nobody_wants_and_nonsense_is_dropped(wrong: dict[str, Any]) -> None:
    assert read(content(**wrong), ("p2p_lib",), "bob") is None


def test_a_time_that_cannot_be_is_now() -> None:
    found = read(content(created=0.0), ("",), "bob")
    assert found is not None
    assert found[1].created > 1e9


@given(st.dictionaries(st.sampled_from([*content(), "more"]), st.none() | st.integers() | st.text() | st.floats()))
def test_whatever_a_stranger_sends_is_a_record_or_nothing(sent: dict[str, Any]) -> None:
    message = harmless({"kind": "log", "content": content(**sent)}, "bob")
    assert message is not None
    found = read(message["content"], ("p2p_lib",), "bob")
    if found is not None:
        assert logging.Formatter("%(asctime)s %(message)s").format(found[1])


def test_more_records_than_may_come_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("p2p_flood")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    one = Relayed(("p2p_flood",), "task")
    for _ in range(MOST + 5):
        one.take(content(logger="p2p_flood"), "bob")
        if relays.waiting > 500:
            relays.drain()
    one.over()
    relays.drain()
    assert "task: 5 records of its loggers were dropped" in caplog.text


def test_in_a_task_a_logger_only_sends() -> None:
    sent: list[dict[str, Any]] = []
    logger, usual = logging.getLogger("p2p_sends"), logging.NullHandler()
    logger.addHandler(usual)
    assert Relay(("p2p_sends",)).enter() is None  # at home
    relayed.runner.send = lambda facts: sent.append(facts) is None
    try:
        undo = Relay(("p2p_sends",)).enter()
        assert undo is not None
        logger.warning("a %s", "b")
        undo()
        logger.warning("c")
    finally:
        relayed.runner.send = None
    assert [each["message"] for each in sent] == ["a b"]
    assert (logger.handlers, logger.propagate) == ([usual], True)


def test_names_of_loggers_are_checked() -> None:
    assert TaskOptions(log=["a", "root", "a"]).log == ("a", "")
    assert TaskOptions(log="a").log == ("a",)
    assert TaskOptions().with_loggers().log is None
    with pytest.raises(UsageError, match="names of loggers"):
        TaskOptions(log=[5])
