"""What is said about who belongs: everything comes back as it was, nothing else gets in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from friends import CLUSTER_ID, secret
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.protocol.messages import (
    MAX_BOX,
    MAX_PART,
    MAX_PARTS,
    Admission,
    Answer,
    Ask,
    BadMessage,
    Grant,
    Hello,
    Reply,
    RosterPart,
    decode,
    decode_admission,
    encode,
    encode_admission,
    plain,
)

EPOCHS = st.integers(0, 1 << 53)
SIDS = st.binary(min_size=16, max_size=16)
NAMES = st.text(max_size=64).map(lambda text: plain(text, 64))
SID = "00" * 16

MESSAGES = st.one_of(
    st.builds(Hello, name=NAMES, time=EPOCHS, epoch=EPOCHS),
    st.integers(1, MAX_PARTS).flatmap(
        lambda parts: st.builds(
            RosterPart,
            epoch=EPOCHS,
            part=st.integers(0, parts - 1),
            parts=st.just(parts),
            data=st.binary(min_size=1, max_size=MAX_PART),
        )
    ),
    st.builds(Ask, name=NAMES, epoch=EPOCHS),
    st.builds(Grant, to=SIDS, epoch=EPOCHS, box=st.binary(min_size=1, max_size=MAX_BOX)),
    st.builds(Answer, to=SIDS, reply=st.sampled_from(Reply)),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(MESSAGES)
def test_what_is_said_is_what_is_heard(message: Any) -> None:
    assert decode(encode(message)) == message


@given(
    st.sampled_from(["hello", "roster", "ask", "grant", "answer"]),
    st.dictionaries(
        st.sampled_from(["name", "time", "epoch", "part", "parts", "data", "to", "box", "reply"]),
        JSON | st.integers(0, 300) | st.just(SID) | st.just("AAAA"),
    ),
)
def test_a_verb_with_any_values_is_a_message_or_refused(verb: str, fields: dict[str, Any]) -> None:
    try:
        decode(json.dumps(fields | {"v": verb}).encode())
    except BadMessage:
        pass


def said(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def part(**changed: Any) -> bytes:
    return json.dumps({"v": "roster", "epoch": 2, "part": 0, "parts": 2, "data": "AAAA"} | changed).encode()


def grant(**changed: Any) -> bytes:
    return json.dumps({"v": "grant", "to": SID, "epoch": 2, "box": "AAAA"} | changed).encode()


def test_the_messages_that_are_spoiled_below_are_good_ones() -> None:
    for text in (part(), grant(), said(v="ask", name="", epoch=0), said(v="answer", to=SID, reply="no")):
        decode(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(said(v="hello", name="a", time=1, epoch=-1), id="an epoch below nothing"),
        pytest.param(said(v="hello", name="a", time=1, epoch=None), id="an epoch that is null"),
        pytest.param(said(v="hello", name="a", time=1, epoch=True), id="an epoch that is true"),
        pytest.param(said(v="hello", name="a", time=1, epoch=1 << 60), id="an epoch that JavaScript can't count to"),
        pytest.param(part(epoch="2"), id="an epoch in letters"),
        pytest.param(part(part=2), id="a part beyond the last"),
        pytest.param(part(part=-1), id="a part before the first"),
        pytest.param(part(parts=0), id="no parts"),
        pytest.param(part(parts=MAX_PARTS + 1), id="too many parts"),
        pytest.param(part(parts=10**30), id="absurdly many parts"),
        pytest.param(part(data=""), id="an empty part"),
        pytest.param(part(data="A A="), id="a part that is not base64"),
        pytest.param(part(data=["AAAA"]), id="a part that is a list"),
        pytest.param(part(data="A" * 4 * (MAX_PART // 3 + 1)), id="a huge part"),
        pytest.param(b'{"v":"roster","epoch":2,"part":0,"parts":1}', id="a part of nothing"),
        pytest.param(said(v="ask", epoch=0), id="nobody asks"),
        pytest.param(said(v="ask", name="a" * 300, epoch=0), id="a name of 300 letters"),
        pytest.param(said(v="ask", name=7, epoch=0), id="a name that is a number"),
        pytest.param(said(v="ask", name="a"), id="an ask without an epoch"),
        pytest.param(grant(to="zz"), id="a sid that is not hex"),
        pytest.param(grant(to=SID + "00"), id="a sid that is too long"),
        pytest.param(grant(to=SID[2:]), id="a sid that is too short"),
        pytest.param(grant(box=""), id="an empty box"),
        pytest.param(grant(box="A" * 4 * (MAX_BOX // 3 + 1)), id="a huge box"),
        pytest.param(grant(epoch=1.5), id="half an epoch"),
        pytest.param(said(v="answer", to=SID, reply="yes"), id="a reply that there isn't"),
        pytest.param(said(v="answer", to=SID, reply=["no"]), id="a reply that is a list"),
        pytest.param(said(v="answer", to=SID, reply={}), id="a reply that is an object"),
        pytest.param(said(v="answer", to=SID), id="no reply"),
        pytest.param(said(v="answer", reply="no"), id="a reply to nobody"),
    ],
)
def test_hostile_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(text)


def test_who_knocks_cannot_look_like_another_by_bidi_or_control_characters() -> None:
    assert decode(said(v="ask", name="\u202ebob\u202c\x1b[31m\x00\u200b", epoch=0)) == Ask("bob[31m")


# --- what is sealed in a grant ----------------------------------------------------------------------

ADMISSION = Admission(CLUSTER_ID, secret().topic, secret().key)
GOOD = {"cluster": CLUSTER_ID, "topic": secret().topic, "key": secret().key.hex()}


def test_an_admission_comes_back_as_it_was() -> None:
    assert decode_admission(encode_admission(ADMISSION)) == ADMISSION
    assert decode_admission(json.dumps(GOOD).encode()) == ADMISSION


def test_an_admission_shows_its_key_nowhere() -> None:
    assert secret().key.hex() not in repr(ADMISSION)
    assert repr(secret().key) not in repr(ADMISSION)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {},
        GOOD | {"topic": "p2p-lobby-" + "0" * 32},
        GOOD | {"topic": "chat"},
        GOOD | {"topic": secret().topic.upper()},
        GOOD | {"topic": secret().topic + " -x"},
        GOOD | {"topic": 7},
        GOOD | {"key": secret().key.hex()[2:]},
        GOOD | {"key": secret().key.hex() + "00"},
        GOOD | {"key": "zz" * 32},
        GOOD | {"key": None},
        GOOD | {"cluster": "c" * 801},
        GOOD | {"cluster": None},
    ],
)
def test_an_admission_elsewhere_is_refused_without_a_word_of_it(fields: Any) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_admission(json.dumps(fields).encode())
    assert secret().key.hex()[2:] not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.binary(max_size=100).filter(lambda text: b'"topic"' not in text))
def test_an_admission_of_random_bytes_is_refused(text: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_admission(text)
