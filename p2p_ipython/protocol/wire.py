"""Board lines: a message becomes a line that only members can make and read, and that nobody can replay.

::

    line      = "p1 " base64( nonce[24]  XChaCha20-Poly1305(key, plain) )      at most 4096 bytes
    plain     = signature[64]  signed
    signed    = sid[16]  seq[8]  certificate size[2]  certificate  message     numbers big endian
    signature = Ed25519 by the session sid over "p2p-ipython/board/v1\\0" + string topic + key + signed

The key is the cluster's, so a stranger can neither read nor make lines. The signature is the session's, so no member
can speak for another. It holds on one topic, under one key. Otherwise a member of two topics could carry a session's
lines from one to the other, and use up its numbers there before it comes.

A line of a session that the reader has not heard yet must bring its certificate; ``hello`` always does. ``seq`` rises
with each line of a session. A reader remembers the last 64, so a line counts once, however often it is resent, echoed
or replayed, in whatever base64 spelling. A session that lives longer than its certificate shows a new one, for the same
keys, before the old one ends.

Nothing of a message is parsed before its signature has been verified. Pure: time and randomness are given.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import nacl.bindings
import nacl.exceptions

from p2p_ipython.protocol.crowd import crowded_out
from p2p_ipython.protocol.identity import (
    MAX_CERTIFICATE,
    SID_SIZE,
    BadIdentity,
    Certificate,
    ClockApart,
    ClusterSecret,
    Session,
    check_signature,
)
from p2p_ipython.protocol.messages import Ask, BadMessage, Hello, Message, RosterPart, decode, encode

MAGIC = b"p1 "
MAX_LINE = 4096
PREFIX = b"p2p-ipython/board/v1\0"
WINDOW = 64
MAX_SESSIONS = 5_000
"""Sessions whose numbers are remembered, 1.5 to 3 kB each; on a lobby, anybody can make some. Beyond that the member
who has most of them loses the one heard longest ago: it must bring its certificate again. Its old lines are still
refused by the certificate's end."""

_HEAD = 64 + SID_SIZE + 8 + 2


class LineTooLong(ValueError):
    """A message that doesn't fit a line: a bug of ours, since messages are bounded."""


@dataclass(frozen=True)
class Heard:
    """A message, and the session that certainly said it.

    ``admitted``: the session is a member's. Other holders of the cluster's key are heard only with a ``hello``, a
    ``roster`` and an ``ask``: they may know a newer roster, in which they are members.
    """

    certificate: Certificate
    message: Message
    admitted: bool = True


class LineWriter:
    """Makes a session's lines on one topic."""

    def __init__(self, session: Session, secret: ClusterSecret, random: Callable[[int], bytes]) -> None:
        self._session = session
        self._key = secret.key
        self._scope = _scope(secret)
        self._random = random

    def write(self, message: Message, *, introduce: bool = False) -> bytes:
        """Return the line, without newlines; ``introduce`` adds our certificate."""
        certificate = self._session.certificate.wire if introduce else b""
        signed = b"".join(
            (
                self._session.sid,
                self._session.next_seq().to_bytes(8, "big"),
                len(certificate).to_bytes(2, "big"),
                certificate,
                encode(message),
            )
        )
        plain = self._session.sign(self._scope + signed) + signed
        nonce = self._random(24)
        sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, PREFIX, nonce, self._key)
        line = MAGIC + base64.b64encode(nonce + sealed)
        if len(line) > MAX_LINE:
            raise LineTooLong(f"a line of {len(line)} bytes is over {MAX_LINE}")
        return line


class LineReader:
    """Reads everybody's lines; a wrong line gives None and costs microseconds.

    ``admit`` says whether a certificate's holder is a member; it is asked for each line, because that may change.
    ``clusters`` are the ids that certificates may be for (default: the secret's). ``refused`` counts the lines that
    were not accepted, by reason, for the doctor and the tests.
    """

    def __init__(
        self,
        secret: ClusterSecret,
        admit: Callable[[Certificate], bool],
        *,
        clusters: frozenset[str] | None = None,
    ) -> None:
        self._secret = secret
        self._scope = _scope(secret)
        self._admit = admit
        self._clusters = frozenset({secret.cluster}) if clusters is None else clusters
        self._sessions: dict[bytes, _Known] = {}  # the one heard longest ago first
        self._by_member: Counter[str] = Counter()
        self.refused: dict[str, int] = {}
        self.from_the_future: Callable[[Certificate], None] = lambda certificate: None
        """Called with the certificate of a member who isn't heard because their clock and ours are apart."""

    def read(self, line: bytes, now: float) -> Heard | None:
        """Return the line's message, or None: not a line of this cluster, forged, replayed, expired, malformed."""
        try:
            return self._read(line, now)
        except (BadIdentity, BadMessage, _Refused) as error:
            if isinstance(error, ClockApart) and self._is_members(error.certificate):
                self.from_the_future(error.certificate)
            reason = str(error)
            if reason in self.refused or len(self.refused) < 100:  # reasons are ours, but bound them all the same
                self.refused[reason] = self.refused.get(reason, 0) + 1
            return None

    def _read(self, line: bytes, now: float) -> Heard:
        if not line.startswith(MAGIC) or len(line) > MAX_LINE:
            raise _Refused("not a line of ours")
        try:
            sealed = base64.b64decode(line[len(MAGIC) :], validate=True)
            plain = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                sealed[24:], PREFIX, sealed[:24], self._secret.key
            )
        except (binascii.Error, nacl.exceptions.CryptoError, ValueError, TypeError):
            raise _Refused("not a line of this cluster") from None
        if len(plain) < _HEAD:
            raise _Refused("a line that is too short")
        signature, signed = plain[:64], plain[64:]
        sid = signed[:SID_SIZE]
        seq = int.from_bytes(signed[SID_SIZE : SID_SIZE + 8], "big")
        size = int.from_bytes(signed[SID_SIZE + 8 : SID_SIZE + 10], "big")
        rest = signed[SID_SIZE + 10 :]
        if size > min(len(rest), MAX_CERTIFICATE):
            raise _Refused("a certificate that is too large")

        known = self._sessions.get(sid)
        if known is None:
            known = self._introduced(sid, rest[:size], now)
        if not check_signature(known.certificate, self._scope + signed, signature):
            raise _Refused("a line with a forged signature")
        if size and rest[:size] != known.certificate.wire:
            self._renewed(known, rest[:size], now)
        known.certificate.check_time(now)
        if not self._admit(known.certificate):
            self._forget(sid)
            message = decode(rest[size:])
            if not isinstance(message, Hello | RosterPart | Ask):
                raise _Refused("somebody who is not a member")
            return Heard(known.certificate, message, admitted=False)
        if not known.window.take(seq):
            raise _Refused("a line that was heard before")
        # Only now is the session remembered: a forger must not be able to fill the memory.
        self._forget(sid)
        self._sessions[sid] = known
        self._by_member[known.certificate.signer] += 1
        if len(self._sessions) > MAX_SESSIONS:
            sessions = ((each, one.certificate.signer) for each, one in self._sessions.items())
            self._forget(crowded_out(sessions, self._by_member))
        return Heard(known.certificate, decode(rest[size:]))

    def _is_members(self, certificate: Certificate) -> bool:
        return certificate.cluster in self._clusters and self._admit(certificate)

    def _forget(self, sid: bytes) -> None:
        known = self._sessions.pop(sid, None)
        if known is not None:
            member = known.certificate.signer
            self._by_member[member] -= 1
            if not self._by_member[member]:
                del self._by_member[member]

    def _introduced(self, sid: bytes, wire: bytes, now: float) -> _Known:
        if not wire:
            raise _Refused("a session that has not introduced itself")
        certificate = Certificate.parse(wire, now)
        if certificate.sid != sid:
            raise _Refused("somebody else's certificate")
        if certificate.cluster not in self._clusters:
            raise _Refused("a certificate for another cluster")
        return _Known(certificate, Window())

    def _renewed(self, known: _Known, wire: bytes, now: float) -> None:
        """Take the new certificate that a session shows: the same keys of the same member, for longer."""
        certificate = self._introduced(known.certificate.sid, wire, now).certificate
        old = known.certificate
        same = (certificate.verify_key, certificate.seal_key, certificate.signer, certificate.role)
        if same != (old.verify_key, old.seal_key, old.signer, old.role):
            raise _Refused("a session that has changed its keys")
        if certificate.until > old.until:
            known.certificate = certificate


def _scope(secret: ClusterSecret) -> bytes:
    """Return the scope in which a line's signature holds; it precedes the signed bytes."""
    topic = secret.topic.encode()
    return PREFIX + len(topic).to_bytes(4, "big") + topic + secret.key


class Window:
    """The numbers of a session that have been taken: the highest, and a bit for each of the 63 below it."""

    def __init__(self) -> None:
        self._highest = 0
        self._taken = 0

    def take(self, seq: int) -> bool:
        """Take ``seq``; return False if it has been taken before, or is too old to tell."""
        if seq > self._highest:
            self._taken = ((self._taken << min(seq - self._highest, WINDOW)) | 1) & ((1 << WINDOW) - 1)
            self._highest = seq
            return True
        bit = 1 << (self._highest - seq) if self._highest - seq < WINDOW else 0
        if seq < 1 or not bit or self._taken & bit:
            return False
        self._taken |= bit
        return True


@dataclass
class _Known:
    certificate: Certificate
    window: Window


class _Refused(ValueError):
    """The reason why a line was not accepted."""
