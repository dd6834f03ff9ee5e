"""The ways into a cluster: one that is started on this machine, one's own on a board, and one of friends.

All happens on the background loop. ``join`` gives a ``ClusterCore`` its bridge.
"""

from __future__ import annotations

# Functions import what is heavy (paramiko, cryptography), most of it while a board and its workers start.
import asyncio
import io
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.board.client.new_key import new_ed25519
from p2p_ipython.client.knocking import come_in
from p2p_ipython.client.local import LocalCluster
from p2p_ipython.errors import BoardUnreachable
from p2p_ipython.loop import adopt
from p2p_ipython.members.way import Way

if TYPE_CHECKING:
    from p2p_ipython.client.bridge import Bridge
    from p2p_ipython.client.core import ClusterCore
    from p2p_ipython.members.access import Access


async def join(core: ClusterCore) -> None:
    """Join the cluster, and start it first if it is a personal one on this machine. Raises as ``connect`` does."""
    if core.target is None:
        await _start_here(core)
    else:
        await _join_elsewhere(core, core.target)


async def _start_here(core: ClusterCore) -> None:
    some = "a worker" if core.workers == 1 else f"{core.workers} workers"
    core.progress(f"starting a board and {some} on this machine")
    private, public = new_ed25519()
    core.local = LocalCluster(
        key=private,
        public_key=public,
        user=core.name,
        cluster=core.cluster,
        workers=core.workers,
        settings=core.settings,
        path=[os.getcwd(), *(folder for folder in sys.path if folder)],
        sandbox=core.sandbox,
        on_worker_end=core.worker_ended,
    )
    core.local.start()
    import paramiko

    from p2p_ipython.board.client.keys import KeyChoice
    from p2p_ipython.members.access import given_access

    key = KeyChoice(paramiko.Ed25519Key.from_private_key(io.StringIO(private)), "made for this cluster")
    adopt()
    board = await core.local.board()
    core.progress("joining the board")
    address = BoardAddress.parse(board.address)
    way = Way(pin=board.host_key)
    access = given_access(address, key, core.cluster, way, me=core.name, settings=core.settings, remember=False)
    bridge = await _take_part(core, access, listen="127.0.0.1")
    bridge.open(board.mailbox, board.relay)


async def _join_elsewhere(core: ClusterCore, target: str) -> None:
    adopt()
    from p2p_ipython.members.access import rendezvous_of

    access = await _access(core, target)
    core.board_address = str(access.address)
    core.progress(f"joining the board at {access.address}")
    try:
        bridge = await _take_part(core, access, listen=None)
    except BoardUnreachable as error:
        meant = [] if core.shared else await asyncio.to_thread(_titles_called, target)
        if meant:
            error.hint = f"If you mean a cluster of friends: %p2p_connect {meant[0]}. {error.hint}"
        raise
    core.progress("asking where links are arranged")
    bridge.open(*await rendezvous_of(access, core.board))


async def _access(core: ClusterCore, target: str) -> Access:
    from p2p_ipython.members.access import personal_access, shared_access

    way = core.way
    if core.shared:
        await _come_in(core, target)
        access = await shared_access(
            target, me=core.name, settings=core.settings, identity=way.identity, ssh_options=way.ssh_options
        )
        return access.reached_at(way.mailbox, way.relay)
    return await personal_access(core.cluster, replace(way, board=target), me=core.name, settings=core.settings)


async def _come_in(core: ClusterCore, title: str) -> None:
    """Be a member of a shared cluster: by its profile, else by knocking."""
    from p2p_ipython.members.profiles import Profiles

    profiles, said = Profiles(), core.way
    if await asyncio.to_thread(profiles.find, title) is not None:
        return

    await come_in(
        title,
        way=replace(said, owner=""),
        name=core.name,
        owner=said.owner,
        settings=core.settings,
        profiles=profiles,
        progress=core.progress,
    )


async def _take_part(core: ClusterCore, access: Access, listen: str | None) -> Bridge:
    """Join the board as a member of the cluster; nothing is said yet."""
    from p2p_ipython.client.bridge import Bridge
    from p2p_ipython.link.rendezvous import new_code
    from p2p_ipython.link.tls import TLSLinker
    from p2p_ipython.members.access import machine_of

    membership = access.membership(await asyncio.to_thread(access.session, "client"))
    core.bridge = Bridge(
        settings=core.settings,
        name=core.name,
        membership=membership,
        linker=TLSLinker(
            "client", settings=core.settings, listen_host=listen, board=lambda: machine_of(membership.board)
        ),
        store=core.store,
        new_code=new_code,
        records=core.records,
        walled=core.sandboxed,
    )
    await membership.join()
    return core.bridge


def _titles_called(name: str) -> list[str]:
    """Return the clusters of friends that are called ``name``, without their owners'. Blocks."""
    from p2p_ipython.members.profiles import Profiles
    from p2p_ipython.protocol.roster import parse_title

    return [profile.title for profile in Profiles().all() if parse_title(profile.title)[1] == name]
