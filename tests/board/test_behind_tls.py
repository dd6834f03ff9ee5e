"""A board behind a web server that speaks TLS: its mailbox by ``wss``, from a certificate to a link."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from board_support import PATIENCE, running
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from p2p_ipython.doctor.checks import Outcome
from p2p_ipython.doctor.wormhole import check_link, check_mailbox


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    called = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@asynccontextmanager
async def tls_in_front_of(port: int, file: Path) -> AsyncIterator[int]:
    """What a web server does: it takes TLS, and passes plain bytes on to ``port``."""
    running: set[asyncio.Task[None]] = set()

    async def copy(one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
        try:
            while data := await one.read(1 << 16):
                other.write(data)
                await other.drain()
        except ConnectionError:
            pass
        other.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        await asyncio.gather(copy(reader, back), copy(there, writer))
        running.discard(task)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_the_mailbox_is_reached_by_wss_and_a_certificate_that_does_not_fit_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path, "localhost")
    async with (
        asyncio.timeout(2 * PATIENCE),
        running() as server,
        tls_in_front_of(server.addresses.port, file) as port,
    ):
        refused = await check_mailbox(f"wss://localhost:{port}/v1")
        assert refused.outcome is Outcome.FAILED
        assert "certificate" in refused.why, refused
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        welcome = await check_mailbox(f"wss://localhost:{port}/v1")
        assert welcome.outcome is Outcome.OK, welcome
        made = await check_link(f"wss://localhost:{port}/v1", server.addresses.relay)
        assert made.outcome is Outcome.OK, made
