"""Addresses: our own, and those that a stranger names."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import psutil
import pytest

from p2p_ipython.errors import ConfigError, WrongPeer
from p2p_ipython.link.hints import MAX_HINTS, Hint, is_local, own_hints, parse_hints, parse_relay, seen_from


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("ws://127.0.0.1:4000/v1", True),
        ("ws://[::1]:4000/v1", True),
        ("ws://localhost:4000/v1", True),
        ("wss://relay.magic-wormhole.io/v1", False),
        ("ws://192.168.1.2:4000/v1", False),
        ("nonsense", False),
    ],
)
def test_a_mailbox_on_loopback_is_local(url: str, local: bool) -> None:
    assert is_local(url) is local


@pytest.mark.parametrize(
    ("url", "board", "seen"),
    [
        ("ws://127.0.0.1:4000/v1", "192.0.2.7", "ws://192.0.2.7:4000/v1"),
        ("ws://localhost/v1", "2001:db8::7", "ws://[2001:db8::7]/v1"),
        ("wss://[::1]:4000/v1", "192.0.2.7", "wss://192.0.2.7:4000/v1"),
        ("ws://[::ffff:127.0.0.1]:4000", "192.0.2.7", "ws://192.0.2.7:4000"),
        ("tcp:0.0.0.0:4001", "192.0.2.7", "tcp:192.0.2.7:4001"),
        ("tcp:[::]:4001", "2001:db8::7", "tcp:[2001:db8::7]:4001"),
        ("ws://127.0.0.1:4000/v1", "127.0.0.1", "ws://127.0.0.1:4000/v1"),  # the board is here, too
        ("ws://127.0.0.1:4000/v1", "", "ws://127.0.0.1:4000/v1"),
        ("ws://board.example:4000/v1", "192.0.2.7", "ws://board.example:4000/v1"),
        ("ws://198.51.100.1:4000/v1", "192.0.2.7", "ws://198.51.100.1:4000/v1"),
        ("memory:", "192.0.2.7", "memory:"),
    ],
)
def test_a_loopback_address_of_a_peer_is_the_boards(url: str, board: str, seen: str) -> None:
    assert seen_from(url, board) == seen


def test_loopback_comes_first_where_the_mailbox_is_and_is_left_out_otherwise() -> None:
    hints = own_hints(4321, None, local=True)
    assert hints[0].host in ("127.0.0.1", "::1")
    assert {hint.port for hint in hints} == {4321}
    assert len(hints) <= MAX_HINTS
    assert not {"127.0.0.1", "::1"} & {hint.host for hint in own_hints(4321, None, local=False)}
    assert own_hints(4321, "127.0.0.1", local=False) == [Hint("127.0.0.1", 4321)]


def test_a_peers_usable_addresses_are_kept_once_and_in_order() -> None:
    value = [["192.168.1.2", 4001], ["2001:db8::1", 4001], ["192.168.1.2", 4001]]
    assert parse_hints(value, local=False) == [Hint("192.168.1.2", 4001), Hint("2001:db8::1", 4001)]


@pytest.mark.parametrize(
    "pair",
    [
        ["evil.example", 4001],  # a look-up on its behalf
        ["192.168.1.1", 22],  # somebody else's service
        ["192.168.1.1", 65536],
        ["224.0.0.1", 4001],
        ["0.0.0.0", 4001],
        ["fe80::1", 4001],
        ["127.0.0.1", 4001],
        ["::1", 4001],
        ["::ffff:127.0.0.1", 4001],
    ],
)
def test_an_address_that_we_should_not_be_made_to_connect_to_is_left_out(pair: list[object]) -> None:
    assert parse_hints([pair], local=False) == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        "127.0.0.1:4000",
        [["127.0.0.1"]],
        [["127.0.0.1", "4000"]],
        [["127.0.0.1", True]],
        [[1, 4000]],
        [["1" * 1000, 4000]],
        [["192.168.1.1", 4000 + n] for n in range(MAX_HINTS + 1)],
    ],
)
def test_a_value_that_is_no_list_of_addresses_is_a_wrong_peer(value: object) -> None:
    with pytest.raises(WrongPeer):
        parse_hints(value, local=True)


def test_a_relay_is_written_tcp_host_port() -> None:
    assert parse_relay("tcp:transit.magic-wormhole.io:4001") == ("transit.magic-wormhole.io", 4001)
    assert parse_relay("tcp:[::1]:4001") == ("::1", 4001)


@pytest.mark.parametrize(
    "text", ["", "tcp:host", "host:4001", "tcp::4001", "tcp:host:99999", "tcp:host:４", "ws://h:1"]
)
def test_a_text_that_is_no_relay_is_answered_with_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError, match="tcp:HOST:PORT"):
        parse_relay(text)


def test_addresses_that_lead_nowhere_from_elsewhere_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    interfaces = {
        "lo": ["127.0.0.1", "::1"],
        "docker0": ["172.17.0.1"],
        "br-0123456789ab": [f"172.{number}.0.1" for number in range(18, 32)],
        "tailscale0": ["100.64.0.7", "fd7a::7"],
        "wlp3s0": ["192.168.1.7", "2001:db8::7", "fe80::7%wlp3s0"],
    }

    def address(text: str) -> SimpleNamespace:
        return SimpleNamespace(family=socket.AF_INET6 if ":" in text else socket.AF_INET, address=text)

    there = {name: [address(each) for each in addresses] for name, addresses in interfaces.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: there)
    hints = [hint.host for hint in own_hints(4001, None, local=False)]
    assert hints[:5] == ["192.168.1.7", "2001:db8::7", "100.64.0.7", "fd7a::7", "172.17.0.1"]
    assert len(hints) == MAX_HINTS
    assert own_hints(4001, None, local=True)[0].host == "127.0.0.1"
