"""The way to a board, as far as the user has said it: the command line and the magics hand it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Way:
    """How to get to a board, and whom to believe there; "" and None mean what is usual.

    ``board`` is ``[USER@]HOST[:PORT]``. ``pin`` is the board's host key, a public key line or its fingerprint.
    ``owner`` is the fingerprint of the cluster owner's key, for knocking.
    """

    board: str = ""
    identity: Path | None = None
    pin: str | None = None
    mailbox: str = ""
    relay: str = ""
    ssh_options: tuple[str, ...] = ()
    owner: str = ""


def path_text(identity: Path | None) -> str:
    """Return the path of a key's file as a profile has it; "" for None."""
    return str(identity.expanduser().absolute()) if identity is not None else ""
