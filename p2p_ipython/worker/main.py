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
from p2p_ipython.errors import ConfigError, NotAdmitted
from p2p_ipython.loop import adopt, disown

if TYPE_CHECKING:
    from p2p_ipython.board.keys import KeyChoice
    from p2p_ipython.members.entry import Entry
    from p2p_ipython.members.membership import Membership

log = logging.getLogger(__name__)

PERSONAL = "personal"
"""The cluster's name where none is given; as in cli/arguments.py, which is above this."""

DRAIN = 60.0
"""Seconds that a worker whose time is up waits for the tasks that it runs."""


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker needs to know.

    ``cluster`` is the title of a shared cluster, whose profile says where its board is, or the name of a personal one
    on ``board``. ``duration``: seconds, None for until it is ended. ``key``: a key, instead of ``identity`` and the
    usual places. ``path``: folders that tasks may import from, appended to ``sys.path``. ``listen``: address
    that links may come to; None for all.
    """

    board: str | None
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
    ssh_options: tuple[str, ...] = ()


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

    ``ready(name, sid)`` is called once the worker has said hello. Raises a ``BoardError``, ``ConfigError`` or ``NoKey``
    when it can't join, and ``NotAdmitted`` when it is taken out of its cluster.
    """
    adopt()
    ended = ended or asyncio.Event()
    loop = asyncio.get_running_loop()
    why: list[str] = []

    def expelled(words: str) -> None:
        why.append(words)
        ended.set()

    entry = await _entry(options)
    worker = _Worker(options, entry.membership(await asyncio.to_thread(entry.session, "worker")), expelled)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        starting = loop.create_task(worker.agent.start_slots())
        try:
            await worker.join()
            ready(worker.name, worker.membership.session.sid)
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
    if why:
        raise NotAdmitted(f"this worker has ended: {why[0]}", hint="Ask the cluster's owner for a new invitation.")
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


async def _entry(options: WorkerOptions) -> Entry:
    from p2p_ipython.board.address import BoardAddress
    from p2p_ipython.members.entry import given_entry, personal_entry, shared_entry
    from p2p_ipython.members.profiles import Profiles
    from p2p_ipython.protocol.roster import is_title

    name, settings = options.name or default_name(), options.settings
    if options.board is None:
        from p2p_ipython.members.desk import find_title

        try:
            title = await asyncio.to_thread(find_title, Profiles(), options.cluster)
        except ConfigError:
            if options.cluster != PERSONAL:
                raise
            raise ConfigError(
                "which cluster this worker is for has not been said",
                hint="Say one of friends, as --cluster alice/friends (p2p members lists yours);"
                " or a board where your own machines meet, as --board HOST:PORT.",
            ) from None
        return await shared_entry(
            title,
            me=name,
            settings=settings,
            identity=options.identity,
            ssh_options=options.ssh_options,
        )
    if is_title(options.cluster):
        raise ConfigError(
            f"where {options.cluster} is, its profile knows", hint="Leave --board out; p2p members lists what is known."
        )
    if options.key is not None:
        address = BoardAddress.parse(options.board)
        return given_entry(
            address,
            options.key,
            options.cluster,
            me=name,
            settings=settings,
            pin=options.accept_host_key,
            remember=options.farewell,  # a board that outlives us: we may come back
        )
    return await personal_entry(
        options.board,
        options.cluster,
        me=name,
        settings=settings,
        identity=options.identity,
        pin=options.accept_host_key,
        ssh_options=options.ssh_options,
    )


class _Worker:
    """The parts of a worker, put together."""

    def __init__(self, options: WorkerOptions, membership: Membership, expelled: Callable[[str], None]) -> None:
        from p2p_ipython.link.tls import TLSLinker
        from p2p_ipython.protocol.messages import Terms
        from p2p_ipython.sandbox.launch import LaunchOptions
        from p2p_ipython.worker.agent import Agent
        from p2p_ipython.worker.slots import Slot

        settings = options.settings
        self.membership = membership
        self.name = membership.standing.name
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
            membership=membership,
            linker=TLSLinker("worker", settings=settings, listen_host=options.listen),
            make_slot=lambda agent: Slot(launch, agent, settings),
            on_expelled=expelled,
        )

    async def join(self) -> None:
        await self.membership.join()
        self.agent.begin()


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
