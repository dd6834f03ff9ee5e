"""What the doctor says: about silence, and on a terminal."""

from __future__ import annotations

import pytest

from p2p_ipython.doctor.checks import CHECKS, Check, Report, Result, failed, obstacle, ok, skipped, unknown
from p2p_ipython.doctor.network import Surroundings, explain_silence, proxy_of
from p2p_ipython.doctor.show import Style, finding, verdict
from p2p_ipython.doctor.ssh import Account, parse_account

CHECK = next(check for check in CHECKS if check.name == "tcp")


def test_port_22_that_is_blocked_is_said_to_be_the_networks_doing() -> None:
    why, todo = explain_silence("pipe.pico.sh", 22, Surroundings(https_open=True, proxy="proxy:8080"))
    assert why == "pipe.pico.sh answers on port 443 and not on port 22: this network blocks port 22 (SSH)"
    for way in ("another network", "`ProxyJump`", "`p2p board --host :: --port 443`"):
        assert way in todo


def test_a_page_to_log_in_on_comes_before_everything_else() -> None:
    why, todo = explain_silence("pipe.pico.sh", 22, Surroundings(True, "proxy", "wifi.example"))
    assert "wifi.example" in why
    assert todo.startswith("Open http://wifi.example/")


def test_silence_that_nothing_explains_is_said_as_it_is() -> None:
    why, todo = explain_silence("board", 2222, Surroundings())
    assert why == "board does not answer on port 2222"
    assert todo.startswith("Check the address")


@pytest.mark.parametrize(
    ("proxies", "shown"),
    [
        ({}, ""),
        ({"http": "http://me:pw@p.example:3128/"}, "p.example:3128"),
        ({"https": "p.example"}, "p.example"),
        ({"http": "http://h:1", "https": "http://s:2"}, "s:2"),
        ({"all": "socks5://u:pw@s.example:1080"}, "s.example:1080"),
        ({"http": "http://p:port"}, ""),
        ({"no": "localhost"}, ""),
    ],
)
def test_a_proxy_is_shown_without_its_password(proxies: dict[str, str], shown: str) -> None:
    assert proxy_of(proxies) == shown


@pytest.mark.parametrize(
    ("answer", "account"),
    [
        ("alice\n7b…\n2024-05-01\npro\n", Account("alice", "2024-05-01", "pro")),
        ("Alice\r\nid\r\n2024-05-01T10:11:12Z\r\nfree\r\n", Account("alice", "2024-05-01", "free")),
        ("alice\n", Account("alice")),
        ("alice\nid\nyesterday\n\x1b[31m\n", Account("alice")),
        ("public\nid\n2024-05-01\nfree\n", None),
        ("", None),
        ("you have no account\n", None),
    ],
)
def test_an_account_is_read_as_pico_prints_it(answer: str, account: Account | None) -> None:
    assert parse_account(answer) == account


def test_a_check_is_skipped_when_what_it_needs_has_failed_or_was_skipped_but_not_when_it_is_unknown() -> None:
    check = Check("x", "x", ("key", "name"), 1)
    fine = ok("")
    assert obstacle(check, {"key": fine, "name": unknown("")}) is None
    assert obstacle(check, {"key": fine, "name": failed("")}) == skipped("needs: name of the board")
    assert obstacle(check, {"key": skipped(""), "name": fine}) == skipped("needs: SSH key")


def test_checks_need_only_what_comes_before_them() -> None:
    names = [check.name for check in CHECKS]
    for number, check in enumerate(CHECKS):
        assert set(check.needs) <= set(names[:number])


@pytest.mark.parametrize(
    ("result", "style", "text"),
    [
        (ok("answers", seconds=0.0123), Style(), "✓  connection             answers (12 ms)"),
        (ok("answers", seconds=0.0012), Style(), "✓  connection             answers (1.2 ms)"),
        (ok("answers"), Style(colour=True), "\x1b[32m✓\x1b[0m  connection             answers"),
        (skipped("needs: x"), Style(signs=False), "--  connection             needs: x"),
        (
            failed("nothing listens there", "Is it running?\nLook."),
            Style(),
            "✗  connection             nothing listens there\n"
            "                          → Is it running?\n"
            "                          → Look.",
        ),
        (
            failed("it is far too long for one line of this", ""),
            Style(width=66),
            "✗  connection             it is far too long for one line of this",
        ),
        (
            ok("a " * 30),
            Style(width=66),
            f"✓  connection             {'a ' * 19}a\n                          {'a ' * 9}a",
        ),
    ],
)
def test_a_finding_is_aligned_and_says_below_what_to_do(result: Result, style: Style, text: str) -> None:
    assert finding(CHECK, result, style) == text


def test_what_is_to_be_copied_is_never_cut() -> None:
    text = finding(CHECK, failed("short", f"--accept-host-key SHA256:{'x' * 43}"), Style(width=40))
    assert f"SHA256:{'x' * 43}" in text


def test_the_verdict_names_the_first_that_failed() -> None:
    fine = {check.name: ok("") for check in CHECKS}
    assert verdict(Report({}, fine)) == "Everything works."
    broken = fine | {"relay": failed("r"), "tcp": failed("t")}
    assert verdict(Report({}, broken)).startswith("The first thing that fails is: connection.")
    assert "too long" in verdict(Report({}, fine | {"link": skipped("")}))


def test_a_report_for_programs_has_everything() -> None:
    results = {check.name: ok("fine", seconds=0.0125) for check in CHECKS} | {"relay": failed("gone", "Start it.")}
    found = Report({"board": "b"}, results).as_json()
    assert found["ok"] is False
    assert found["first_failed"] == "relay"
    assert found["board"] == "b"
    assert found["checks"][0] == {"check": "key", "result": "ok", "why": "fine", "todo": "", "ms": 12.5}
    assert [entry["check"] for entry in found["checks"]] == [check.name for check in CHECKS]
