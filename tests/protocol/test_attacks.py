"""Attacks on a cluster of friends: whoever tries gains nothing.

Each test is an attack on what stands between a line of the board and a decision: a ``LineReader`` that asks a
``MembershipMachine`` who is admitted, and the machines behind it. Keys, signatures and encryption are real.
"""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import nacl.bindings
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from friends import CLUSTER_ID, LOBBY, TITLE, UNTIL, certificate, machine, print_of, roster, secret, session
from people import NOW, Keys, PlainKey, stream

from p2p_ipython.config import Settings
from p2p_ipython.protocol.client_machine import ClientMachine, TaskState
from p2p_ipython.protocol.client_machine import Meet as MeetWorker
from p2p_ipython.protocol.host_machine import MOST_ANSWERS, HostMachine, Tell
from p2p_ipython.protocol.host_machine import Say as HostSays
from p2p_ipython.protocol.identity import (
    CLOCK_SLACK,
    MAX_LIFE,
    PERSONAL_NAMESPACE,
    SESSION_NAMESPACE,
    BadIdentity,
    Certificate,
    ClusterSecret,
    Session,
    seal,
    sign,
    verify,
    vouch,
)
from p2p_ipython.protocol.membership_machine import Action, Expelled, Installed, MembershipMachine, Move, Say
from p2p_ipython.protocol.messages import (
    MAX_PART,
    Accept,
    Admission,
    Answer,
    Ask,
    Bye,
    Grant,
    Hello,
    Message,
    Reply,
    Request,
    RosterPart,
    Terms,
    encode,
    encode_admission,
)
from p2p_ipython.protocol.placement import LONGEST_HOLD, TaskSpec
from p2p_ipython.protocol.roster import MAX_ROSTER, Roster, parts_of
from p2p_ipython.protocol.task_frames import Lost, Nack, Result, Started, Want
from p2p_ipython.protocol.turns import Job
from p2p_ipython.protocol.wire import MAGIC, MAX_LINE, PREFIX, WINDOW, LineReader, LineWriter
from p2p_ipython.protocol.worker_machine import WorkerMachine

OFFER = Hello("bob", int(NOW), Terms(slots=2, free=2, python="3.11"), epoch=3)
MEGABYTE = 1 << 20


# --- a member, and what he makes of lines -----------------------------------------------------------


class Ears:
    """Carol's client on the board: reader, membership and client machine, as they are joined in a process."""

    def __init__(self, known: Roster | None = None, *, key: int = 1) -> None:
        self.membership: MembershipMachine = machine("carol", known or roster(3, "bob", "carol", "erik"), key=key)
        self.membership.joined(0.0)
        self.client = ClientMachine(Settings(), now=0)
        self.reader = LineReader(secret(key), lambda one: self.membership.admits(one, self.wall))
        self.wall = NOW
        self.now = 0.0

    def hear(self, *lines: bytes) -> list[Any]:
        """What follows from lines, in both machines."""
        actions: list[Any] = []
        for line in lines:
            heard = self.reader.read(line, self.wall)
            if heard is None:
                continue
            by, message = heard.certificate, heard.message
            actions += self.membership.heard(by, message, self.now, self.wall, admitted=heard.admitted)
            if heard.admitted:
                actions += self.client.heard(by, message, self.now)
        return actions

    @property
    def workers(self) -> set[bytes]:
        return set(self.client.workers)

    def later(self, seconds: float) -> list[Action]:
        """What is said by itself meanwhile."""
        actions, end = [], self.now + seconds
        while (due := self.membership.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            actions += self.membership.tick(self.now, self.wall)
        self.now = end
        return actions


def voice(
    name: str,
    role: str = "worker",
    *,
    key: int = 1,
    on: ClusterSecret | None = None,
    by: Session | None = None,
) -> Callable[..., bytes]:
    """Makes somebody's lines on a topic, each with his certificate."""
    made = LineWriter(by or session(name, role), on or secret(key), stream(f"{name}/{role}/lines"))
    return lambda message: made.write(message, introduce=True)


def scope(where: ClusterSecret) -> bytes:
    topic = where.topic.encode()
    return PREFIX + len(topic).to_bytes(4, "big") + topic + where.key


def opened(line: bytes, where: ClusterSecret) -> bytes:
    """What whoever has the key sees in a line."""
    data = base64.b64decode(line[len(MAGIC) :])
    return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(data[24:], PREFIX, data[:24], where.key)


def closed(plain: bytes, where: ClusterSecret) -> bytes:
    """A line with whatever in it."""
    nonce = bytes(24)
    sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, PREFIX, nonce, where.key)
    return MAGIC + base64.b64encode(nonce + sealed)


def crafted(by: Session, wire: bytes, message: Message, *, sid: bytes | None = None, seq: int = 1) -> bytes:
    """A line by the session's keys with any certificate, sid and number."""
    signed = (sid or by.sid) + seq.to_bytes(8, "big") + len(wire).to_bytes(2, "big") + wire + encode(message)
    return closed(by.sign(scope(secret()) + signed) + signed, secret())


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def body_of(by: Session, **changes: Any) -> bytes:
    """The body of a session's certificate, changed."""
    wire = by.certificate.wire
    return json.dumps(json.loads(wire[4 : 4 + int.from_bytes(wire[:4], "big")]) | changes).encode()


def untouched(ears: Ears) -> None:
    """Carol is where she was, with the roster and the workers that she had: nothing."""
    assert ears.membership.epoch == 3
    assert ears.membership.secret == secret()
    assert ears.workers == set()
    assert ears.client.state("t") in (None, TaskState.WAITING)


# --- strangers --------------------------------------------------------------------------------------


def test_a_stranger_on_the_topic_is_not_heard() -> None:
    ears = Ears()
    guess = ClusterSecret(CLUSTER_ID, secret().topic, bytes(32))
    mallory = voice("mallory", on=guess)
    assert ears.hear(*(mallory(message) for message in (OFFER, Bye(), Ask("x"), *parts_of(roster(4, "mallory"))))) == []
    assert ears.reader.refused == {"not a line of this cluster": 3 + len(parts_of(roster(4, "mallory")))}
    untouched(ears)


def test_a_stranger_in_the_access_hole_sees_bytes_only_and_what_he_plays_back_does_nothing() -> None:
    """He has the topic's whole stream, as the board gives it to whoever has an account and comes first."""
    bob, ears = voice("bob"), Ears()
    grant = Grant(session("carol").sid, 3, seal(certificate("carol"), encode_admission(_admission())))
    stream_ = [bob(OFFER), bob(Bye()), voice("alice", "host")(grant), *map(bob, parts_of(roster(3, "bob", "carol")))]
    ears.hear(*stream_)
    for line in stream_:
        seen = line + base64.b64decode(line[len(MAGIC) :])
        for hidden in (b"bob", b"carol", b"hello", print_of("bob").encode(), secret().key, secret().topic.encode()):
            assert hidden not in seen
    workers = ears.workers
    garbled = [line[:-8] + b"AAAAAAA=" for line in stream_]
    assert ears.hear(*stream_, *garbled) == []
    assert ears.workers == workers


def _admission(key: int = 1) -> Admission:
    return Admission(CLUSTER_ID, secret(key).topic, secret(key).key)


def test_a_stranger_with_the_clusters_key_is_no_member() -> None:
    """Somebody lost it; or was a member, and is none any more."""
    ears, mallory = Ears(), voice("mallory")
    ears.client.submit(TaskSpec("t"), 0.0)
    posing = Hello("alice (host)", int(NOW), epoch=3)
    for message in (OFFER, posing, Bye(), Request(), Accept(session("carol").sid, b"x"), Ask("m", 3)):
        assert ears.hear(mallory(message)) == []
    untouched(ears)


def test_an_outsider_with_the_lobbys_key_gets_nothing_from_a_host_but_the_owners_attention() -> None:
    host = HostMachine(roster=roster(3, "bob"), secret=secret())
    mallory = session("mallory", "client", cluster=TITLE)
    reader = LineReader(LOBBY, lambda one: one.role != "host", clusters=frozenset({TITLE, CLUSTER_ID}))
    heard = reader.read(voice("mallory", on=LOBBY, by=mallory)(Ask("bob")), NOW)
    assert heard is not None
    assert isinstance(heard.message, Ask)
    told, said = host.asked(heard.certificate, heard.message, LOBBY.topic, 0.0)
    assert isinstance(told, Tell)
    assert told.knock.fingerprint == print_of("mallory"), "whatever he calls himself"
    assert isinstance(said, HostSays)
    assert said.message == Answer(mallory.sid, Reply.WAITING)


# --- forged, replayed and reordered -----------------------------------------------------------------


def test_a_forged_from_is_refused() -> None:
    """Erik, a member, says bye in bob's name: by his sid, by his certificate, by a certificate with bob's sid."""
    ears, erik, bob = Ears(), session("erik"), certificate("bob")
    ears.hear(voice("bob")(OFFER))
    before = ears.workers
    own = json.loads(body_of(erik))
    body = body_of(erik, sid=bob.sid.hex())
    usurped = string(body) + string(sign(PlainKey("erik"), body, SESSION_NAMESPACE))
    assert own["sid"] != bob.sid.hex()
    for wire in (b"", bob.wire, erik.certificate.wire, usurped):
        assert ears.hear(crafted(erik, wire, Bye(), sid=bob.sid, seq=9)) == []
    assert ears.workers == before
    assert ears.hear(voice("bob", by=session("bob"))(OFFER)) == [], "bob's own numbers were not used up"


def test_replayed_lines_change_nothing() -> None:
    ears, bob = Ears(), voice("bob")
    hello, bye = bob(OFFER), bob(Bye())
    ears.hear(hello, bye)
    assert ears.workers == {certificate("bob").sid}, "meeting him: what comes of it is still to come"
    ears.client.meet_failed(certificate("bob").sid, RuntimeError(), 0.0)
    gone = ears.workers
    assert [ears.hear(line) for line in (hello, bye, hello) * 10] == [[]] * 30
    assert ears.workers == gone


def test_reordered_lines_do_not_roll_anything_back() -> None:
    newer, newest = roster(4, "bob", "carol"), roster(5, "bob", "carol", "erik")
    bob = voice("bob")
    lines = [bob(part) for known in (newer, newest) for part in parts_of(known)]
    for seed in range(10):
        ears = Ears()
        random.Random(seed).shuffle(lines)
        installed = [action.roster.epoch for action in ears.hear(*lines) if isinstance(action, Installed)]
        assert installed == sorted(installed)


def test_a_line_carried_over_to_the_new_key_is_refused() -> None:
    """Erik is on both topics. He puts bob's old words, signature and all, into lines of the new one."""
    bob, erik = session("bob"), voice("erik", key=2)
    ears = Ears(roster(4, "bob", "carol", "erik", key=2), key=2)
    old = voice("bob", by=bob)
    for message in (OFFER, Bye(), Ask("bob", 3)):
        assert ears.hear(closed(opened(old(message), secret(1)), secret(2))) == []
    assert ears.reader.refused == {"a line with a forged signature": 3}
    assert ears.hear(erik(Bye())) == []
    assert ears.reader.refused["a line with a forged signature"] == 3, "while what is said here is heard"


def test_carried_over_lines_do_not_use_up_the_numbers_of_who_comes_to_the_new_topic() -> None:
    bob = session("bob")
    ears = Ears(roster(4, "bob", "carol", key=2), key=2)
    old, new = voice("bob", by=bob), voice("bob", key=2, by=bob)
    ears.hear(*(closed(opened(old(OFFER), secret(1)), secret(2)) for _ in range(3 * WINDOW)))
    ears.hear(new(OFFER))
    assert ears.workers == {bob.sid}


def test_a_line_from_the_lobby_counts_nowhere_else() -> None:
    bob, ears = session("bob"), Ears()
    said = voice("bob", on=LOBBY, by=bob)(OFFER)
    assert ears.hear(said, closed(opened(said, LOBBY), secret())) == []
    untouched(ears)


def test_who_comes_back_to_a_topic_is_heard_there_although_his_old_lines_are_not() -> None:
    """A process visits the lobby again and again, each time on a new connection, while the host stays there."""
    bob = session("bob", "client")
    reader = LineReader(LOBBY, lambda _: True, clusters=frozenset({TITLE, CLUSTER_ID}))
    visits = [voice("bob", on=LOBBY, by=bob)(Ask("bob", 3)) for _ in range(3)]
    assert [reader.read(line, NOW) is not None for line in visits] == [True] * 3
    assert [reader.read(line, NOW) is not None for line in visits] == [False] * 3


# --- in another's place -----------------------------------------------------------------------------


def test_nobody_withdraws_or_cancels_somebody_elses_task() -> None:
    """At the worker: another client's link. At the client: another worker's. On the board: a bye that isn't his."""
    me, bob, erik = certificate("bob"), certificate("carol", "client"), certificate("erik", "client")
    worker = WorkerMachine(Settings(), sid=me.sid, name="bob", terms=Terms(1, 1, "3.11"), now=0)
    for number, client in ((1, bob), (2, erik)):
        worker.heard(client, Accept(me.sid, b"x"), 0, NOW)
        worker.link_up(number, client)
    worker.slot_ready(0, 0)
    worker.task(1, "t", 1, 0)
    assert worker.recall(2, "t", 1, 0) == []
    assert worker.current(0) == Job(1, "t", 1)

    ears = Ears()
    ears.hear(voice("bob")(OFFER), voice("erik")(Hello("bob", int(NOW), OFFER.offer)))
    for name in ("bob", "erik"):
        ears.client.link_up(certificate(name).sid, 0.0)
    ears.client.submit(TaskSpec("t"), 0.0)
    owner = ears.client.worker_of("t")
    assert owner is not None
    (other,) = ears.workers - {owner.sid}
    for frame in (Result("t", 1, True, ()), Nack("t", 1, ""), Lost("t", 1), Started("t", 1), Want("t", 1, ())):
        assert ears.client.frame(other, frame, 0.0) == []
    ears.hear(voice("mallory")(Bye()))
    assert ears.client.state("t") is TaskState.SENT


def test_a_hello_in_a_workers_name_hijacks_nothing() -> None:
    """Erik calls himself bob: he is another worker, told apart by his session, not by what he is called."""
    ears = Ears()
    ears.hear(voice("bob")(OFFER))
    (before,) = ears.client.workers.values()
    (meet,) = ears.hear(voice("erik")(OFFER))
    assert isinstance(meet, MeetWorker)
    assert ears.workers == {certificate("bob").sid, certificate("erik").sid}
    assert ears.client.workers[certificate("bob").sid] is before
    assert ears.membership.name_of(meet.worker.signer) == "erik"


def test_who_may_be_a_client_only_cannot_offer() -> None:
    known = roster(4, "bob", "carol", roles={"bob": ("client",)})
    ears = Ears(known)
    assert ears.hear(voice("bob", "worker")(OFFER)) == []
    assert ears.hear(voice("bob", "client")(OFFER)) == []
    assert ears.workers == set()


def test_who_may_be_a_worker_only_is_no_client() -> None:
    known = roster(4, "bob", "carol", roles={"bob": ("worker",)})
    assert not Ears(known).membership.admits(certificate("bob", "client"), NOW)


@pytest.mark.parametrize("name", ["bob", "mallory"])
def test_a_host_certificate_by_anybody_but_the_owner_is_nothing(name: str) -> None:
    ears, host = Ears(), voice(name, "host")
    grant = Grant(session("carol").sid, 9, seal(certificate("carol"), encode_admission(_admission(9))))
    assert ears.hear(host(grant), host(Bye()), host(OFFER)) == []
    untouched(ears)


def test_a_grant_by_a_member_who_is_not_the_owner_leads_nowhere() -> None:
    """Even where the key in it is the right one, only the owner's host says so."""
    ears = Ears()
    ears.membership.install(roster(4, "bob", "carol", key=2), 0.0)
    grant = Grant(session("carol").sid, 4, seal(certificate("carol"), encode_admission(_admission(2))))
    assert not [action for role in ("worker", "client") for action in ears.hear(voice("bob", role)(grant))]
    assert not [action for action in ears.hear(voice("alice", "client")(grant)) if isinstance(action, Move)]
    assert Move(secret(2)) in ears.hear(voice("alice", "host")(grant))


def test_a_grant_that_is_shown_to_somebody_else_opens_for_nobody() -> None:
    ears = Ears()
    grant = Grant(session("carol").sid, 4, seal(certificate("bob"), encode_admission(_admission(2))))
    assert ears.hear(voice("alice", "host")(grant)) == []
    untouched(ears)


# --- certificates and signatures --------------------------------------------------------------------


def test_an_expired_certificate_is_refused() -> None:
    ears, line = Ears(), voice("bob")(OFFER)
    ears.wall = NOW + MAX_LIFE + 1
    assert ears.hear(line) == []
    assert ears.reader.refused == {"a certificate that has expired": 1}


def test_a_certificate_from_the_future_is_refused() -> None:
    ears = Ears()
    assert ears.hear(voice("bob", by=session("bob", now=NOW + CLOCK_SLACK + 60))(OFFER)) == []
    assert ears.reader.refused == {"a certificate that lives too long": 1}


@pytest.mark.parametrize("cluster", [f"{print_of('alice')}/family", TITLE, f"{print_of('bob')}/friends"])
def test_a_certificate_for_another_cluster_is_refused(cluster: str) -> None:
    ears = Ears()
    assert ears.hear(voice("bob", by=session("bob", cluster=cluster))(OFFER)) == []
    assert ears.reader.refused == {"a certificate for another cluster": 1}


@pytest.mark.parametrize("namespace", [PERSONAL_NAMESPACE, "p2p-ipython-roster@v1", "git", "file", ""])
def test_a_signature_for_another_namespace_is_refused(namespace: str) -> None:
    ears, bob = Ears(), session("bob")
    wire = string(body_of(bob)) + string(sign(PlainKey("bob"), body_of(bob), namespace))
    assert ears.hear(crafted(bob, wire, OFFER)) == []
    assert ears.reader.refused == {"a signature made for another purpose": 1}


@pytest.mark.parametrize("algorithm", ["ssh-rsa", "rsa-sha2-256"])
def test_rsa_with_sha1_is_refused(algorithm: str, keys: Keys) -> None:
    ears, bob, key = Ears(), session("bob"), keys.load("rsa")
    digest: hashes.HashAlgorithm = hashes.SHA1() if algorithm == "ssh-rsa" else hashes.SHA256()
    body = body_of(bob)
    text = _signed_text(body)
    raw = string(algorithm.encode()) + string(key.key.sign(text, padding.PKCS1v15(), digest))
    sshsig = _sshsig(key.asbytes(), raw)
    assert ears.hear(crafted(bob, string(body) + string(sshsig), OFFER)) == []
    assert ears.reader.refused == {"a kind of signature that is not accepted": 1}


def _signed_text(message: bytes) -> bytes:
    sent = nacl.bindings.crypto_hash_sha512(message)
    return b"SSHSIG" + b"".join(map(string, (SESSION_NAMESPACE.encode(), b"", b"sha512", sent)))


def _sshsig(public: bytes, raw: bytes) -> bytes:
    return b"SSHSIG\0\0\0\1" + b"".join(map(string, (public, SESSION_NAMESPACE.encode(), b"", b"sha512", raw)))


def test_an_rsa_key_that_is_made_to_be_costly_is_not_even_tried() -> None:
    """Checking takes as long as the public exponent is large; real ones are 65537 or less."""
    modulus = int.from_bytes(stream("modulus")(384), "big") | 1 << 3071 | 1
    for exponent in (modulus - 2, 1 << 32 | 1):
        numbers = [n.to_bytes(n.bit_length() // 8 + 1, "big") for n in (exponent, modulus)]
        public = b"".join(map(string, (b"ssh-rsa", *numbers)))
        raw = string(b"rsa-sha2-512") + string(bytes(384))
        with pytest.raises(BadIdentity, match="not accepted"):
            verify(_sshsig(public, raw), b"text", SESSION_NAMESPACE)


# --- rosters, and people who were taken out ---------------------------------------------------------


def test_a_roster_rollback_is_refused() -> None:
    """Bob was taken out at 4. He says the list on which he was, with its right signature, for ever."""
    ears = Ears(roster(4, "carol", key=2), key=2)
    lines = [voice(name, key=2)(part) for name in ("bob", "erik", "alice") for part in parts_of(roster(3, "bob"))]
    assert not [action for action in ears.hear(*lines) if isinstance(action, Installed | Move | Expelled)]
    assert ears.membership.epoch == 4
    assert not ears.membership.admits(certificate("bob"), NOW)


def test_a_roster_of_ones_own_making_is_refused() -> None:
    ears = Ears()
    body = json.dumps({"cluster": CLUSTER_ID, "title": TITLE, "epoch": 9, "until": UNTIL, "secret": "", "members": []})
    for signer in ("bob", "mallory"):
        sshsig = sign(PlainKey(signer), body.encode(), "p2p-ipython-roster@v1")
        wire = string(body.encode()) + string(sshsig)
        pieces = [wire[start : start + MAX_PART] for start in range(0, len(wire), MAX_PART)]
        parts = [RosterPart(9, number, len(pieces), piece) for number, piece in enumerate(pieces)]
        assert not [a for part in parts for a in ears.hear(voice(signer)(part)) if isinstance(a, Installed)]
    untouched(ears)


def test_who_was_taken_out_is_nobody_in_his_old_session_in_a_new_one_and_on_his_machines() -> None:
    ears, old = Ears(), voice("bob")
    ears.hear(old(OFFER))
    link_peer = certificate("bob")
    assert ears.membership.admits(link_peer, NOW)
    (installed,) = ears.membership.install(roster(4, "carol", "erik"), 1.0)
    assert isinstance(installed, Installed), "at which links of who is out are cut"
    assert not ears.membership.admits(link_peer, NOW), "his worker's link ends"
    word = vouch(PlainKey("bob"), cluster=CLUSTER_ID, key=print_of("bob's laptop"), now=NOW)
    laptop = session("bob's laptop", vouch=word)
    assert laptop.certificate.signer == print_of("bob")
    before = ears.workers
    for again in (old, voice("bob", by=session("bob", number=2)), voice("bob's laptop", by=laptop)):
        assert ears.hear(again(OFFER), again(Bye())) == []
    assert ears.workers == before
    host = HostMachine(roster=roster(4, "carol", "erik", key=2), secret=secret(2))
    for one in (link_peer, certificate("bob", number=2), laptop.certificate):
        assert host.asked(one, Ask("bob", 3), secret().topic, 0.0) == []


def test_who_was_taken_out_reads_nothing_that_is_said_afterwards() -> None:
    """He has the old key, and hears what is granted to others on the old topic."""
    host = HostMachine(roster=roster(4, "carol", key=2), secret=secret(2))
    (granted,) = host.asked(certificate("carol"), Ask("carol", 3), secret().topic, 0.0)
    assert isinstance(granted, HostSays)
    assert isinstance(granted.message, Grant)
    line = opened(voice("alice", "host")(granted.message), secret())
    assert secret(2).topic.encode() not in line
    assert secret(2).key not in line
    assert secret(2).key.hex().encode() not in line
    with pytest.raises(BadIdentity):
        session("bob").unseal(granted.message.box)
    assert LineReader(secret(1), lambda _: True).read(voice("carol", key=2)(OFFER), NOW) is None


# --- floods -----------------------------------------------------------------------------------------


def peak_of(lines: Iterable[bytes], ears: Callable[[bytes], object]) -> int:
    """The most memory, in bytes, that hearing these lines took."""
    tracemalloc.start()
    try:
        for line in lines:
            ears(line)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@dataclass
class Flood:
    """Lines of one shape, made as they are needed, so that they themselves take no memory."""

    count: int
    seed: int = 7

    def malformed(self, where: ClusterSecret) -> Iterable[bytes]:
        rng = random.Random(self.seed)
        good = voice("bob", on=where)(OFFER)
        for number in range(self.count):
            match number % 4:
                case 0:
                    yield rng.randbytes(rng.randrange(300))
                case 1:
                    yield MAGIC + base64.b64encode(rng.randbytes(rng.randrange(300)))
                case 2:
                    yield good[: rng.randrange(len(good))]
                case _:
                    yield closed(rng.randbytes(rng.randrange(90, 300)), where)


def test_100_000_malformed_lines_on_the_topic_change_nothing() -> None:
    ears = Ears()
    peak = peak_of(Flood(100_000).malformed(secret()), ears.hear)
    assert peak < 20 * MEGABYTE
    assert sum(ears.reader.refused.values()) == 100_000
    untouched(ears)


def test_malformed_lines_on_the_lobby_change_nothing() -> None:
    reader = LineReader(LOBBY, lambda one: one.role != "host", clusters=frozenset({TITLE, CLUSTER_ID}))
    peak = peak_of(Flood(20_000).malformed(LOBBY), lambda line: reader.read(line, NOW))
    assert peak < 20 * MEGABYTE
    assert sum(reader.refused.values()) == 20_000


def test_strangers_sessions_on_the_lobby_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with a certificate of its own. (1,000 of 5,000 that are kept.)"""
    reader = LineReader(LOBBY, lambda one: one.role != "host", clusters=frozenset({TITLE, CLUSTER_ID}))
    host = HostMachine(roster=roster(3, "bob"), secret=secret())
    said = []

    def hear(line: bytes) -> None:
        heard = reader.read(line, NOW)
        assert heard is not None
        assert isinstance(heard.message, Ask)
        said.extend(host.asked(heard.certificate, heard.message, LOBBY.topic, 1.0))

    def lines() -> Iterable[bytes]:
        for number in range(1000):
            stranger = session("mallory", "client", number=number, cluster=TITLE)
            yield LineWriter(stranger, LOBBY, stream("n")).write(Ask("x"), introduce=True)

    assert peak_of(lines(), hear) < 4 * MEGABYTE
    assert len(said) <= MOST_ANSWERS + 1


def test_a_flood_by_somebody_who_was_taken_out_is_answered_within_bounds() -> None:
    """He has the key of his time, so his lines are read: hellos of old and of absurd epochs, asks, parts of rosters."""
    ears = Ears(roster(4, "carol", "erik"))
    bob = voice("bob")
    messages: list[Message] = [Hello("b", 0, epoch=1), Hello("b", 0, epoch=1 << 53), Ask("b", 9)]
    answers = []

    def hear(number: int) -> None:
        message = (
            RosterPart(5 + number, number % 200, 200, bytes(MAX_PART)) if number % 4 == 0 else messages[number % 3]
        )
        ears.hear(bob(message))
        answers.extend(ears.later(0.01))

    tracemalloc.start()
    try:
        for number in range(1500):
            hear(number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MEGABYTE
    assert len([action for action in answers if isinstance(action, Say)]) <= 14 * len(
        parts_of(ears.membership.roster or roster(4))
    )
    assert len([action for action in answers if not isinstance(action, Say)]) <= 6 + 1
    assert ears.membership.epoch == 4


def test_a_member_who_floods_asks_is_answered_within_bounds() -> None:
    host = HostMachine(roster=roster(3, "bob", "carol"), secret=secret())
    sessions = [certificate("bob", number=number) for number in range(5)]
    said = [
        action for n in range(10_000) for action in host.asked(sessions[n % 5], Ask("bob", 3), LOBBY.topic, n / 1000)
    ]
    assert len(said) <= 5 * 10
    assert host.knocks == ()


def test_a_member_who_floods_rosters_takes_bounded_memory_and_does_not_stop_others() -> None:
    ears, erik, bob = Ears(), voice("erik"), voice("bob")
    newer = roster(4, "bob", "carol", *(f"m{number}" for number in range(40)))
    parts = parts_of(newer)
    assert len(parts) > 3

    def lines() -> Iterable[bytes]:
        for number, part in enumerate(parts):
            for more in range(100):
                yield erik(RosterPart(5 + more % 7, (number * 100 + more) % 255, 256, bytes(MAX_PART)))
            yield bob(part)

    assert peak_of(lines(), ears.hear) < 4 * MEGABYTE
    assert ears.membership.roster == newer


def test_an_oversize_line_is_refused_before_it_is_decoded() -> None:
    ears = Ears()
    assert ears.hear(MAGIC + b"A" * MAX_LINE) == []
    assert ears.reader.refused == {"not a line of ours": 1}


def test_an_oversize_roster_is_refused_before_its_signature_is_checked() -> None:
    wire = b"\0" * (MAX_ROSTER + 1)
    with pytest.raises(BadIdentity, match="too large"):
        Roster.parse(wire, CLUSTER_ID)
    ears, erik = Ears(), voice("erik")
    huge = [RosterPart(9, number, 256, bytes(MAX_PART)) for number in range(256)]
    assert not [action for part in huge for action in ears.hear(erik(part)) if isinstance(action, Installed)]
    untouched(ears)


def test_a_certificate_is_needed_before_anything_is_kept() -> None:
    """A line of a session that nobody knows, well encrypted by somebody who has the key, leaves nothing behind."""
    ears = Ears()
    for number in range(100):
        unknown = session("mallory", number=number)
        ears.hear(crafted(unknown, b"", OFFER))
        ears.hear(crafted(unknown, unknown.certificate.wire, OFFER))
    assert ears.reader._sessions == {}
    assert Certificate.parse(certificate("bob").wire, NOW) == certificate("bob")


# --- offers with conditions -------------------------------------------------------------------------


def lender(*only: str) -> WorkerMachine:
    """Bob's worker, which lends to these members, as an agent has it: it knows its own member."""
    terms = Terms(1, 1, "3.11", only=tuple(print_of(name) for name in only))
    own = print_of("bob")
    return WorkerMachine(
        Settings(), sid=session("bob").sid, name="bob", terms=terms, now=0, own=lambda signer: signer == own
    )


def test_a_member_for_whom_an_offer_isnt_accepts_it_all_the_same_and_is_not_met() -> None:
    """His program may be another one, that doesn't heed what an offer says."""
    worker, box = lender("carol"), Accept(session("bob").sid, b"box")
    for role in ("client", "worker", "host"):
        assert worker.heard(certificate("erik", role), box, 0, NOW) == []
    assert [type(action).__name__ for action in worker.heard(certificate("carol", "client"), box, 0, NOW)] == ["Meet"]
    assert [type(action).__name__ for action in worker.heard(certificate("bob", "client"), box, 0, NOW)] == ["Meet"]


def test_a_member_for_whom_an_offer_isnt_sends_a_task_without_a_link_and_it_never_starts() -> None:
    worker = lender("carol")
    worker.slot_ready(0, 0)
    worker.heard(certificate("erik", "client"), Accept(session("bob").sid, b"box"), 0, NOW)
    assert worker.task(1, "t", 1, 0) == []
    assert not worker.busy()


def test_a_worker_that_says_it_is_for_one_member_lures_no_other() -> None:
    """Nor does it keep his tasks from others by being here: nobody waits for an offer that isn't his."""
    ears, bob = Ears(), voice("bob")
    ears.client = ClientMachine(Settings(), now=0, me=print_of("carol"))
    ears.client.submit(TaskSpec("t", python="3.12"), 0.0)
    for_erik = Terms(4096, 4096, "3.12", only=(print_of("erik"),))
    assert ears.hear(bob(Hello("bob", int(NOW), for_erik, epoch=3))) == []
    assert ears.client.why("t") == "waiting for a worker: those that are here are for others"


@pytest.mark.parametrize(
    "condition",
    [
        {"only": ["A" * 43] * 100_000},
        {"only": [print_of("carol")]},
        {"tags": ["<img src=x onerror=alert(1)>"]},
        {"tags": ["\u202egpu"]},
        {"paused": "false"},
    ],
    ids=lambda condition: next(iter(condition)),
)
def test_an_offer_with_crafted_conditions_is_no_offer(condition: dict[str, Any]) -> None:
    ears, bob = Ears(), session("bob")
    offer = {"slots": 1, "free": 1, "python": "3.11", "platform": "", "cores": 1, "memory": 0, "until": 0} | condition
    text = json.dumps({"v": "hello", "name": "bob", "time": int(NOW), "epoch": 3, "offer": offer}).encode()
    wire = bob.certificate.wire
    signed = bob.sid + (1).to_bytes(8, "big") + len(wire).to_bytes(2, "big") + wire + text
    assert ears.hear(closed(bob.sign(scope(secret()) + signed) + signed, secret())) == []
    assert ears.workers == set()


def test_a_worker_that_pauses_and_goes_on_again_and_again_wears_no_task_out() -> None:
    """A nack that says so costs nothing, so no number of them fails a task; and a hello doesn't get it sent at once."""
    ears, bob = Ears(), certificate("bob")
    client = ears.client
    client.heard(bob, OFFER, 0.0)
    client.link_up(bob.sid, 0.0)
    client.submit(TaskSpec("t"), 0.0)
    now = 0.0
    for attempt in range(1, 1000):
        sent = client.frame(bob.sid, Nack("t", attempt, "paused"), now)
        assert not [action for action in sent if type(action).__name__ in ("Send", "Settle")]
        assert not [action for action in client.heard(bob, OFFER, now) if type(action).__name__ == "Send"]
        now += LONGEST_HOLD
        assert [type(action).__name__ for action in client.tick(now)] == ["Send", "Note"]
    assert client.state("t") is TaskState.SENT
