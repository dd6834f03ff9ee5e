"""PROTOCOL.md's examples are what the code makes and takes, its numbers are the code's; THREATS.md names real tests."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import shutil
from pathlib import Path
from typing import Any

import friends
import pytest
from board_support import PATIENCE, make_key, running, until
from people import CLUSTER, NOW, PlainKey, certificate, session, writer
from protocol_tables import fields_of, rows

from p2p_ipython.board import lines
from p2p_ipython.board.server.server import ServerOptions
from p2p_ipython.config import Settings
from p2p_ipython.link import base as link_base
from p2p_ipython.link import rendezvous as link_rendezvous
from p2p_ipython.link import session as link_session
from p2p_ipython.link.hints import MAX_HINTS
from p2p_ipython.members import host, membership
from p2p_ipython.protocol import (
    client_machine,
    frames,
    host_machine,
    identity,
    membership_machine,
    messages,
    placement,
    roster,
    task_frames,
    wire,
    worker_machine,
)
from p2p_ipython.protocol.frames import FrameReader, encode
from p2p_ipython.protocol.identity import link_proof, personal_secret, sign
from p2p_ipython.protocol.messages import Hello, decode, decode_rendezvous, encode_rendezvous
from p2p_ipython.protocol.wire import LineReader

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "PROTOCOL.md").read_text(encoding="utf-8")
THREATS = (ROOT / "THREATS.md").read_text(encoding="utf-8")


def examples(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)\n```", PROTOCOL, re.S)


def test_the_example_line_is_heard_and_says_the_message_below_it() -> None:
    line = "".join(examples("line")[0].split("\n")).encode()
    (key,) = re.findall(r"`([0-9a-f]{64})`", PROTOCOL)
    assert bytes.fromhex(key) == CLUSTER.key
    heard = LineReader(CLUSTER, lambda _: True).read(line, NOW)
    assert heard is not None
    assert heard.message == decode(examples("json message")[0].encode())
    assert heard.certificate == certificate("bob")
    assert isinstance(heard.message, Hello)
    assert writer("bob").write(heard.message, introduce=True) == line


def test_the_example_certificate_is_the_lines() -> None:
    assert examples("json certificate")[0].encode() in certificate("bob").wire


def test_the_example_messages_are_what_the_code_makes() -> None:
    found = {json.loads(text)["v"] for text in examples("json message")}
    assert found == {"hello", "request", "accept", "bye", "roster", "ask", "grant", "answer"}
    for text in examples("json message"):
        assert messages.encode(decode(text.encode())) == text.encode()


def test_the_example_rendezvous_is_what_the_code_makes() -> None:
    text = examples("json rendezvous")[0].encode()
    assert encode_rendezvous(decode_rendezvous(text)) == text


def test_the_example_vouch_is_what_the_code_makes_and_takes() -> None:
    wire_ = base64.b64decode("".join(examples("vouch")[0].split("\n")))
    laptop = friends.print_of("bob's laptop")
    assert identity.vouch(PlainKey("bob"), cluster=friends.CLUSTER_ID, key=laptop, now=NOW) == wire_
    assert identity.check_vouch(wire_, friends.CLUSTER_ID, laptop, NOW) == friends.print_of("bob")
    assert examples("json vouch")[0].encode() in wire_


def test_the_example_roster_is_what_the_code_makes_and_takes() -> None:
    wire_ = base64.b64decode("".join(examples("roster")[0].split("\n")))
    known = roster.Roster.parse(wire_, friends.CLUSTER_ID)
    assert known == friends.roster(3, "bob", roles={"bob": ("client",)})
    assert examples("json roster")[0].encode() in wire_
    topic = friends.secret().topic.encode()
    assert f"`{topic.decode()}`" in PROTOCOL
    text = b"p2p-ipython/roster/v1\0" + len(topic).to_bytes(4, "big") + topic + friends.secret().key
    assert known.secret == hashlib.sha256(text).hexdigest()


def test_the_example_lobby_is_derived_as_the_text_says() -> None:
    example = json.loads(examples("json lobby")[0])

    def derived(purpose: bytes) -> bytes:
        return hashlib.sha256(b"p2p-ipython/lobby/v1\0" + purpose + b"\0" + example["title"].encode()).digest()

    assert example["topic"] == "p2p-lobby-" + derived(b"topic")[:16].hex()
    assert example["key"] == derived(b"key").hex()
    lobby = roster.lobby_secret(example["title"])
    assert (lobby.topic, lobby.key.hex()) == (example["topic"], example["key"])


def test_the_example_admission_is_what_the_code_makes() -> None:
    text = examples("json admission")[0].encode()
    assert messages.encode_admission(messages.decode_admission(text)) == text


def test_the_example_personal_cluster_is_derived_as_the_text_says() -> None:
    example = json.loads(examples("json personal")[0])
    secret = personal_secret(PlainKey(example["seed"]), example["name"])
    assert (secret.cluster, secret.topic, secret.key.hex()) == (example["cluster"], example["topic"], example["key"])

    key = PlainKey(example["seed"])
    root = hashlib.sha512(sign(key, example["cluster"].encode(), identity.PERSONAL_NAMESPACE)).digest()

    def derived(purpose: bytes) -> bytes:
        return hmac.digest(root, b"p2p-ipython/personal/v1\0" + purpose, "sha512")

    assert example["topic"] == "p2p-" + derived(b"topic")[:16].hex()
    assert example["key"] == derived(b"key")[:32].hex()


def test_the_example_frame_is_what_the_code_makes_and_takes() -> None:
    example = json.loads(examples("json frame")[0])
    data, body = bytes.fromhex(example["hex"]), example["body"].encode()
    assert encode(example["header"], len(body)) + body == data
    assert list(FrameReader().feed(data)) == [(example["header"], body)]


def test_a_proof_is_over_what_the_text_says() -> None:
    worker, client = session("bob"), session("alice", "client")
    text = b"p2p-link/v1\0" + (8).to_bytes(4, "big") + b"verifier" + client.sid + worker.sid
    assert link_proof(worker, b"verifier", client.sid, worker.sid) == worker.sign(text)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("- of more than {} bytes,", identity.MAX_CERTIFICATE),
        ("more than {} h 10 min", identity.MAX_LIFE / 3600),
        ("({} minutes for clocks", identity.CLOCK_SLACK / 60),
        ("at most {} bytes,\nwithout its newline", wire.MAX_LINE),
        ("write it again after {} s", lines.RESEND_AFTER),
        ("give it up after {} s.", lines.GIVE_UP_AFTER),
        ("have at most {} KiB under way", lines.IN_FLIGHT >> 10),
        ("allow {} s for the log-in", ServerOptions().login_timeout),
        ("log-in, {} sessions a key", ServerOptions().sessions),
        ("and {} KiB/s a key", ServerOptions().rate / 1024),
        ("after a first {} KiB.", ServerOptions().burst / 1024),
        ("with more than {} KiB unread", ServerOptions().queue / 1024),
        ("a `seq` that is {} or more", wire.WINDOW),
        ("base64 of 1 to {} bytes", messages.MAX_BOX),
        ("every {} s (`presence`)", Settings().presence),
        ("again every {} s", Settings().request_every),
        ("at most\n{} KiB of JSON", link_rendezvous.MAX_OFFER >> 10),
        ("at most {} pairs", MAX_HINTS),
        ("at most {} MiB each", frames.MAX_BODY >> 20),
        ("at most {} MiB each", frames.MAX_HEADER >> 20),
        ("deeper than {};", frames.MAX_DEPTH),
        ("{} MiB that the peer has not acknowledged", link_base.WINDOW >> 20),
        ("taken nothing for {} s", link_base.PATIENCE),
        ("more than {} MiB of small", link_base.MOST_WAITING >> 20),
        ("each {} MiB, and within", link_session.ACK_BYTES >> 20),
        ("and within {} s", link_session.ACK_DELAY),
        ("every {} s (`heartbeat`)", Settings().heartbeat),
        ("| at most {} texts", messages.MAX_ONLY),
        ("| at most {} words", messages.MAX_TAGS),
        ("| at most {} objects", messages.MAX_KINDS),
        ("`n` from 1 to {}", messages.MAX_CARDS),
        ("`name` ≤ {}", messages.MAX_CARD_NAME),
        ("hello of more than {} bytes", messages.MAX_HELLO),
        ("connection for {} s (`lease`)", Settings().lease),
        ("refused to connect for {} s", link_session.REFUSED_GRACE),
        ("more than {} ms |", worker_machine.ANNOUNCE * 1000),
        ("{} s (`hold`)", Settings().hold),
        ("after {} losses (`attempts`)", Settings().attempts),
        ("took less than {} ms", placement.SHORT * 1000),
        ("no more than {} ms of work", placement.AHEAD * 1000),
        ("up to {} more a slot", Settings().backlog),
        ("more than {} KiB of large", placement.SMALL >> 10),
        ('namespace "{}", over body', identity.SESSION_NAMESPACE),
        ('namespace "{}")', identity.PERSONAL_NAMESPACE),
        ("application id `{}`", link_rendezvous.APPID),
        ('namespace "{}", over body', identity.VOUCH_NAMESPACE),
        ('namespace "{}", over body', roster.ROSTER_NAMESPACE),
        ("more than {} days (and", identity.VOUCH_LIFE / 86400),
        ("| 1 to {} |", roster.MAX_MEMBERS),
        ("(1 to {} fingerprints", roster.MAX_KEYS),
        ("a roster of more than {} KiB", roster.MAX_ROSTER >> 10),
        ("`parts` ≤ {}", messages.MAX_PARTS),
        ("base64 of 1 to {} bytes", messages.MAX_PART),
        ("at most {}, so that any", roster.PART),
        ("at most {} s + 0.04", membership_machine.PAUSE[0]),
        ("0.1 s + {} s a member", membership_machine.PAUSE[1]),
        ("a member, {} s in all", membership_machine.PAUSE[2]),
        ("within {} s + 0.1 s a part", membership_machine.SERVE_EVERY[0]),
        ("+ {} s a part", membership_machine.SERVE_EVERY[1]),
        ("from {} s to 60 s, until", membership_machine.HELLO_EVERY[0]),
        ("to {} s, until", membership_machine.HELLO_EVERY[1]),
        ("after {} s again", membership_machine.ASK_EVERY[0]),
        ("double up to {} s", membership_machine.ASK_EVERY[1]),
        ("no member for {} s", membership_machine.ALONE_AFTER),
        ("after {} s to 120 s.", membership_machine.LOBBY_EVERY[0]),
        ("up to {} s to 960 s;", membership_machine.LOBBY_EVERY[1]),
        ("no host for {} s", membership_machine.HOST_WITHIN),
        ("or for {} s: they", membership_machine.HOST_SILENCE),
        ("within {} minutes, counts", membership_machine.FRESH / 60),
        ("asked for {} s, and remembers", host_machine.KNOCK_LIFE),
        ("remembers {} who wait", host_machine.MAX_KNOCKS),
        ("together {} answers", host_machine.MOST_ANSWERS),
        ("and listens for {} s", membership.LOBBY_VISIT),
        ("stays there for {} s", host.LINGER),
    ],
)
def test_a_number_or_name_in_the_text_is_the_codes(said: str, meant: Any) -> None:
    written = meant if isinstance(meant, str) else f"{meant:g}"
    expected = re.sub(r"\s+", " ", said.format(written))
    assert expected in re.sub(r"\s+", " ", PROTOCOL)


def test_the_kinds_of_a_tasks_error_are_those_of_the_code() -> None:
    (kinds,) = re.findall(r"Kinds of `error` are ([^.]*)\.", PROTOCOL)
    assert tuple(re.findall(r"`(\w+)`", kinds)) == task_frames.FAILURES


@pytest.mark.parametrize(
    ("after", "transitions"),
    [
        ("in one of these states for the client", client_machine.TRANSITIONS),
        ("in one of these for a worker", worker_machine.TRANSITIONS),
    ],
)
def test_the_states_of_a_task_are_the_machines(after: str, transitions: Any) -> None:
    """Each row's states, its events (in italics) and the states that it leads to are those of the table in the code."""
    states = {state.value for row in transitions.values() for nexts in row.values() for state in nexts}
    states |= {state.value for state in transitions}
    page: set[tuple[str, str, str]] = set()
    for before, event, following in rows(after):
        for state in before.split(", "):
            for name in re.findall(r"\(\*([a-z ]+)\*\)", event):
                page |= {(state, name, each) for each in states if re.search(rf"\b{each}\b", following.split(";")[0])}
    code = {
        (state.value, event, following.value)
        for state, row in transitions.items()
        for event, nexts in row.items()
        for following in nexts
    }
    assert page == code


def test_the_tables_of_frames_say_a_type_for_each_field() -> None:
    for sender in ("client", "worker", "either end"):
        kinds = fields_of(sender)
        assert kinds
        for fields in kinds.values():
            for field in fields.values():
                assert re.match(r'whole|number|text|refs|segments|requirements|true|object|"', field.type), field
    assert fields_of("worker")["want"]["refs"].type == "refs ≤ 10,000"
    assert not fields_of("client")["pass"]


def test_the_example_of_a_boards_services_is_what_a_board_prints() -> None:
    (text,) = examples("json services")
    assert json.dumps(json.loads(text)) == text
    assert set(json.loads(text)) == {"mailbox", "relay", "port"}


@pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH is not installed")
async def test_the_ssh_command_of_the_page_joins_a_topic_of_a_real_board(tmp_path: Path) -> None:
    command = next(line for line in PROTOCOL.splitlines() if line.startswith("ssh -T"))
    key, topic = make_key(tmp_path), "p2p-" + "0" * 32
    async with running() as board:
        for name, value in {"PORT": board.addresses.port, "KEY": key.path, "HOST": "127.0.0.1", "TOPIC": topic}.items():
            command = re.sub(rf"\b{name}\b", str(value), command)
        known = tmp_path / "known_hosts"
        known.write_text(f"[127.0.0.1]:{board.addresses.port} {board.addresses.host_key}\n")
        program, *words = [
            *command.split()[:1],
            "-F",
            "none",
            "-o",
            f"UserKnownHostsFile={known}",
            *command.split()[1:],
        ]
        ways = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        joined = await asyncio.create_subprocess_exec(program, *words, **ways)  # type: ignore[arg-type]
        assert joined.stdin is not None
        assert joined.stdout is not None
        try:
            joined.stdin.write(b"\np1 a line\n")
            echoed = await asyncio.wait_for(joined.stdout.readexactly(11), PATIENCE)
            assert echoed == b"\np1 a line\n", "the board echoes, and leaves line ends as they are"
            assert [each.topic for each in board.topics.listing("public")] == [f"public/{topic}"]
        finally:
            joined.kill()
            await joined.communicate()
        start = words[: words.index("pipe")]
        asked = await asyncio.create_subprocess_exec(program, *start, "p2p", **ways)  # type: ignore[arg-type]
        said, _ = await asyncio.wait_for(asked.communicate(), PATIENCE)
        assert asked.returncode == 0
        example = json.loads(examples("json services")[0])
        found = json.loads(said)
        assert found.keys() == example.keys()
        shapes = [{name: re.sub(r"[\d.]+", "N", str(text)) for name, text in one.items()} for one in (found, example)]
        assert shapes[0] == shapes[1]
        await until(lambda: not board.connections)


def test_every_field_of_an_offer_and_every_verb_is_described() -> None:
    for name in [*messages.Terms.__dataclass_fields__, *messages.Rendezvous.__dataclass_fields__, "hello", "request"]:
        assert f"`{name}`" in PROTOCOL
    assert base64.b64decode("AAEC") == b"\0\1\2"  # the box of the example is not a real one


def test_each_promise_names_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", THREATS)
    assert len(named) > 20
    for file, test in named:
        assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.M), f"{file}::{test}"


def test_each_bound_names_its_test() -> None:
    """Each row of a table of THREATS.md that has a column for tests."""
    tables = re.findall(r"^\|[^\n]*\| Test \|\n\|[-|]+\|\n((?:\|[^\n]*\n)+)", THREATS, re.M)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(tables) == 2
    assert len(rows) > 60
    assert [row for row in rows if not re.search(r"`tests/[\w/]+\.py::test_\w+` \|$", row)] == []


def test_links_in_the_documents_lead_somewhere() -> None:
    for text in (PROTOCOL, THREATS):
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), target
