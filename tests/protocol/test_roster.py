"""Rosters: only the owner's word counts, whoever hands it on."""

from __future__ import annotations

import dataclasses
import json
import random
import tracemalloc
from typing import Any

import pytest
from friends import CLUSTER_ID, OWNER, TITLE, UNTIL, certificate, print_of, roster, secret, session, unsigned
from hypothesis import given
from hypothesis import strategies as st
from people import NOW, PlainKey

from p2p_ipython.errors import ConfigError
from p2p_ipython.protocol.identity import (
    MAX_CERTIFICATE,
    SESSION_NAMESPACE,
    BadIdentity,
    ClusterSecret,
    Signer,
    fingerprint,
    sign,
)
from p2p_ipython.protocol.messages import MAX_PART, MAX_PARTS, RosterPart, decode, encode
from p2p_ipython.protocol.roster import (
    MAX_KEYS,
    MAX_MEMBERS,
    MAX_ROSTER,
    ROSTER_NAMESPACE,
    Member,
    Parts,
    Roster,
    changed,
    check_name,
    commitment,
    is_fingerprint,
    is_title,
    lobby_secret,
    parse_title,
    parts_of,
)
from p2p_ipython.protocol.wire import MAX_LINE, LineWriter


def body_of(known: Roster) -> dict[str, Any]:
    size = int.from_bytes(known.wire[:4], "big")
    fields: dict[str, Any] = json.loads(known.wire[4 : 4 + size])
    return fields


def sealed(body: bytes, *, by: str = OWNER, namespace: str = ROSTER_NAMESPACE, signer: Signer | None = None) -> bytes:
    """A roster's bytes, with whatever body, well signed."""
    sshsig = sign(signer or PlainKey(by), body, namespace)
    return len(body).to_bytes(4, "big") + body + len(sshsig).to_bytes(4, "big") + sshsig


def with_fields(**changes: Any) -> bytes:
    return sealed(json.dumps(body_of(roster(3, "bob")) | changes).encode())


def refuse(wire: bytes, match: str | None = None, cluster: str = CLUSTER_ID) -> None:
    with pytest.raises(BadIdentity, match=match):
        Roster.parse(wire, cluster)


# --- signing ----------------------------------------------------------------------------------------


def test_a_roster_that_the_owner_signed_is_read_as_it_was_written() -> None:
    written = unsigned(3, "bob", "carol")
    read = Roster.parse(written.signed(PlainKey(OWNER)).wire, CLUSTER_ID)
    assert dataclasses.replace(read, wire=b"") == written
    assert read.owner == print_of(OWNER)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_each_kind_of_key_can_own_a_cluster(kind: str, signer_of: Any) -> None:
    signer = signer_of(kind)
    mark = fingerprint(signer.asbytes())
    known = Roster(f"{mark}/friends", TITLE, 1, UNTIL, "", (Member("alice", (mark,)),)).signed(signer)
    assert Roster.parse(known.wire, f"{mark}/friends") == known


def test_somebody_else_cannot_sign_it_and_is_told_whose_key_it_takes() -> None:
    with pytest.raises(ConfigError, match="only the owner's key") as caught:
        unsigned(3, "bob").signed(PlainKey("bob"))
    assert print_of(OWNER) in caught.value.hint


def test_a_roster_signed_by_a_member_is_refused() -> None:
    refuse(sealed(json.dumps(body_of(roster(3, "bob"))).encode(), by="bob"), "owner has not signed")


def test_a_roster_of_another_cluster_of_the_same_owner_is_refused() -> None:
    refuse(roster(3, "bob").wire, "another cluster", f"{print_of(OWNER)}/family")


def test_a_roster_of_another_owner_is_refused() -> None:
    refuse(roster(3, "bob").wire, "owner has not signed", f"{print_of('mallory')}/friends")


def test_a_roster_with_another_clusters_title_is_refused() -> None:
    refuse(with_fields(title="alice/family"), "title")


@pytest.mark.parametrize("title", ["friends", "", "Alice/friends", "alice/", "alice/a b", "alice/fri\u202eends"])
def test_a_roster_with_a_title_that_is_none_is_refused(title: str) -> None:
    refuse(with_fields(title=title))


def test_a_signature_for_another_purpose_is_no_roster() -> None:
    refuse(sealed(json.dumps(body_of(roster(3, "bob"))).encode(), namespace=SESSION_NAMESPACE), "another purpose")


def test_a_roster_with_any_one_bit_turned_is_refused() -> None:
    wire = roster(3, "bob", "carol").wire
    for place in range(len(wire)):
        garbled = bytearray(wire)
        garbled[place] ^= 1 << (place % 8)
        refuse(bytes(garbled))


def test_a_roster_cut_or_lengthened_anywhere_is_refused() -> None:
    wire = roster(3, "bob").wire
    for end in range(len(wire)):
        refuse(wire[:end])
    refuse(wire + b"\0")


@given(st.binary(max_size=300))
def test_bytes_that_are_no_roster_are_refused(wire: bytes) -> None:
    refuse(wire)


# --- what is in it ----------------------------------------------------------------------------------


def member(**changes: Any) -> list[dict[str, Any]]:
    bob = {"name": "bob", "keys": [print_of("bob")], "roles": ["client"]} | changes
    return [*body_of(roster(3))["members"], bob]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b"[" * 10_000,
        *(
            json.dumps({k: v for k, v in body_of(roster(3)).items() if k != gone}).encode()
            for gone in body_of(roster(3))
        ),
    ],
)
def test_a_well_signed_roster_of_nonsense_is_refused(body: bytes) -> None:
    refuse(sealed(body))


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 0},
        {"epoch": -1},
        {"epoch": 1.0},
        {"epoch": True},
        {"epoch": "3"},
        {"epoch": (1 << 53) + 1},
        {"until": -1},
        {"until": 10**400},
        {"until": float("nan")},
        {"secret": 7},
        {"secret": "x" * 201},
        {"cluster": f"{print_of('mallory')}/friends"},
        {"cluster": f"{print_of(OWNER)}/family"},
        {"members": []},
        {"members": {}},
        {"members": "bob"},
        {"members": [1]},
        {"members": body_of(roster(3, "bob"))["members"][1:]},
        {"members": body_of(roster(3, "bob"))["members"][::-1]},
        {"members": member(name="")},
        {"members": member(name="b" * 51)},
        {"members": member(name="b\u202eob")},
        {"members": member(name=["bob"])},
        {"members": member(name="alice")},
        {"members": member(keys=[])},
        {"members": member(keys="SHA256")},
        {"members": member(keys=[7])},
        {"members": member(keys=["bob"])},
        {"members": member(keys=[print_of("bob"), print_of("bob")])},
        {"members": member(keys=[print_of(OWNER)])},
        {"members": member(keys=[print_of(f"key {n}") for n in range(MAX_KEYS + 1)])},
        {"members": member(roles=["host"])},
        {"members": member(roles=["client", "client"])},
        {"members": member(roles="client")},
        {"members": member(roles=[["client"]])},
        {"members": member(roles=None)},
    ],
)
def test_a_well_signed_roster_with_values_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    refuse(with_fields(**changes))


def test_the_largest_roster_is_taken_and_one_member_more_is_not() -> None:
    def crowd(count: int) -> bytes:
        first = body_of(roster(3))["members"]
        fields = [{"name": f"m{n}", "keys": [print_of(f"m{n}")], "roles": []} for n in range(count - 1)]
        return with_fields(members=[*first, *fields])

    largest = crowd(MAX_MEMBERS)
    assert len(largest) < MAX_ROSTER
    assert len(Roster.parse(largest, CLUSTER_ID).members) == MAX_MEMBERS
    refuse(crowd(MAX_MEMBERS + 1), "too many")


def test_a_member_may_have_the_greatest_number_of_keys_and_not_one_more() -> None:
    first = body_of(roster(3))["members"]

    def with_keys(count: int) -> bytes:
        keys = [print_of(f"key{number}") for number in range(count)]
        return with_fields(members=[*first, {"name": "bob", "keys": keys, "roles": []}])

    assert len(Roster.parse(with_keys(MAX_KEYS), CLUSTER_ID).members[-1].keys) == MAX_KEYS
    refuse(with_keys(MAX_KEYS + 1))


def test_a_roster_over_its_bound_is_refused_before_it_is_read() -> None:
    refuse(b"\0" * (MAX_ROSTER + 1), "too large")


def test_an_owner_whose_roster_would_be_too_large_is_told_so() -> None:
    members = [*unsigned(3).members, *(Member(f"m{n}", (print_of(f"m{n}"),)) for n in range(MAX_MEMBERS))]
    with pytest.raises(ConfigError, match="can't have such a list") as caught:
        changed(unsigned(3), members).signed(PlainKey(OWNER))
    assert "smaller" in caught.value.hint


def test_fields_of_later_versions_are_ignored() -> None:
    assert Roster.parse(with_fields(motto="hi"), CLUSTER_ID).members == roster(3, "bob").members


def test_a_roster_shows_neither_the_topic_nor_the_key() -> None:
    known = roster(3, "bob")
    for hidden in (secret().topic, secret().topic[4:], secret().key.hex()):
        assert hidden.encode() not in known.wire
    assert known.secret == commitment(secret())


def test_a_commitment_holds_for_one_topic_and_one_key() -> None:
    given_, others = secret(1), secret(2)
    marks = {
        commitment(ClusterSecret(CLUSTER_ID, topic, key))
        for topic in (given_.topic, others.topic)
        for key in (given_.key, others.key)
    }
    assert len(marks) == 4


# --- who is in --------------------------------------------------------------------------------------


def test_members_are_admitted_in_their_roles_until_the_roster_ends() -> None:
    known = roster(3, "bob", "carol", roles={"bob": ("client",), "carol": ("worker",)})
    for name, role, admitted in [
        ("alice", "client", True),
        ("alice", "worker", True),
        ("alice", "host", True),
        ("bob", "client", True),
        ("bob", "worker", False),
        ("bob", "host", False),
        ("carol", "client", False),
        ("carol", "worker", True),
        ("mallory", "client", False),
        ("mallory", "host", False),
    ]:
        assert known.admits(certificate(name, role), NOW) is admitted, (name, role)
        assert not known.admits(certificate(name, role), UNTIL + 1)


def test_each_key_of_a_member_is_the_members() -> None:
    both = Member("bob", (print_of("bob"), print_of("bob's laptop")))
    known = changed(unsigned(3), [*unsigned(3).members, both]).signed(PlainKey(OWNER))
    assert known.member(print_of("bob's laptop")) == known.member(print_of("bob")) == known.named("bob") == both
    assert known.admits(certificate("bob's laptop"), NOW)


def test_the_next_epoch_keeps_what_is_not_changed() -> None:
    old = roster(3, "bob")
    new = changed(old, old.members[:1])
    assert (new.epoch, new.until, new.secret, new.members) == (4, old.until, old.secret, old.members[:1])
    assert new.wire == b"", "an old signature must not be taken for the new one's"
    assert changed(old, old.members, until=7, secret="s").signed(PlainKey(OWNER)).until == 7


# --- titles, names, lobbies -------------------------------------------------------------------------


@pytest.mark.parametrize("title", ["alice/friends", "a/b", "a1/Friends.of_alice-2"])
def test_a_title_is_owner_and_name(title: str) -> None:
    assert is_title(title)
    assert "/".join(parse_title(title)) == title


@pytest.mark.parametrize(
    "title", ["", "alice", "/friends", "alice/", "Alice/x", "alice/x/y", "alice/.x", "a\n/b", "a/b\n"]
)
def test_what_is_no_title_is_refused_with_an_example(title: str) -> None:
    assert not is_title(title)
    with pytest.raises(ConfigError) as caught:
        parse_title(title)
    assert "alice/friends" in caught.value.hint


def test_names_and_fingerprints_are_checked() -> None:
    assert check_name("bob-2") == "bob-2"
    for name in ("", ".bob", "bob smith", "b" * 51, "bob\n", "b\u00f6b"):
        with pytest.raises(ConfigError):
            check_name(name)
    assert is_fingerprint(print_of("bob"))
    for text in ("", "SHA256:", print_of("bob") + "\n", print_of("bob")[:-1], "MD5:00"):
        assert not is_fingerprint(text)


def test_a_lobby_follows_from_the_title_alone_and_is_no_working_topic() -> None:
    first, again, other = lobby_secret(TITLE), lobby_secret(TITLE), lobby_secret("alice/family")
    assert first == again
    assert (first.topic, first.key) != (other.topic, other.key)
    assert first.cluster == TITLE
    assert first.topic.startswith("p2p-lobby-")
    assert first.key.hex() not in first.topic


# --- on the board -----------------------------------------------------------------------------------


def crowded(count: int = 60) -> Roster:
    return roster(5, *(f"m{number}" for number in range(count)))


def test_a_roster_comes_together_from_its_parts_in_any_order_with_repetitions() -> None:
    known = crowded()
    parts = parts_of(known)
    assert len(parts) > 5
    for seed in range(20):
        rng = random.Random(seed)
        said = parts + rng.sample(parts, 3)
        rng.shuffle(said)
        gathered, complete = Parts(), []
        for part in said:
            wire = gathered.add(b"s", decode(encode(part)))  # type: ignore[arg-type]
            if wire is not None:
                complete.append(wire)
        assert complete[0] == known.wire


def test_parts_of_several_senders_are_not_mixed() -> None:
    old, new = crowded(), roster(6, *(f"n{number}" for number in range(60)))
    gathered, complete = Parts(), []
    for first, second in zip(parts_of(old), parts_of(new), strict=True):
        complete += [gathered.add(b"a", first), gathered.add(b"b", second)]
    assert [wire for wire in complete if wire is not None] == [old.wire, new.wire]


def test_a_sender_who_begins_another_roster_gives_up_the_first() -> None:
    old, new = parts_of(crowded()), parts_of(roster(6, *(f"n{number}" for number in range(60))))
    gathered = Parts()
    assert [gathered.add(b"a", part) for part in (*old[:-1], *new[:-1], old[-1])] == [None] * (2 * len(old) - 1)


def test_strangers_cannot_push_out_what_a_member_is_saying() -> None:
    known = crowded()
    gathered, complete = Parts(), None
    for number, part in enumerate(parts_of(known)):
        complete = gathered.add(b"bob", part)
        for stranger in range(50):
            sender = f"{number}/{stranger}".encode()
            assert gathered.add(sender, RosterPart(6, 0, 100, b"x"), admitted=False) is None
    assert complete == known.wire


def test_parts_take_bounded_memory() -> None:
    gathered = Parts()
    tracemalloc.start()
    try:
        for sender in range(500):
            for part in range(255):
                data = bytes([sender % 256]) * MAX_PART
                gathered.add(sender.to_bytes(16, "big"), RosterPart(9, part, 256, data), admitted=sender % 2 == 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_each_part_fits_a_line_beside_the_largest_certificate() -> None:
    part = parts_of(crowded())[0]
    longest = RosterPart(1 << 53, MAX_PARTS - 2, MAX_PARTS - 1, part.data)
    bob = session("bob")
    line = LineWriter(bob, secret(), lambda size: bytes(size)).write(longest, introduce=True)
    assert len(line) + 4 * (MAX_CERTIFICATE - len(bob.certificate.wire)) / 3 + 4 <= MAX_LINE
    assert MAX_ROSTER / len(part.data) <= MAX_PARTS
