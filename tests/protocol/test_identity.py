"""Who somebody is, checked with real SSH keys, a real ssh-agent and ssh-keygen."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nacl.bindings
import nacl.exceptions
import paramiko
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from hypothesis import given
from hypothesis import strategies as st
from people import NOW, SSH, Keys, PlainKey, certificate, session, stream

from p2p_ipython.errors import NoKey, WrongPeer
from p2p_ipython.protocol import identity
from p2p_ipython.protocol.identity import (
    CLOCK_SLACK,
    MAX_CERTIFICATE,
    MAX_LIFE,
    PERSONAL_NAMESPACE,
    SESSION_NAMESPACE,
    BadIdentity,
    Certificate,
    Session,
    Signer,
    check_link_proof,
    check_signature,
    fingerprint,
    link_proof,
    personal_secret,
    seal,
    sign,
    verify,
)

ALL_KINDS = pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _fields(**changed: Any) -> dict[str, Any]:
    fields = {
        "cluster": "c",
        "sid": "11" * 16,
        "ed25519": "22" * 32,
        "x25519": "33" * 32,
        "role": "worker",
        "until": int(NOW + 3600),
    }
    return fields | changed


def _vouch(body: bytes, namespace: str = SESSION_NAMESPACE, signer: Signer | None = None) -> bytes:
    return _string(body) + _string(sign(signer or PlainKey("mallory"), body, namespace))


# --- signatures -------------------------------------------------------------------------------------


@ALL_KINDS
def test_a_signature_by_each_kind_of_key_holds_and_names_the_key(kind: str, signer_of: SSH) -> None:
    signer = signer_of(kind)
    assert verify(sign(signer, b"text", "n"), b"text", "n") == signer.asbytes()


@ALL_KINDS
def test_ssh_keygen_accepts_our_signatures(kind: str, signer_of: SSH, keys: Keys, tmp_path: Path) -> None:
    blob = base64.b64encode(sign(signer_of(kind), b"text", SESSION_NAMESPACE)).decode()
    lines = "\n".join(blob[i : i + 70] for i in range(0, len(blob), 70))
    (tmp_path / "sig").write_text(f"-----BEGIN SSH SIGNATURE-----\n{lines}\n-----END SSH SIGNATURE-----\n")
    (tmp_path / "signers").write_text(f"alice {keys.public_line(kind)}")
    arguments = ["-f", str(tmp_path / "signers"), "-I", "alice", "-n", SESSION_NAMESPACE, "-s", str(tmp_path / "sig")]
    done = subprocess.run(["ssh-keygen", "-Y", "verify", *arguments], input=b"text", capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr


@ALL_KINDS
def test_we_accept_ssh_keygens_signatures(kind: str, keys: Keys) -> None:
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(keys.folder / kind), "-n", "n"]
    armoured = subprocess.run(command, input=b"text", capture_output=True, timeout=30, check=True).stdout.decode()
    blob = base64.b64decode("".join(armoured.splitlines()[1:-1]))
    assert verify(blob, b"text", "n") == keys.load(kind).asbytes()


@ALL_KINDS
def test_a_fingerprint_is_what_ssh_keygen_prints(kind: str, keys: Keys) -> None:
    command = ["ssh-keygen", "-l", "-f", str(keys.folder / kind)]
    printed = subprocess.run(command, capture_output=True, timeout=30, check=True).stdout.decode()
    assert fingerprint(keys.load(kind).asbytes()) == printed.split()[1]


def test_a_signature_for_another_text_is_refused() -> None:
    with pytest.raises(BadIdentity, match="does not hold"):
        verify(sign(PlainKey("alice"), b"text", "n"), b"another text", "n")


def test_a_signature_for_another_namespace_is_refused() -> None:
    with pytest.raises(BadIdentity, match="another purpose"):
        verify(sign(PlainKey("alice"), b"text", PERSONAL_NAMESPACE), b"text", SESSION_NAMESPACE)


def test_a_signature_with_another_key_put_in_is_refused() -> None:
    blob = sign(PlainKey("mallory"), b"text", "n")
    forged = blob.replace(PlainKey("mallory").asbytes(), PlainKey("alice").asbytes())
    assert forged != blob
    with pytest.raises(BadIdentity):
        verify(forged, b"text", "n")


def test_an_rsa_signature_with_sha1_is_refused(keys: Keys) -> None:
    with pytest.raises(BadIdentity, match="not accepted"):
        verify(_sshsig(keys.load("rsa"), "ssh-rsa"), b"text", "n")


def test_an_rsa_signature_with_sha256_is_refused(keys: Keys) -> None:
    with pytest.raises(BadIdentity, match="not accepted"):
        verify(_sshsig(keys.load("rsa"), "rsa-sha2-256"), b"text", "n")


def test_a_short_rsa_key_is_refused(keys: Keys) -> None:
    with pytest.raises(BadIdentity, match="not accepted"):
        verify(_sshsig(keys.load("rsa-short"), "rsa-sha2-512"), b"text", "n")


def _sshsig(key: paramiko.PKey, algorithm: str) -> bytes:
    """What ``sign`` makes, with an algorithm that it would not choose."""
    raw = _rsa_signature(key, identity._signed_text(b"text", "n"), algorithm)
    return b"SSHSIG\0\0\0\1" + b"".join(map(_string, (key.asbytes(), b"n", b"", b"sha512", raw)))


def _rsa_signature(key: paramiko.PKey, data: bytes, algorithm: str) -> bytes:
    digest = {"ssh-rsa": hashes.SHA1(), "rsa-sha2-256": hashes.SHA256(), "rsa-sha2-512": hashes.SHA512()}[algorithm]
    return _string(algorithm.encode()) + _string(key.key.sign(data, padding.PKCS1v15(), digest))


class _OldAgentKey:
    """An agent's key that ignores the algorithm asked for, as agents did before 2018: SHA-1."""

    def __init__(self, key: paramiko.PKey) -> None:
        self._key = key

    def asbytes(self) -> bytes:
        return bytes(self._key.asbytes())

    def get_name(self) -> str:
        return "ssh-rsa"

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> Any:
        return _rsa_signature(self._key, data, "ssh-rsa")


def test_an_agent_that_answers_with_sha1_is_reported_before_anything_is_sent(keys: Keys) -> None:
    with pytest.raises(NoKey, match="not accepted") as caught:
        session_of(_OldAgentKey(keys.load("rsa")))
    assert "ed25519" in caught.value.hint


def test_a_short_rsa_key_of_ones_own_is_reported_with_a_hint(keys: Keys) -> None:
    with pytest.raises(NoKey, match="not accepted") as caught:
        session_of(keys.load("rsa-short"))
    assert "ed25519" in caught.value.hint


def test_an_agent_that_refuses_to_sign_is_no_key_with_a_hint() -> None:
    class Locked(PlainKey):
        def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> Any:
            raise paramiko.SSHException("key cannot be used for signing")

    with pytest.raises(NoKey, match="SSHException") as caught:
        sign(Locked("alice"), b"text", "n")
    assert "ssh-add" in caught.value.hint
    assert caught.value.__suppress_context__


def session_of(signer: Signer, now: float = NOW, role: str = "worker") -> Session:
    return Session(signer, cluster="c", role=role, now=now, random=stream("s"))


# --- certificates -----------------------------------------------------------------------------------


@ALL_KINDS
def test_a_certificate_says_who_vouches_for_which_session(kind: str, signer_of: SSH) -> None:
    signer = signer_of(kind)
    made = session_of(signer)
    read = Certificate.parse(made.certificate.wire, NOW)
    assert read == made.certificate
    assert (read.cluster, read.sid, read.role, read.until) == ("c", made.sid, "worker", NOW + MAX_LIFE)
    assert read.signer == fingerprint(signer.asbytes())


@ALL_KINDS
def test_a_certificate_fits_its_bound_with_room(kind: str, keys: Keys) -> None:
    assert len(session_of(keys.load(kind)).certificate.wire) < 0.75 * MAX_CERTIFICATE


def test_an_expired_certificate_is_refused() -> None:
    wire = certificate("alice").wire
    Certificate.parse(wire, NOW + MAX_LIFE)
    with pytest.raises(BadIdentity, match="expired"):
        Certificate.parse(wire, NOW + MAX_LIFE + 1)


def test_a_certificate_that_lives_longer_than_a_day_is_refused() -> None:
    body = json.dumps(_fields(until=int(NOW + MAX_LIFE + CLOCK_SLACK + 1))).encode()
    with pytest.raises(BadIdentity, match="lives too long"):
        Certificate.parse(_vouch(body), NOW)


def test_a_certificate_signed_for_another_purpose_is_refused() -> None:
    body = json.dumps(_fields()).encode()
    Certificate.parse(_vouch(body), NOW)
    with pytest.raises(BadIdentity, match="another purpose"):
        Certificate.parse(_vouch(body, PERSONAL_NAMESPACE), NOW)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b"[" * 1000,
        *(json.dumps({k: v for k, v in _fields().items() if k != gone}).encode() for gone in _fields()),
        *(json.dumps(_fields(**{name: 7})).encode() for name in ("cluster", "sid", "ed25519", "x25519", "role")),
        *(json.dumps(_fields(until=value)).encode() for value in ("1", 1.5, None, [], {})),
        json.dumps(_fields(until=float("nan"))).encode(),
        json.dumps(_fields(until=10**400)).encode(),
        json.dumps(_fields(until=-(10**400))).encode(),
        json.dumps(_fields(role="king")).encode(),
        json.dumps(_fields(role=[])).encode(),
        json.dumps(_fields(sid="11" * 15)).encode(),
        json.dumps(_fields(ed25519="zz" * 32)).encode(),
        json.dumps(_fields(x25519="33" * 33)).encode(),
    ],
)
def test_a_well_signed_certificate_with_nonsense_in_it_is_refused(body: bytes) -> None:
    with pytest.raises(BadIdentity):
        Certificate.parse(_vouch(body), NOW)


LOW_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    *(bytes.fromhex(first + "ff" * 30 + "7f") for first in ("ec", "ed", "ee")),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


@pytest.mark.parametrize("top", [0, 0x80])
@pytest.mark.parametrize("key", LOW_ORDER)
def test_a_certificate_to_whose_key_nothing_can_be_sealed_is_refused(key: bytes, top: int) -> None:
    key = key[:31] + bytes([key[31] | top])
    with pytest.raises(nacl.exceptions.CryptoError):
        nacl.bindings.crypto_scalarmult(b"\x40" * 32, key)
    with pytest.raises(BadIdentity, match="low order"):
        Certificate.parse(_vouch(json.dumps(_fields(x25519=key.hex())).encode()), NOW)


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f")])
def test_a_signature_of_a_key_of_low_order_does_not_hold(key: bytes) -> None:
    there = replace(certificate("mallory"), verify_key=key)
    assert not any(check_signature(there, b"text", point + bytes(32)) for point in (key, bytes(32), b"\1" + bytes(31)))


def test_a_certificate_over_its_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadIdentity, match="too large"):
        Certificate.parse(b"\0" * (MAX_CERTIFICATE + 1), NOW)


def test_a_certificate_cut_anywhere_is_refused() -> None:
    wire = certificate("alice").wire
    for end in range(len(wire)):
        with pytest.raises(BadIdentity):
            Certificate.parse(wire[:end], NOW)


def test_a_certificate_with_any_one_bit_turned_is_refused() -> None:
    wire = certificate("alice").wire
    for place in range(len(wire)):
        garbled = bytearray(wire)
        garbled[place] ^= 1 << (place % 8)
        with pytest.raises(BadIdentity):
            Certificate.parse(bytes(garbled), NOW)


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_certificates_of_other_kinds_garbled_anywhere_are_refused(kind: str, keys: Keys) -> None:
    wire = session_of(keys.load(kind)).certificate.wire
    for place in range(len(wire)):
        garbled = bytearray(wire)
        garbled[place] ^= 1 << (place % 8)
        with pytest.raises(BadIdentity):
            Certificate.parse(bytes(garbled), NOW)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_certificate_are_refused(wire: bytes) -> None:
    with pytest.raises(BadIdentity):
        Certificate.parse(wire, NOW)


@given(
    kind=st.sampled_from([b"ssh-rsa", b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"ssh-dss", b"a b\n"]), rest=st.binary()
)
def test_a_signature_with_a_hostile_public_key_is_refused(kind: bytes, rest: bytes) -> None:
    signature = _string(kind) + _string(b"\0" * 64)
    blob = b"SSHSIG\0\0\0\1" + b"".join(map(_string, (_string(kind) + rest, b"n", b"", b"sha512", signature)))
    with pytest.raises(BadIdentity):
        verify(blob, b"text", "n")


# --- sessions ---------------------------------------------------------------------------------------


def test_only_the_session_itself_makes_its_signatures() -> None:
    alice, bob = session("alice"), session("bob")
    assert check_signature(alice.certificate, b"text", alice.sign(b"text"))
    assert not check_signature(alice.certificate, b"text", bob.sign(b"text"))
    assert not check_signature(alice.certificate, b"texts", alice.sign(b"text"))
    assert not check_signature(alice.certificate, b"text", b"")


def test_what_is_sealed_to_one_session_opens_for_no_other() -> None:
    alice, bob = session("alice"), session("bob")
    box = seal(alice.certificate, b"a code")
    assert alice.unseal(box) == b"a code"
    for who, what in [(bob, box), (alice, box[:-1]), (alice, b""), (alice, box[:-1] + bytes([box[-1] ^ 1]))]:
        with pytest.raises(BadIdentity, match="not for us"):
            who.unseal(what)


def test_a_link_proof_counts_for_one_link_and_one_pair_only() -> None:
    worker, client = session("bob", "worker"), session("alice", "client")
    proof = link_proof(worker, b"verifier", client.sid, worker.sid)
    check_link_proof(worker.certificate, b"verifier", client.sid, worker.sid, proof)
    for peer, verifier, first, second in [
        (worker.certificate, b"another", client.sid, worker.sid),
        (client.certificate, b"verifier", client.sid, worker.sid),
        (worker.certificate, b"verifier", worker.sid, client.sid),
    ]:
        with pytest.raises(WrongPeer):
            check_link_proof(peer, verifier, first, second, proof)


def test_a_link_proof_does_not_count_when_shown_back_to_who_made_it() -> None:
    worker, client = session("bob", "worker"), session("alice", "client")
    proof = link_proof(client, b"verifier", client.sid, worker.sid)
    with pytest.raises(WrongPeer):
        check_link_proof(worker.certificate, b"verifier", client.sid, worker.sid, proof)


# --- personal clusters ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_personal_cluster_is_the_same_by_file_and_by_agent(kind: str, keys: Keys, agent: paramiko.Agent) -> None:
    blob = keys.load(kind).asbytes()
    held = next(key for key in agent.get_keys() if key.asbytes() == blob)
    assert personal_secret(keys.load(kind), "home") == personal_secret(held, "home")


def test_another_name_or_another_key_is_another_personal_cluster(keys: Keys) -> None:
    secrets = [
        personal_secret(keys.load("ed25519"), "home"),
        personal_secret(keys.load("ed25519"), "work"),
        personal_secret(keys.load("ed25519-other"), "home"),
    ]
    for part in ("cluster", "topic", "key"):
        assert len({getattr(secret, part) for secret in secrets}) == 3


def test_a_personal_topic_shows_nothing_of_the_key_or_the_name(keys: Keys) -> None:
    secret = personal_secret(keys.load("ed25519"), "home")
    assert "home" not in secret.topic
    assert secret.key.hex() not in secret.topic
    assert len(secret.key) == 32


def test_an_ecdsa_key_has_no_personal_cluster_and_says_which_key_has(signer_of: SSH) -> None:
    with pytest.raises(NoKey, match="ecdsa") as caught:
        personal_secret(signer_of("ecdsa"), "home")
    assert "ed25519" in caught.value.hint


# --- secrets stay out of what people see ------------------------------------------------------------


def test_reprs_show_no_key() -> None:
    random = stream("s")
    secrets = [random(32), random(32)]  # the two session keys, as Session draws them
    made = session_of(PlainKey("alice"))
    cluster = personal_secret(PlainKey("alice"), "home")
    shown = " ".join([repr(made), str(made), f"{made}", repr(cluster), str(cluster)])
    for secret in [*secrets, cluster.key]:
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    assert cluster.topic not in shown


def _failures() -> list[Callable[[], object]]:
    alice, bob = session("alice"), session("bob")
    box = seal(alice.certificate, b"7-secret-code")
    return [
        lambda: bob.unseal(box),
        lambda: Certificate.parse(b"7-secret-code", NOW),
        lambda: check_link_proof(alice.certificate, b"7-secret-code", alice.sid, bob.sid, b"7-secret-code"),
    ]


@pytest.mark.parametrize("number", range(3))
def test_errors_hold_nothing_of_what_was_read(number: int) -> None:
    with pytest.raises((BadIdentity, WrongPeer)) as caught:
        _failures()[number]()
    told = "".join(traceback.format_exception(caught.value)[-1:]) + repr(caught.value.args)
    assert "secret-code" not in told
    assert caught.value.__cause__ is None


def test_a_session_does_not_travel_in_a_pickle() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(session("alice"))
