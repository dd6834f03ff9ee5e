"""A member beside the board names its mailbox by loopback: members elsewhere take the address that they dialled."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import psutil
import pytest
from board_support import Recorder as Lines
from board_support import client, make_key, running
from link_support import PATIENCE, Recorder

from p2p_ipython.config import Settings
from p2p_ipython.errors import MailboxUnreachable
from p2p_ipython.link.base import Meeting
from p2p_ipython.link.hints import is_here
from p2p_ipython.link.rendezvous import new_code
from p2p_ipython.link.tls import TLSLinker
from p2p_ipython.members.access import machine_of


def addresses() -> list[str]:
    every = [each for some in psutil.net_if_addrs().values() for each in some if each.family == socket.AF_INET]
    return [each.address for each in every if not is_here(each.address)]


@pytest.mark.skipif(not addresses(), reason="this machine has loopback only")
async def test_mailbox_and_relay_are_where_the_board_was_dialled(tmp_path: Path) -> None:
    async with running(host=addresses()[0]) as server:
        board = client(server, "topic", Lines(), make_key(tmp_path), tmp_path)
        assert machine_of(board) == ""
        await board.open()
        try:
            assert machine_of(board) == server.addresses.host == addresses()[0]
            code = new_code()
            named = [
                where.replace(server.addresses.host, "127.0.0.1")
                for where in (server.addresses.mailbox, server.addresses.relay)
            ]
            met = Meeting(code, named[0], named[1], PATIENCE, lambda _: b"proof", lambda *_: None)
            linkers = [
                TLSLinker(role, settings=Settings(), force="relay", board=lambda: machine_of(board))
                for role in ("client", "worker")
            ]
            lost = TLSLinker("worker", settings=Settings(), force="relay")
            try:
                links = await asyncio.gather(*(linker.open(met, Recorder()) for linker in linkers))
                assert [link.kind for link in links] == ["relay", "relay"]
                with pytest.raises(MailboxUnreachable):
                    await lost.open(met, Recorder())
            finally:
                for linker in (*linkers, lost):
                    await linker.close()
        finally:
            await board.close()
