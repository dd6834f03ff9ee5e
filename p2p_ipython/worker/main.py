"""A worker process: read the options, join the board, lend slots until told to stop.

Two ways lead here: ``p2p worker`` (cli/worker.py), with a key of the user's, and a personal cluster, which starts
``python -m p2p_ipython.worker`` and hands everything, the key too, over standard input: neither the process
list nor the environment shows it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_ipython.config import Settings
from p2p_ipython.errors import BoardError
from p2p_ipython.loop import adopt, disown

if TYPE_CHECKING:
    from p2p_ipython.board.address import BoardAddress
    from p2p_ipython.board.keys import KeyChoice

log = logging.getLogger(__name__)

DRAIN = 60.0
"""Seconds that a worker whose time is up waits for the tasks that it runs."""


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker needs to know.

    ``duration``: seconds, None for until it is ended. ``key``: a key, instead of ``identity`` and the
    usual places. ``path``: folders that tasks may import from, appended to ``sys.path``. ``listen``: address
    that links may come to; None for all.
    """

    board: str
    cluster: str
    name: str | None = None
    slots: int = 1
    duration: float | None = None
    identity: Path | None = None
    accept_host_key: str | None = None
    settings: Settings = field(default_factory=Settings)
    key: KeyChoice | None = None
    path: tuple[str, ...] = ()
    listen: str | None = None
    farewell: bool = True


def default_name() -> str:
    """A name for people: the machine's, without its domain."""
    return socket.gethostname().split(".")[0][:32] or "worker"


async def run_worker(
    options: WorkerOptions,
    *,
    ready: Callable[[str, bytes], None] = lambda _name, _sid: None,
    ended: asyncio.Event | None = None,
) -> int:
    """Run a worker until its time is up, ``ended`` is set, or SIGINT or SIGTERM comes; return an exit code.

    ``ready(name, sid)`` is called once the worker has said hello. Raises a ``BoardError`` or ``NoKey`` when it
    can't join.
    """
    adopt()
    from p2p_ipython.board.address import BoardAddress
    from p2p_ipython.board.login import choose_login

    if options.key is not None:
        address, key = BoardAddress.parse(options.board), options.key
    else:
        address, key = await choose_login(options.board, options.identity)
    worker = _Worker(options, address, key)
    ended = ended or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        starting = loop.create_task(worker.agent.start_slots())
        try:
            await worker.join()
            ready(worker.name, worker.session.sid)
            await _first(starting, ended)
            try:
                await asyncio.wait_for(ended.wait(), options.duration)
                log.info("ending")
            except TimeoutError:
                log.info("the time is up")
                await worker.agent.drain(DRAIN)
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await worker.agent.close(farewell=options.farewell)
    finally:
        disown()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return 0


async def _first(starting: asyncio.Task[None], ended: asyncio.Event) -> None:
    """Wait until the runners are up (and raise if they can't be), or the end has come."""
    ending = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending.cancel()
    if starting.done():
        starting.result()


class _Worker:
    """The parts of a worker, put together."""

    def __init__(self, options: WorkerOptions, address: BoardAddress, choice: KeyChoice) -> None:
        from p2p_ipython.link.tls import TLSLinker
        from p2p_ipython.protocol.identity import Session, fingerprint, personal_secret
        from p2p_ipython.protocol.messages import Terms
        from p2p_ipython.sandbox.launch import LaunchOptions
        from p2p_ipython.worker.agent import Agent
        from p2p_ipython.worker.slots import Slot

        self._options = options
        settings = options.settings
        self.name = options.name or default_name()
        self._address = address
        self._choice = choice
        key = choice.key
        self.secret = personal_secret(key, options.cluster)
        owner = fingerprint(key.asbytes())
        self.session = Session(key, cluster=self.secret.cluster, role="worker", now=time.time(), random=os.urandom)
        terms = Terms(
            slots=options.slots,
            free=0,
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            platform=f"{platform.system()} {platform.machine()}",
            cores=os.cpu_count() or 1,
            memory=_memory(),
            until=int(time.time() + options.duration) if options.duration else 0,
        )
        launch = LaunchOptions(
            memory=settings.task_memory or _memory() * 3 // 4 // options.slots,
            output_limit=settings.output_limit,
            path=options.path,
        )
        self.agent = Agent(
            settings=settings,
            name=self.name,
            terms=terms,
            session=self.session,
            secret=self.secret,
            # A personal cluster: whoever holds the key is me, and nobody else is anybody.
            admit=lambda certificate: certificate.signer == owner,
            linker=TLSLinker("worker", settings=settings, listen_host=options.listen),
            make_slot=lambda agent: Slot(launch, agent, settings),
        )

    async def join(self) -> None:
        from p2p_ipython.board.login import remember_accepted
        from p2p_ipython.board.ssh import SSHBoard

        board = SSHBoard(
            self._address,
            self.secret.topic,
            self.agent,
            key=self._choice,
            settings=self._options.settings,
            pin=self._options.accept_host_key,
        )
        try:
            await board.open()
        except BoardError:
            await board.close()
            raise
        if self._options.farewell:  # a board that outlives us: we may come back
            await asyncio.to_thread(remember_accepted, board, self._options.accept_host_key)
        self.agent.join(board)


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
