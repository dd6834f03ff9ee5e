"""A member's identity: an SSH key, and the session keys that it vouches for.

A member is an SSH key (ed25519, ECDSA or RSA), in a file or in an agent. Once per process it signs a
*certificate* for two session keys that live in this process only: Ed25519, which signs board lines and link
proofs, and X25519, to which wormhole codes are sealed. The signature is an OpenSSH one (PROTOCOL.sshsig, as
``ssh-keygen -Y sign`` makes them), so that ``ssh-keygen -Y verify`` can check it, and the SSH key itself is
asked for one signature a process only.

This module is pure: keys, randomness and time are given to it. It opens no file and asks no agent; a
``Signer`` (any paramiko key, from a file or from an agent) does the signing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import nacl.exceptions
import nacl.public
import nacl.signing
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from p2p_ipython.errors import NoKey, WrongPeer

SESSION_NAMESPACE = "p2p-ipython-session@v1"
PERSONAL_NAMESPACE = "p2p-ipython-personal@v1"
VOUCH_NAMESPACE = "p2p-ipython-vouch@v1"
LINK_PREFIX = b"p2p-link/v1\0"

MAX_LIFE = 24 * 3600.0
"""Longest life of a certificate, seconds; a longer one is refused, whichever key has signed it."""

CLOCK_SLACK = 600.0
"""How far a peer's clock may be ahead of ours, seconds."""

SID_SIZE = 16
MAX_CERTIFICATE = 1800
"""Bytes. The largest real ones have about 1,500 (an RSA-4096 key) and 1,750 (an ed25519 key that an RSA-4096 key has
vouched for). Two RSA keys don't fit: a line must have room for the rest."""

VOUCH_LIFE = 365 * 24 * 3600.0
"""How long the word for a machine of one's own counts, seconds."""

_P = (1 << 255) - 19
_BITS = (1 << 255) - 1  # of an X25519 key: it ignores the highest one
_LOW_ORDER = frozenset(
    {
        *(0, 1, _P - 1, _P, _P + 1),
        0xB8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
    }
)
"""X25519 keys to which nothing can be sealed: whatever the secret, the shared key is 0. Ed25519 keys of this kind need
no list, since no signature of theirs holds."""

MAX_CLUSTER = 200
"""Characters of a cluster's id."""


class BadIdentity(ValueError):
    """A certificate or a signature that doesn't hold; the message says why."""


class ClockApart(BadIdentity):
    """A certificate from the future: its holder's clock is ahead of ours, or it claims a longer life than any may have.

    All else about it holds.
    """

    def __init__(self, certificate: Certificate) -> None:
        super().__init__("a certificate that lives too long")
        self.certificate = certificate


class Signer(Protocol):
    """An SSH private key as paramiko has it (``PKey`` or ``AgentKey``)."""

    def asbytes(self) -> bytes: ...
    def get_name(self) -> str: ...
    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> Any: ...


def fingerprint(public_blob: bytes) -> str:
    """``SHA256:…`` of a public key in SSH's wire form, as ``ssh-keygen -l`` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_blob).digest()).rstrip(b"=").decode()


# --- SSHSIG (OpenSSH's PROTOCOL.sshsig) -------------------------------------------------------------


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _strings(data: bytes, count: int) -> list[bytes]:
    """Read exactly ``count`` SSH strings that fill ``data``."""
    found = []
    for _ in range(count):
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 + size:
            raise BadIdentity("a signature is cut short")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    if data:
        raise BadIdentity("a signature has bytes left over")
    return found


def _signed_text(message: bytes, namespace: str) -> bytes:
    digest = hashlib.sha512(message).digest()
    return b"SSHSIG" + _string(namespace.encode()) + _string(b"") + _string(b"sha512") + _string(digest)


def sign(signer: Signer, message: bytes, namespace: str) -> bytes:
    """Return an SSHSIG blob over ``message``.

    Raises ``NoKey`` when an agent refuses, or when peers would not accept what the key makes.
    """
    algorithm = "rsa-sha2-512" if signer.get_name() == "ssh-rsa" else None
    try:
        signature = signer.sign_ssh_data(_signed_text(message, namespace), algorithm)
    except Exception as error:  # paramiko raises its own and the agent's; neither text helps, both may be long
        raise NoKey(
            f"the SSH key could not sign ({type(error).__name__})",
            hint="If it is in an agent, unlock the agent (ssh-add -X) or confirm its question, and try again.",
        ) from None
    blob = signature if isinstance(signature, bytes) else bytes(signature.asbytes())
    sshsig = (
        b"SSHSIG\0\0\0\1"
        + _string(signer.asbytes())
        + _string(namespace.encode())
        + _string(b"")
        + _string(b"sha512")
        + _string(blob)
    )
    try:
        # Old agents answer with SHA-1, whatever we asked for. Peers would drop our lines without a word.
        verify(sshsig, message, namespace)
    except BadIdentity as error:
        raise NoKey(
            f"the SSH key ({signer.get_name()}) makes {error}",
            hint="Use an ed25519 key (ssh-keygen -t ed25519), or RSA of 2048 bits or more with a newer ssh-agent.",
        ) from None
    return sshsig


def verify(sshsig: bytes, message: bytes, namespace: str) -> bytes:
    """Check an SSHSIG blob and return the public key (SSH wire form) that made it. Raises ``BadIdentity``."""
    if sshsig[:10] != b"SSHSIG\0\0\0\1":
        raise BadIdentity("not an SSH signature")
    public, used, reserved, algorithm, signature = _strings(sshsig[10:], 5)
    if used != namespace.encode() or reserved or algorithm != b"sha512":
        raise BadIdentity("a signature made for another purpose")
    _verify_raw(public, signature, _signed_text(message, namespace))
    return public


def _verify_raw(public: bytes, signature: bytes, text: bytes) -> None:
    """Check a raw SSH signature; the key's kind decides which algorithms are good enough."""
    name, raw = _strings(signature, 2)
    kind = public[4 : 4 + int.from_bytes(public[:4], "big")]
    try:
        key = load_ssh_public_key(kind + b" " + base64.b64encode(public))
        match key:
            case ed25519.Ed25519PublicKey() if name == b"ssh-ed25519":
                key.verify(raw, text)
            case rsa.RSAPublicKey() if name == b"rsa-sha2-512" and key.key_size >= 2048 and _is_quick(key):
                key.verify(raw, text, padding.PKCS1v15(), hashes.SHA512())
            case ec.EllipticCurvePublicKey() if name == kind:
                digest = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[key.curve.key_size]
                r, s = (int.from_bytes(part, "big") for part in _strings(raw, 2))
                key.verify(encode_dss_signature(r, s), text, ec.ECDSA(digest))
            case _:
                # ssh-rsa (SHA-1) and short RSA keys land here, with all that is unknown.
                raise BadIdentity("a kind of signature that is not accepted")
    except BadIdentity:
        raise
    except Exception:
        # Anybody may have chosen the key's bytes. The library raises ValueError, InvalidSignature, and for compressed
        # points NotImplementedError. Whatever it raises, the signature does not hold.
        raise BadIdentity("a signature that does not hold") from None


def _is_quick(key: rsa.RSAPublicKey) -> bool:
    """Return whether checking a signature is cheap: an exponent of 3,000 bits would cost us 7 ms a line."""
    return key.public_numbers().e < 1 << 32


# --- session keys and certificates ------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """The word of a member's SSH key for one process of theirs.

    ``role`` is "client", "worker" or "host"; ``until`` is Unix time, seconds. ``signer`` names the member: it is the
    fingerprint of the key that signed, or of the key that has vouched for that one (see ``vouch``).
    """

    cluster: str
    sid: bytes
    verify_key: bytes
    seal_key: bytes
    role: str
    until: float
    signer: str
    wire: bytes

    @classmethod
    def parse(cls, wire: bytes, now: float) -> Certificate:
        """Read and check a certificate that anybody may have sent. Raises ``BadIdentity``.

        When this returns, a holder of the key ``signer`` has vouched for the session keys, and the certificate has not
        ended. The caller checks whether ``signer`` is a member.
        """
        if len(wire) > MAX_CERTIFICATE:
            raise BadIdentity("a certificate that is too large")
        body, sshsig, *word = _strings(wire, 3 if _has_three(wire) else 2)
        signer = fingerprint(verify(sshsig, body, SESSION_NAMESPACE))
        try:
            fields = json.loads(body)
            cluster, role, until = fields["cluster"], fields["role"], fields["until"]
            sid, verify_key, seal_key = (bytes.fromhex(fields[name]) for name in ("sid", "ed25519", "x25519"))
            if not (isinstance(cluster, str) and isinstance(until, int) and role in ("client", "worker", "host")):
                raise TypeError
            if len(cluster) > MAX_CLUSTER:
                raise ValueError
            until = float(until)
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            raise BadIdentity("a certificate that does not parse") from None
        if len(sid) != SID_SIZE or len(verify_key) != 32 or len(seal_key) != 32:
            raise BadIdentity("a certificate with keys of a wrong size")
        if int.from_bytes(seal_key, "little") & _BITS in _LOW_ORDER:
            raise BadIdentity("a certificate with a key of low order")
        if word:
            if role == "host":  # the owner's own key signs rosters, so the owner's host has that key
                raise BadIdentity("a host by a key that was vouched for")
            signer = check_vouch(word[0], cluster, signer, now)
        certificate = cls(cluster, sid, verify_key, seal_key, role, until, signer, wire)
        certificate.check_time(now)
        return certificate

    def check_time(self, now: float) -> None:
        """Raise ``BadIdentity`` if the certificate has ended, ``ClockApart`` if it lives longer than any may."""
        if now > self.until:
            raise BadIdentity("a certificate that has expired")
        if self.until - now > MAX_LIFE + CLOCK_SLACK:
            raise ClockApart(self)


class Session:
    """This process's keys and their certificate. Its repr shows no key."""

    def __init__(
        self,
        signer: Signer,
        *,
        cluster: str,
        role: str,
        now: float,
        random: Callable[[int], bytes],
        vouch: bytes = b"",
    ) -> None:
        """Make session keys and have ``signer`` vouch for them, for 24 hours from ``now`` (Unix time).

        ``vouch`` is a member's word for ``signer``, if that is the key of another machine of the member's.
        """
        self._signing = nacl.signing.SigningKey(random(32))
        self._sealing = nacl.public.PrivateKey(random(32))
        self._signer = signer
        self._vouch = vouch
        self._cluster, self._role = cluster, role
        self.sid = random(SID_SIZE)
        self._seq = 0
        self.renew(now)

    def renew(self, now: float) -> None:
        """Have the key vouch for another 24 hours from ``now``. Raises ``NoKey`` when an agent refuses."""
        body = json.dumps(
            {
                "cluster": self._cluster,
                "sid": self.sid.hex(),
                "ed25519": bytes(self._signing.verify_key).hex(),
                "x25519": bytes(self._sealing.public_key).hex(),
                "role": self._role,
                "until": int(now + MAX_LIFE),
            },
            separators=(",", ":"),
        ).encode()
        wire = _string(body) + _string(sign(self._signer, body, SESSION_NAMESPACE))
        if self._vouch:
            wire += _string(self._vouch)
        if len(wire) > MAX_CERTIFICATE:
            raise NoKey(
                "the certificate of two keys as large as these doesn't fit a line of the board",
                hint="Use an ed25519 key for this machine: ssh-keygen -t ed25519.",
            )
        try:
            self.certificate = Certificate.parse(wire, now)
        except BadIdentity as error:
            raise NoKey(
                f"this machine's key has {error}",
                hint="Ask for a new invitation: p2p invite --own, then p2p join --own.",
            ) from None

    def is_due(self, now: float) -> bool:
        """Return whether less than a quarter of the certificate's life is left."""
        return self.certificate.until - now < MAX_LIFE / 4

    def next_seq(self) -> int:
        """Return the number of the next line. Each is used once, on whatever topic and however often that is joined."""
        self._seq += 1
        return self._seq

    def sign(self, text: bytes) -> bytes:
        """Return a 64-byte Ed25519 signature."""
        return bytes(self._signing.sign(text).signature)

    def unseal(self, box: bytes) -> bytes:
        """Open a box that was sealed to this session. Raises ``BadIdentity``."""
        try:
            return nacl.public.SealedBox(self._sealing).decrypt(box)
        except (nacl.exceptions.CryptoError, ValueError, TypeError):
            raise BadIdentity("a sealed text that is not for us") from None

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("session keys live in their process only")

    def __repr__(self) -> str:
        return f"<Session {self.sid.hex()[:8]} of {self.certificate.signer}>"


def seal(certificate: Certificate, text: bytes) -> bytes:
    """Seal ``text`` so that only the session of ``certificate`` can read it."""
    return nacl.public.SealedBox(nacl.public.PublicKey(certificate.seal_key)).encrypt(text)


def check_signature(certificate: Certificate, text: bytes, signature: bytes) -> bool:
    """Return whether the session of ``certificate`` signed ``text``."""
    try:
        nacl.signing.VerifyKey(certificate.verify_key).verify(text, signature)
    except (nacl.exceptions.CryptoError, ValueError, TypeError):
        return False
    return True


# --- machines of one's own, with a key of their own -------------------------------------------------


def vouch(signer: Signer, *, cluster: str, key: str, now: float) -> bytes:
    """Give a member's word that the key with the fingerprint ``key`` is on their own machine, for one cluster.

    Sessions of that key then count as the member's own there, for ``VOUCH_LIFE``.
    """
    body = json.dumps({"cluster": cluster, "key": key, "until": int(now + VOUCH_LIFE)}, separators=(",", ":")).encode()
    return _string(body) + _string(sign(signer, body, VOUCH_NAMESPACE))


def check_vouch(wire: bytes, cluster: str, key: str, now: float) -> str:
    """Return the fingerprint of the member who has vouched for ``key`` in ``cluster``. Raises ``BadIdentity``."""
    body, sshsig = _strings(wire, 2)
    member = fingerprint(verify(sshsig, body, VOUCH_NAMESPACE))
    try:
        fields = json.loads(body)
        said = fields["cluster"], fields["key"]
        until = fields["until"]
        if not isinstance(until, int):
            raise TypeError
        ended = not 0 <= until - now <= VOUCH_LIFE + CLOCK_SLACK
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        raise BadIdentity("a word for a key that does not parse") from None
    if said != (cluster, key):
        raise BadIdentity("a word for another key, or in another cluster")
    if ended:
        raise BadIdentity("a word for a key that has expired")
    return member


def _has_three(wire: bytes) -> bool:
    """Return whether two strings leave bytes over, which then are a third."""
    first = 4 + int.from_bytes(wire[:4], "big")
    second = first + 4 + int.from_bytes(wire[first : first + 4], "big")
    return len(wire) > second


# --- link proofs ------------------------------------------------------------------------------------


def link_proof(session: Session, verifier: bytes, client: bytes, worker: bytes) -> bytes:
    """Return the proof that each end sends as the first frame on a link (see PROTOCOL.md, "Link")."""
    return session.sign(LINK_PREFIX + _string(verifier) + client + worker)


def check_link_proof(peer: Certificate, verifier: bytes, client: bytes, worker: bytes, proof: bytes) -> None:
    """Raise ``WrongPeer`` unless the session of ``peer`` made ``proof`` for this very link."""
    if not check_signature(peer, LINK_PREFIX + _string(verifier) + client + worker, proof):
        raise WrongPeer(
            "the other end of a link could not prove who it is",
            hint="Somebody may be interfering. Nothing was sent; the task goes to another worker.",
        )


# --- personal clusters ------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClusterSecret:
    """The secret that the members of a cluster share: its topic and the key of its board lines; with its id."""

    cluster: str
    topic: str
    key: bytes

    def __repr__(self) -> str:
        return f"<ClusterSecret of {self.cluster}>"


def personal_secret(signer: Signer, name: str) -> ClusterSecret:
    """Derive the secret of the personal cluster ``name``: the same wherever the SSH key is, and unknown elsewhere.

    It is derived from the key's signature over the name, so a key in an agent will do. That needs deterministic
    signatures: Ed25519's (RFC 8032) and RSA's (PKCS#1 v1.5) are, ECDSA's are not. The signature has no other use and
    never leaves the process. Raises ``NoKey`` for ECDSA.
    """
    kind = signer.get_name()
    if kind not in ("ssh-ed25519", "ssh-rsa"):
        raise NoKey(
            f"a personal cluster can't be derived from a key of kind {kind}",
            hint="Use an ed25519 key (ssh-keygen -t ed25519), by --identity FILE.",
        )
    cluster = f"{fingerprint(signer.asbytes())}/{name}"
    root = hashlib.sha512(sign(signer, cluster.encode(), PERSONAL_NAMESPACE)).digest()

    def derive(purpose: bytes, size: int) -> bytes:
        return hmac.digest(root, b"p2p-ipython/personal/v1\0" + purpose, "sha512")[:size]

    return ClusterSecret(cluster, "p2p-" + derive(b"topic", 16).hex(), derive(b"key", 32))
