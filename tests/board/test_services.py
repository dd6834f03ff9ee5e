"""Where a board's mailbox and relay are: what it says, and what its clients make of that."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from board_support import PATIENCE, AsyncsshTalk, Recorder, joined, make_key, running, ssh_files

from p2p_ipython.board.client.address import BoardAddress, Route
from p2p_ipython.board.client.services import parse_services
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.board.server.options import split_place

SAID = {"mailbox": "ws://10.0.0.5:2222/v1", "relay": "tcp:10.0.0.5:2222", "port": 2222}
APART = {"mailbox": "ws://10.0.0.5:4000/v1", "relay": "tcp:10.0.0.5:4001", "port": 2222}
OLD = {key: value for key, value in APART.items() if key != "port"}


def dialled(host: str, port: int, *jumps: Route) -> Route:
    return Route(host, port, "p2p", host, jumps=jumps)


HERE = dialled("board.example.org", 443)


@pytest.mark.parametrize(
    ("said", "way", "mailbox", "relay"),
    [
        (SAID, HERE, "ws://board.example.org:443/v1", "tcp:board.example.org:443"),
        (SAID, dialled("2001:db8::7", 2222), "ws://[2001:db8::7]:2222/v1", "tcp:[2001:db8::7]:2222"),
        (APART, HERE, "ws://board.example.org:4000/v1", "tcp:board.example.org:4001"),
        (OLD, HERE, "ws://board.example.org:4000/v1", "tcp:board.example.org:4001"),
        (SAID | {"advertised": True}, HERE, SAID["mailbox"], SAID["relay"]),
        (SAID, dialled("localhost", 22, HERE), SAID["mailbox"], SAID["relay"]),
        (SAID, None, SAID["mailbox"], SAID["relay"]),
        (SAID | {"port": [2222]}, HERE, "ws://board.example.org:2222/v1", "tcp:board.example.org:2222"),
        (SAID | {"mailbox": "wss://[::1]/v1"}, HERE, "wss://board.example.org/v1", "tcp:board.example.org:443"),
    ],
)
def test_members_use_the_host_and_port_that_they_have_dialled(said, way, mailbox, relay):
    assert parse_services(json.dumps(said), way) == {"mailbox": mailbox, "relay": relay}


@pytest.mark.parametrize(
    "said",
    [
        "", "[]", "{", "[" * 100_000, '"x"', "{}",
        *(json.dumps(SAID | change) for change in (
            {"mailbox": ""}, {"mailbox": 1}, {"mailbox": "http://x/v1"}, {"mailbox": "ws://x y"}, {"relay": ""},
            {"relay": "tcp:x"}, {"relay": None}, {"mailbox": "ws://" + "x" * 300},
        )),
    ],
)  # fmt: skip
def test_what_names_no_services_is_none(said):
    assert parse_services(said, HERE) is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("board.example.org", ("board.example.org", 0)),
        ("board.example.org:443", ("board.example.org", 443)),
        ("192.0.2.7:1", ("192.0.2.7", 1)),
        ("2001:db8::7", ("2001:db8::7", 0)),
        ("[2001:db8::7]", ("2001:db8::7", 0)),
        ("[2001:db8::7]:443", ("2001:db8::7", 443)),
    ],
)
def test_a_place_has_a_host_and_maybe_a_port(text, place):
    assert split_place(text) == place


@pytest.mark.parametrize("text", ["", ":1", "x:y", "x:99999", "x:-1", "[]:1"])
def test_what_is_no_place_is_refused(text):
    with pytest.raises(ValueError, match="is no HOST"):
        split_place(text)


@pytest.mark.parametrize(
    ("options", "mailbox", "relay", "more"),
    [
        ({}, "ws://127.0.0.1:{ssh}/v1", "tcp:127.0.0.1:{ssh}", {}),
        ({"advertise": "b.example"}, "ws://b.example:{ssh}/v1", "tcp:b.example:{ssh}", {"advertised": True}),
        ({"advertise": "[::7]:443"}, "ws://[::7]:443/v1", "tcp:[::7]:443", {"advertised": True}),
    ],
)
async def test_a_board_says_where_it_sees_itself_or_where_it_was_told_to_be(tmp_path, options, mailbox, relay, more):
    async with asyncio.timeout(PATIENCE), running(**options) as server:
        port = server.addresses.port
        talk = await AsyncsshTalk.start(port, make_key(tmp_path), "p2p")
        said: dict[str, Any] = json.loads((await talk.end()).out)
        await talk.hang_up()
        assert said == {"mailbox": mailbox.format(ssh=port), "relay": relay.format(ssh=port), "port": port} | more


async def test_behind_a_port_forward_mailbox_and_relay_are_where_the_board_was_dialled(tmp_path):
    key = make_key(tmp_path)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.addresses.port)

        async def copy(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
            while data := await one.read(1 << 16):
                other.write(data)
            other.close()

        await asyncio.gather(copy(reader, back), copy(there, writer))

    async with asyncio.timeout(PATIENCE), running() as server:
        router = await asyncio.start_server(forward, "127.0.0.9", 0)
        port = router.sockets[0].getsockname()[1]
        files, pin = ssh_files(tmp_path), server.addresses.host_key
        board = SSHBoard(BoardAddress("127.0.0.9", port), "t", Recorder(), identity=key.path, files=files, pin=pin)
        async with joined(board):
            there = {"mailbox": f"ws://127.0.0.9:{port}/v1", "relay": f"tcp:127.0.0.9:{port}"}
            assert await board.services() == there
        router.close()
        await router.wait_closed()
