"""Machines of one's own with keys of their own: whose word makes them whose."""

from __future__ import annotations

import json
from typing import Any

import pytest
from friends import CLUSTER_ID, certificate, print_of, roster, session
from people import NOW, SSH, Keys, PlainKey, stream

from p2p_ipython.errors import NoKey
from p2p_ipython.protocol.identity import (
    CLOCK_SLACK,
    MAX_CERTIFICATE,
    SESSION_NAMESPACE,
    VOUCH_LIFE,
    VOUCH_NAMESPACE,
    BadIdentity,
    Certificate,
    Session,
    check_vouch,
    fingerprint,
    sign,
    vouch,
)

LAPTOP = print_of("bob's laptop")


def word(by: str = "bob", *, cluster: str = CLUSTER_ID, key: str = LAPTOP, now: float = NOW) -> bytes:
    return vouch(PlainKey(by), cluster=cluster, key=key, now=now)


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def shown(word_: bytes, *, role: str = "worker") -> Certificate:
    """What a reader makes of a certificate by bob's laptop with this word, however wrong."""
    inner = session("bob's laptop", role).certificate.wire
    return Certificate.parse(inner + string(word_), NOW)


def test_a_certificate_by_a_key_that_a_member_has_vouched_for_counts_as_the_members() -> None:
    made = session("bob's laptop", vouch=word())
    assert made.certificate.signer == print_of("bob")
    assert Certificate.parse(made.certificate.wire, NOW) == made.certificate
    assert roster(3, "bob").admits(made.certificate, NOW)


def test_without_the_word_the_key_is_a_strangers() -> None:
    assert not roster(3, "bob").admits(certificate("bob's laptop"), NOW)


def test_a_session_keeps_its_word_when_it_is_renewed() -> None:
    made = session("bob's laptop", vouch=word())
    made.renew(NOW + 3600)
    assert made.certificate.signer == print_of("bob")


def test_a_word_by_somebody_who_is_no_member_makes_no_member() -> None:
    made = shown(word("mallory"))
    assert made.signer == print_of("mallory")
    assert not roster(3, "bob").admits(made, NOW)


def test_a_word_for_another_cluster_is_refused() -> None:
    with pytest.raises(BadIdentity, match="in another cluster"):
        shown(word(cluster=f"{print_of('alice')}/family"))


def test_a_word_for_another_key_is_refused() -> None:
    with pytest.raises(BadIdentity, match="another key"):
        shown(word(key=print_of("mallory")))


def test_a_word_counts_for_a_year_and_not_from_the_future() -> None:
    wire = word()
    assert check_vouch(wire, CLUSTER_ID, LAPTOP, NOW + VOUCH_LIFE) == print_of("bob")
    assert check_vouch(wire, CLUSTER_ID, LAPTOP, NOW - CLOCK_SLACK) == print_of("bob")
    for now in (NOW + VOUCH_LIFE + 1, NOW - CLOCK_SLACK - 1):
        with pytest.raises(BadIdentity, match="expired"):
            check_vouch(wire, CLUSTER_ID, LAPTOP, now)


def test_a_word_signed_for_another_purpose_is_refused() -> None:
    body = json.dumps({"cluster": CLUSTER_ID, "key": LAPTOP, "until": int(NOW + 60)}).encode()
    assert shown(string(body) + string(sign(PlainKey("bob"), body, VOUCH_NAMESPACE))).signer == print_of("bob")
    with pytest.raises(BadIdentity, match="another purpose"):
        shown(string(body) + string(sign(PlainKey("bob"), body, SESSION_NAMESPACE)))


def test_a_word_does_not_vouch_for_a_key_that_vouches_for_another() -> None:
    """Bob's laptop can't pass on what it was lent: its word makes a machine of the laptop's, which is nobody."""
    made = session("third", vouch=word("bob's laptop", key=print_of("third")))
    assert not roster(3, "bob").admits(made.certificate, NOW)


def test_a_machine_that_the_owner_has_vouched_for_is_no_host() -> None:
    assert roster(3).admits(shown(word("alice")), NOW)
    with pytest.raises(BadIdentity, match="host"):
        shown(word("alice"), role="host")


def test_a_word_with_any_one_bit_turned_is_refused() -> None:
    wire = word()
    for place in range(len(wire)):
        garbled = bytearray(wire)
        garbled[place] ^= 1 << (place % 8)
        with pytest.raises(BadIdentity):
            shown(bytes(garbled))


def test_a_fourth_string_is_refused() -> None:
    with pytest.raises(BadIdentity):
        Certificate.parse(session("bob's laptop", vouch=word()).certificate.wire + string(b""), NOW)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        None,
        {},
        {"cluster": CLUSTER_ID, "key": LAPTOP},
        {"cluster": CLUSTER_ID, "key": LAPTOP, "until": "later"},
        {"cluster": CLUSTER_ID, "key": LAPTOP, "until": 1e300},
        {"cluster": CLUSTER_ID, "key": LAPTOP, "until": 10**400},
        {"cluster": CLUSTER_ID, "key": LAPTOP, "until": True},
        {"cluster": CLUSTER_ID, "key": [LAPTOP], "until": int(NOW)},
        {"cluster": None, "key": LAPTOP, "until": int(NOW)},
    ],
)
def test_a_well_signed_word_of_nonsense_is_refused(fields: Any) -> None:
    body = json.dumps(fields).encode()
    with pytest.raises(BadIdentity):
        shown(string(body) + string(sign(PlainKey("bob"), body, VOUCH_NAMESPACE)))


@pytest.mark.parametrize("own", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("member", ["ed25519-other", "ecdsa", "rsa"])
def test_a_word_by_each_kind_of_key_for_each_kind_fits_or_is_reported(own: str, member: str, keys: Keys) -> None:
    ours, members = keys.load(own), keys.load(member)
    wire = vouch(members, cluster=CLUSTER_ID, key=fingerprint(ours.asbytes()), now=NOW)

    def make() -> Session:
        return Session(ours, cluster=CLUSTER_ID, role="worker", now=NOW, random=stream("s"), vouch=wire)

    if (own, member) == ("rsa", "rsa"):
        with pytest.raises(NoKey, match="large") as caught:
            make()
        assert "ed25519" in caught.value.hint
    else:
        made = make()
        assert len(made.certificate.wire) <= MAX_CERTIFICATE
        assert made.certificate.signer == fingerprint(members.asbytes())


def test_who_shows_a_word_that_does_not_hold_is_told_what_to_do(signer_of: SSH) -> None:
    with pytest.raises(NoKey, match="another key") as caught:
        Session(signer_of("ed25519"), cluster=CLUSTER_ID, role="worker", now=NOW, random=stream("s"), vouch=word("bob"))
    assert "invitation" in caught.value.hint
