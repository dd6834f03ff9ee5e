"""Invitations over a real wormhole: two people who mean well, and those who don't."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import logging
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from link_support import PATIENCE, SHORT, eventually, in_vain, servers

from p2p_ipython.errors import (
    ConfigError,
    LinkError,
    LinkLost,
    LinkTimeout,
    LocalProtocolError,
    MailboxUnreachable,
    P2PError,
    WrongPeer,
)
from p2p_ipython.link import mailbox_client, rendezvous
from p2p_ipython.link.base import Meeting, Secret
from p2p_ipython.link.mailbox_client import Visit
from p2p_ipython.members import invitation as module
from p2p_ipython.members import invitation_messages as messages
from p2p_ipython.members.invitation import APPID, accept, invite, read_code
from p2p_ipython.members.invitation_messages import Guest, Welcome
from p2p_ipython.members.invitation_messages import Inviter as Host
from p2p_ipython.protocol.identity import ClusterSecret, fingerprint, sign, vouch
from p2p_ipython.protocol.roster import MAX_ROSTER, Member, Roster, commitment

Admit = Callable[[Guest], Awaitable[Welcome | None]]


@cache
def key_of(name: str) -> paramiko.PKey:
    """The SSH key of a person, the same all through the run."""
    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return paramiko.Ed25519Key(file_obj=io.StringIO(private.decode()))


def print_of(name: str) -> str:
    return fingerprint(key_of(name).asbytes())


TITLE = "alice/friends"
TOPIC = "p2p-" + "0123456789abcdef" * 2
KEY = bytes(range(100, 132))


def cluster_of(owner: str = "alice") -> str:
    return f"{print_of(owner)}/friends"


def welcome_for(guest: str, **changes: Any) -> Welcome:
    """What alice says to a guest with that fingerprint."""
    cluster = cluster_of()
    roster = Roster(
        cluster=cluster,
        title=TITLE,
        epoch=2,
        until=2_000_000_000,
        secret=commitment(ClusterSecret(cluster, TOPIC, KEY)),
        members=(Member("alice", (print_of("alice"),)), Member("bob", (guest,))),
    ).signed(key_of("alice"))
    welcome = Welcome(
        title=TITLE,
        cluster=cluster,
        board="alice@board.example:2222",
        host_key=f"ssh-ed25519 {key_of('board').get_base64()}",
        mailbox="ws://board.example:4000/v1",
        relay="tcp:board.example:4001",
        topic=TOPIC,
        key=KEY,
        roster=roster.wire,
        vouch=b"",
    )
    return replace(welcome, **changes)


async def yes(guest: Guest) -> Welcome | None:
    return welcome_for(guest.fingerprint)


async def no(guest: Guest) -> Welcome | None:
    return None


@asynccontextmanager
async def inviting(
    mailbox: str, admit: Admit = yes, **changes: Any
) -> AsyncIterator[tuple[Secret, asyncio.Task[Guest | None]]]:
    """Alice invites: gives the code and the invitation, which the end of the block cancels if it is not over."""
    code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    arguments: dict[str, Any] = {
        "mailbox": mailbox,
        "signer": key_of("alice"),
        "title": TITLE,
        "cluster": cluster_of(),
        "show_code": code.set_result,
        "admit": admit,
        "deadline": PATIENCE,
    }
    task = asyncio.create_task(invite(**{**arguments, **changes}))
    try:
        await asyncio.wait({code, task}, return_when=asyncio.FIRST_COMPLETED)
        if not code.done():
            task.result()
        yield Secret(code.result()), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def come(code: Secret, mailbox: str, who: str = "bob", **changes: Any) -> Welcome:
    arguments: dict[str, Any] = {"mailbox": mailbox, "signer": key_of(who), "name": who, "deadline": PATIENCE}
    return await accept(code, **{**arguments, **changes})


async def outcome(work: Awaitable[Any]) -> Any:
    """What it returns, or raises."""
    (result,) = await asyncio.gather(work, return_exceptions=True)
    return result


# People who mean well


async def test_a_guest_comes_in_by_a_spoken_code() -> None:
    told: list[Host] = []
    asked: list[Guest] = []

    async def look_and_say_yes(guest: Guest) -> Welcome:
        asked.append(guest)
        assert told == [Host(TITLE, cluster_of(), print_of("alice"))], "the guest knows whom he waits for"
        return welcome_for(guest.fingerprint)

    async with servers() as here, inviting(here.mailbox, look_and_say_yes) as (code, invitation):
        assert re.fullmatch(r"\d{1,3}(-[a-z]+){3}", code.reveal())
        welcome = await come(code, here.mailbox, told=told.append)
        guest = await invitation
    assert welcome == welcome_for(print_of("bob"))
    assert guest == asked[0]
    assert (guest.name, guest.fingerprint) == ("bob", print_of("bob"))
    assert guest.public_line == f"ssh-ed25519 {key_of('bob').get_base64()}"
    assert guest.about.startswith("Python 3.")


async def test_a_code_may_be_typed_with_blanks_and_capitals() -> None:
    async with servers() as here, inviting(here.mailbox) as (code, invitation):
        typed = Secret(f"  {code.reveal().upper().replace('-', '  ')} ")
        assert await come(typed, here.mailbox) == welcome_for(print_of("bob"))
        assert await invitation is not None


async def test_a_guest_who_is_refused_hears_it_and_gets_nothing() -> None:
    async with servers() as here, inviting(here.mailbox, no) as (code, invitation):
        with pytest.raises(LinkError, match="said no"):
            await come(code, here.mailbox)
        assert await invitation is None


def word_for(guest: str, *, by: str = "alice", cluster: str = "", now: float = 0.0) -> bytes:
    """Somebody's word that the key ``guest`` is on a machine of their own."""
    return vouch(key_of(by), cluster=cluster or cluster_of(), key=guest, now=now or time.time())


@pytest.mark.parametrize("of_friends", [True, False])
async def test_a_machine_of_the_owners_own_gets_his_word_and_need_not_be_in_a_roster(of_friends: bool) -> None:
    given: list[Welcome] = []

    async def own(guest: Guest) -> Welcome:
        welcome = welcome_for(print_of("carol"), vouch=word_for(guest.fingerprint))
        given.append(welcome if of_friends else replace(welcome, roster=b""))
        return given[0]

    async with servers() as here, inviting(here.mailbox, own, own=True) as (code, invitation):
        assert await come(code, here.mailbox, own=True) == given[0]
        assert await invitation is not None


@pytest.mark.parametrize("word", ["none", "his own", "for another key", "in another cluster", "expired"])
async def test_a_machine_of_the_owners_own_takes_no_word_that_others_would_not(word: str) -> None:
    async def own(guest: Guest) -> Welcome:
        mine = guest.fingerprint
        words = {
            "none": lambda: b"",
            "his own": lambda: word_for(mine, by="bob"),
            "for another key": lambda: word_for(print_of("carol")),
            "in another cluster": lambda: word_for(mine, cluster=f"{print_of('alice')}/others"),
            "expired": lambda: word_for(mine, now=1.0),
        }
        return welcome_for(mine, roster=b"", vouch=words[word]())

    async with servers() as here, inviting(here.mailbox, own, own=True) as (code, invitation):
        with pytest.raises(WrongPeer, match="makes no sense"):
            await come(code, here.mailbox, own=True)
        with pytest.raises(LinkLost):
            await invitation


@pytest.mark.parametrize("own", [True, False])
async def test_who_is_no_machine_of_the_owners_is_not_taken_for_one(own: bool) -> None:
    async with servers() as here, inviting(here.mailbox, own=own) as (code, invitation):
        with pytest.raises(WrongPeer, match="machine of the owner's own"):
            await come(code, here.mailbox, own=not own)
        with pytest.raises(LinkLost, match="guest has left"):
            await invitation


async def test_a_roster_as_large_as_one_may_be_fits_in() -> None:
    members = [Member(f"some-member-{number:04}", (f"SHA256:{number:043}",)) for number in range(998)]

    async def many(guest: Guest) -> Welcome:
        small = welcome_for(guest.fingerprint)
        roster = Roster.parse(small.roster, small.cluster)
        large = replace(roster, members=(*roster.members, *members)).signed(key_of("alice"))
        assert MAX_ROSTER * 0.9 < len(large.wire) <= MAX_ROSTER
        return replace(small, roster=large.wire)

    async with servers() as here, inviting(here.mailbox, many) as (code, invitation):
        welcome = await come(code, here.mailbox)
        assert len(Roster.parse(welcome.roster, welcome.cluster).members) == 1000
        assert await invitation is not None


# Codes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "guitarist-snowcap-hamburger",
        "7-guitarist-snowcap",
        "7-guitarist-snowcap-hamburger-snowcap",
        "x-guitarist-snowcap-hamburger",
        "٧-guitarist-snowcap-hamburger",
        "7777777777-guitarist-snowcap-hamburger",
    ],
)
async def test_what_has_not_the_shape_of_a_code_is_refused_before_anything_is_sent(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 7-guitarist-snowcap-hamburger"):
        await come(Secret(text), "ws://127.0.0.1:9/v1")


async def test_a_mistyped_word_is_named_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="'guitarrist'") as caught:
        await come(Secret("7-guitarrist-snowcap-hamburger"), "ws://127.0.0.1:9/v1")
    assert "'guitarist'" in caught.value.hint
    assert "hamburger" not in str(caught.value), "the rest of the code is not shown"


def test_swapped_words_are_noticed_for_the_two_lists_alternate() -> None:
    with pytest.raises(ConfigError, match="'snowcap' is not a word"):
        read_code("7-snowcap-guitarist-hamburger")
    assert read_code(" 7 Guitarist snowcap-hamburger\n") == "7-guitarist-snowcap-hamburger"


async def test_what_can_not_be_a_name_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match="can't be a name"):
        await come(Secret("7-guitarist-snowcap-hamburger"), "ws://127.0.0.1:9/v1", name="bob the great")


def other_word(code: Secret) -> Secret:
    """The same code with another, valid word."""
    nameplate, *words = code.reveal().split("-")
    words[2] = "hamburger" if words[2] != "hamburger" else "guitarist"
    return Secret("-".join([nameplate, *words]))


async def test_a_code_guessed_wrongly_is_burnt_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    async with servers() as here, inviting(here.mailbox) as (code, invitation):
        guess = await outcome(come(other_word(code), here.mailbox, "mallory"))
        host = await outcome(invitation)
        for error in (guess, host):
            assert type(error) is WrongPeer
            assert "somebody used a wrong code" in error.message
            assert "The host makes a new one: p2p invite" in error.hint
        monkeypatch.setattr(module, "ARRIVAL", 1.0)
        assert isinstance(await outcome(come(code, here.mailbox)), LinkTimeout), "the right code is worth nothing now"


async def test_a_code_tried_twice_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async with servers() as here, inviting(here.mailbox) as (code, invitation):
        await come(code, here.mailbox)
        await invitation
        monkeypatch.setattr(module, "ARRIVAL", 1.0)
        with pytest.raises(LinkTimeout, match="nobody waits"):
            await come(code, here.mailbox, "mallory")


async def test_a_leaked_code_is_of_no_use_while_the_guest_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two have met, and the nameplate means nothing any more."""
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked: list[Guest] = []

    async def slowly(guest: Guest) -> Welcome:
        asked.append(guest)
        await answer
        return welcome_for(guest.fingerprint)

    async with servers() as here, inviting(here.mailbox, slowly) as (code, invitation):
        guest = asyncio.create_task(come(code, here.mailbox))
        await eventually(lambda: asked)
        monkeypatch.setattr(module, "ARRIVAL", 1.0)
        with pytest.raises(LinkTimeout, match="nobody waits"):
            await come(code, here.mailbox, "mallory")
        answer.set_result(None)
        assert await guest == welcome_for(print_of("bob"))
        assert await invitation == asked[0]
        assert [person.fingerprint for person in asked] == [print_of("bob")]


async def test_a_crowded_nameplate_lets_nobody_in() -> None:
    """Two are at it already: the third hears that the code has been used."""
    from p2p_ipython import loop as loops

    loops.adopt()
    from twisted.internet import reactor
    from wormhole_mailbox_server.database import create_channel_db
    from wormhole_mailbox_server.server import make_server
    from wormhole_mailbox_server.web import make_web_server

    database = create_channel_db(":memory:")
    server = make_server(database)
    for side in ("one", "another"):
        server.get_app(APPID).claim_nameplate("7", side, 0)
    port = reactor.listenTCP(0, make_web_server(server, log_requests=False), interface="127.0.0.1")
    try:
        with pytest.raises(WrongPeer, match="somebody else has used this code"):
            await come(Secret("7-guitarist-snowcap-hamburger"), f"ws://127.0.0.1:{port.getHost().port}/v1")
    finally:
        await port.stopListening().asFuture(asyncio.get_running_loop())
        database.close()


async def test_who_is_first_with_a_leaked_code_is_seen_and_gets_nothing_before_the_yes() -> None:
    async def look(guest: Guest) -> Welcome | None:
        assert guest.name == "bob"  # as he says
        return welcome_for(guest.fingerprint) if guest.fingerprint == print_of("bob") else None

    async with servers() as here, inviting(here.mailbox, look) as (code, invitation):
        with pytest.raises(LinkError, match="said no"):
            await come(code, here.mailbox, "mallory", name="bob")
        assert await invitation is None


# Somebody who has the code, too, and does not keep to the protocol


@asynccontextmanager
async def visiting(mailbox: str, code: Secret | None = None) -> AsyncIterator[Visit]:
    visit = Visit(APPID, mailbox, offer={}, most=8 << 20)
    try:
        async with asyncio.timeout(PATIENCE):
            if code is not None:
                visit.use_code(code)
            yield visit
    finally:
        visit.close()
        await asyncio.shield(visit.closed)


def say(visit: Visit, fields: Any) -> None:
    visit.send(json.dumps(fields).encode())


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def proof(who: str, role: str, verifier: bytes, cluster: str, namespace: str = messages.NAMESPACE) -> str:
    return b64(sign(key_of(who), messages.signed_text(role, verifier, cluster), namespace))


def as_host(verifier: bytes, who: str = "alice", **changes: Any) -> dict[str, Any]:
    fields = {
        "t": "host",
        "title": TITLE,
        "cluster": cluster_of(),
        "own": False,
        "key": b64(key_of(who).asbytes()),
        "proof": proof(who, "host", verifier, cluster_of()),
    }
    return {**fields, **changes}


def as_guest(verifier: bytes, who: str = "bob", **changes: Any) -> dict[str, Any]:
    fields = {
        "t": "guest",
        "name": who,
        "key": b64(key_of(who).asbytes()),
        "proof": proof(who, "guest", verifier, cluster_of()),
    }
    return {**fields, **changes}


async def fooled_host(make: Callable[[bytes], Any]) -> Any:
    """The end of a host whose guest answers with what ``make`` makes of the verifier; its human is never asked."""

    async def never(guest: Guest) -> Welcome:
        raise AssertionError("the human was asked")

    async with (
        servers() as here,
        inviting(here.mailbox, never) as (code, invitation),
        visiting(here.mailbox, code) as visit,
    ):
        verifier, _ = await visit.meet()
        await visit.receive()
        say(visit, make(verifier))
        return await outcome(invitation)


async def fooled_guest(
    hello: Callable[[bytes], Any], then: Any = None, *, own: bool = False, told: Callable[[Host], None] = lambda _: None
) -> Any:
    """What becomes of a guest whose host says that. The guest has said nothing about itself if ``then`` is None."""
    async with servers() as here, visiting(here.mailbox) as visit:
        code = await visit.new_code(3)
        guest = asyncio.create_task(come(code, here.mailbox, own=own, told=told))
        try:
            verifier, _ = await visit.meet()
            say(visit, hello(verifier))
            answer = json.loads(await visit.receive())
            if then is None:
                assert answer == {"t": "bye"}
            else:
                assert answer["t"] == "guest"
                say(visit, then)
                assert json.loads(await visit.receive()) == {"t": "bye"}
            return await outcome(guest)
        finally:
            guest.cancel()
            await asyncio.gather(guest, return_exceptions=True)


async def test_a_host_who_claims_the_cluster_of_another_key_is_refused() -> None:
    told: list[Host] = []
    error = await fooled_guest(lambda verifier: as_host(verifier, "mallory"), told=told.append)
    assert isinstance(error, WrongPeer)
    assert "does not have its owner's key" in error.message
    assert told == []


async def test_a_host_who_shows_the_owners_key_without_having_it_is_refused() -> None:
    error = await fooled_guest(lambda verifier: as_host(verifier, "mallory", key=b64(key_of("alice").asbytes())))
    assert isinstance(error, WrongPeer)
    assert "could not prove" in error.message


async def test_a_swapped_verifier_is_refused_by_the_guest() -> None:
    """In between, with the code: one wormhole to each of them, and what the host says handed on."""
    async with (
        servers() as here,
        inviting(here.mailbox) as (code, invitation),
        visiting(here.mailbox, code) as left,
        visiting(here.mailbox) as right,
    ):
        other = await right.new_code(3)
        guest = asyncio.create_task(come(other, here.mailbox))
        await left.meet()
        await right.meet()
        right.send(await left.receive())
        error = await outcome(guest)
        assert isinstance(error, WrongPeer)
        assert "could not prove" in error.message
        say(left, {"t": "bye"})
        assert isinstance(await outcome(invitation), LinkLost)


async def test_a_swapped_verifier_is_refused_by_the_host() -> None:
    error = await fooled_host(lambda verifier: as_guest(b"of another wormhole"))
    assert isinstance(error, WrongPeer)
    assert "could not prove" in error.message


@pytest.mark.parametrize(
    "changed",
    [
        lambda verifier: {"key": b64(key_of("mallory").asbytes())},
        lambda verifier: {"proof": proof("mallory", "guest", verifier, cluster_of())},
        lambda verifier: {"proof": proof("bob", "host", verifier, cluster_of())},
        lambda verifier: {"proof": proof("bob", "guest", verifier, cluster_of("mallory"))},
        lambda verifier: {"proof": proof("bob", "guest", verifier, cluster_of(), "p2p-ipython-session@v1")},
        lambda verifier: {"proof": b64(b"SSHSIG")},
        lambda verifier: {"proof": ""},
    ],
    ids=["another key", "by another key", "as host", "for another cluster", "for another purpose", "cut", "none"],
)
async def test_a_guests_signature_that_is_not_his_is_refused(changed: Callable[[bytes], dict[str, Any]]) -> None:
    error = await fooled_host(lambda verifier: {**as_guest(verifier), **changed(verifier)})
    assert isinstance(error, WrongPeer)
    assert "could not prove" in error.message


@pytest.mark.parametrize(
    "changes",
    [
        {"t": "kept"},
        {"t": 7},
        {"name": "bob\nalice"},
        {"name": "b\u202eob"},
        {"name": "x" * 51},
        {"name": 7},
        {"about": ["x"]},
        {"key": 7},
        {"key": "é"},
        {"key": "A" * 10_000},
        {"proof": "A" * 20_000},
        {"more": "x" * messages.MAX_MESSAGE},
    ],
    ids=lambda changes: "-".join(changes),
)
async def test_a_guest_who_talks_nonsense_is_refused(changes: dict[str, Any]) -> None:
    error = await fooled_host(lambda verifier: as_guest(verifier, **changes))
    assert isinstance(error, WrongPeer)
    assert "makes no sense" in error.message


@pytest.mark.parametrize("message", [[], None, 7, "x"], ids=repr)
async def test_a_message_that_is_no_object_is_refused(message: Any) -> None:
    assert isinstance(await fooled_host(lambda verifier: message), WrongPeer)


async def test_a_message_that_is_nested_too_deeply_is_refused() -> None:
    async with (
        servers() as here,
        inviting(here.mailbox) as (code, invitation),
        visiting(here.mailbox, code) as visit,
    ):
        await visit.meet()
        visit.send(b"[" * 100_000)
        assert isinstance(await outcome(invitation), WrongPeer)


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "friends"},
        {"title": "alice/others"},
        {"title": 7},
        {"cluster": "friends"},
        {"cluster": "SHA256:short/friends"},
        {"cluster": None},
        {"t": "welcome"},
        {"key": 7},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
async def test_a_host_who_talks_nonsense_is_refused(changes: dict[str, Any]) -> None:
    error = await fooled_guest(lambda verifier: as_host(verifier, **changes))
    assert isinstance(error, WrongPeer)
    assert "makes no sense" in error.message


def fields_for(**changes: Any) -> dict[str, Any]:
    return {**messages.welcome_fields(welcome_for(print_of("bob"))), **changes}


@cache
def another_roster(change: str) -> str:
    roster = Roster.parse(welcome_for(print_of("bob")).roster, cluster_of())
    match change:
        case "without the guest":
            roster = replace(roster, members=roster.members[:1])
        case "of another topic":
            roster = replace(roster, secret=commitment(ClusterSecret(cluster_of(), "p2p-" + "f" * 32, KEY)))
        case "of another title":
            roster = replace(roster, title="bob/friends")
        case "signed by another":
            mine = replace(roster, cluster=cluster_of("mallory"), members=(Member("m", (print_of("mallory"),)),))
            return b64(mine.signed(key_of("mallory")).wire)
    return b64(roster.signed(key_of("alice")).wire)


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "alice/Friends"},
        {"cluster": "SHA256:x/friends"},
        {"board": ""},
        {"board": "-oProxyCommand=sh"},
        {"board": "board\x1b[2J"},
        {"board": None},
        {"host_key": "ssh-ed25519 nonsense"},
        {"mailbox": "http://board/"},
        {"mailbox": "ws://board:99999/v1"},
        {"mailbox": "ws://" + "x" * 1000},
        {"relay": "udp:board:1"},
        {"topic": "p2p-"},
        {"topic": TOPIC + " -r; sh"},
        {"key": b64(KEY[:31])},
        {"key": b64(KEY + b"x")},
        {"key": "?" * 44},
        {"vouch": b64(bytes(messages.MAX_VOUCH + 1))},
        {"vouch": 7},
        {"roster": ""},
        {"roster": b64(b"garbage")},
        {"roster": "without the guest"},
        {"roster": "of another topic"},
        {"roster": "of another title"},
        {"roster": "signed by another"},
    ],
    ids=lambda changes: "-".join(f"{name} {str(value)[:20]!r}" for name, value in changes.items()),
)
async def test_a_welcome_that_does_not_hold_is_refused(changes: dict[str, Any]) -> None:
    if str(changes.get("roster")).startswith(("without", "of", "signed")):
        changes = {"roster": another_roster(changes["roster"])}
    error = await fooled_guest(as_host, fields_for(**changes))
    assert isinstance(error, WrongPeer)
    assert "makes no sense" in error.message


async def test_an_oversize_roster_is_refused() -> None:
    error = await fooled_guest(as_host, fields_for(roster=b64(bytes(MAX_ROSTER + 1))))
    assert isinstance(error, WrongPeer)
    error = await fooled_guest(as_host, fields_for(roster=b64(bytes(2 * MAX_ROSTER))))
    assert isinstance(error, WrongPeer)


async def test_a_guest_who_talks_while_the_human_is_asked_is_refused() -> None:
    cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def thinking(guest: Guest) -> Welcome | None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set_result(None)
        return None

    async with (
        servers() as here,
        inviting(here.mailbox, thinking) as (code, invitation),
        visiting(here.mailbox, code) as visit,
    ):
        verifier, _ = await visit.meet()
        say(visit, as_guest(verifier))
        say(visit, as_guest(verifier, "mallory"))
        assert isinstance(await outcome(invitation), WrongPeer)
        assert cancelled.done()


# Those who leave, and those who never come


async def test_the_human_is_asked_no_longer_when_the_guest_leaves() -> None:
    asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def thinking(guest: Guest) -> Welcome | None:
        asked.set_result(None)
        await asyncio.Event().wait()
        return None

    async with servers() as here, inviting(here.mailbox, thinking) as (code, invitation):
        guest = asyncio.create_task(come(code, here.mailbox))
        await asked
        guest.cancel()
        assert isinstance(await outcome(guest), asyncio.CancelledError)
        with pytest.raises(LinkLost, match="guest has left"):
            await invitation


async def test_a_guest_hears_that_the_host_has_left() -> None:
    asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def thinking(guest: Guest) -> Welcome | None:
        asked.set_result(None)
        await asyncio.Event().wait()
        return None

    async with servers() as here, inviting(here.mailbox, thinking) as (code, invitation):
        guest = asyncio.create_task(come(code, here.mailbox))
        await asked
        invitation.cancel()
        with pytest.raises(LinkLost, match="host has left"):
            await guest


async def test_what_goes_wrong_while_admitting_is_the_hosts_to_know() -> None:
    async def broken(guest: Guest) -> Welcome | None:
        raise ConfigError("the roster can't be written")

    async with servers() as here, inviting(here.mailbox, broken) as (code, invitation):
        with pytest.raises(LinkLost, match="host has left"):
            await come(code, here.mailbox)
        with pytest.raises(ConfigError, match="roster"):
            await invitation


async def test_a_welcome_to_another_cluster_is_not_sent() -> None:
    async def confused(guest: Guest) -> Welcome | None:
        return welcome_for(guest.fingerprint, title="alice/others")

    async with servers() as here, inviting(here.mailbox, confused) as (code, invitation):
        with pytest.raises(LinkLost):
            await come(code, here.mailbox)
        with pytest.raises(LocalProtocolError):
            await invitation


async def test_an_invitation_that_nobody_takes_ends() -> None:
    async with servers() as here:

        async def attempt(deadline: float) -> None:
            async with inviting(here.mailbox, deadline=deadline) as (_, invitation):
                await invitation

        error = await in_vain(attempt)
    assert isinstance(error, LinkTimeout)
    assert "nobody has come" in error.message


async def test_a_guest_whose_host_never_answers_gives_up() -> None:
    asked: list[Guest] = []

    async def thinking(guest: Guest) -> Welcome | None:
        asked.append(guest)
        await asyncio.Event().wait()
        return None

    async with servers() as here:
        for deadline in SHORT:
            async with inviting(here.mailbox, thinking) as (code, invitation):
                error = await outcome(come(code, here.mailbox, deadline=deadline))
                if asked:
                    assert isinstance(await outcome(invitation), LinkLost)
                    break
    assert isinstance(error, LinkTimeout)
    assert "nobody has answered" in error.message


async def test_a_guest_who_does_not_confirm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        servers() as here,
        inviting(here.mailbox) as (code, invitation),
        visiting(here.mailbox, code) as visit,
    ):
        verifier, _ = await visit.meet()
        await visit.receive()
        monkeypatch.setattr(module, "ANSWER", 0.5)
        say(visit, as_guest(verifier))
        with pytest.raises(LinkTimeout, match="bob has been admitted"):
            await invitation


async def test_a_cancelled_end_leaves_nothing_open_at_the_mailbox() -> None:
    from twisted.internet import reactor

    def websockets() -> list[Any]:
        return [reader for reader in reactor.getReaders() if "WebSocket" in repr(getattr(reader, "protocol", ""))]

    async with servers() as here:
        before = set(reactor.getReaders())  # some of which may be ends of what was closed, and go
        async with inviting(here.mailbox) as (_, invitation):
            guest = asyncio.create_task(come(Secret("999999-guitarist-snowcap-hamburger"), here.mailbox))
            await eventually(lambda: len(set(reactor.getReaders()) - before) >= 4)  # two ends each
            invitation.cancel()
            guest.cancel()
            assert isinstance(await outcome(guest), asyncio.CancelledError)
            assert isinstance(await outcome(invitation), asyncio.CancelledError)
        await eventually(lambda: set(reactor.getReaders()) <= before)
        assert websockets() == []


async def test_a_mailbox_that_is_not_there_is_named() -> None:
    with pytest.raises(MailboxUnreachable, match=r"127\.0\.0\.1:9/"):
        await come(Secret("7-guitarist-snowcap-hamburger"), "ws://127.0.0.1:9/v1")
    with pytest.raises(MailboxUnreachable, match=r"127\.0\.0\.1:9/"):
        async with inviting("ws://127.0.0.1:9/v1"):
            pass


async def test_a_mailbox_that_is_none_can_not_write_on_the_terminal() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 \x1b]0;owned\x07\x1b[2KNot Found\r\nConnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        with pytest.raises(MailboxUnreachable, match="Not Found") as caught:
            await come(Secret("7-guitarist-snowcap-hamburger"), url)
    assert caught.value.message.isprintable()


async def test_what_is_no_url_is_named() -> None:
    with pytest.raises(MailboxUnreachable, match="nonsense"):
        await come(Secret("7-guitarist-snowcap-hamburger"), "nonsense")


# A mailbox that means harm


@asynccontextmanager
async def hostile_mailbox(flood: Callable[[Any], None], *, shakes_hands: bool = True) -> AsyncIterator[tuple[str, Any]]:
    """A server that answers the first bytes by ``flood(transport)``, after a websocket's handshake or instead of it.

    Yields its URL and a list with the number of its connections.
    """
    from p2p_ipython import loop as loops

    loops.adopt()
    from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory, Protocol

    connections: list[Any] = []
    open_ones: set[Any] = set()

    class Listed(Protocol):  # type: ignore[misc]
        def connectionMade(self) -> None:
            connections.append(self)
            open_ones.add(self)
            super().connectionMade()

        def connectionLost(self, reason: Any) -> None:
            open_ones.discard(self)
            super().connectionLost(reason)

    class Raw(Listed):
        def connectionMade(self) -> None:
            super().connectionMade()
            flood(self.transport)

    class Shaking(Listed, WebSocketServerProtocol):  # type: ignore[misc]
        def onOpen(self) -> None:
            flood(self.transport)

    factory = WebSocketServerFactory() if shakes_hands else Factory()
    factory.protocol = Shaking if shakes_hands else Raw
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield f"ws://127.0.0.1:{port.getHost().port}/v1", connections
    finally:
        await port.stopListening().asFuture(asyncio.get_running_loop())
        for connection in open_ones:
            connection.transport.abortConnection()
        await eventually(lambda: not open_ones)


class Flood:
    """Writes without end as fast as it is read, and counts."""

    def __init__(self, head: bytes, chunk: bytes) -> None:
        self.written = 0
        self._head, self._chunk = head, chunk

    def __call__(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._head)
        transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.written += len(self._chunk)
        self._transport.write(self._chunk)

    def stopProducing(self) -> None:
        pass


async def invite_nobody(url: str) -> None:
    async with inviting(url) as (_, invitation):
        await invitation


ENDLESS = b"\x81\x7f" + (1 << 40).to_bytes(8, "big")  # a text frame of one tebibyte
FLOODS = {
    "one endless message": (ENDLESS, b"x" * 65536),
    "endless small messages": (b"", b'\x81\x0e{"type":"ack"}' * 100),
    "endless fragments": (b"\x01\x01x", b"\x00\x01x" * 1000),
    "no handshake": (b"", b"x" * 65536),
}


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("use", ["link", "guest", "host"])
async def test_a_mailbox_that_sends_without_end_is_left(kind: str, use: str) -> None:
    flood = Flood(*FLOODS[kind])
    async with hostile_mailbox(flood, shakes_hands=kind != "no handshake") as (url, connections):
        if use == "link":
            meetings = rendezvous.Rendezvous()
            meeting = Meeting(rendezvous.new_code(), url, None, PATIENCE, lambda _: b"", lambda *_: None)
            error = await outcome(meetings.meet(meeting, "client", {}))
            await meetings.close()
            most = rendezvous._MOST_HEARD
        elif use == "guest":
            error = await outcome(come(Secret("7-guitarist-snowcap-hamburger"), url))
            most = module._MOST_HEARD
        else:
            error = await outcome(invite_nobody(url))
            most = module._MOST_HEARD
        assert isinstance(error, MailboxUnreachable)
        assert "far more" in error.message
        assert len(connections) == 1, "it is not called again"
        assert flood.written < most + (16 << 20), "what the system holds for both ends is on top"


NONSENSE = {
    "not JSON": b"}",
    "no object": b"[]",
    "nested deeply": b"[" * 5000,
    "without a type": b"{}",
    "a welcome of a wrong type": b'{"type":"welcome","welcome":7}',
    "a nameplate of a wrong type": b'{"type":"allocated","nameplate":7}',
    "a message of a wrong type": b'{"type":"message","side":"x","phase":"0","body":"zz"}',
}


@pytest.mark.parametrize("kind", NONSENSE)
async def test_a_mailbox_that_talks_nonsense_is_left(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    text = NONSENSE[kind]
    head = b"\x81" + (bytes([len(text)]) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big"))
    async with hostile_mailbox(lambda transport: transport.write(head + text)) as (url, connections):
        error = await outcome(invite_nobody(url))
        assert isinstance(error, MailboxUnreachable)
        assert len(connections) == 1, "it is not called again"
    assert capfd.readouterr().out == ""


# Secrets


async def test_no_secret_is_in_a_repr_a_log_or_a_traceback(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    codes: list[str] = []
    async with servers() as here:
        for admit in (yes, no):
            async with inviting(here.mailbox, admit) as (code, invitation):
                codes.append(code.reveal())
                shown += [repr(code), str(invitation)]
                for result in (await outcome(come(code, here.mailbox)), await outcome(invitation)):
                    shown.append(repr(result))
                    if isinstance(result, P2PError):
                        shown += traceback.format_exception(result)
        async with inviting(here.mailbox) as (code, invitation):
            codes += [code.reveal(), other_word(code).reveal()]
            for result in (await outcome(come(other_word(code), here.mailbox)), await outcome(invitation)):
                shown += [repr(result), *traceback.format_exception(result)]
    gc.collect()
    standard = capfd.readouterr()
    text = "\n".join([*shown, caplog.text, standard.out, standard.err])
    assert "said no" in text
    assert "wrong code" in text
    welcome = welcome_for(print_of("bob"))
    secrets = [KEY.hex(), b64(KEY), repr(KEY)[2:-1], b64(welcome.roster)[:60], repr(welcome.roster)[2:60], *codes]
    for secret in [*secrets, *(code.partition("-")[2] for code in codes)]:
        assert secret not in text


def test_the_public_servers_are_those_of_the_library() -> None:
    from wormhole.cli import public_relay

    assert rendezvous.PUBLIC_MAILBOX == public_relay.MAILBOX_RELAY
    assert rendezvous.PUBLIC_RELAY == public_relay.TRANSIT_RELAY


async def test_what_can_not_be_a_code_is_no_secret_in_an_error() -> None:
    async with servers() as here, visiting(here.mailbox) as visit:
        secret = Secret(" ".join(["no", "code", "at", "all"]))
        with pytest.raises(WrongPeer) as caught:
            visit.use_code(secret)
        assert "no code at all" not in "".join(traceback.format_exception(caught.value))
    assert mailbox_client.Visit is Visit
