"""``p2p board``: a board in the foreground, until a signal, or the end of its standard input."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
from collections.abc import Callable
from json import dumps

from p2p_ipython import lifeline
from p2p_ipython import loop as loops
from p2p_ipython.board.server import descriptors
from p2p_ipython.board.server.options import Addresses, ServerOptions
from p2p_ipython.board.server.serve import serve


async def board_command(
    options: ServerOptions, *, json: bool, out: Callable[[str], None], until_eof: bool = False
) -> None:
    """Serve a board until SIGINT or SIGTERM; with ``until_eof`` also until standard input ends.

    ``out`` gets, once the board is ready, what to type elsewhere; with ``json`` one line of JSON instead: ``ssh``
    (``host``, ``port``), ``mailbox``, ``relay``, ``host_key``, ``fingerprint`` and ``pid``. Takes the running loop
    for Twisted. Raises ``ConfigError`` and ``BoardError`` when the board can't start.
    """
    loops.adopt()
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    signals = _on_signals(loop, over.set)
    descriptors.raise_limit()
    try:
        if until_eof:
            lifeline.hold(lambda: _from_thread(loop, over.set))
        server = await serve(options)
        try:
            out(_as_json(server.addresses) if json else _as_text(server.addresses))
            await over.wait()
        finally:
            await server.close()
    finally:
        for number, before in signals:
            signal.signal(number, before)


def _on_signals(
    loop: asyncio.AbstractEventLoop, act: Callable[[], None]
) -> list[tuple[signal.Signals, signal._HANDLER]]:
    """Have SIGINT and SIGTERM call ``act`` on the loop; return what they did before.

    By ``signal.signal``, which Windows has, too; the loop's own handlers are for Unix.
    """
    before = []
    for number in (signal.SIGINT, signal.SIGTERM):
        before.append((number, signal.getsignal(number)))
        signal.signal(number, lambda *_: _from_thread(loop, act))
    return before


def _from_thread(loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(act)
    except RuntimeError:  # the loop has ended, and the board with it
        pass


def _as_json(where: Addresses) -> str:
    return dumps(
        {
            "ssh": {"host": where.host, "port": where.port},
            "mailbox": where.mailbox,
            "relay": where.relay,
            "host_key": where.host_key,
            "fingerprint": where.fingerprint,
            "pid": os.getpid(),
        }
    )


def _as_text(where: Addresses) -> str:
    host = where.host
    there = f"[{host}]:{where.port}" if ":" in host else f"{host}:{where.port}"
    others = {each.rpartition(":")[2].partition("/")[0] for each in (where.mailbox, where.relay)}
    ports = f", all on port {where.port}" if others == {str(where.port)} else ""
    reach = ""
    if ipaddress.ip_address(host).is_loopback:
        reach = "\nOnly this machine can reach it; for others give --host :: (or one of its addresses).\n"
    return f"""\
The board is ready, with a wormhole mailbox and a transit relay of its own{ports}.
Its host key is {where.fingerprint}
{reach}
In a notebook:   %p2p_connect {there} --cluster NAME --accept-host-key {where.fingerprint}
To share a CPU:  p2p worker --board {there} --cluster NAME --accept-host-key {where.fingerprint}
For friends:     p2p host NAME --board {there} --accept-host-key {where.fingerprint}
With plain SSH:  ssh -p {where.port} {host} help

Ctrl-C ends it."""
