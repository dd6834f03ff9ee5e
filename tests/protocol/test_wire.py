"""Board lines: which are believed, and that all others cost next to nothing. Each test is named after an attack."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
from dataclasses import replace

import nacl.bindings
import pytest
from hypothesis import given
from hypothesis import strategies as st
from people import CLUSTER, NOW, OTHER_CLUSTER, PlainKey, certificate, reader, session, stream, writer

from p2p_ipython.board.base import MAX_LINE as BOARD_MAX_LINE
from p2p_ipython.protocol import wire
from p2p_ipython.protocol.identity import MAX_CERTIFICATE, MAX_LIFE, SESSION_NAMESPACE, Certificate, Session, sign
from p2p_ipython.protocol.messages import (
    MAX_BOX,
    MAX_CARD_NAME,
    MAX_CARDS,
    MAX_HELLO,
    MAX_KINDS,
    MAX_ONLY,
    MAX_TAGS,
    Accept,
    Bye,
    CardKind,
    Grant,
    Hello,
    Message,
    Request,
    Terms,
    decode,
    encode,
)
from p2p_ipython.protocol.wire import (
    MAGIC,
    MAX_LINE,
    PREFIX,
    WINDOW,
    Heard,
    LineReader,
    LineTooLong,
    LineWriter,
    Window,
)

HELLO = Hello("bob", int(NOW), Terms(slots=2, free=2, python="3.11"))


def craft(signed: bytes, *, by: Session, key: bytes = CLUSTER.key, signature: bytes | None = None) -> bytes:
    """A line that is whatever the attacker wants it to be, by one who knows the cluster's key."""
    topic = CLUSTER.topic.encode()
    scope = PREFIX + len(topic).to_bytes(4, "big") + topic + CLUSTER.key
    text = (by.sign(scope + signed) if signature is None else signature) + signed
    nonce = bytes(24)
    sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(text, PREFIX, nonce, key)
    return MAGIC + base64.b64encode(nonce + sealed)


def signed_text(sid: bytes, seq: int, certificate: bytes, message: bytes, *, size: int | None = None) -> bytes:
    length = len(certificate) if size is None else size
    return sid + seq.to_bytes(8, "big") + length.to_bytes(2, "big") + certificate + message


def opened(line: bytes) -> bytes:
    sealed = base64.b64decode(line[len(MAGIC) :])
    return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed[24:], PREFIX, sealed[:24], CLUSTER.key)


def test_a_member_is_heard() -> None:
    assert reader().read(writer("bob").write(HELLO, introduce=True), NOW) == Heard(certificate("bob"), HELLO)


def test_a_session_introduces_itself_once() -> None:
    bob, ears = writer("bob"), reader()
    assert ears.read(bob.write(HELLO), NOW) is None
    assert ears.refused == {"a session that has not introduced itself": 1}
    assert ears.read(bob.write(HELLO, introduce=True), NOW) is not None
    assert ears.read(bob.write(Bye()), NOW) == Heard(certificate("bob"), Bye())


def test_the_largest_line_fits_the_board() -> None:
    assert MAX_LINE == BOARD_MAX_LINE
    body = 64 + 16 + 8 + 2 + MAX_CERTIFICATE + len(encode(Accept(bytes(16), bytes(MAX_BOX))))
    assert len(MAGIC) + 4 * -(-(24 + body + 16) // 3) <= MAX_LINE


def test_the_largest_hello_of_a_worker_fits_the_board_with_every_condition() -> None:
    number = 1 << 53
    terms = Terms(
        *(4096, 4096, "3.100", "x" * 24, 1 << 16, number, 1 << 34),
        only=("SHA256:" + "b" * 43,) * MAX_ONLY,
        tags=("t" * 24,) * MAX_TAGS,
        paused=True,
        sandbox="bubblewrap",
    )
    hello = Hello("\U0001f41f" * 64, 1 << 34, terms, epoch=number)
    others = 64 + 16 + 8 + 2 + MAX_CERTIFICATE
    assert decode(encode(hello)) == hello
    assert len(MAGIC) + 4 * -(-(24 + others + len(encode(hello)) + 16) // 3) <= MAX_LINE
    # Graphics cards are named as far as there is room for them, which is nearly always.
    cards = (CardKind(MAX_CARDS, "\U0001f41f" * MAX_CARD_NAME, number),) * MAX_KINDS
    crowded, usual = replace(terms, cards=cards), replace(terms, only=(), tags=("gpu",), cards=cards[:2])
    assert decode(encode(replace(hello, offer=crowded))) == hello
    assert decode(encode(replace(hello, offer=usual))) == replace(hello, offer=usual)
    assert len(MAGIC) + 4 * -(-(24 + others + MAX_HELLO + 16) // 3) <= MAX_LINE
    # A policy's conditions hold whatever the tags cost.
    policy = replace(terms, only=(), not_for=terms.only, input=number, why="in-use", edition=1 << 20)
    said = decode(encode(replace(hello, offer=replace(policy, cards=cards))))
    assert isinstance(said, Hello)
    assert said.offer is not None
    assert replace(said.offer, tags=()) == replace(policy, tags=())
    assert len(encode(said)) <= MAX_HELLO


def test_a_message_that_is_too_long_is_our_own_error() -> None:
    with pytest.raises(LineTooLong):
        writer("bob").write(Request("3" * MAX_LINE))


# --- who may speak ----------------------------------------------------------------------------------


def test_a_stranger_with_the_cluster_key_is_not_heard_without_membership() -> None:
    ears, mallory = reader(members={certificate("alice").signer}), writer("mallory")
    hello = ears.read(mallory.write(HELLO, introduce=True), NOW)
    assert hello is not None
    assert not hello.admitted
    for message in (Bye(), Request(), Accept(to=b"t" * 16, box=b"box"), Grant(b"t" * 16, 1, b"box")):
        assert ears.read(mallory.write(message, introduce=True), NOW) is None
    assert ears.refused == {"somebody who is not a member": 4}


def test_a_stranger_with_the_cluster_key_is_not_remembered() -> None:
    ears, mallory = reader(members=set()), writer("mallory")
    assert ears.read(mallory.write(HELLO, introduce=True), NOW) is not None
    assert ears.read(mallory.write(HELLO), NOW) is None
    assert ears.refused == {"a session that has not introduced itself": 1}


def test_who_is_no_member_any_more_is_not_heard_any_more() -> None:
    members = {certificate("bob").signer}
    ears, bob = reader(members=members), writer("bob")
    first = ears.read(bob.write(HELLO, introduce=True), NOW)
    assert first is not None
    assert first.admitted
    members.clear()
    assert ears.read(bob.write(Bye()), NOW) is None
    assert ears.refused == {"somebody who is not a member": 1}


def test_a_line_of_another_cluster_is_not_heard() -> None:
    ears = reader()
    assert ears.read(writer("bob", secret=OTHER_CLUSTER).write(HELLO, introduce=True), NOW) is None
    assert ears.refused == {"not a line of this cluster": 1}


def test_a_certificate_for_another_cluster_is_not_taken_here() -> None:
    elsewhere = session("bob", cluster=OTHER_CLUSTER.cluster)
    line = LineWriter(elsewhere, CLUSTER, stream("n")).write(HELLO, introduce=True)
    ears = reader()
    assert ears.read(line, NOW) is None
    assert ears.refused == {"a certificate for another cluster": 1}


def test_nobody_speaks_in_anothers_name_by_using_his_sid() -> None:
    ears, mallory = reader(), session("mallory")
    assert ears.read(writer("bob").write(HELLO, introduce=True), NOW) is not None
    forged = craft(signed_text(certificate("bob").sid, 99, b"", encode(Bye())), by=mallory)
    assert ears.read(forged, NOW) is None
    assert ears.refused == {"a line with a forged signature": 1}


def test_nobody_speaks_in_anothers_name_by_showing_his_certificate() -> None:
    ears, mallory, bob = reader(), session("mallory"), certificate("bob")
    for sid, reason in [(bob.sid, "a line with a forged signature"), (mallory.sid, "somebody else's certificate")]:
        assert ears.read(craft(signed_text(sid, 1, bob.wire, encode(Bye())), by=mallory), NOW) is None
        assert ears.refused.pop(reason) == 1
    assert ears.read(writer("bob").write(HELLO, introduce=True), NOW) is not None, "the forger used up bob's number"


def test_a_known_session_is_not_replaced_by_another_certificate_of_the_same_sid() -> None:
    """Mallory, a member, has her own key vouch for session keys of hers under bob's sid."""
    ears, bob = reader(), writer("bob")
    first = bob.write(HELLO, introduce=True)
    assert ears.read(first, NOW) is not None
    draws = iter([b"\1" * 32, b"\2" * 32, certificate("bob").sid])
    usurper = Session(
        PlainKey("mallory"), cluster=CLUSTER.cluster, role="worker", now=NOW, random=lambda _: next(draws)
    )
    assert ears.read(LineWriter(usurper, CLUSTER, stream("n")).write(Bye(), introduce=True), NOW) is None
    assert ears.read(bob.write(Bye()), NOW) == Heard(certificate("bob"), Bye())


def test_a_session_is_not_heard_after_its_certificate_has_ended() -> None:
    ears, bob = reader(), writer("bob")
    assert ears.read(bob.write(HELLO, introduce=True), NOW) is not None
    assert ears.read(bob.write(HELLO, introduce=True), NOW + MAX_LIFE + 1) is None
    assert ears.refused == {"a certificate that has expired": 1}


def test_a_session_that_lives_on_shows_a_new_certificate_and_is_heard_beyond_the_old_one() -> None:
    bob, ears = session("bob"), reader()
    lines = LineWriter(bob, CLUSTER, stream("n"))
    first = lines.write(HELLO, introduce=True)
    assert ears.read(first, NOW) is not None
    bob.renew(NOW + 0.9 * MAX_LIFE)
    assert ears.read(lines.write(HELLO, introduce=True), NOW + 0.9 * MAX_LIFE) is not None
    heard = ears.read(lines.write(Bye()), NOW + 1.5 * MAX_LIFE)
    assert heard == Heard(bob.certificate, Bye())
    assert ears.read(first, NOW + 0.9 * MAX_LIFE) is None, "the old line is not a new one for it"


def test_an_old_certificate_does_not_shorten_a_session() -> None:
    bob, ears = session("bob"), reader()
    lines = LineWriter(bob, CLUSTER, stream("n"))
    late = lines.write(HELLO, introduce=True)
    bob.renew(NOW + 0.9 * MAX_LIFE)
    assert ears.read(lines.write(HELLO, introduce=True), NOW + 0.9 * MAX_LIFE) is not None
    assert ears.read(late, NOW + 0.9 * MAX_LIFE) is not None, "late, but never heard before"
    assert ears.read(lines.write(Bye()), NOW + 1.5 * MAX_LIFE) is not None


# --- replay -----------------------------------------------------------------------------------------


def test_a_replayed_line_counts_once() -> None:
    ears, line = reader(), writer("bob").write(HELLO, introduce=True)
    assert [ears.read(line, NOW) is not None for _ in range(3)] == [True, False, False]
    assert ears.refused == {"a line that was heard before": 2}


def test_a_replayed_line_counts_once_in_whatever_base64_spelling() -> None:
    lines = [writer("bob").write(Hello("b" * n, 0), introduce=True) for n in range(1, 4)]
    line = next(line for line in lines if line.endswith(b"="))
    spelling = _other_spelling(line)
    assert base64.b64decode(spelling[3:]) == base64.b64decode(line[3:])
    ears = reader()
    assert [ears.read(spelled, NOW) is not None for spelled in (line, spelling)] == [True, False]


def _other_spelling(line: bytes) -> bytes:
    """The same bytes in other base64: the last letter before the padding has bits that nobody reads."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body, padding = line.rstrip(b"="), line[len(line.rstrip(b"=")) :]
    return body[:-1] + bytes([alphabet[alphabet.index(body[-1]) + 1]]) + padding


@pytest.mark.parametrize("change", [b" ", b"\n", b"\t", b"=", b"-", b"\0"])
def test_base64_with_other_characters_in_it_is_refused(change: bytes) -> None:
    line = writer("bob").write(HELLO, introduce=True)
    for place in (len(MAGIC), len(MAGIC) + 10, len(line)):
        if place == len(line) and change == b"=":
            continue  # more padding than needed spells the same bytes; the number catches it
        assert reader().read(line[:place] + change + line[place:], NOW) is None


def test_lines_may_come_in_any_order_within_the_window() -> None:
    bob, ears = writer("bob"), reader()
    lines = [bob.write(HELLO, introduce=True) for _ in range(WINDOW)]
    random.Random(1).shuffle(lines)
    assert all(ears.read(line, NOW) is not None for line in lines)
    assert not any(ears.read(line, NOW) is not None for line in lines)


def test_a_line_older_than_the_window_is_refused() -> None:
    bob, ears = writer("bob"), reader()
    lines = [bob.write(HELLO, introduce=True) for _ in range(WINDOW + 1)]
    assert ears.read(lines[-1], NOW) is not None
    assert ears.read(lines[0], NOW) is None
    assert ears.read(lines[1], NOW) is not None


@given(st.lists(st.integers(0, 200), max_size=300))
def test_the_window_takes_each_number_once_and_every_recent_one(numbers: list[int]) -> None:
    window, taken = Window(), set[int]()
    for number in numbers:
        highest = max(taken, default=0)
        expected = number >= 1 and number not in taken and number > highest - WINDOW
        assert window.take(number) is expected
        if expected:
            taken.add(number)


@pytest.mark.parametrize("seq", [0, 2**64 - 1])
def test_numbers_at_the_ends_do_no_harm(seq: int) -> None:
    bob, ears = session("bob"), reader()
    line = craft(signed_text(bob.sid, seq, bob.certificate.wire, encode(Bye())), by=bob)
    assert (ears.read(line, NOW) is not None) is (seq > 0)
    assert ears.read(line, NOW) is None


# --- malformed --------------------------------------------------------------------------------------


def test_a_well_signed_line_of_nonsense_is_refused() -> None:
    bob, ears = session("bob"), reader()
    wire_ = bob.certificate.wire
    for number, message in enumerate([b"", b"null", b"[" * 2000, b'{"v":"nothing"}', b"\xff"], 1):
        assert ears.read(craft(signed_text(bob.sid, number, wire_, message), by=bob), NOW) is None


def test_a_certificate_longer_than_its_line_is_refused() -> None:
    bob = session("bob")
    for size in (len(bob.certificate.wire) + 100, MAX_CERTIFICATE + 1, 0xFFFF):
        line = craft(signed_text(bob.sid, 1, bob.certificate.wire, b"", size=size), by=bob)
        assert reader().read(line, NOW) is None


def test_an_absurd_end_of_a_certificate_is_refused() -> None:
    """A number that doesn't fit a float, well signed by a member."""
    bob = session("bob")
    size = int.from_bytes(bob.certificate.wire[:4], "big")
    fields = json.loads(bob.certificate.wire[4 : 4 + size]) | {"until": 10**400}
    body = json.dumps(fields).encode()
    parts = (body, sign(PlainKey("mallory"), body, SESSION_NAMESPACE))
    wire_ = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    line = craft(signed_text(bob.sid, 1, wire_, b""), by=bob)
    assert len(line) <= MAX_LINE
    assert reader().read(line, NOW) is None


def test_a_line_cut_anywhere_is_refused() -> None:
    line = writer("bob").write(HELLO, introduce=True)
    ears = reader()
    assert not [end for end in range(len(line)) if ears.read(line[:end], NOW) is not None]
    assert ears.read(line, NOW) is not None


def test_a_line_with_any_one_letter_changed_is_refused_or_the_same() -> None:
    line = writer("bob").write(HELLO, introduce=True)
    for place in range(len(line)):
        garbled = line[:place] + (b"A" if line[place : place + 1] != b"A" else b"B") + line[place + 1 :]
        heard = reader().read(garbled, NOW)
        assert heard is None or base64.b64decode(garbled[3:]) == base64.b64decode(line[3:])


@given(st.binary(max_size=300))
def test_random_lines_are_refused(line: bytes) -> None:
    assert reader().read(line, NOW) is None
    assert reader().read(MAGIC + base64.b64encode(line), NOW) is None


@given(st.binary(max_size=300))
def test_random_text_under_the_cluster_key_is_refused(text: bytes) -> None:
    nonce = bytes(24)
    sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(text, PREFIX, nonce, CLUSTER.key)
    assert reader().read(MAGIC + base64.b64encode(nonce + sealed), NOW) is None


def test_an_oversize_line_is_refused_before_it_is_decoded() -> None:
    ears = reader()
    assert ears.read(MAGIC + b"A" * MAX_LINE, NOW) is None
    assert ears.refused == {"not a line of ours": 1}


def test_100_000_malformed_lines_are_refused_in_bounded_memory() -> None:
    rng = random.Random(7)
    good = writer("bob").write(HELLO, introduce=True)
    mallory = session("mallory")

    def malformed(number: int) -> bytes:
        match number % 5:
            case 0:
                return rng.randbytes(rng.randrange(200))
            case 1:
                return MAGIC + rng.randbytes(100)
            case 2:
                return MAGIC + base64.b64encode(rng.randbytes(rng.randrange(300)))
            case 3:
                return good[: rng.randrange(len(good))]
            case _:  # under the cluster's key, of a session that nobody knows
                return MAGIC + base64.b64encode(bytes(24) + inner[number % len(inner)])

    inner = [
        nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            mallory.sign(b"") + signed_text(rng.randbytes(16), n, b"", encode(Bye())), PREFIX, bytes(24), CLUSTER.key
        )
        for n in range(500)
    ]
    ears = reader()
    tracemalloc.start()
    try:
        accepted = sum(ears.read(malformed(number), NOW) is not None for number in range(100_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert accepted == 0
    assert sum(ears.refused.values()) == 100_000
    assert peak < 20 << 20


def test_sessions_that_come_and_go_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_SESSIONS", 5)
    ears = reader()
    for number in range(20):
        assert ears.read(writer(f"member {number}").write(HELLO, introduce=True), NOW) is not None
    assert len(ears._sessions) == 5
    assert ears.read(writer("member 19").write(HELLO), NOW) is None, "the latest is still known, so this is a replay"
    assert "a line that was heard before" in ears.refused


def test_a_member_with_many_sessions_pushes_out_their_own_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_SESSIONS", 8)
    ears = reader()
    old = [writer(f"friend {number}").write(HELLO, introduce=True) for number in range(3)]
    assert all(ears.read(line, NOW) for line in old)
    for number in range(50):
        mallory = session(f"mallory {number}", member="mallory")
        line = LineWriter(mallory, CLUSTER, stream(f"nonces {number}")).write(HELLO, introduce=True)
        assert ears.read(line, NOW) is not None
        assert ears.read(line, NOW) is None
    assert len(ears._sessions) == 8
    assert [ears.read(line, NOW) for line in old] == [None] * 3, "old lines of the others don't count again"
    assert ears._by_member[session("mallory 0", member="mallory").certificate.signer] == 5
    assert ears._by_member.total() == len(ears._sessions)


def test_refusals_are_counted_under_a_bounded_number_of_reasons() -> None:
    ears = LineReader(replace(CLUSTER), lambda _: True)
    for number in range(2000):
        ears.read(b"p1 %d" % number, NOW)
    assert len(ears.refused) <= 100


MESSAGES: list[Message] = [HELLO, Hello("", 0), Request("3.11"), Accept(bytes(16), b"box"), Bye()]


@pytest.mark.parametrize("message", MESSAGES)
def test_every_verb_travels_with_and_without_a_certificate(message: Message) -> None:
    alice, ears = writer("alice", "client"), reader()
    expected = Heard(certificate("alice", "client"), message)
    assert [ears.read(alice.write(message, introduce=first), NOW) for first in (True, False)] == [expected, expected]


def test_lines_of_one_message_have_nothing_in_common() -> None:
    bob = writer("bob")
    first, second = (base64.b64decode(bob.write(HELLO)[3:]) for _ in range(2))
    assert first[:24] != second[:24]
    assert opened(writer("bob").write(HELLO)) != opened(bob.write(HELLO))


def test_a_certificate_in_a_line_is_the_one_that_was_parsed() -> None:
    heard = reader().read(writer("bob").write(HELLO, introduce=True), NOW)
    assert heard is not None
    assert Certificate.parse(heard.certificate.wire, NOW) == heard.certificate
