"""What the user typed, and what ~/.ssh/config makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_support import ssh_files

from p2p_ipython.board.address import BoardAddress, Route, route
from p2p_ipython.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("pico.sh", BoardAddress("pico.sh")),
        ("pico.sh:2222", BoardAddress("pico.sh", 2222)),
        (" me@127.0.0.1:22 ", BoardAddress("127.0.0.1", 22, "me")),
        ("[::1]:2222", BoardAddress("::1", 2222)),
        ("::1", BoardAddress("::1")),
        ("me@fe80::1", BoardAddress("fe80::1", None, "me")),
    ],
)
def test_addresses_are_read(text, address):
    assert BoardAddress.parse(text) == address
    assert BoardAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["", "a b", "host:", "host:0", "host:65536", "host:ssh", "@host", "[::1", "-oProxyCommand=x"]
)
def test_what_is_no_address_is_refused_with_a_hint(text):
    with pytest.raises(ConfigError, match="Give HOST"):
        BoardAddress.parse(text)


def test_without_a_configuration_the_port_is_sshs(tmp_path):
    found = route(BoardAddress("pico.sh", None, "me"), ssh_files(tmp_path))
    assert found == Route("pico.sh", 22, "me", "pico.sh")


def test_the_configuration_completes_an_address_and_what_was_typed_wins(tmp_path):
    files = ssh_files(
        tmp_path,
        "Host board\n HostName 192.0.2.7\n Port 2200\n User ann\n"
        " IdentityFile /keys/id\n UserKnownHostsFile /keys/hosts\n",
    )
    assert route(BoardAddress("board"), files) == Route(
        "192.0.2.7", 2200, "ann", "[192.0.2.7]:2200", (Path("/keys/id"),), (Path("/keys/hosts"),)
    )
    typed = route(BoardAddress("board", 2222, "bob"), files)
    assert (typed.port, typed.user, typed.name) == (2222, "bob", "[192.0.2.7]:2222")


def test_jump_hosts_come_in_order_with_settings_of_their_own(tmp_path):
    files = ssh_files(
        tmp_path, "Host board\n ProxyJump one,me@two:2200\nHost one\n HostName 192.0.2.1\n ProxyJump zero\n User u\n"
    )
    found = route(BoardAddress("board", 2222, "u"), files)
    assert [(hop.host, hop.port) for hop in found.jumps] == [("zero", 22), ("192.0.2.1", 22), ("two", 2200)]
    assert found.jumps[2].user == "me"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("Host board\n ProxyJump board\n", "jump hosts"),
        ("Host board\n ProxyCommand nc %h %p\n", "ProxyCommand"),
        ("Host board\n Port many\n", "Port"),
        ("this is no configuration\nHost", "can't be read"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(tmp_path, config, says):
    with pytest.raises(ConfigError, match=says):
        route(BoardAddress("board"), ssh_files(tmp_path, config))
