"""What the user typed, and what ~/.ssh/config makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_support import ssh_files

from p2p_ipython.board.client import ssh_config
from p2p_ipython.board.client.address import BoardAddress, Route, SSHOptions, parse_ssh_options, route
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
        ("Host board\n ProxyJump gate\nHost gate\n ProxyJump board\n", "jump hosts"),
        ("Host board\n ProxyCommand nc %h %p\n", "ProxyCommand"),
        ("Host board\n Port many\n", "many"),
        ("this is no configuration\nHost", "can't be used"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(tmp_path, config, says):
    with pytest.raises(ConfigError, match=says):
        route(BoardAddress("board"), ssh_files(tmp_path, config))


@pytest.fixture
def without_openssh(monkeypatch):
    monkeypatch.setattr(ssh_config.shutil, "which", lambda name: None)


@pytest.mark.parametrize("way", ["openssh", "paramiko"])
def test_openssh_and_paramiko_read_a_configuration_alike(tmp_path, request, way):
    if way == "paramiko":
        request.getfixturevalue("without_openssh")
    files = ssh_files(
        tmp_path,
        "Host board\n HostName 192.0.2.7\n HostKeyAlias alias\n IdentityFile none\n IdentityFile ~/.ssh/%r-%h\n"
        " User ann\n IdentitiesOnly yes\n IdentityAgent none\nHost *\n Port 2200\n",
    )
    key = Path.home() / ".ssh" / "ann-192.0.2.7"
    assert route(BoardAddress("board"), files) == Route(
        "192.0.2.7", 2200, "ann", "alias", (key,), agent="none", identities_only=True
    )
    assert route(BoardAddress("other", None, "me"), files) == Route("other", 2200, "me", "[other]:2200")


def test_an_included_file_counts(tmp_path):
    more = tmp_path / "more"
    more.write_text("Host board\n HostName 192.0.2.7\n")
    files = ssh_files(tmp_path, f"Include {more}\nHost board\n HostName 192.0.2.8\n Port 2200\n")
    assert str(route(BoardAddress("board", None, "me"), files)) == "192.0.2.7 port 2200"


def test_without_openssh_an_include_is_refused_and_not_ignored(tmp_path, without_openssh):
    with pytest.raises(ConfigError, match="Include") as caught:
        route(BoardAddress("board"), ssh_files(tmp_path, "Include more\n"))
    assert "Install OpenSSH" in caught.value.hint


def test_a_match_line_sees_the_user_and_port_that_were_typed(tmp_path):
    files = ssh_files(tmp_path, "Match user ann\n HostName 192.0.2.7\n")
    assert route(BoardAddress("board", None, "ann"), files).host == "192.0.2.7"
    assert route(BoardAddress("board", None, "bob"), files).host == "board"


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ([], SSHOptions()),
        (["-J gate"], SSHOptions(jump="gate")),
        (["-Jann@gate:2200,[::1]:22"], SSHOptions(jump="ann@gate:2200,[::1]:22")),
        (["-J", "gate"], None),
        (["-p 22", "-l ann", "-i /keys/id"], SSHOptions(port=22, user="ann", identity=Path("/keys/id"))),
        (["-p 22 -l ann -i '/my keys/id'"], SSHOptions(port=22, user="ann", identity=Path("/my keys/id"))),
        (["-o ProxyJump=gate", "-oport=22"], SSHOptions(jump="gate", port=22)),
        (["-o 'User ann'", "-o HostKeyAlias=board", "-o IdentityFile=/a"],
         SSHOptions(user="ann", host_key_alias="board", identity=Path("/a"))),
        ([r"-i C:\Users\ann\id"], SSHOptions(identity=Path(r"C:\Users\ann\id"))),
        (["-o ProxyJump=none"], SSHOptions(jump="none")),
        (["-p 22", "-o Port=23"], SSHOptions(port=22)),
    ],
)  # fmt: skip
def test_ssh_options_are_read_as_ssh_reads_them(options, meant):
    if meant is None:
        with pytest.raises(ConfigError):
            parse_ssh_options(options)
    else:
        assert parse_ssh_options(options) == meant


def test_a_key_file_in_an_option_is_looked_for_in_the_home_directory():
    assert parse_ssh_options(["-i ~/id"]).identity == Path.home() / "id"


@pytest.mark.parametrize(
    "option",
    ["-A", "-o StrictHostKeyChecking=no", "-o", "-o Port", "-o Port=", "-J", "-J ''", "gate", "-F none", "-v -p 22",
     "-o ProxyCommand=evil", "-l '-x'", "-l 'a b'", "-i 'unclosed", "--port 22", "-4"],
)  # fmt: skip
def test_any_other_ssh_option_is_refused_and_what_is_supported_is_said(option):
    with pytest.raises(ConfigError, match=r"not supported\nSupported are -J HOST.*HostKeyAlias"):
        parse_ssh_options([option])


@pytest.mark.parametrize("option", ["-p 0", "-p 65536", "-p ssh", "-p ٣", "-J a b", "-J -oProxyCommand=x", "-J a,,b"])
def test_a_port_or_a_jump_host_that_cannot_be_is_refused(option):
    with pytest.raises(ConfigError):
        parse_ssh_options([option])


def test_more_jump_hosts_than_make_sense_are_refused():
    with pytest.raises(ConfigError, match="more than 8"):
        parse_ssh_options(["-J " + ",".join(f"h{n}" for n in range(9))])


def test_options_win_over_the_address_and_that_over_the_configuration(tmp_path):
    config = "Host board\n HostName 192.0.2.7\n Port 2200\n User ann\n ProxyJump old\n IdentityFile /keys/id\n"
    options = parse_ssh_options(
        ["-J ann@gate:2222", "-p 2201", "-l bob", "-i /keys/other", "-o HostKeyAlias=the-board"]
    )
    found = route(BoardAddress("board", 9, "me"), ssh_files(tmp_path, config), options)
    assert found == Route(
        "192.0.2.7",
        2201,
        "bob",
        "the-board",
        (Path("/keys/other"), Path("/keys/id")),
        jumps=(Route("gate", 2222, "ann", "[gate]:2222"),),
    )


def test_a_jump_host_of_an_option_has_its_own_configuration_and_none_of_the_boards_options(tmp_path):
    config = "Host gate\n HostName 192.0.2.1\n Port 2200\n User ann\n IdentityFile /keys/gate\n"
    options = parse_ssh_options(["-J gate,second", "-p 9", "-l bob", "-i /keys/id", "-o HostKeyAlias=x"])
    first, second = route(BoardAddress("board"), ssh_files(tmp_path, config), options).jumps
    assert first == Route("192.0.2.1", 2200, "ann", "[192.0.2.1]:2200", (Path("/keys/gate"),))
    assert (second.host, second.port, second.name, second.identities) == ("second", 22, "second", ())


def test_an_option_can_do_without_what_is_configured(tmp_path):
    config = "Host board\n ProxyJump gate\nHost other\n ProxyCommand nc %h\n"
    files = ssh_files(tmp_path, config)
    assert route(BoardAddress("board"), files, parse_ssh_options(["-J none"])).jumps == ()
    assert route(BoardAddress("other"), files, parse_ssh_options(["-J gate"])).jumps[0].host == "gate"
