"""The lending log, the members that a lender knows, and the machine's facts."""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.errors import ConfigError
from p2p_ipython.lending.facts import Machine, idle_of_terminals, interrupts, on_mains
from p2p_ipython.lending.known import MAX_CLUSTERS, Known, KnownMembers
from p2p_ipython.lending.policy import MachineFacts, Policy
from p2p_ipython.lending.record import Entry, LendingLog, midnight

ENTRY = Entry(time.time(), "alice/friends", "carol", "SHA256:c", "square", "abcd", "done", 1.5, 1.25, 1 << 20, 10, 20)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- the log --


def test_what_is_written_is_read_and_private(tmp_path: Path) -> None:
    log = LendingLog(tmp_path / "new" / "lending.log")
    log.write(ENTRY)
    log.write(replace(ENTRY, label="\x1b[31mred\u202e", outcome="failed"))
    first, second = log.entries()
    assert first == replace(ENTRY, time=round(ENTRY.time, 3))
    assert second.label == "[31mred"
    assert mode(log.path) == 0o600
    assert log.today() == (20, 40)


def test_a_log_has_a_bound_and_keeps_what_is_newest(tmp_path: Path) -> None:
    log = LendingLog(tmp_path / "lending.log", limit=2000)
    for number in range(100):
        log.write(replace(ENTRY, label=str(number)))
    labels = [entry.label for entry in log.entries()]
    assert labels == [str(number) for number in range(100 - len(labels), 100)]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * 2400
    assert all(mode(path) == 0o600 for path in tmp_path.iterdir())


def _write_many(path: Path, member: str) -> None:
    log = LendingLog(path, limit=20_000)
    for number in range(40):
        log.write(replace(ENTRY, member=member, label=str(number)))


def test_workers_that_write_at_the_same_time_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "lending.log"
    children = [get_context("spawn").Process(target=_write_many, args=(path, name)) for name in ("a", "b")]
    for child in children:
        child.start()
    for child in children:
        child.join()
    found = [(entry.member, entry.label) for entry in LendingLog(path).entries()]
    assert sorted(found) == sorted((name, str(number)) for name in ("a", "b") for number in range(40))


@given(st.lists(st.binary(max_size=80) | st.just(b'{"time": 1}') | st.just(json.dumps([1]).encode()), max_size=5))
def test_lines_that_are_no_entries_are_left_out(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    log = LendingLog(tmp_path_factory.mktemp("log") / "lending.log")
    log.path.write_bytes(b"\n".join([*lines, b""]))
    log.write(ENTRY)
    assert [entry.label for entry in log.entries()] == ["square"]


def test_a_disk_that_is_full_costs_lines_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    log = LendingLog(Path("/dev/full/lending.log"))
    log.write(ENTRY)
    log.write(ENTRY)
    assert len(caplog.records) == 1
    assert list(log.entries()) == []


def test_a_day_begins_at_midnight_here() -> None:
    began = time.localtime(midnight(time.time()))
    assert (began.tm_hour, began.tm_min, began.tm_sec) == (0, 0, 0)
    assert began.tm_yday == time.localtime().tm_yday


# -- the known --


def test_members_are_known_by_cluster_once_the_lender_has_said_yes(tmp_path: Path) -> None:
    file = KnownMembers(tmp_path / "new" / "known.json")
    assert file.of("a") == Known(None)
    file.say_yes("a", ["k1", "k2"])
    before = file.stamp()
    file.have_named("a", ["k3"])
    assert file.stamp() != before
    assert KnownMembers(file.path).of("a") == Known(frozenset({"k1", "k2"}), frozenset({"k1", "k2", "k3"}))
    assert file.of("b") == Known(None)
    assert mode(file.path) == 0o600
    for number in range(MAX_CLUSTERS):
        file.say_yes(f"c{number}", ["k"])
    assert file.of("a") == Known(None)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"known": [1], "named": []}}'])
def test_a_file_of_the_known_that_is_damaged_is_said_and_kept(tmp_path: Path, text: str) -> None:
    file = KnownMembers(tmp_path / "known.json")
    file.path.write_text(text)
    with pytest.raises(ConfigError, match="can't be read"):
        file.of("a")
    with pytest.raises(ConfigError, match="can't be read"):
        file.say_yes("a", ["k"])
    assert file.path.read_text() == text


# -- the machine --

INTERRUPTS = """\
           CPU0       CPU1
  1:        100         23   IO-APIC    1-edge      i8042
 12:          7          0   IO-APIC   12-edge      i8042
 16:       5000          0   IO-APIC   16-fasteoi   ehci_hcd:usb1
NMI:          0          0   Non-maskable interrupts
"""


def test_interrupts_of_keyboard_and_mouse_are_counted() -> None:
    assert interrupts(INTERRUPTS) == 130
    assert interrupts("") == 0
    machine = Machine()
    assert machine._since_interrupt(INTERRUPTS) == float("inf")
    assert machine._since_interrupt(INTERRUPTS) == float("inf")
    assert machine._since_interrupt(INTERRUPTS.replace("100", "101")) < 60


def test_a_terminal_is_idle_since_somebody_has_typed_there(tmp_path: Path) -> None:
    leader, follower = os.openpty()
    try:
        name = os.ttyname(follower)
        os.write(leader, b"typed\n")
        assert os.read(follower, 100) == b"typed\n"
        assert idle_of_terminals([name, "/dev/none"], time.time()) < 60
        assert idle_of_terminals([name], time.time() + 3600) > 3000
    finally:
        os.close(leader)
        os.close(follower)
    assert idle_of_terminals([], time.time()) == float("inf")


def test_a_look_tells_what_the_policy_asks_for_and_nothing_else() -> None:
    machine = Machine()
    assert machine.look(Policy()) == MachineFacts()
    facts = machine.look(Policy(mains=True, load=1.0))
    assert facts.idle is None
    assert facts.mains is on_mains()
    assert facts.load is not None
    assert facts.load >= 0


def test_what_this_process_does_itself_is_not_others_load() -> None:
    machine = Machine()
    assert machine.look(Policy(load=1.0)).load == 0.0
    end = time.process_time() + 1.0
    while time.process_time() < end:
        pass
    mine = machine._spent
    load = machine.look(Policy(load=1.0)).load
    assert mine is not None
    assert machine._spent is not None
    seconds, whole, ours = (after - before for after, before in zip(machine._spent, mine, strict=True))
    assert ours > 0.9
    assert load == pytest.approx(max(0.0, whole - ours) / seconds)
