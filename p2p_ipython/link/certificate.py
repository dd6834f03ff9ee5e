"""The certificate of a process, and TLS contexts that trust one other certificate only.

A certificate is self-signed, made when the process first opens a link, and forgotten with the process. The peer
trusts it because it came through the wormhole: its name, its dates and its issuer mean nothing.
"""

from __future__ import annotations

import datetime
import secrets
import ssl
import tempfile
from pathlib import Path

from p2p_ipython.errors import WrongPeer

MAX_DER = 4096
"""Largest certificate taken from a peer, bytes. Ours have some 300."""


class Certificate:
    """A key pair of this process and its self-signed certificate, ``der``."""

    def __init__(self) -> None:
        # Late: cryptography takes long to load.
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "p2p_ipython")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # The certificate is pinned and lives as long as its process. Dates could only make a wrong clock an error.
            .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
            .not_valid_after(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC))
            .sign(key, hashes.SHA256())
        )
        self.der = certificate.public_bytes(Encoding.DER)
        self._password = secrets.token_hex(32)
        self._pem = certificate.public_bytes(Encoding.PEM) + key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(self._password.encode())
        )

    def __repr__(self) -> str:
        return "<Certificate>"

    def context(self, peer_der: bytes, *, server: bool) -> ssl.SSLContext:
        """Return a TLS 1.3 context that shows this certificate and accepts ``peer_der`` and no other.

        Raises ``WrongPeer`` when ``peer_der`` is not a certificate.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        if server:
            context.num_tickets = 0  # a reconnect is a fresh handshake, with fresh keys
        try:
            context.load_verify_locations(cadata=peer_der)
        except (ssl.SSLError, ValueError):
            raise WrongPeer("the peer sent something that is not a certificate") from None
        # The ssl module takes a key from a file only. The key lies there encrypted, and only while it is loaded.
        with tempfile.TemporaryDirectory(prefix="p2p-") as folder:
            path = Path(folder, "key.pem")
            path.write_bytes(self._pem)
            context.load_cert_chain(path, password=self._password)
        return context
