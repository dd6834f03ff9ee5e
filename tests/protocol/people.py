"""Members for tests: SSH keys, sessions with fixed randomness, a cluster and its lines."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from p2p_ipython.protocol.identity import Certificate, ClusterSecret, Session, Signer
from p2p_ipython.protocol.wire import LineReader, LineWriter

SSH = Callable[[str], Signer]

NOW = 1_750_000_000.0
"""Unix time of the tests, seconds."""


@dataclass(frozen=True)
class Keys:
    """A folder of SSH keys."""

    folder: Path

    def load(self, name: str) -> paramiko.PKey:
        return paramiko.PKey.from_path(self.folder / name)

    def public_line(self, name: str) -> str:
        return (self.folder / f"{name}.pub").read_text()


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class PlainKey:
    """An Ed25519 key made from a seed: the same in every run, unlike one of ssh-keygen's."""

    def __init__(self, seed: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())

    def asbytes(self) -> bytes:
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _string(b"ssh-ed25519") + _string(public)

    def get_name(self) -> str:
        return "ssh-ed25519"

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> Any:
        return _string(b"ssh-ed25519") + _string(self._key.sign(data))


def stream(seed: str) -> Callable[[int], bytes]:
    """Bytes that look random and are the same for the same seed."""
    counter = itertools.count()

    def random(size: int) -> bytes:
        return hashlib.shake_256(f"{seed}/{next(counter)}".encode()).digest(size)

    return random


CLUSTER = ClusterSecret("SHA256:test/c", "p2p-topic", hashlib.sha256(b"a cluster's key").digest())
OTHER_CLUSTER = ClusterSecret("SHA256:test/other", "p2p-other", hashlib.sha256(b"another key").digest())


def session(
    name: str, role: str = "worker", *, cluster: str = CLUSTER.cluster, now: float = NOW, member: str = ""
) -> Session:
    """A session called ``name``, of the member ``member`` or of that name; the same for the same words."""
    return Session(PlainKey(member or name), cluster=cluster, role=role, now=now, random=stream(f"{name}/{role}"))


@cache
def certificate(name: str, role: str = "worker", member: str = "") -> Certificate:
    """Its certificate."""
    return session(name, role, member=member).certificate


def writer(name: str, role: str = "worker", *, secret: ClusterSecret = CLUSTER) -> LineWriter:
    return LineWriter(session(name, role, cluster=secret.cluster), secret, stream(f"{name}/{role}/nonces"))


def reader(*, secret: ClusterSecret = CLUSTER, members: set[str] | None = None) -> LineReader:
    """A reader that admits everybody, or the members with these fingerprints."""
    return LineReader(secret, lambda c: members is None or c.signer in members)
