"""An invitation: two people, one spoken code, and afterwards one of them is a member of the other's cluster.

The code (``7-guitarist-snowcap-hamburger``) opens a Magic Wormhole: whoever has it can talk to whoever made it, once.
It says nothing of who that is, so both prove it: each signs the wormhole's *verifier*, which both ends of this one
wormhole know and nobody else, with his SSH key (see PROTOCOL.md, "Invite")::

    host → guest   the cluster's id and title, the owner's key, his signature
    guest → host   his key and name, his signature
                   the host's human looks at name and fingerprint, and says yes or no
    host → guest   where the board is, the topic, its key, the roster; or no
    guest → host   kept

Promises: nothing secret is sent before the human's yes. A code works once, a wrong guess burns it, and both ends
hear of that. Whoever sits in between and has the code, too, can't pass for either. Both ends end within their
deadline (and a few seconds for goodbyes), and a cancelled one leaves nothing open.

Every field is a stranger's. Nothing of a code or a key is in a log, a repr or an error.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import difflib
import json
import logging
import platform
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.errors import ConfigError, LinkError, LinkLost, LinkTimeout, LocalProtocolError, WrongPeer
from p2p_ipython.link.base import Secret
from p2p_ipython.link.hints import parse_relay
from p2p_ipython.link.mailbox_client import Crowded, Visit, WrongCode, unreachable
from p2p_ipython.protocol.identity import BadIdentity, ClusterSecret, Signer, check_vouch, fingerprint, sign, verify
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.roster import (
    MAX_ROSTER,
    Roster,
    check_name,
    commitment,
    is_fingerprint,
    is_title,
    owner_of,
    parse_title,
)

log = logging.getLogger(__name__)

APPID = "p2p-ipython/invite/v1"
NAMESPACE = "p2p-ipython-invite@v1"

WORDS = 3
"""Words of a code, 8 random bits each. With one guess a code, 24 bits are plenty."""

MAX_MESSAGE = 256 << 10
"""Largest message taken from the other side, bytes of JSON; a roster is 171 KiB of it at most."""

MAX_VOUCH = 4096

ARRIVAL = 20.0
"""Seconds for a guest to find the host, who is there before there is a code."""

ANSWER = 60.0
"""Seconds for what the other side does by itself; an SSH agent may ask its user to confirm."""

_MOST_HEARD = 1 << 20  # bytes that a mailbox may send; the largest welcome is 350 KiB there, in hexadecimal
_EXAMPLE = "7-guitarist-snowcap-hamburger"
_USED_UP = "The code is used up. It takes a new one, from whoever invites: p2p invite makes it."


@dataclass(frozen=True)
class Host:
    """Who invites: the owner of the key ``fingerprint``, which he has proved, to the cluster ``title``."""

    title: str
    cluster: str
    fingerprint: str


@dataclass(frozen=True)
class Guest:
    """Who wants to come in: the owner of the key, which he has proved. The name and ``about`` are what he says."""

    name: str
    public_line: str
    fingerprint: str
    about: str = ""


@dataclass(frozen=True)
class Welcome:
    """All that a new member needs. ``mailbox``, ``relay`` and ``host_key`` may be "", as in a profile.

    ``roster`` names the guest among the members; ``vouch`` is the owner's word for a machine of his own. A machine of
    his own may get no roster.
    """

    title: str
    cluster: str
    board: str
    host_key: str
    mailbox: str
    relay: str
    topic: str = field(repr=False)
    key: bytes = field(repr=False)
    roster: bytes = field(default=b"", repr=False)
    vouch: bytes = field(default=b"", repr=False)


async def invite(
    *,
    mailbox: str,
    signer: Signer,
    title: str,
    cluster: str,
    show_code: Callable[[str], None],
    admit: Callable[[Guest], Awaitable[Welcome | None]],
    deadline: float = 600.0,
    own: bool = False,
) -> Guest | None:
    """Invite one guest; returns who has come in, or None when ``admit`` said no. Waits ``deadline`` seconds at most.

    ``show_code`` gets the code that the guest needs. ``admit`` asks the human and makes the guest a member; it is
    cancelled when the guest leaves meanwhile. ``own``: the guest is to be a machine of the owner's.

    Raises ``MailboxUnreachable``, ``LinkTimeout`` (nobody came), ``WrongPeer`` (a wrong code, or somebody who is not
    what he says), ``LinkLost`` (the guest left), ``NoKey`` (the key can't sign), and what ``admit`` raises. After
    ``admit`` has said yes, a ``LinkTimeout`` or ``LinkLost`` means that the guest may not know of it.
    """
    too_late = "nobody has come in time"
    async with _visit(mailbox, deadline, lambda: too_late) as visit:
        code = await visit.new_code(WORDS)
        show_code(code.reveal())
        verifier, _ = await visit.meet()
        key = signer.asbytes()
        proof = await asyncio.to_thread(sign, signer, _signed("host", verifier, cluster), NAMESPACE)
        with _Parting(visit) as parting:
            facts = {"title": title, "cluster": cluster, "own": own}
            _send(visit, {"t": "host", **facts, "key": _text64(key), "proof": _text64(proof)})
            async with _within(ANSWER, "the guest does not answer"):
                guest = _read_guest(await _receive(visit, "guest"), verifier, cluster)
            too_late = f"{guest.name} is there, and was not let in in time"
            welcome = await _unless_he_leaves(visit, admit(guest))
            if welcome is None:
                _send(visit, {"t": "no"})
                parting.said = True
                return None
            if (welcome.title, welcome.cluster) != (title, cluster):
                raise LocalProtocolError("a welcome to another cluster than was invited to")
            _send(visit, _welcome_fields(welcome))
            too_late = f"{guest.name} has been let in, and does not confirm it"
            async with _within(ANSWER, too_late):
                await _receive(visit, "kept")
            parting.said = True
            log.info("%s (%s) came into %s by invitation", guest.name, guest.fingerprint, title)
            return guest


async def accept(
    code: Secret,
    *,
    mailbox: str,
    signer: Signer,
    name: str,
    told: Callable[[Host], None] = lambda host: None,
    keep: Callable[[Welcome], Awaitable[object]] | None = None,
    deadline: float = 600.0,
    own: bool = False,
) -> Welcome:
    """Come in by a code, as ``name``; returns what a member needs, checked. Waits ``deadline`` seconds at most.

    ``keep`` puts that where it lasts; the host is told that we are in when it is there, and what it raises, we raise.
    ``told`` hears who invites, while the host's human is being asked. ``own``: this machine is the host's own, too.

    Raises ``ConfigError`` before anything is sent for what can't be a code or a name; then ``MailboxUnreachable``,
    ``LinkTimeout`` (nobody is there, or nobody answers), ``WrongPeer`` (a wrong code, one that somebody else has
    used, or a host who is not what he says), ``LinkLost`` (the host left), ``LinkError`` (he said no), ``NoKey``.
    """
    check_name(name)
    code = Secret(read_code(code.reveal()))
    async with _visit(mailbox, deadline, lambda: "nobody has answered in time") as visit:
        visit.use_code(code)
        # The host is there before the code is. Who isn't after this long won't come.
        async with _within(
            ARRIVAL,
            "nobody waits for a guest with this code",
            "Is its number right? If somebody else has used it, tell the host; ask for another one.",
        ):
            verifier, _ = await visit.meet()
        with _Parting(visit) as parting:
            async with _within(ANSWER, "the host does not answer"):
                host = _read_host(await _receive(visit, "host"), verifier, own=own)
            key = signer.asbytes()
            proof = await asyncio.to_thread(sign, signer, _signed("guest", verifier, host.cluster), NAMESPACE)
            facts = {"name": name, "about": f"Python {platform.python_version()} on {platform.system()}"}
            _send(visit, {"t": "guest", **facts, "key": _text64(key), "proof": _text64(proof)})
            told(host)
            answer = await _receive(visit, "welcome", "no")
            if answer["t"] == "no":
                parting.said = True
                raise LinkError(
                    f"the owner of {host.title} said no",
                    hint="Tell him your key's fingerprint (p2p whoami), so that he knows it is you,"
                    " and ask for another code.",
                )
            welcome = _read_welcome(answer, host, fingerprint(key), own=own)
            if keep is not None:
                await keep(welcome)
            _send(visit, {"t": "kept"})
            parting.said = True
            return welcome


# --- codes ------------------------------------------------------------------------------------------


def read_code(text: str) -> str:
    """The code that somebody typed, in its one way of writing. Raises ``ConfigError``, which names a mistyped word."""
    # The list is private to the library, and has been the same since its first version.
    from wormhole._wordlist import even_words_lowercase, odd_words_lowercase

    nameplate, *words = re.split(r"[\s-]+", text.strip().lower())
    if not re.fullmatch(r"[0-9]{1,9}", nameplate) or len(words) != WORDS:
        raise ConfigError(
            "that is no code of an invitation", hint=f"It is a number and {WORDS} words, such as {_EXAMPLE}."
        )
    for place, word in enumerate(words):
        known = even_words_lowercase if place % 2 else odd_words_lowercase
        if word in known:
            continue
        near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.0)
        raise ConfigError(
            f"{plain(word, 30)!r} is not a word that a code can have in that place",
            hint=f"Is it {near[0]!r}? Nothing has been sent; the code is still good.",
        )
    return "-".join([nameplate, *words])


# --- what is said -----------------------------------------------------------------------------------


def _signed(role: str, verifier: bytes, cluster: str) -> bytes:
    """What an end signs: SSH strings, so that no two texts of different parts are the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (role.encode(), verifier, cluster.encode()))


def _read_host(fields: Mapping[str, Any], verifier: bytes, *, own: bool) -> Host:
    title, cluster = fields.get("title"), fields.get("cluster")
    if not (isinstance(title, str) and is_title(title) and isinstance(cluster, str)):
        raise _nonsense("host")
    owner = owner_of(cluster)
    if not is_fingerprint(owner) or cluster != f"{owner}/{parse_title(title)[1]}":
        raise _nonsense("host")
    if fingerprint(_signer_of(fields, "host", verifier, cluster)) != owner:
        raise WrongPeer(
            f"who invites to {title} does not have its owner's key",
            hint="Somebody may be in between. Nothing was sent but the code; ask the owner for another one.",
        )
    if fields.get("own") is not own:
        raise WrongPeer(
            f"this is {'no' if own else 'an'} invitation of a machine of the owner's own",
            hint=f"Ask for another code, and join {'without' if own else 'with'} --own.",
        )
    return Host(title, cluster, owner)


def _read_guest(fields: Mapping[str, Any], verifier: bytes, cluster: str) -> Guest:
    key = _signer_of(fields, "guest", verifier, cluster)
    name, about = fields.get("name"), fields.get("about", "")
    if not (isinstance(name, str) and isinstance(about, str)):
        raise _nonsense("guest")
    try:
        check_name(name)
    except ConfigError:
        raise _nonsense("guest") from None
    kind = key[4 : 4 + int.from_bytes(key[:4], "big")].decode()
    return Guest(name, f"{kind} {_text64(key)}", fingerprint(key), _NOT_IN_ABOUT.sub("", about[:200])[:60])


def _signer_of(fields: Mapping[str, Any], role: str, verifier: bytes, cluster: str) -> bytes:
    """The public key of who is at the other end of this very wormhole."""
    key = _bytes64(fields, "key", role, 4096)
    try:
        signed = verify(_bytes64(fields, "proof", role, 8192), _signed(role, verifier, cluster), NAMESPACE)
    except BadIdentity:
        signed = b""
    if signed != key:
        raise WrongPeer(
            f"the {role} could not prove who he is",
            hint="Somebody may be in between. Nothing secret was sent; make a new invitation.",
        )
    return key


def _welcome_fields(welcome: Welcome) -> dict[str, Any]:
    texts = {name: getattr(welcome, name) for name in _TEXTS}
    return {"t": "welcome", **texts, **{name: _text64(getattr(welcome, name)) for name in ("key", "roster", "vouch")}}


_NOT_IN_ABOUT = re.compile(r"[^A-Za-z0-9 ._-]")
"""It is shown beside the key's fingerprint: a stranger's words must not be able to show another one there."""

_TEXTS = ("title", "cluster", "board", "host_key", "mailbox", "relay", "topic")


def _read_welcome(fields: Mapping[str, Any], host: Host, guest: str, *, own: bool) -> Welcome:
    texts = {}
    for name in _TEXTS:
        value = fields.get(name)
        if not isinstance(value, str) or len(value) > 1000 or plain(value, 1000) != value:
            raise _nonsense("host")
        texts[name] = value
    welcome = Welcome(
        **texts,
        key=_bytes64(fields, "key", "host", 32),
        roster=_bytes64(fields, "roster", "host", MAX_ROSTER),
        vouch=_bytes64(fields, "vouch", "host", MAX_VOUCH),
    )
    if (welcome.title, welcome.cluster) != (host.title, host.cluster) or len(welcome.key) != 32:
        raise _nonsense("host")
    if not re.fullmatch(r"p2p-[0-9a-f]{32}", welcome.topic):
        raise _nonsense("host")
    _check_addresses(welcome)
    if own:
        _check_vouch(welcome, guest)
    if welcome.roster or not own:
        _check_roster(welcome, host.fingerprint if own else guest)
    return welcome


def _check_addresses(welcome: Welcome) -> None:
    from p2p_ipython.board.client.known_hosts import pin_fingerprint  # late: it takes paramiko

    try:
        BoardAddress.parse(welcome.board)
        if welcome.host_key:
            pin_fingerprint(welcome.host_key)
        if welcome.relay:
            parse_relay(welcome.relay)
        if welcome.mailbox:
            url = urlsplit(welcome.mailbox)
            if url.scheme not in ("ws", "wss") or not url.hostname or url.port == 0:
                raise ValueError
    except (ConfigError, ValueError):
        raise _nonsense("host") from None


def _check_vouch(welcome: Welcome, guest: str) -> None:
    try:
        member = check_vouch(welcome.vouch, welcome.cluster, guest, time.time())
    except BadIdentity:
        raise _nonsense("host") from None
    if member != owner_of(welcome.cluster):
        raise _nonsense("host")


def _check_roster(welcome: Welcome, member: str) -> None:
    try:
        roster = Roster.parse(welcome.roster, welcome.cluster)
    except BadIdentity:
        raise _nonsense("host") from None
    secret = ClusterSecret(welcome.cluster, welcome.topic, welcome.key)
    if roster.title != welcome.title or roster.member(member) is None or roster.secret != commitment(secret):
        raise _nonsense("host")


def _nonsense(who: str) -> WrongPeer:
    return WrongPeer(
        f"what the {who} says makes no sense",
        hint="One side's p2p_ipython may be of another version: update both, and make a new invitation.",
    )


def _text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes64(fields: Mapping[str, Any], name: str, who: str, most: int) -> bytes:
    text = fields.get(name)
    if not isinstance(text, str) or len(text) > (most + 2) // 3 * 4:
        raise _nonsense(who)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _nonsense(who) from None
    if len(data) > most:
        raise _nonsense(who)
    return data


# --- the wormhole -----------------------------------------------------------------------------------


@asynccontextmanager
async def _visit(mailbox: str, deadline: float, too_late: Callable[[], str]) -> AsyncIterator[Visit]:
    """A wormhole for ``deadline`` seconds, closed at the end, whatever the end is. ``too_late``: what came too late."""
    visit = Visit(APPID, mailbox, offer={}, most=_MOST_HEARD)
    try:
        async with asyncio.timeout(deadline) as limit:
            yield visit
    except TimeoutError:
        if not limit.expired():
            raise
        if not visit.welcome:
            raise unreachable(mailbox, "it does not answer") from None
        raise LinkTimeout(too_late(), hint=_USED_UP) from None
    except WrongCode:
        raise WrongPeer("somebody used a wrong code, so this one is burnt", hint=_USED_UP) from None
    except Crowded:
        raise WrongPeer(
            "somebody else has used this code already",
            hint="If it was neither of you, it has leaked: the host should say no, and make a new invitation.",
        ) from None
    finally:
        visit.close()
        await asyncio.shield(visit.closed)


@asynccontextmanager
async def _within(seconds: float, too_late: str, hint: str = _USED_UP) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise LinkTimeout(too_late, hint=hint) from None


class _Parting:
    """Tells the other side when we leave before all has been said."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self.said = False

    def __enter__(self) -> _Parting:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.said:
            _send(self._visit, {"t": "bye"})


def _send(visit: Visit, fields: Mapping[str, Any]) -> None:
    visit.send(json.dumps(fields, separators=(",", ":")).encode())


async def _receive(visit: Visit, *kinds: str) -> Mapping[str, Any]:
    """The other side's next message, which is of one of ``kinds``."""
    message = await visit.receive()
    who = "guest" if "guest" in kinds or "kept" in kinds else "host"
    if len(message) > MAX_MESSAGE:
        raise _nonsense(who)
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError):
        raise _nonsense(who) from None
    if not isinstance(fields, dict):
        raise _nonsense(who)
    if fields.get("t") == "bye":
        raise LinkLost(f"the {who} has left before the end", hint=_USED_UP)
    if fields.get("t") not in kinds:
        raise _nonsense(who)
    return fields


async def _unless_he_leaves(visit: Visit, answer: Awaitable[Welcome | None]) -> Welcome | None:
    """The human's answer; raises when the guest leaves, or says what he has no turn to say, before it is there."""
    asking = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_receive(visit, "guest"))
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return asking.result()
        leaving.result()
        raise _nonsense("guest")
    finally:
        for task in (asking, leaving):
            task.cancel()
        await asyncio.gather(asking, leaving, return_exceptions=True)
