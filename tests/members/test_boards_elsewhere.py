"""A member beside the board names its mailbox by loopback: members elsewhere take the address that they dialled."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from board_support import Recorder as Lines
from board_support import client, make_key, running, ssh_files
from link_support import PATIENCE, Recorder

from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.board.client.keys import choose_among
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.config import Settings
from p2p_ipython.errors import MailboxUnreachable
from p2p_ipython.link.base import Meeting
from p2p_ipython.link.hints import is_here
from p2p_ipython.link.rendezvous import new_code
from p2p_ipython.link.tls import TLSLinker
from p2p_ipython.members.access import given_access, machine_of, own_places, rendezvous_of
from p2p_ipython.members.way import Way


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


@pytest.mark.parametrize("given", ["", "ws://127.0.0.8:{port}/v1"])
async def test_each_end_reaches_the_boards_own_mailbox_and_relay_where_it_has_dialled_the_board(
    tmp_path: Path, given: str
) -> None:
    key = make_key(tmp_path)
    async with running(host="0.0.0.0") as server:
        port = server.addresses.port
        address, files = BoardAddress("127.0.0.9", port), ssh_files(tmp_path)
        chosen, way = choose_among(files, identity=key.path), Way(mailbox=given.format(port=port))
        access = given_access(address, chosen, "mine", way, me="bob", settings=Settings())
        board = SSHBoard(address, "t", Lines(), key=chosen, files=files, pin=server.addresses.host_key)
        await board.open()
        try:
            assert await rendezvous_of(access, board) == (
                (given.format(port=port), "", False)
                if given
                else (f"ws://127.0.0.9:{port}/v1", f"tcp:127.0.0.9:{port}", True)
            )
            code = new_code()
            # The client is in the board's own network, and nobody else reaches it there.
            here = Meeting(
                code, f"ws://127.0.0.1:{port}/v1", f"tcp:127.0.0.1:{port}", PATIENCE, lambda _: b"proof",
                lambda *_: None, own=True,
            )  # fmt: skip
            told = replace(here, mailbox="ws://192.0.2.1:9/v1", relay="tcp:192.0.2.1:9")
            linkers = [
                TLSLinker("client", settings=Settings(), force="relay"),
                TLSLinker("worker", settings=Settings(), force="relay", own=lambda: own_places(access, board)),
            ]
            try:
                links = await asyncio.gather(linkers[0].open(here, Recorder()), linkers[1].open(told, Recorder()))
                assert [link.kind for link in links] == ["relay", "relay"]
            finally:
                for linker in linkers:
                    await linker.close()
        finally:
            await board.close()
