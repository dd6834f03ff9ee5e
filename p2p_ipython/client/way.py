"""What the user has said of the way to a board."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2p_ipython.members import operations


@dataclass(frozen=True)
class Way:
    """What the user has said of the way to a board that runs elsewhere; None: what is usual.

    ``board`` and ``owner`` (the fingerprint of his key) are for knocking at a shared cluster.
    """

    identity: Path | None = None
    accept_host_key: str | None = None
    mailbox: str | None = None
    relay: str | None = None
    ssh_options: tuple[str, ...] = ()
    board: str | None = None
    owner: str | None = None

    def to(self, board: str) -> operations.Way:
        """The same to ``board``, as the owner's and the guest's errands have it."""
        from p2p_ipython.members import operations

        return operations.Way(
            board=board,
            identity=self.identity,
            pin=self.accept_host_key,
            mailbox=self.mailbox or "",
            relay=self.relay or "",
            ssh_options=self.ssh_options,
        )
