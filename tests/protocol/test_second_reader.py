"""Recorded traffic of version 1: a reader written from the page alone reads it, and so do the package's own readers.

What is in ``traffic/v1`` stays as it is: installed versions say it, and every later reader reads it. See
``record_traffic.py`` for how it was made and what its rows are.
"""

from __future__ import annotations

import ast
import base64
import json
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import second_reader
from cryptography.exceptions import InvalidSignature
from nacl.exceptions import CryptoError
from protocol_tables import fields_of, wrong_with

from p2p_ipython.errors import NotTrusted
from p2p_ipython.protocol.frames import FrameReader
from p2p_ipython.protocol.identity import Certificate, ClusterSecret, check_link_proof
from p2p_ipython.protocol.messages import decode as decode_message
from p2p_ipython.protocol.messages import decode_admission, decode_rendezvous
from p2p_ipython.protocol.roster import Roster
from p2p_ipython.protocol.task_frames import Result
from p2p_ipython.protocol.wire import LineReader
from p2p_ipython.task import outcome

RECORDINGS = sorted((Path(__file__).parent / "traffic" / "v1").glob("*.jsonl"))
TITLE = "alice/friends"
VERBS = {"hello", "request", "accept", "bye", "roster", "ask", "grant", "answer"}
LENGTH = 150
"""Lines that the second reader may have: a page that needs more code than this to read it is too hard."""

Frame = tuple[dict[str, Any], bytes]


@dataclass
class Said:
    """A line that the second reader has read: its row, its certificate's fields and its message."""

    row: dict[str, Any]
    by: dict[str, Any]
    message: dict[str, Any]


@dataclass
class Link:
    """A link: its meeting, both ends' certificates, and the frames of each connection by who sent them."""

    meeting: dict[str, Any]
    certificates: dict[str, dict[str, Any]] = field(default_factory=dict)
    connections: list[dict[str, list[Frame]]] = field(default_factory=list)

    def frames(self, who: str) -> list[Frame]:
        """All that one end has sent, its link's own frames left out."""
        return [one for each in self.connections for one in each[who] if not one[0]["t"].startswith("link.")]


class Recording:
    """A file of traffic, read by the second reader."""

    def __init__(self, path: Path) -> None:
        self.rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
        self.keys = [(one["cluster"], one["topic"], bytes.fromhex(one["key"])) for one in self.of("key")]
        self.cluster = next(cluster for cluster, _, _ in self.keys if cluster != TITLE)
        self.secrets = {bytes.fromhex(one["sid"]).hex(): bytes.fromhex(one["x25519"]) for one in self.of("session")}
        self.said = list(self._read_lines())
        self.links = list(self._read_links())

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The rows of one kind."""
        return [row for row in self.rows if row["row"] == kind]

    def lines(self) -> list[dict[str, Any]]:
        """The rows of lines, each line once: it may be written again until the board has echoed it."""
        return list({row["line"]: row for row in self.of("line")}.values())

    def clusters(self, cluster: str) -> set[str]:
        """Which clusters certificates may be for on a topic: on the lobby, the title's as well."""
        return {self.cluster, cluster}

    def _read_lines(self) -> Any:
        topics = {topic: second_reader.Topic(topic, key, self.clusters(cluster)) for cluster, topic, key in self.keys}
        for row in self.lines():
            assert row["line"].startswith("\n")
            assert row["line"].endswith("\n")
            yield Said(row, *topics[row["topic"]].read(row["line"].strip("\n").encode(), row["at"]))

    def _read_links(self) -> Any:
        read = second_reader.frames
        connections = [{who: list(read(data)) for who, data in ends.items()} for ends in self.streams().values()]
        for meeting in self.of("meeting"):
            link = Link({**meeting, **{name: bytes.fromhex(meeting[name]) for name in ("verifier", "key")}})
            for said in self.accepts():
                if self.opened(said)["code"] == meeting["code"]:
                    worker = next(one.by for one in self.said if one.by["sid"] == said.message["to"])
                    link.certificates = {"client": said.by, "worker": worker}
            session = second_reader.key_for(link.meeting["key"], "session").hex()[:32]
            link.connections = [one for one in connections if one["client"][0][0]["session"] == session]
            yield link

    def streams(self) -> dict[int, dict[str, bytes]]:
        """What both ends of each connection have said."""
        found: dict[int, dict[str, bytes]] = {}
        for row in self.of("bytes"):
            ends = found.setdefault(row["connection"], {"client": b"", "worker": b""})
            ends[row["from"]] += zlib.decompress(base64.b64decode(row["data"]))
        return found

    def accepts(self) -> list[Said]:
        return [said for said in self.said if said.message["v"] == "accept"]

    def grants(self) -> list[Said]:
        """The grants whose boxes can be opened: to sessions whose keys were written down."""
        return [said for said in self.said if said.message["v"] == "grant" and said.message["to"] in self.secrets]

    def opened(self, said: Said) -> dict[str, Any]:
        """What is in the box of an ``accept`` or a ``grant``."""
        return second_reader.unseal(said.message["box"], self.secrets[said.message["to"]])  # type: ignore[no-any-return]

    def rosters(self) -> dict[int, bytes]:
        """Rosters that somebody has said in full, by epoch."""
        parts: dict[int, dict[int, bytes]] = {}
        for said in self.said:
            if said.message["v"] == "roster":
                part = base64.b64decode(said.message["data"])
                parts.setdefault(said.message["epoch"], {})[said.message["part"]] = part
        return {epoch: b"".join(found[number] for number in sorted(found)) for epoch, found in parts.items()}


@cache
def _recording(path: Path) -> Recording:
    return Recording(path)


@pytest.fixture(params=RECORDINGS, ids=lambda path: path.stem)
def traffic(request: pytest.FixtureRequest) -> Recording:
    return _recording(request.param)


# -- the second reader --


def test_the_second_reader_is_short_and_knows_nothing_of_the_package() -> None:
    source = Path(second_reader.__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LENGTH
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names <= set(sys.stdlib_module_names) | {"nacl", "cryptography"}


def test_it_reads_every_line_and_every_verb_is_among_them(traffic: Recording) -> None:
    assert {said.message["v"] for said in traffic.said} == VERBS
    assert {said.by["role"] for said in traffic.said} == {"client", "worker", "host"}


def test_it_finds_in_the_rosters_who_may_speak(traffic: Recording) -> None:
    rosters = {epoch: second_reader.roster(wire, traffic.cluster) for epoch, wire in traffic.rosters().items()}
    assert all(known["epoch"] == epoch for epoch, known in rosters.items())
    commitments = {second_reader.commitment(topic, key) for cluster, topic, key in traffic.keys if cluster != TITLE}
    assert {known["secret"] for known in rosters.values()} == commitments
    at = traffic.said[0].row["at"]
    newest = rosters[max(rosters)]
    who = {said.by["member"]: second_reader.is_member(newest, said.by, at) for said in traffic.said}
    assert sorted(who.values()) == [False, True, True], "carol was revoked; alice and bob are members"
    vouched = [said.by for said in traffic.said if said.by["vouched"]]
    assert {by["member"] for by in vouched} == {newest["members"][0]["keys"][0]}, "alice's laptop counts as alice"


def test_it_opens_the_boxes(traffic: Recording) -> None:
    granted = [traffic.opened(said) for said in traffic.grants()]
    assert granted
    known = {(cluster, topic, key.hex()) for cluster, topic, key in traffic.keys}
    assert {(one["cluster"], one["topic"], one["key"]) for one in granted} <= known
    for said in traffic.accepts():
        assert traffic.opened(said)["mailbox"].startswith("ws://")


def test_it_checks_the_proofs_of_every_connection(traffic: Recording) -> None:
    assert sum(len(link.connections) for link in traffic.links) > len(traffic.links), "one link had two connections"
    for link in traffic.links:
        sids = [bytes.fromhex(link.certificates[who]["sid"]) for who in ("client", "worker")]
        for connection in link.connections:
            for who, peer in (("client", "worker"), ("worker", "client")):
                (header, proof), (ready, _), *_ = connection[who]
                second_reader.greet(header, proof, link.meeting, link.certificates[who], *sids)
                assert ready["t"] == "link.ready"
                with pytest.raises(Exception, match="forged"):
                    second_reader.greet(header, proof, link.meeting, link.certificates[peer], *sids)


def test_each_frame_is_delivered_once_over_all_connections_of_a_link(traffic: Recording) -> None:
    for link in traffic.links:
        for who, peer in (("client", "worker"), ("worker", "client")):
            written = 0
            for connection in link.connections:
                received = connection[peer][0][0]["received"]
                assert received <= written, "frames that were not received are sent again"
                written = received + sum(not header["t"].startswith("link.") for header, _ in connection[who])
                acknowledged = [header["n"] for header, _ in connection[peer] if header["t"] == "link.ack"]
                assert acknowledged == sorted(acknowledged)
                assert all(received <= number <= written for number in acknowledged)


LATER = {"progress"}
"""Kinds that came after the recording; their bytes are compared with the page in test_protocol_document."""


def test_every_frame_is_as_the_pages_tables_say_and_every_kind_is_there(traffic: Recording) -> None:
    for who in ("client", "worker"):
        frames = [frame for link in traffic.links for each in link.connections for frame in each[who]]
        assert not [wrong for header, _ in frames if (wrong := wrong_with(who, header))]
        kinds = {header["t"] for header, _ in frames if not header["t"].startswith("link.")}
        assert kinds == fields_of(who).keys() - LATER


def test_it_puts_tasks_and_results_together(traffic: Recording) -> None:
    ways: Counter[tuple[bool, str | None, bool]] = Counter()
    for link in traffic.links:
        buffers = {ref: data for (_, ref), data in _buffers(link.frames("client")).items()}
        for header, body in link.frames("client"):
            if header["t"] == "task":
                assert list(second_reader.pieces(header["segments"], body, buffers))
        results = _buffers(link.frames("worker"))
        for header, body in link.frames("worker"):
            if header["t"] == "result":
                found = {ref: data for (task, ref), data in results.items() if task == header["id"]}
                first, *_ = [*second_reader.pieces(header["segments"], body, found), b""]
                if header.get("codec") == "safe" and header["ok"]:
                    json.loads(bytes(first))
                ways[header["ok"], header.get("codec"), bool(found)] += 1
    assert {(True, "safe", False), (True, "safe", True), (True, "pickle", False), (True, None, False)} <= ways.keys()


def _buffers(frames: list[Frame]) -> dict[tuple[str, str], bytes]:
    """What chunks bring, by task (where they name one) and ref."""
    found: dict[tuple[str, str], bytes] = {}
    for header, body in frames:
        if header["t"] == "chunk":
            key = header.get("id", ""), header["ref"]
            assert header["off"] in (0, len(found.get(key, b"")))
            found[key] = (found[key] if header["off"] else b"") + body
    return found


def test_it_refuses_what_must_be_refused(traffic: Recording) -> None:
    said = next(one for one in traffic.said if one.by["vouched"])
    line, at = said.row["line"].strip("\n").encode(), said.row["at"]
    (_, topic, key) = next(one for one in traffic.keys if one[1] == said.row["topic"])

    def heard(line: bytes, at: float, topic: str = topic, cluster: str = traffic.cluster) -> str:
        return str(second_reader.Topic(topic, key, {cluster}).read(line, at)[1]["v"])

    assert heard(line, at) == said.message["v"]
    turned = base64.b64decode(line[3:])
    turned = turned[:-1] + bytes([turned[-1] ^ 1])
    for wrong in (
        lambda: heard(b"p1 " + base64.b64encode(turned), at),
        lambda: heard(line, at, topic="p2p-" + "0" * 32),  # carried over to another topic
        lambda: heard(line, at, cluster="SHA256:another/friends"),
        lambda: heard(line, at + 2 * 86400),  # the certificate has ended
        lambda: heard(line, at - 86400),  # it would live too long
        lambda: second_reader.certificate(said.by["wire"][:-1] + b"!", {traffic.cluster}, at),
    ):
        with pytest.raises((ValueError, CryptoError, InvalidSignature)):
            wrong()
    reader = second_reader.Topic(topic, key, {traffic.cluster})
    reader.read(line, at)
    with pytest.raises(ValueError, match="heard before"):
        reader.read(line, at)
    wire = next(iter(traffic.rosters().values()))
    for wrong in (
        lambda: second_reader.roster(wire.replace(b'"epoch":', b'"epoch":9'), traffic.cluster),
        lambda: second_reader.roster(wire, traffic.cluster.replace("friends", "others")),
        lambda: second_reader.roster(wire + b"\0\0\0\0", traffic.cluster),
    ):
        with pytest.raises((ValueError, InvalidSignature)):
            wrong()


@pytest.mark.slow
def test_the_page_says_what_the_package_says_today(tmp_path: Path) -> None:
    script, file = Path(__file__).with_name("record_traffic.py"), tmp_path / "today.jsonl"
    done = subprocess.run(
        [sys.executable, str(script), str(file)], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    today = Recording(file)
    test_it_reads_every_line_and_every_verb_is_among_them(today)
    test_it_checks_the_proofs_of_every_connection(today)
    test_each_frame_is_delivered_once_over_all_connections_of_a_link(today)
    for link in today.links:
        for connection in link.connections:
            assert not [
                wrong for who in connection for header, _ in connection[who] if (wrong := wrong_with(who, header))
            ]


# -- the package's own readers: a change after which one of these fails is another version of the protocol --


def test_the_package_still_reads_every_line_of_version_1(traffic: Recording) -> None:
    readers = {}
    for cluster, topic, key in traffic.keys:
        clusters = frozenset(traffic.clusters(cluster))
        readers[topic] = LineReader(ClusterSecret(cluster, topic, key), lambda _: True, clusters=clusters)
    for said in traffic.said:
        heard = readers[said.row["topic"]].read(said.row["line"].strip("\n").encode(), said.row["at"])
        assert heard is not None
        assert heard.message == decode_message(json.dumps(said.message).encode())
        assert (heard.certificate.signer, heard.certificate.role) == (said.by["member"], said.by["role"])
    for said in traffic.accepts():
        assert decode_rendezvous(json.dumps(traffic.opened(said)).encode()).code
    for said in traffic.grants():
        assert decode_admission(json.dumps(traffic.opened(said)).encode()).cluster == traffic.cluster
    for epoch, wire in traffic.rosters().items():
        assert Roster.parse(wire, traffic.cluster).epoch == epoch


def test_the_package_still_accepts_every_proof_of_version_1(traffic: Recording) -> None:
    for link in traffic.links:
        ends = {who: bytes.fromhex(fields["sid"]) for who, fields in link.certificates.items()}
        for who, fields in link.certificates.items():
            shown = Certificate.parse(fields["wire"], float(fields["until"] - 3600))
            for connection in link.connections:
                _, proof = connection[who][0]
                check_link_proof(shown, link.meeting["verifier"], ends["client"], ends["worker"], proof)


def test_the_package_still_reads_every_frame_of_version_1(traffic: Recording) -> None:
    frames = [frame for link in traffic.links for each in link.connections for who in each for frame in each[who]]
    streams = [data for ends in traffic.streams().values() for data in ends.values()]
    read = [frame for data in streams for frame in FrameReader().feed(data)]
    assert sorted(map(repr, read)) == sorted(map(repr, frames))


def test_the_package_still_reads_every_result_of_version_1(traffic: Recording) -> None:
    values: list[Any] = []
    for link in traffic.links:
        own = link.certificates["client"]["member"] == link.certificates["worker"]["member"]
        results = _buffers(link.frames("worker"))
        for header, body in link.frames("worker"):
            if header["t"] == "result":
                large = {ref: data for (task, ref), data in results.items() if task == header["id"]}
                try:
                    values.append(outcome.decode(Result.read(header), body, large, worker="bob", trusted=own))
                except Exception as error:
                    values.append(type(error))
    plain = {"a": [1, (2, 3)], "b": b"bytes", "c": {4}}
    for expected in (42, plain, 1024, ZeroDivisionError, NotTrusted, 1 + 2j, {1, 2}):
        assert any(type(value) is type(expected) and value == expected for value in values), expected
