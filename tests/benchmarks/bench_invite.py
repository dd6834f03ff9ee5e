"""What it takes to join by invitation, without the human: from ``invite`` to both ends done, on loopback.

Run by hand: ``python tests/benchmarks/bench_invite.py [--repeats 7]``. The guest is a process of its own that has
imported everything and has nothing else to do; host and mailbox share one. Figures are medians; the best and the worst
are beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import multiprocessing
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

sys.path.insert(0, str(Path(__file__).parents[1]))

from link_support import servers

from p2p_ipython import loop as loops
from p2p_ipython.link.base import Secret
from p2p_ipython.members.invitation import accept, invite
from p2p_ipython.members.invitation_messages import Guest, Welcome
from p2p_ipython.protocol.identity import ClusterSecret, fingerprint
from p2p_ipython.protocol.roster import Member, Roster, commitment

TITLE = "alice/friends"


def new_key() -> paramiko.PKey:
    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return paramiko.Ed25519Key(file_obj=io.StringIO(private.decode()))


def guest_process(pipe: Any) -> None:
    """Come in by each code that the pipe brings; say when, and how long it took."""

    async def main() -> None:
        signer = new_key()
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            mailbox, code = order
            begun = time.monotonic()
            await accept(Secret(code), mailbox=mailbox, signer=signer, name="bob")
            pipe.send(time.monotonic() - begun)
        loops.disown()

    asyncio.run(main())


async def once(pipe: Any, mailbox: str, owner: paramiko.PKey) -> tuple[float, float]:
    """Seconds from ``invite`` to its end, and from ``accept`` to its end."""
    cluster = f"{fingerprint(owner.asbytes())}/friends"
    secret = ClusterSecret(cluster, "p2p-" + "0" * 32, bytes(32))

    async def admit(guest: Guest) -> Welcome:
        members = (Member("alice", (fingerprint(owner.asbytes()),)), Member(guest.name, (guest.fingerprint,)))
        roster = Roster(cluster, TITLE, 2, 2_000_000_000, commitment(secret), members).signed(owner)
        return Welcome(TITLE, cluster, "board.example", "", "", "", secret.topic, secret.key, roster.wire)

    begun = time.monotonic()
    await invite(
        mailbox=mailbox,
        signer=owner,
        title=TITLE,
        cluster=cluster,
        show_code=lambda code: pipe.send((mailbox, code)),
        admit=admit,
    )
    host = time.monotonic() - begun
    return host, await asyncio.to_thread(pipe.recv)


async def main(repeats: int) -> None:
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=guest_process, args=(other,))
    process.start()
    owner = new_key()
    try:
        async with servers() as here:
            await once(pipe, here.mailbox, owner)  # the imports
            figures = [await once(pipe, here.mailbox, owner) for _ in range(repeats)]
    finally:
        pipe.send(None)
        process.join(10)
        loops.disown()
    for name, column in zip(
        ("host, from invite() on", "guest, from accept() on"), zip(*figures, strict=True), strict=True
    ):
        print(f"{name:24} {statistics.median(column):.3f} s  ({min(column):.3f} to {max(column):.3f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    asyncio.run(main(parser.parse_args().repeats))
