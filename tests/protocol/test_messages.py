"""What members say: everything that can be said comes back as it was, and nothing else gets in."""

from __future__ import annotations

import base64
import json
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.protocol.messages import (
    MAX_BOX,
    Accept,
    BadMessage,
    Bye,
    CardKind,
    Hello,
    Rendezvous,
    Request,
    Terms,
    cards_words,
    decode,
    decode_rendezvous,
    encode,
    encode_rendezvous,
    plain,
)


def texts(limit: int) -> st.SearchStrategy[str]:
    """Text as a decent peer sends it: no control characters, not too long."""
    return st.text(max_size=limit).map(lambda text: plain(text, limit))


def wholes(limit: int = 1 << 53) -> st.SearchStrategy[int]:
    return st.integers(0, limit)


def print_of(digest: bytes) -> str:
    """The fingerprint of a key with this digest."""
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


TERMS = st.builds(
    lambda slots, busy, **rest: Terms(slots=slots, free=slots - min(slots, busy), **rest),
    wholes(4096),
    wholes(4096),
    python=texts(16),
    platform=texts(64),
    cores=wholes(1 << 16),
    memory=wholes(),
    until=wholes(),
    only=st.lists(st.binary(min_size=32, max_size=32).map(lambda digest: print_of(digest)), max_size=8).map(tuple),
    tags=st.lists(st.from_regex(r"[a-z0-9._-]{1,24}", fullmatch=True), max_size=8).map(tuple),
    paused=st.booleans(),
    task_memory=wholes(),
)
CARDS = st.lists(st.builds(CardKind, st.integers(1, 64), texts(40), wholes()), max_size=4)
MESSAGES = st.one_of(
    st.builds(Hello, name=texts(64), time=wholes(), offer=CARDS.map(lambda kinds: Terms(1, 1, "", cards=tuple(kinds)))),
    st.builds(Hello, name=texts(64), time=wholes(), offer=st.none() | TERMS),
    st.builds(Request, python=texts(16)),
    st.builds(Accept, to=st.binary(min_size=16, max_size=16), box=st.binary(min_size=1, max_size=MAX_BOX)),
    st.builds(Bye),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)

HELLO: dict[str, Any] = {"v": "hello", "name": "ada", "time": 1, "offer": {"slots": 2, "free": 1, "python": "3.11"}}
OFFER: dict[str, Any] = {"slots": 2, "free": 1, "python": "3.11", "platform": "", "cores": 4, "memory": 1, "until": 0}


def hello(**changed: Any) -> bytes:
    return json.dumps({"v": "hello", "name": "ada", "time": 1, "offer": OFFER | changed}).encode()


@given(MESSAGES)
def test_what_is_said_is_what_is_heard(message: Any) -> None:
    assert decode(encode(message)) == message


@given(MESSAGES, st.dictionaries(st.text(min_size=10, max_size=12), JSON))
def test_fields_of_later_versions_are_ignored(message: Any, extra: dict[str, Any]) -> None:
    fields = extra | json.loads(encode(message))
    assert decode(json.dumps(fields).encode()) == message


@given(st.binary(max_size=200).filter(lambda text: b'"v"' not in text))
def test_bytes_that_are_no_message_are_refused(text: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(text)


@given(JSON.filter(lambda value: not (isinstance(value, dict) and "v" in value)))
def test_json_that_is_no_message_is_refused(value: Any) -> None:
    with pytest.raises(BadMessage):
        decode(json.dumps(value).encode())


@given(
    st.sampled_from(["hello", "request", "accept", "bye"]), st.dictionaries(st.sampled_from([*HELLO, "python"]), JSON)
)
def test_a_verb_with_any_values_is_a_message_or_refused(verb: str, fields: dict[str, Any]) -> None:
    try:
        decode(json.dumps(fields | {"v": verb}).encode())
    except BadMessage:
        pass


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"[" * 100_000, id="deep arrays"),
        pytest.param(b'{"a":' * 100_000, id="deep objects"),
        pytest.param(b'{"v":"hello","name":"a","time":' + b"9" * 5_000 + b"}", id="a number of 5,000 digits"),
        pytest.param(b'{"v":"hello","name":"a","time":1e999}', id="a number beyond floats"),
        pytest.param(b'{"v":"hello","name":"a","time":NaN}', id="NaN"),
        pytest.param(b'{"v":"hello","name":"a","time":Infinity}', id="Infinity"),
        pytest.param(b'{"v":"hello","name":"a","time":-1}', id="a time before 1970"),
        pytest.param(b'{"v":"hello","name":"a","time":true}', id="a time that is true"),
        pytest.param(b'{"v":"hello","name":"a","time":1.0}', id="a time with a fraction"),
        pytest.param(b'{"v":"hello","name":"' + b"a" * 300 + b'","time":1}', id="a name of 300 letters"),
        pytest.param(b'{"v":"hello","name":["a"],"time":1}', id="a name that is a list"),
        pytest.param(b'{"v":"hello","name":"\xff","time":1}', id="not UTF-8"),
        pytest.param(b'{"v":["hello"]}', id="a verb that is a list"),
        pytest.param(b'{"v":"offer"}', id="an unknown verb"),
        pytest.param(b'{"v":"accept","to":"zz","box":"AA=="}', id="a sid that is not hex"),
        pytest.param(b'{"v":"accept","to":"","box":"AA=="}', id="no sid"),
        pytest.param(b'{"v":"accept","to":"' + b"00" * 17 + b'","box":"AA=="}', id="a sid that is too long"),
        pytest.param(b'{"v":"accept","to":"' + b"00" * 15 + b'","box":"AA=="}', id="a sid that is too short"),
        pytest.param(b'{"v":"accept","to":"' + b"00" * 16 + b'","box":""}', id="an empty box"),
        pytest.param(b'{"v":"accept","to":"' + b"00" * 16 + b'","box":"A A="}', id="a box that is not base64"),
        pytest.param(
            b'{"v":"accept","to":"' + b"00" * 16 + b'","box":"' + b"A" * 4 * (MAX_BOX // 3 + 1) + b'"}', id="a huge box"
        ),
        pytest.param(hello(slots=-1), id="negative slots"),
        pytest.param(hello(slots=5000), id="5,000 slots"),
        pytest.param(hello(slots=1, free=2), id="more free slots than slots"),
        pytest.param(hello(python=3.11), id="a Python that is a number"),
        pytest.param(hello(memory=1 << 60), id="too much memory to be true"),
        pytest.param(b'{"v":"hello","name":"a","time":1,"offer":[]}', id="an offer that is a list"),
        pytest.param(b'{"v":"hello","name":"a","time":1,"offer":{}}', id="an offer of nothing"),
    ],
)
def test_hostile_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(text)


KEY = "A" * 43
CARD: dict[str, Any] = {"n": 1, "name": "NVIDIA A40", "memory": 45 << 30}


@pytest.mark.parametrize(
    "condition",
    [
        pytest.param({"only": "A" * 43}, id="for whom: a text"),
        pytest.param({"only": {"A" * 43: 1}}, id="for whom: an object"),
        pytest.param({"only": None}, id="for whom: null"),
        pytest.param({"only": [KEY] * 9}, id="for more than fit"),
        pytest.param({"only": [KEY] * 100_000}, id="for very many"),
        pytest.param({"only": ["bob"]}, id="for a name"),
        pytest.param({"only": [f"SHA256:{KEY}"]}, id="for a key in its long form"),
        pytest.param({"only": [KEY[:-1] + "\n"]}, id="for a key with a line end"),
        pytest.param({"only": [["A" * 43]]}, id="for a list"),
        pytest.param({"tags": ["GPU"]}, id="a tag in capitals"),
        pytest.param({"tags": ["<img src=x>"]}, id="a tag of markup"),
        pytest.param({"tags": [""]}, id="an empty tag"),
        pytest.param({"tags": ["gpu\n"]}, id="a tag with a line end"),
        pytest.param({"tags": ["g" * 25]}, id="a long tag"),
        pytest.param({"tags": ["g"] * 9}, id="too many tags"),
        pytest.param({"tags": [1]}, id="a tag that is a number"),
        pytest.param({"paused": 1}, id="paused: one"),
        pytest.param({"paused": "no"}, id="paused: a text"),
        pytest.param({"paused": None}, id="paused: null"),
        pytest.param({"cards": CARD}, id="cards: one"),
        pytest.param({"cards": [CARD] * 5}, id="too many kinds of cards"),
        pytest.param({"cards": [CARD | {"n": 65}]}, id="too many cards"),
        pytest.param({"cards": [CARD | {"n": 0}]}, id="no cards of a kind"),
        pytest.param({"cards": [CARD | {"name": "x" * 161}]}, id="a card with a long name"),
        pytest.param({"cards": [CARD | {"name": ["x"]}]}, id="a card whose name is a list"),
        pytest.param({"cards": [CARD | {"memory": 1 << 60}]}, id="a card with too much memory to be true"),
        pytest.param({"cards": [CARD | {"memory": -1}]}, id="a card with less than no memory"),
        pytest.param({"cards": [{"n": 1}]}, id="a card without a name"),
        pytest.param({"cards": ["card"]}, id="a card that is a text"),
        pytest.param({"task_memory": -1}, id="less than no memory for a task"),
        pytest.param({"task_memory": 1 << 60}, id="more memory for a task than there is"),
        pytest.param({"task_memory": "2G"}, id="memory for a task in words"),
    ],
)
def test_an_offer_with_conditions_that_cant_be_is_refused(condition: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        decode(hello(**condition))


def test_an_offer_without_conditions_is_said_as_before_there_were_any() -> None:
    assert set(json.loads(encode(decode(hello())))["offer"]) == set(OFFER)
    assert decode(hello()) == decode(hello(only=[], tags=[], paused=False, cards=[]))


def test_an_offer_names_its_graphics_cards_in_bounded_harmless_text() -> None:
    heard = decode(hello(cards=[CARD | {"n": 2}, CARD | {"name": "\u202e<b>" + "x" * 90 + "\n", "memory": 0}]))
    assert isinstance(heard, Hello)
    assert heard.offer is not None
    assert cards_words(heard.offer.cards) == "2 × NVIDIA A40 with 45 GiB, <b>" + "x" * 37
    assert decode(encode(heard)) == heard


def test_a_name_that_is_no_text_at_all_is_said_without_it() -> None:
    assert decode(encode(Hello("ada\udcff" + "b" * 100, 0))) == Hello("ada" + "b" * 61, 0)


@given(st.text(max_size=200), st.integers(0, 50))
def test_plain_text_has_no_characters_that_control_a_terminal_or_the_reading_direction(text: str, limit: int) -> None:
    shown = plain(text, limit)
    assert len(shown) <= limit
    assert not [c for c in shown if unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp")]


def test_a_name_cannot_look_like_another_by_bidi_or_control_characters() -> None:
    text = json.dumps({"v": "hello", "name": "\u202eada\u202c\x1b[31m\x00\u200b\ud800\u2028", "time": 1}).encode()
    assert decode(text) == Hello(name="ada[31m", time=1)


# --- the rendezvous, sealed in an accept ------------------------------------------------------------


def test_a_rendezvous_comes_back_as_it_was() -> None:
    for relay in ("", "tcp:relay.example:4001"):
        rendezvous = Rendezvous("7-some-code", "ws://mailbox.example:4000/v1", relay)
        assert decode_rendezvous(encode_rendezvous(rendezvous)) == rendezvous
        assert b"own" not in encode_rendezvous(rendezvous)
    assert decode_rendezvous(encode_rendezvous(replace(rendezvous, own=True))).own


def test_a_rendezvous_shows_its_code_nowhere() -> None:
    assert "some-code" not in repr(Rendezvous("7-some-code", "ws://m", ""))


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "", "mailbox": "ws://m", "relay": ""},
        {"code": "7-some-code", "mailbox": "http://m", "relay": ""},
        {"code": "7-some-code", "mailbox": "file:///etc/passwd", "relay": ""},
        {"code": "7-some-code", "mailbox": "ws://m", "relay": "unix:/run/x"},
        {"code": "7-some-code" * 100, "mailbox": "ws://m", "relay": ""},
        {"code": 7, "mailbox": "ws://m", "relay": ""},
        {"code": "7-some-code", "mailbox": "ws://m"},
        ["7-some-code"],
    ],
)
def test_a_rendezvous_that_leads_elsewhere_is_refused_without_a_word_of_it(fields: Any) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_rendezvous(json.dumps(fields).encode())
    assert "some-code" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.binary(max_size=100).filter(lambda text: b'"code"' not in text))
def test_a_rendezvous_of_random_bytes_is_refused(text: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_rendezvous(text)
