"""A name with several addresses: they are tried side by side, so that a dead one delays nobody for long."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from board_support import PATIENCE, Recorder, joined, make_key, running, ssh_files

from p2p_ipython import loop
from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.board.client.eyeballs import alternate, connect
from p2p_ipython.board.client.ssh import SSHBoard
from p2p_ipython.doctor.wormhole import check_mailbox, check_relay

SIX, FOUR = socket.AF_INET6, socket.AF_INET


@pytest.mark.parametrize(
    ("families", "order"),
    [([SIX, SIX, FOUR, FOUR], [0, 2, 1, 3]), ([FOUR, SIX, SIX], [0, 1, 2]), ([FOUR, FOUR], [0, 1]), ([], [])],
)
def test_the_families_take_turns(families, order):
    addresses = list(zip(families, itertools.count(), strict=False))
    assert [number for _, number in alternate(addresses)] == order


@contextlib.contextmanager
def dead(port: int = 0) -> Iterator[tuple[str, int]]:
    """An address that answers nothing: a listener whose queue is full, so that the kernel drops what comes."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.5", port))
        listener.listen(0)
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        probe = stack.enter_context(socket.socket())
        probe.settimeout(0.5)
        try:
            probe.connect(listener.getsockname())
        except TimeoutError:
            pass
        else:
            pytest.skip("this system takes connections beyond the queue")
        yield listener.getsockname()


@pytest.fixture
def names(monkeypatch) -> dict[str, list[str]]:
    """Names that a resolver of the test's own knows, with their addresses."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        found = [real(address, port, *arguments, **options) for address in known.get(host, [host])]
        return list(itertools.chain(*found))

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def test_an_address_that_is_dead_does_not_keep_the_next_one_waiting(names):
    with socket.create_server(("127.0.0.1", 0)) as live, dead(live.getsockname()[1]) as (there, port):
        names["board.test"] = [there, "127.0.0.1"]
        with connect("board.test", port, 1000) as sock:
            assert sock.getpeername()[0] == "127.0.0.1"
            assert sock.gettimeout() == 1000


def test_where_none_answers_the_time_is_over_in_time_and_where_all_refuse_it_is_said(names):
    with dead() as (there, port):
        names["board.test"] = [there, "127.0.0.1"]
        with pytest.raises(TimeoutError):
            connect("board.test", port, 0.6)
    names["board.test"] = ["127.0.0.1", "127.0.0.9"]
    with pytest.raises(ConnectionRefusedError):
        connect("board.test", port, 1000)
    with pytest.raises(socket.gaierror):
        connect("nowhere.invalid", port, 1000)


async def test_board_mailbox_and_relay_are_reached_by_the_address_that_is_not_dead(names, tmp_path, monkeypatch):
    key = make_key(tmp_path)
    loop.adopt()
    from twisted.internet import reactor

    # Its own resolver has the function of the time at which Twisted was loaded.
    monkeypatch.setattr(reactor.nameResolver, "_getaddrinfo", socket.getaddrinfo)  # type: ignore[attr-defined]
    async with asyncio.timeout(PATIENCE), running() as server:
        port = server.addresses.port
        with dead(port) as (there, _):
            names["board.test"] = [there, "127.0.0.1"]
            where, files = BoardAddress("board.test", port), ssh_files(tmp_path)
            board = SSHBoard(where, "t", Recorder(), identity=key.path, files=files, pin=server.addresses.host_key)
            async with joined(board):
                found = await board.services()
            assert found == {"mailbox": f"ws://board.test:{port}/v1", "relay": f"tcp:board.test:{port}"}
            told = await check_mailbox(found["mailbox"])
            assert told.outcome.value == "ok", told
            assert (await check_relay(found["relay"])).outcome.value == "ok"
