"""The mailbox's bounds: each is met, those who are there notice nothing, and Magic Wormhole's clients go on working."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import shutil
import sys
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from board_support import PATIENCE, AsyncsshTalk, make_key, running, until
from test_crowds import websocket

from p2p_ipython.board.server.bounds import Bounds
from p2p_ipython.board.server.mailboxes import OVERHEAD, Client, Close, Mailboxes, Tell


class Desk:
    """Mailboxes, and what each client was told."""

    def __init__(self, here: set[str] | None = None, **bounds: Any) -> None:
        here = here or set()
        self.boxes = Mailboxes(Bounds(**bounds), here.__contains__)
        self.now = 1000.0

    def client(self, side: str, address: str = "a", app: str = "app") -> Client:
        client = self.boxes.connect(address, self.now)
        assert isinstance(client, Client), client
        self.say(client, "bind", appid=app, side=side)
        return client

    def say(self, client: Client, kind: str, **more: Any) -> list[Any]:
        """What all are told then, without the acknowledgement: (client, message), or a closing."""
        actions = self.boxes.receive(client, {"type": kind, **more}, self.now)
        assert actions[0] == Tell(client, {"type": "ack", "id": None}) or "error" in actions[0].message
        return [action for action in actions if not (isinstance(action, Tell) and action.message["type"] == "ack")]

    def refused(self, client: Client, kind: str, **more: Any) -> str:
        (action,) = self.say(client, kind, **more)
        return str(action.message["error"])

    def opened(self, side: str, name: str, address: str = "a") -> Client:
        client = self.client(side, address)
        assert all("error" not in action.message for action in self.say(client, "open", mailbox=name))
        return client


def test_two_sides_meet_by_a_nameplate_and_get_what_either_adds():
    desk = Desk()
    one, two = desk.client("one"), desk.client("two")
    (allocated,) = desk.say(one, "allocate")
    plate = allocated.message["nameplate"]
    assert plate in set("123456789")
    name = desk.say(one, "claim", nameplate=plate)[0].message["mailbox"]
    desk.say(one, "open", mailbox=name)
    desk.say(one, "add", phase="pake", body="00")
    assert desk.say(two, "claim", nameplate=plate)[0].message["mailbox"] == name
    (old,) = desk.say(two, "open", mailbox=name)
    assert (old.message["side"], old.message["phase"], old.message["body"]) == ("one", "pake", "00")
    heard = desk.say(two, "add", phase="0", body="01")
    assert [action.client for action in heard] == [one, two]
    assert desk.refused(desk.client("three"), "claim", nameplate=plate) == "crowded"
    assert desk.refused(desk.client("three"), "open", mailbox=name) == "crowded"
    for client in (one, two):
        assert desk.say(client, "release") == [Tell(client, {"type": "released"})]
        assert desk.say(client, "close", mood="happy") == [Tell(client, {"type": "closed"})]
    assert not desk.boxes._boxes
    assert not desk.boxes._plates


def test_a_side_that_was_away_comes_again_and_gets_all():
    desk = Desk()
    first = desk.opened("one", "box")
    desk.say(first, "add", phase="1", body="00")
    desk.boxes.leave(first)
    again = desk.client("one")
    assert [action.message["phase"] for action in desk.say(again, "open", mailbox="box")] == ["1"]
    other = desk.client("one")
    assert desk.say(other, "close", mailbox="box", mood="lonely") == [Tell(other, {"type": "closed"})]
    assert not desk.boxes._boxes


def test_mistakes_are_answered_with_an_error():
    desk = Desk()
    stranger = desk.boxes.connect("a", 0.0)
    assert isinstance(stranger, Client)
    for message, error in (
        ({}, "missing 'type'"),
        ({"type": "open"}, "must bind first"),
        ({"type": "ping"}, "ping requires 'ping'"),
        ({"type": "ping", "ping": "x" * 1000}, "that ping is too long"),
        ({"type": "bind"}, "bind requires 'appid', of 1 to 128 characters"),
        ({"type": "bind", "appid": "x" * 129, "side": "s"}, "bind requires 'appid', of 1 to 128 characters"),
        ({"type": "bind", "appid": [], "side": "s"}, "bind requires 'appid', of 1 to 128 characters"),
    ):
        told = desk.boxes.receive(stranger, message, 0.0)[-1]
        assert isinstance(told, Tell)
        assert told.message["error"] == error
    client = desk.client("one")
    for kind, more in (
        ("bind", {"appid": "app", "side": "x"}),
        ("claim", {"nameplate": "seven"}),
        ("claim", {"nameplate": "7" * 41}),
        ("claim", {"nameplate": "٧"}),
        ("release", {}),
        ("open", {"mailbox": ["m"]}),
        ("add", {"phase": "1", "body": "00"}),
        ("close", {}),
        ("nonsense", {}),
    ):
        assert desk.refused(client, kind, **more)
    desk.say(client, "open", mailbox="m")
    assert desk.refused(client, "add", phase="1", body=7)
    assert desk.refused(client, "open", mailbox="m") == "only one open per connection"
    for nonsense in ([], "x", None, {"type": "ping", "ping": 1, "id": []}, {"type": "ping", "id": "x" * 1000}):
        with pytest.raises(ValueError, match="no "):
            desk.boxes.receive(client, nonsense, 0.0)


def test_mailboxes_of_one_address_are_bounded():
    desk = Desk(mailboxes_each=2)
    first = desk.opened("s", "m1")
    desk.opened("s", "m2")
    assert desk.refused(desk.client("s"), "open", mailbox="m3") == "too many mailboxes for your address"
    assert desk.refused(desk.client("s"), "allocate") == "too many mailboxes for your address"
    desk.opened("s", "m3", "another address")
    desk.opened("s2", "m1")
    desk.say(first, "close")
    desk.say(desk.client("s2"), "close", mailbox="m1")
    desk.opened("s", "m4")


def test_mailboxes_are_bounded_in_all_and_some_are_kept_for_addresses_with_a_session():
    desk = Desk({"member"}, mailboxes=4)
    for number in range(3):
        desk.opened("s", f"m{number}", f"address {number}")
    assert desk.refused(desk.client("s", "address 4"), "open", mailbox="m4") == "too many mailboxes in all"
    desk.opened("s", "m5", "member")
    assert desk.refused(desk.client("s", "member"), "open", mailbox="m6") == "too many mailboxes in all"


def test_messages_of_a_mailbox_are_bounded():
    desk = Desk(messages=3)
    client = desk.opened("s", "m")
    for phase in "123":
        desk.say(client, "add", phase=phase, body="")
    assert desk.refused(client, "add", phase="4", body="") == "the mailbox has too many messages"


def test_bytes_of_a_mailbox_are_bounded():
    desk = Desk(mailbox_bytes=10_000)
    client = desk.opened("s", "m")
    desk.say(client, "add", phase="1", body="x" * 9000)
    assert desk.refused(client, "add", phase="2", body="x" * 1000) == "the mailbox is full"
    assert len(desk.say(client, "add", phase="3", body="x" * 100)) == 1


def test_bytes_of_an_address_are_bounded():
    desk = Desk(mailbox_bytes_each=10_000)
    for name in ("m1", "m2"):
        client = desk.opened("s", name)
        desk.say(client, "add", phase="1", body="x" * (5000 - OVERHEAD - 1))
    assert desk.refused(client, "add", phase="2", body="") == "too many bytes for your address"
    other = desk.opened("s", "m2", "another address")
    assert len(desk.say(other, "add", phase="2", body="")) == 2


def test_bytes_are_bounded_in_all_and_some_are_kept_for_addresses_with_a_session():
    desk = Desk({"member"}, mailbox_bytes_all=8000)
    for address, size in (("a", 3000), ("b", 3000), ("member", 2000)):
        client = desk.opened("s", f"m of {address}", address)
        desk.say(client, "add", phase="1", body="x" * (size - OVERHEAD - 1))
        if address != "a":
            assert desk.refused(client, "add", phase="2", body="") == "too many bytes in all"


def test_a_side_that_comes_again_and_again_is_heard_twice_at_most():
    desk = Desk()
    first, second = desk.opened("s", "m"), desk.opened("s", "m")
    third = desk.client("s")
    assert desk.say(third, "open", mailbox="m")[0] == Close(first, "its side has come again")
    assert not first.listens
    assert [action.client for action in desk.say(third, "add", phase="1", body="")] == [second, third]


def test_a_mailbox_without_a_listener_is_forgotten():
    desk = Desk(mailbox_age=660)
    client = desk.opened("s", "m")
    desk.say(client, "add", phase="1", body="00")
    desk.now += 100_000
    assert desk.boxes.prune(desk.now) == []
    desk.boxes.leave(client)
    desk.opened("s", "other")
    desk.boxes.prune(desk.now)
    assert {name for _, name in desk.boxes._boxes} == {"other"}


def test_a_mailbox_is_forgotten_after_two_days_in_any_case():
    desk = Desk()
    client = desk.opened("s", "m")
    desk.now += 48 * 3600
    desk.boxes.prune(desk.now)
    assert not desk.boxes._boxes
    assert desk.refused(client, "add", phase="1", body="00") == "must open mailbox before adding"


def test_a_connection_that_says_nothing_is_closed():
    desk = Desk(mailbox_silence=660)
    silent, listening = desk.client("s"), desk.opened("s", "m")
    desk.now += 660
    assert desk.boxes.prune(desk.now) == [Close(silent, "silence")]
    assert listening.listens


@pytest.mark.parametrize("seed", range(3))
def test_whatever_clients_say_bounds_hold_and_nothing_is_left(seed):
    chance = random.Random(seed)
    bounds = {
        "mailboxes_each": 4, "mailboxes": 8, "messages": 5, "mailbox_bytes": 5000, "mailbox_bytes_each": 9000,
        "mailbox_bytes_all": 16_000, "mailbox_connections": 6, "connections": 14,
    }  # fmt: skip
    desk = Desk({"a"}, **bounds)
    clients: list[Client] = []
    for _ in range(6000):
        desk.now += chance.random() * 20
        address = chance.choice("abc")
        came = desk.boxes.connect(address, desk.now)
        if isinstance(came, Client):
            clients.append(came)
            desk.say(came, "bind", appid=chance.choice("xy"), side=chance.choice("12345"))
        for client in chance.sample(clients, min(3, len(clients))):
            kind = chance.choice(
                ["allocate", "claim", "release", "open", "add", "add", "add", "close", "list", "leave"]
            )
            if kind == "leave":
                desk.boxes.leave(client)
                clients.remove(client)
                continue
            name = str(chance.randrange(9))
            more = {"nameplate": name, "mailbox": name, "phase": name, "body": "x" * chance.randrange(3000)}
            wanted = {"claim": ["nameplate"], "open": ["mailbox"], "add": ["phase", "body"]}
            desk.say(client, kind, **{each: more[each] for each in wanted.get(kind, [])})
        for closing in desk.boxes.prune(desk.now) if chance.random() < 0.1 else []:
            assert isinstance(closing, Close)
            desk.boxes.leave(closing.client)
            clients.remove(closing.client)
        boxes = desk.boxes._boxes.values()
        assert len(boxes) <= bounds["mailboxes"]
        assert sum(box.size for box in boxes) <= bounds["mailbox_bytes_all"]
        assert all(box.size <= bounds["mailbox_bytes"] and len(box.messages) <= bounds["messages"] for box in boxes)
        assert len(desk.boxes._plates) <= len(boxes)
    for client in clients:
        desk.boxes.leave(client)
    desk.boxes.prune(desk.now + 10**6)
    shares = (desk.boxes._connections, desk.boxes._opened, desk.boxes._kept)
    assert not any(vars(desk.boxes)[name] for name in ("_boxes", "_plates", "_clients"))
    assert all(share._sum == 0 and not share._used for share in shares)


# A mailbox of a board, and clients that know nothing of its bounds


async def test_connections_of_one_address_are_bounded():
    async with (
        asyncio.timeout(PATIENCE),
        running(mailbox_connections=1) as server,
        websocket(server.addresses.mailbox) as there,
        websocket(server.addresses.mailbox) as refused,
    ):
        await refused.closed.wait()
        assert not there.closed.is_set()
        assert json.loads(refused.said[0])["welcome"] == {"error": "too many connections for your address"}
        assert "your-address" in json.loads(there.said[0])["welcome"]


async def test_a_message_that_is_too_long_ends_its_connection():
    async with asyncio.timeout(PATIENCE), running() as server, websocket(server.addresses.mailbox) as client:
        client.sendMessage(b"x" * (Bounds.message + 1))
        await client.closed.wait()


async def test_what_clients_leave_unread_is_bounded():
    bounds = {"mailbox_queues": 1_000_000, "mailbox_burst": 1 << 30, "mailbox_listeners": 10}
    async with asyncio.timeout(PATIENCE), running(**bounds) as server, AsyncExitStack() as stack:
        url = server.addresses.mailbox
        author = await stack.enter_async_context(websocket(url))
        for message in (
            {"type": "bind", "appid": "a", "side": "author"},
            {"type": "open", "mailbox": "m"},
            *({"type": "add", "phase": str(n), "body": "x" * 200_000} for n in range(8)),
        ):
            author.sendMessage(json.dumps(message).encode())
        await until(lambda: any("x" * 1000 in str(said) for said in author.said))
        lazy = await stack.enter_async_context(websocket(url))
        lazy.transport.pauseProducing()
        for message in ({"type": "bind", "appid": "a", "side": "lazy"}, {"type": "open", "mailbox": "m"}):
            lazy.sendMessage(json.dumps(message).encode())
        await until(lambda: len(server._services.mailbox.clients) == 1)
        assert not author.closed.is_set()


MAGIC = [sys.executable, "-W", "ignore", "-c", "from wormhole.cli.cli import wormhole; wormhole()"]
"""Magic Wormhole's own program."""
WILLIAM = os.environ.get("P2P_WILLIAM") or shutil.which("wormhole-william")
"""The program in Go."""


@asynccontextmanager
async def _cli(*command: str) -> Any:
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("size", [0, 300_000], ids=["a text by the mailbox", "a file by the relay"])
async def test_magic_wormholes_own_program_sends_and_receives(tmp_path, size):
    payload = secrets.token_bytes(size)
    (tmp_path / "payload").write_bytes(payload)
    async with asyncio.timeout(6 * PATIENCE), running() as server:
        where = ["--relay-url", server.addresses.mailbox, "--transit-helper", server.addresses.relay]
        what = [str(tmp_path / "payload")] if size else ["--text", "hello"]
        code = f"{secrets.randbelow(900) + 100}-guitarist-revenge"
        send = [*where, "send", "--no-listen", "--hide-progress", "--code", code, *what]
        receive = [
            *where,
            "receive",
            "--no-listen",
            "--hide-progress",
            "--accept-file",
            code,
            "-o",
            str(tmp_path / "got"),
        ]
        async with _cli(*MAGIC, *send) as sender, _cli(*MAGIC, *receive) as receiver:
            out, err = await receiver.communicate()
            assert receiver.returncode == 0, err
            assert await sender.wait() == 0
        if size:
            assert (tmp_path / "got").read_bytes() == payload
        else:
            assert b"hello" in out
        await until(lambda: not server._services.mailbox.boxes._boxes)


@pytest.mark.skipif(WILLIAM is None, reason="wormhole-william is not installed")
@pytest.mark.parametrize("sends", [True, False], ids=["william sends", "william receives"])
async def test_wormhole_william_sends_to_magic_wormhole_and_receives_from_it(sends):
    assert WILLIAM is not None
    async with asyncio.timeout(6 * PATIENCE), running() as server:
        url, code = server.addresses.mailbox, f"{secrets.randbelow(900) + 100}-guitarist-revenge"
        send, receive = [WILLIAM] if sends else MAGIC, MAGIC if sends else [WILLIAM]
        async with (
            _cli(*send, "--relay-url", url, "send", "--hide-progress", "--code", code, "--text", "hello") as sender,
            _cli(*receive, "--relay-url", url, "receive", "--hide-progress", code) as receiver,
        ):
            out, err = await receiver.communicate()
            assert (receiver.returncode, b"hello" in out) == (0, True), err
            assert await sender.wait() == 0
        await until(lambda: not server._services.mailbox.clients)


async def test_an_address_with_a_session_on_the_board_is_known_to_the_mailbox(tmp_path):
    async with asyncio.timeout(PATIENCE), running() as server:
        assert not server._services._is_here("127.0.0.1")
        talk = await AsyncsshTalk.start(server.addresses.port, make_key(tmp_path), "pipe t")
        assert server._services._is_here("127.0.0.1")
        await talk.hang_up()
        await until(lambda: not server._services._is_here("127.0.0.1"))
