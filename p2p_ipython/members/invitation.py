"""An invitation: two people, one spoken code, and afterwards one of them is a member of the other's cluster.

The code (``7-guitarist-snowcap-hamburger``) opens a Magic Wormhole: anyone who has it can talk, once, to the process
that made it. The code says nothing of who that is, so both ends prove it. Each signs the wormhole's *verifier*, which
both ends of this one wormhole know and nobody else, with the SSH key (see PROTOCOL.md, "Invite")::

    host → guest   the cluster's id and title, the owner's key and signature
    guest → host   the guest's key, name and signature
                   the host's human looks at name and fingerprint, and says yes or no
    host → guest   where the board is, the topic, its key, the roster; or no
    guest → host   kept

Promises: nothing secret is sent before the human's yes. A code works once, a wrong guess uses it up, and both ends
hear of that. Somebody in between who has the code, too, can't pass for either. Both ends end within their deadline
(and a few seconds for goodbyes), and a cancelled one leaves nothing open.

The messages themselves are in invitation_messages.py. Nothing of a code or a key is in a log, a repr or an error.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
import platform
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from p2p_ipython.errors import ConfigError, LinkError, LinkLost, LinkTimeout, LocalProtocolError, WrongPeer
from p2p_ipython.link.base import Secret
from p2p_ipython.link.mailbox_client import Crowded, Visit, WrongCode, unreachable
from p2p_ipython.members import invitation_messages as messages
from p2p_ipython.members.invitation_messages import Guest, Inviter, Welcome
from p2p_ipython.protocol.identity import Signer, fingerprint, sign
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.roster import check_name

log = logging.getLogger(__name__)

APPID = "p2p-ipython/invite/v1"

WORDS = 3
"""Words of a code, 8 random bits each. With one guess a code, 24 bits are plenty."""

CODE_LIFE = 600.0
"""How long an invitation waits for its guest, seconds."""

ARRIVAL = 20.0
"""Seconds for a guest to find the host, who is there before there is a code."""

ANSWER = 60.0
"""Seconds for what the other side does by itself; an SSH agent may ask its user to confirm."""

_MOST_HEARD = 1 << 20  # bytes that a mailbox may send; the largest welcome is 350 KiB there, in hexadecimal
_EXAMPLE = "7-guitarist-snowcap-hamburger"
_USED_UP = "The code is used up. The host makes a new one: p2p invite."


async def invite(
    *,
    mailbox: str,
    signer: Signer,
    title: str,
    cluster: str,
    show_code: Callable[[str], None],
    admit: Callable[[Guest], Awaitable[Welcome | None]],
    deadline: float = CODE_LIFE,
    own: bool = False,
) -> Guest | None:
    """Invite one guest; return the guest, or None if ``admit`` said no. Waits ``deadline`` seconds at most.

    ``show_code`` gets the code that the guest needs. ``admit`` asks the human and makes the guest a member; it is
    cancelled when the guest leaves meanwhile. ``own``: the guest is to be a machine of the owner's.

    Raises ``MailboxUnreachable``, ``LinkTimeout`` (nobody came), ``WrongPeer`` (a wrong code, or a guest without the
    key), ``LinkLost`` (the guest left), ``NoKey`` (the key can't sign), and what ``admit`` raises. After ``admit`` has
    said yes, a ``LinkTimeout`` or ``LinkLost`` means that the guest may not know of it.
    """
    too_late = "nobody has come in time"
    async with _visit(mailbox, deadline, lambda: too_late) as visit:
        code = await visit.new_code(WORDS)
        show_code(code.reveal())
        verifier, _ = await visit.meet()
        text = messages.signed_text("host", verifier, cluster)
        proof = await asyncio.to_thread(sign, signer, text, messages.NAMESPACE)
        with _Parting(visit) as parting:
            _send(visit, messages.host_fields(title, cluster, own=own, key=signer.asbytes(), proof=proof))
            async with _within(ANSWER, "the guest does not answer"):
                guest = messages.read_guest(await _receive(visit, "guest"), verifier, cluster)
            too_late = f"{guest.name} is there, and was not admitted in time"
            welcome = await _unless_the_guest_leaves(visit, admit(guest))
            if welcome is None:
                _send(visit, {"t": "no"})
                parting.said = True
                return None
            if (welcome.title, welcome.cluster) != (title, cluster):
                raise LocalProtocolError("a welcome to another cluster than was invited to")
            _send(visit, messages.welcome_fields(welcome))
            too_late = f"{guest.name} has been admitted, and does not confirm it"
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
    told: Callable[[Inviter], None] = lambda _inviter: None,
    keep: Callable[[Welcome], Awaitable[object]] | None = None,
    deadline: float = CODE_LIFE,
    own: bool = False,
) -> Welcome:
    """Accept an invitation by its code, as ``name``; return what a member needs, checked.

    Waits ``deadline`` seconds at most. ``told`` hears who invites, while the host's human is being asked. ``keep`` puts
    the welcome where it lasts; the host hears that we are in after that, and what ``keep`` raises, we raise. ``own``:
    this machine is the host's own, too.

    Raises ``ConfigError``, before anything is sent, for what can't be a code or a name. Later it raises
    ``MailboxUnreachable``, ``LinkTimeout`` (nobody is there, or nobody answers), ``WrongPeer`` (a wrong code, one that
    somebody else has used, or a host without the owner's key), ``LinkLost`` (the host left), ``LinkError`` (the host
    said no), ``NoKey``.
    """
    check_name(name)
    code = Secret(read_code(code.reveal()))
    async with _visit(mailbox, deadline, lambda: "nobody has answered in time") as visit:
        visit.use_code(code)
        # The host is there before the code is. One that isn't there after this long won't come.
        async with _within(
            ARRIVAL,
            "nobody waits for a guest with this code",
            "Is its number right? If somebody else has used it, tell the host; ask for another one.",
        ):
            verifier, _ = await visit.meet()
        with _Parting(visit) as parting:
            async with _within(ANSWER, "the host does not answer"):
                host = messages.read_host(await _receive(visit, "host"), verifier, own=own)
            key, text = signer.asbytes(), messages.signed_text("guest", verifier, host.cluster)
            proof = await asyncio.to_thread(sign, signer, text, messages.NAMESPACE)
            about = f"Python {platform.python_version()} on {platform.system()}"
            _send(visit, messages.guest_fields(name, about, key=key, proof=proof))
            told(host)
            answer = await _receive(visit, "welcome", "no")
            if answer["t"] == "no":
                parting.said = True
                raise LinkError(
                    f"the owner of {host.title} said no",
                    hint="Tell them your key's fingerprint (p2p whoami), so that they know it is you,"
                    " and ask for another code.",
                )
            welcome = messages.read_welcome(answer, host, fingerprint(key), own=own)
            if keep is not None:
                await keep(welcome)
            _send(visit, {"t": "kept"})
            parting.said = True
            return welcome


# --- codes ------------------------------------------------------------------------------------------


def read_code(text: str) -> str:
    """Return a typed code in its one way of writing. Raises ``ConfigError``, which names a mistyped word."""
    # Late: wormhole is heavy. The list is private to it, and has been the same since its first version.
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


# --- the wormhole -----------------------------------------------------------------------------------


@asynccontextmanager
async def _visit(mailbox: str, deadline: float, too_late: Callable[[], str]) -> AsyncIterator[Visit]:
    """Open a wormhole for ``deadline`` seconds, and close it at any end. ``too_late()`` says what came too late."""
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
        raise WrongPeer("somebody used a wrong code, so this one is used up", hint=_USED_UP) from None
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
    """Notifies the other side when we leave before all has been said."""

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
    """Return the other side's next message, which is of one of ``kinds``."""
    message = await visit.receive()
    who = "guest" if "guest" in kinds or "kept" in kinds else "host"
    fields = messages.parse(message, who)
    if fields.get("t") == "bye":
        raise LinkLost(f"the {who} has left before the end", hint=_USED_UP)
    if fields.get("t") not in kinds:
        raise messages.nonsense(who)
    return fields


async def _unless_the_guest_leaves(visit: Visit, answer: Awaitable[Welcome | None]) -> Welcome | None:
    """Return the human's answer; raise if the guest leaves, or speaks out of turn, before it is there."""
    asking = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_receive(visit, "guest"))
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return asking.result()
        leaving.result()
        raise messages.nonsense("guest")
    finally:
        for task in (asking, leaving):
            task.cancel()
        await asyncio.gather(asking, leaving, return_exceptions=True)
