"""Where a process listens, and when: only for what it has to meet."""

from __future__ import annotations

import asyncio
import socket

import pytest
from link_support import PATIENCE, Recorder, eventually, world

from p2p_ipython.config import Settings
from p2p_ipython.errors import LinkError
from p2p_ipython.link.listener import Listener
from p2p_ipython.link.rendezvous import new_code
from p2p_ipython.link.tls import TLSLinker


def addresses(listener: Listener) -> set[str]:
    return {s.getsockname()[0] for each in listener._open.values() for s in each.server.sockets}


async def test_for_peers_on_this_machine_it_is_loopback_and_for_others_all_addresses() -> None:
    listener = Listener(None)
    near = await listener.need(local=True)
    assert addresses(listener) == {"127.0.0.1"}
    far = await listener.need(local=False)
    assert addresses(listener) - {"127.0.0.1"} <= {"::", "0.0.0.0"}
    assert len(addresses(listener)) == 2
    assert near.port != far.port
    near.release()
    far.release()
    await listener.close()


async def test_the_address_that_is_asked_for_is_the_only_one() -> None:
    listener = Listener("127.0.0.2")
    needs = [await listener.need(local=local) for local in (True, False)]
    assert addresses(listener) == {"127.0.0.2"}
    assert len({need.port for need in needs}) == 1
    await listener.close()


async def test_it_listens_until_the_last_need_is_released_and_again_when_there_is_one() -> None:
    listener = Listener(None)
    first, second = await asyncio.gather(*(listener.need(local=True) for _ in range(2)))
    assert first.port == second.port == listener.port
    first.release()
    first.release()
    assert listener.port == second.port
    second.release()
    assert listener.port == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", second.port)) != 0
    third = await listener.need(local=True)
    assert listener.port == third.port != 0
    await listener.close()


async def test_a_linker_listens_while_it_meets_and_while_it_has_links() -> None:
    async with asyncio.timeout(PATIENCE), world("direct") as here:
        linkers = [TLSLinker(role, settings=Settings()) for role in ("client", "worker")]  # type: ignore[arg-type]
        assert [linker.listener.port for linker in linkers] == [0, 0]
        for _ in range(2):
            code = new_code()
            links = await asyncio.gather(*(linker.open(here.meeting(code), Recorder()) for linker in linkers))
            for linker in linkers:
                assert addresses(linker.listener) == {"127.0.0.1"}, "the mailbox is on this machine"
            links[0].abort()
            await links[1].close()
            await eventually(lambda: not any(linker.listener.port for linker in linkers))
        with pytest.raises(LinkError):
            await linkers[0].open(here.meeting(new_code(), deadline=0.1), Recorder())
        assert linkers[0].listener.port == 0
        for linker in linkers:
            await linker.close()
