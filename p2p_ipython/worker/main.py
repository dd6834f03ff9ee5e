"""A worker process: read the options, join the board, lend slots until told to stop.

Three ways lead here: ``p2p worker`` (cli/worker.py) and a notebook that lends its machine (lend.py), with a key of the
user's; and a personal cluster, which starts ``python -m p2p_ipython.worker`` and hands everything, the key too, over
standard input: neither the process list nor the environment shows it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError, NotAdmitted
from p2p_ipython.lending.control import Control
from p2p_ipython.lending.known import KnownMembers
from p2p_ipython.lending.policy import Policy
from p2p_ipython.lending.record import LendingLog
from p2p_ipython.link.tls import TLSLinker
from p2p_ipython.loop import adopt, disown
from p2p_ipython.members.access import given_access, machine_of, own_places, personal_access, shared_access
from p2p_ipython.members.operations import find_title
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.members.way import Way
from p2p_ipython.protocol.messages import MAX_ONLY, MAX_TAGS, NO_WALL, TAG, Terms
from p2p_ipython.protocol.plain import count
from p2p_ipython.protocol.roster import is_fingerprint, is_title
from p2p_ipython.sandbox.graphics import find, kinds
from p2p_ipython.sandbox.launch import WITH_MOUNTS, LaunchOptions, Mount
from p2p_ipython.worker.agent import Agent
from p2p_ipython.worker.consent import Ask
from p2p_ipython.worker.engines.choice import check, read_choice
from p2p_ipython.worker.engines.engine import Condition, Engine, conditions
from p2p_ipython.worker.environments import Environments
from p2p_ipython.worker.hand import Hand
from p2p_ipython.worker.installer import Installer, find_uv, missing_words
from p2p_ipython.worker.keeper import Given, Keeper, NoLender
from p2p_ipython.worker.sandboxes import choose
from p2p_ipython.worker.slots import Slot

if TYPE_CHECKING:
    from p2p_ipython.board.client.keys import KeyChoice
    from p2p_ipython.members.access import Access
    from p2p_ipython.members.membership import Membership, Standing

log = logging.getLogger(__name__)

PERSONAL = "personal"
"""The cluster's name where none is given; as in cli/arguments.py, which is above this."""

LAST_WORDS = 5.0
"""Seconds that owners of tasks which are stopped may take to hear of it."""

DRAIN = 60.0
"""Seconds that a worker whose time is up waits for the tasks that it runs."""


@dataclass(frozen=True)
class WorkerOptions:
    """The options of a worker.

    ``cluster`` is the title of a shared cluster, whose profile says where its board is, or the name of a personal one
    on ``board``. ``duration``: seconds, None for until it is ended. ``key``: a key, instead of ``identity`` and the
    usual places. ``path``: folders that tasks may import from, appended to ``sys.path``. ``folder``: where tasks work,
    "" for their scratch folder. ``listen``: address that links may come to; None: those that they need. ``mailbox``,
    ``relay``: where the board's own are reached from here; "" for where the board was dialled. ``only``: names
    of members, or fingerprints of their keys, for whom the offer is; () for everybody. ``tags``: what the worker is
    good for, in words. ``sandbox``: see ``sandboxes.choose``.
    ``given``: the lender's policy, whose who and tags win over ``only`` and ``tags``. None is for a worker that another
    program has started for itself: it keeps no log, and hears no commands.
    ``mounts``: see ``mounts.py``.
    ``engine``: what runs tasks in place of this machine, see ``engines/choice.py``; "" for nothing.
    ``network``: whether tasks have the internet. ``gpu``: whether they have this machine's graphics cards.
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
    folder: str = ""
    listen: str | None = None
    mailbox: str = ""
    relay: str = ""
    farewell: bool = True
    ssh_options: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    sandbox: str = ""
    mounts: tuple[Mount, ...] = ()
    network: bool = False
    gpu: bool = False
    engine: str = ""
    given: Given | None = None


def default_name() -> str:
    """Return a name for people: the machine's, without its domain."""
    return socket.gethostname().split(".")[0][:32] or "worker"


async def run_worker(
    options: WorkerOptions,
    *,
    ready: Callable[[str, bytes, str], None] = lambda _name, _sid, _sandbox: None,
    lends: Callable[[Agent], None] = lambda _agent: None,
    held: Callable[[Hand], None] = lambda _hand: None,
    told: Callable[[str], None] = lambda _words: None,
    ask: Ask | None = None,
    ended: asyncio.Event | None = None,
    enough: asyncio.Event | None = None,
) -> int:
    """Run a worker until its time is up, ``ended`` is set, or a signal or its lender ends it; return an exit code.

    ``ready(name, sid, sandbox)`` is called once the worker has said hello, ``lends(agent)`` when its runners are up,
    too, and ``held(hand)`` before both. ``told`` is called with each sentence that the lender is to read, ``ask`` for a
    yes to a task, if the policy says so. When the time
    is up or ``enough`` is set, tasks that run may go on for ``DRAIN`` seconds; on the first SIGINT, as long as they
    take; the second one stops them (hand.py). Raises a ``BoardError``, ``ConfigError`` or ``NoKey`` when it can't join,
    ``NotAdmitted`` when its membership was revoked.
    """
    adopt()
    ended, enough = ended or asyncio.Event(), enough or asyncio.Event()
    loop = asyncio.get_running_loop()
    why: list[str] = []

    def expelled(words: str) -> None:
        why.append(words)
        ended.set()

    access = (await _access(options)).reached_at(options.mailbox, options.relay)
    membership = access.membership(await asyncio.to_thread(access.session, "worker"))
    environments: Environments | None = None
    if options.engine:
        sandbox, launches = NO_WALL, []
    else:
        launches = await asyncio.to_thread(_launches, options, membership.standing)
        sandbox = await choose(
            options.sandbox, lends_to_others=membership.standing.shared, options=launches[0], settings=options.settings
        )
        if sandbox == NO_WALL and not membership.standing.shared:
            launches = [_of_ones_own(each) for each in launches]
        environments = _environments(membership, sandbox)
    installs: Literal["none", "own", "all"] = "none"
    if environments is not None:
        installs = "own" if sandbox == NO_WALL else "all"
    keeper = await _keeper(options, membership, told, ask, installs)
    engine = await _engine(options, membership.standing)
    worker = _Worker(
        options,
        access,
        membership,
        launches,
        sandbox,
        environments=environments,
        expelled=expelled,
        keeper=keeper,
        engine=engine,
        told=told,
    )
    hand = _hand(options, worker, keeper, told)
    control = Control(hand.heed) if hand is not None else None
    finishing, stopping = (hand.finishing, hand.stopping) if hand is not None else (asyncio.Event(), ended)
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, ended.set if hand is None else hand.interrupted)
    try:
        if control is not None:
            await _opened(control)
        if hand is not None:
            held(hand)
        starting = loop.create_task(worker.agent.start_slots())
        try:
            await worker.join()
            ready(worker.name, worker.membership.session.sid, sandbox)
            await _first(starting, ended, finishing)
            if not (ended.is_set() or finishing.is_set()):
                lends(worker.agent)
            await _any(ended, enough, finishing, timeout=options.duration)
            if ended.is_set():
                log.info("ending")
            else:
                asked = enough.is_set() or finishing.is_set()
                log.info("ending when nothing runs any more" if asked else "the time is up")
                grace = None if finishing.is_set() else DRAIN
                draining = loop.create_task(worker.agent.drain(grace, DRAIN))
                try:
                    await _first(draining, ended, stopping)
                finally:
                    draining.cancel()
                    await asyncio.gather(draining, return_exceptions=True)
                if stopping.is_set() and not ended.is_set():
                    await worker.agent.stop_now(LAST_WORDS)
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            if control is not None:
                await control.close()
            await worker.agent.close(farewell=options.farewell)
    finally:
        if engine is not None:
            await engine.close()
        disown()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if why:
        raise NotAdmitted(f"this worker has ended: {why[0]}", hint="Ask the cluster's owner for a new invitation.")
    return 0


def _environments(membership: Membership, sandbox: str) -> Environments | None:
    """Return what installs packages for tasks; None where there is no uv, or tasks could not see what it installs."""
    uv = find_uv() if sandbox in (NO_WALL, *WITH_MOUNTS) else None
    if uv is None:
        return None
    is_own = membership.is_own if membership.standing.shared else lambda _signer: True
    return Environments(Installer(uv, walled=sandbox == "bubblewrap"), is_own=is_own)


async def _keeper(
    options: WorkerOptions,
    membership: Membership,
    told: Callable[[str], None],
    ask: Ask | None,
    installs: Literal["none", "own", "all"],
) -> Keeper | None:
    """Return what has the worker obey its lender. Tasks of friends are written down, one's own are not."""
    standing = membership.standing
    if options.given is None:
        return None
    keeper = Keeper(
        options.given,
        cluster=standing.secret.cluster,
        title=standing.title or options.cluster,
        is_own=membership.is_own if standing.shared else lambda _signer: True,
        told=told,
        record=LendingLog() if standing.shared else None,
        known=KnownMembers() if standing.shared else None,
        ask=ask,
        installs=installs,
    )
    if installs == "none" and options.given.policy.packages != "never":
        told(f"no packages are installed for tasks: {missing_words()}")
    await asyncio.to_thread(keeper.prepare, standing.roster)
    return keeper


async def _engine(options: WorkerOptions, standing: Standing) -> Engine | None:
    """Start the engine's host, if there is to be one. Raises ``ConfigError``."""
    if not options.engine:
        return None
    given = options.given.policy if options.given is not None else Policy()
    check(read_choice(options.engine), given, sandbox=options.sandbox, lends_to_others=standing.shared)
    engine = Engine(options.engine, options.slots, options.settings)
    await engine.open()
    return engine


def _hand(options: WorkerOptions, worker: _Worker, keeper: Keeper | None, told: Callable[[str], None]) -> Hand | None:
    if options.given is None or keeper is None:
        return None
    file = options.given.file
    title = worker.membership.standing.title or options.cluster
    return Hand(worker.agent, keeper, title=title, policy=str(file) if file is not None else "", told=told)


async def _opened(control: Control) -> None:
    """Open the way for ``p2p lending``. A worker lends also without it."""
    try:
        await control.open()
    except (OSError, ConfigError) as error:
        log.warning("p2p lending can't reach this worker: %s", error)


async def _first(work: asyncio.Task[None], *ends: asyncio.Event) -> None:
    """Wait until the work is done (and raise if it failed), or one of the ends has come."""
    endings = {asyncio.ensure_future(ended.wait()) for ended in ends}
    try:
        await asyncio.wait({work, *endings}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for ending in endings:
            ending.cancel()
    if work.done():
        work.result()


async def _any(*events: asyncio.Event, timeout: float | None) -> None:
    """Wait until one of them is set, for so many seconds at most."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def for_whom(given: Sequence[str], standing: Standing) -> tuple[str, ...]:
    """Return the keys of members who are given by name or fingerprint. Raises ``ConfigError``."""

    if not given:
        return ()
    roster = standing.roster
    if not standing.shared:
        raise ConfigError(
            "in a personal cluster all tasks are your own, so there is nobody to choose among",
            hint="Lend to everybody who is in it.",
        )
    if roster is None:
        raise ConfigError(
            f"the list of members of {standing.title} has not come yet, so nobody can be chosen",
            hint="Connect to it once, or lend to all members.",
        )
    keys: dict[str, None] = {}
    for who in given:
        member = roster.member(who) if is_fingerprint(who) else roster.named(who)
        if member is None:
            names = ", ".join(one.name for one in roster.members)
            raise ConfigError(f"nobody in {roster.title} is called {who[:80]!r}", hint=f"Its members: {names}.")
        keys.update(dict.fromkeys([who] if is_fingerprint(who) else member.keys))
    if len(keys) > MAX_ONLY:
        raise ConfigError(
            f"they have {len(keys)} keys, and an offer names at most {MAX_ONLY}",
            hint="Name fewer members, or those of their keys that count (p2p members shows them).",
        )
    return tuple(keys)


def check_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Return the tags, each once. Raises ``ConfigError``."""

    found = tuple(dict.fromkeys(tags))
    wrong = next((tag for tag in found if not TAG.fullmatch(tag)), None)
    if wrong is not None:
        raise ConfigError(
            f"{wrong[:40]!r} is no tag",
            hint="A tag is a word of at most 24 small letters, digits, '.', '_' and '-', as gpu or big-memory.",
        )
    if len(found) > MAX_TAGS:
        raise ConfigError(f"{len(found)} tags are too many", hint=f"Give {MAX_TAGS} at most.")
    return found


async def _access(options: WorkerOptions) -> Access:
    name, settings = options.name or default_name(), options.settings
    if options.board is None:
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
        return await shared_access(
            title, me=name, settings=settings, identity=options.identity, ssh_options=options.ssh_options
        )
    if is_title(options.cluster):
        raise ConfigError(
            f"where {options.cluster} is, its profile knows", hint="Leave --board out; p2p members lists what is known."
        )
    way = Way(options.board, options.identity, options.accept_host_key, ssh_options=options.ssh_options)
    if options.key is not None:
        address = BoardAddress.parse(options.board)
        remember = options.farewell  # a board that outlives us: we may come back
        return given_access(address, options.key, options.cluster, way, me=name, settings=settings, remember=remember)
    return await personal_access(options.cluster, way, me=name, settings=settings)


class _Worker:
    """The parts of a worker, put together."""

    def __init__(
        self,
        options: WorkerOptions,
        access: Access,
        membership: Membership,
        launches: Sequence[LaunchOptions],
        sandbox: str,
        *,
        environments: Environments | None,
        expelled: Callable[[str], None],
        keeper: Keeper | None,
        engine: Engine | None = None,
        told: Callable[[str], None],
    ) -> None:
        settings = options.settings
        only, tags = for_whom(options.only, membership.standing), check_tags(options.tags)
        self.membership = membership
        self.name = membership.standing.name
        terms = Terms(
            slots=engine.most if engine is not None else options.slots,
            free=0,
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            platform=f"{platform.system()} {platform.machine()}",
            cores=os.cpu_count() or 1,
            memory=_memory(),
            until=int(time.time() + options.duration) if options.duration else 0,
            only=only,
            tags=tags,
            sandbox=sandbox,
            task_memory=min((launch.memory for launch in launches), default=0),
            engine=read_choice(options.engine).word if engine is not None else "",
            cards=kinds(card for launch in launches if launch.graphics is not None for card in launch.graphics.cards),
            packages="any" if environments is not None else "",  # a keeper knows better
        )
        slots = iter(launches)
        self.agent = Agent(
            settings=settings,
            name=self.name,
            terms=terms,
            membership=membership,
            linker=TLSLinker(
                "worker",
                settings=settings,
                listen_host=options.listen,
                board=lambda: machine_of(membership.board),
                own=lambda: own_places(access, membership.board),
            ),
            make_slot=lambda agent: (
                engine.slot(agent)
                if engine is not None
                else Slot(next(slots), agent, settings, mechanism=sandbox, environments=environments)
            ),
            on_expelled=expelled,
            keeper=keeper or NoLender(),
        )
        self._engine, self._told, self._words = engine, told, ""

    async def join(self) -> None:
        await self.membership.join()
        if self._engine is not None:
            self._engine.on_change = self._engine_changed
            self._engine_changed(self._engine.condition)
        self.agent.begin()

    def _engine_changed(self, condition: Condition) -> None:
        """Have the offer, and the lender, know how the engine stands."""
        self.agent.engine_changed(condition.slots, **conditions(condition))
        if condition.words != self._words:
            self._words = condition.words
            words = f"the engine is lost: {condition.words}; it is tried again" if self._words else ""
            self._told(words or f"the engine is there again, with {count(condition.slots, 'slot')}")


def _of_ones_own(launch: LaunchOptions) -> LaunchOptions:
    """Return what one's own tasks without a wall are to be like: bounded only as was asked for."""
    usual = Settings()
    return replace(
        launch,
        disk=launch.disk if launch.disk != usual.task_disk else 0,
        processes=launch.processes if launch.processes != usual.task_processes else 0,
    )


def _launches(options: WorkerOptions, standing: Standing) -> list[LaunchOptions]:
    """Return what the runners of each slot are to be like. Raises ``ConfigError``."""
    cards = find().divided(options.slots) if options.gpu else [None] * options.slots
    return [
        replace(
            each,
            polite=standing.shared,
            place=standing.name,
            path=options.path,
            folder=options.folder,
            mounts=options.mounts,
            network=options.network,
            graphics=its,
        )
        for each, its in zip(bounded(options.settings, options.slots), cards, strict=True)
    ]


def bounded(settings: Settings, slots: int) -> list[LaunchOptions]:
    """Return what bounds the tasks of each slot."""
    every = LaunchOptions(
        memory=settings.task_memory or _memory() * 3 // 4 // slots,
        cpus=min(settings.task_cpus, os.cpu_count() or 1),
        disk=settings.task_disk,
        processes=settings.task_processes,
        output_limit=settings.output_limit,
    )
    return [replace(every, cores=cores) for cores in shared_out(available_cores(), every.cpus, slots)]


def available_cores() -> list[int]:
    """Return the cores that this process may use, the last ones first: the system itself is fond of the first."""
    allowed = getattr(os, "sched_getaffinity", None)  # macOS can't say
    return sorted(allowed(0), reverse=True) if allowed is not None else []


def shared_out(cores: Sequence[int], cpus: float, slots: int) -> list[tuple[int, ...]]:
    """Return the cores of each slot, so many that ``cpus`` fit; no two slots share one unless there are too few.

    All may use any core if ``cpus`` is 0, or no less than there are.
    """
    each = math.ceil(cpus)
    if not 0 < each < len(cores):
        return [()] * slots
    return [tuple(cores[(slot * each + number) % len(cores)] for number in range(each)) for slot in range(slots)]


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
