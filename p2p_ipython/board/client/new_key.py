"""A fresh SSH key.

Apart from keys.py, which loads paramiko: a personal cluster makes its key before it starts its processes.
"""

from __future__ import annotations


def new_ed25519() -> tuple[str, str]:
    """Make an ed25519 key without a passphrase: private in OpenSSH's format, and the public line."""
    # Late: cryptography takes long to load.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), public.decode()
