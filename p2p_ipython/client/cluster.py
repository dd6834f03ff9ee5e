"""A cluster, as the person at the notebook has it: submit, map, status, close.

``connect()`` makes one. Everything that waits for a network happens on the background loop; the calls here
either return at once (``submit``) or wait for it with a deadline (``connect``, ``close``).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from p2p_ipython.client import future as future_module
from p2p_ipython.client import views as views_module
from p2p_ipython.client.aside import Aside
from p2p_ipython.client.ending import Turn, at_end, in_kernel, was_interrupted
from p2p_ipython.client.future import NOTICE, Arrived, Future, OutputSink, callbacks
from p2p_ipython.client.printing import DRAIN, printed
from p2p_ipython.client.status import ClusterFacts, ClusterStatus, MemberStatus, TaskStatus, standing
from p2p_ipython.config import Settings
from p2p_ipython.errors import BoardUnreachable, ConfigError, UsageError
from p2p_ipython.loop import adopt, background

if TYPE_CHECKING:
    from p2p_ipython.board.base import Board
    from p2p_ipython.client.bridge import Bridge
    from p2p_ipython.client.follow import Follower
    from p2p_ipython.client.journal import Journal
    from p2p_ipython.client.local import LocalCluster
    from p2p_ipython.client.timeline import Timeline
    from p2p_ipython.members import operations
    from p2p_ipython.members.access import Access
    from p2p_ipython.protocol.presence import Presence
    from p2p_ipython.protocol.roster import Member
    from p2p_ipython.task.task import Task

log = logging.getLogger(__name__)

T = TypeVar("T")

PERSONAL = "personal"
"""Name of the cluster where none is given."""

SWITCH_INTERVAL = 0.0005
"""Seconds after which a busy main thread lets the loop's thread run. Python's 0.005 would add 5 ms to each
message that comes while the notebook computes."""


def connect(
    target: str | None = None,
    *,
    cluster: str | None = None,
    workers: int | None = None,
    name: str | None = None,
    identity: str | os.PathLike[str] | None = None,
    accept_host_key: str | None = None,
    mailbox: str | None = None,
    relay: str | None = None,
    ssh_options: Sequence[str] = (),
    board: str | None = None,
    owner: str | None = None,
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> Cluster:
    """Join a cluster; returns once its board is joined (workers come by themselves, in moments).

    Without ``target`` a personal cluster is started on this machine: a board and ``workers`` worker processes
    (default: one a core), on loopback, no account and no key needed. They end with the cluster or with this
    process, whatever comes first.

    ``target`` is the title of a cluster of friends, ``"alice/friends"``, that this user has joined (``p2p join CODE``).
    Without having joined it knocks: the owner is asked, on the ``board`` (default: pico's), and must have the key
    ``owner``, a fingerprint.

    Or ``target`` is the ``HOST[:PORT]`` of a board that runs elsewhere; ``cluster`` names the personal cluster on it
    (default "personal"): whoever holds the same SSH key is in it. ``identity`` is that key's file (default: as ssh
    would choose, one only); ``accept_host_key`` the fingerprint of the board's host key, once. ``mailbox`` (a
    websocket URL) and ``relay`` (``tcp:HOST:PORT``) are for boards that carry none of their own, as pico's, where one
    doesn't want the public ones. ``ssh_options`` are as ssh has them: ``["-J HOST"]``.

    ``name`` is what others see; ``progress`` is called with a few words at each step; the other keywords are
    settings, see config.py.

    Raises a ``BoardError`` that says what to do, ``ConfigError``, ``NotAdmitted``, or ``UsageError``.
    """
    if target is None and any(given is not None for given in (identity, accept_host_key, mailbox, relay)):
        raise UsageError(
            "identity, accept_host_key, mailbox and relay are for a board that runs elsewhere",
            hint="Say which: HOST[:PORT].",
        )
    if target is None and cluster is not None:
        raise UsageError(
            f"the cluster {cluster!r} is on a board, and no board was named",
            hint="Give its address, HOST[:PORT], or leave the cluster's name out for a personal one on this machine.",
        )
    shared = target is not None and "/" in target
    if shared and cluster is not None:
        raise UsageError(
            f"{target} is the title of a shared cluster, and --cluster names another",
            hint="Leave --cluster out; or give a board's address, HOST[:PORT].",
        )
    if not shared and (board is not None or owner is not None):
        raise UsageError(
            "board and owner are for knocking at a shared cluster",
            hint="Give its title: connect('alice/friends', board='HOST'). For a personal one, the board comes first.",
        )
    if target is None and sys.platform == "win32":
        raise UsageError(
            "workers don't run on Windows itself, so there can be no personal cluster on this machine",
            hint="Use WSL, or join a board that runs elsewhere: connect('HOST[:PORT]').",
        )
    if target is not None and workers is not None:
        raise UsageError(
            "--workers is for a personal cluster on this machine",
            hint=f"On a board that runs elsewhere, start workers with: p2p worker --board {target}",
        )
    if workers is not None and not 1 <= workers <= 256:
        raise ConfigError(f"--workers is {workers}", hint="Give a number from 1 to 256.")
    words = Aside("p2p-progress")
    made = Cluster(
        target,
        cluster=cluster or PERSONAL,
        workers=workers or cores(),
        name=name,
        way=Way(
            Path(identity).expanduser() if identity is not None else None,
            accept_host_key,
            mailbox,
            relay,
            tuple(ssh_options),
            board,
            owner,
        ),
        progress=_aside(progress, words) if progress is not None else lambda _text: None,
        settings=Settings.load(**settings),
    )
    _tell(made)
    try:
        made._open()
    finally:
        words.drain(DRAIN)
    _tell(made)
    return made


def _aside(progress: Callable[[str], None], words: Aside) -> Callable[[str], None]:
    """``progress`` is the user's and may block: call it aside from the loop."""

    def call(text: str) -> None:
        try:
            progress(text)
        except Exception:
            log.exception("progress could not be shown")

    return lambda text: words.call(partial(call, text))


def _tell(made: Cluster) -> None:
    for tell in list(views_module.opened):
        try:
            tell(made)
        except Exception:  # who watches must not keep the user from his cluster
            log.exception("could not tell of a new cluster")


@dataclass(frozen=True)
class Way:
    """What the user has said of the way to a board that runs elsewhere; None: what is usual.

    ``board`` and ``owner`` (the fingerprint of his key) are for knocking at a shared cluster.
    """

    identity: Path | None = None
    accept_host_key: str | None = None
    mailbox: str | None = None
    relay: str | None = None
    ssh_options: tuple[str, ...] = ()
    board: str | None = None
    owner: str | None = None

    def to(self, board: str) -> operations.Way:
        """The same to ``board``, as the owner's and the guest's errands have it."""
        from p2p_ipython.members import operations

        return operations.Way(
            board=board,
            identity=self.identity,
            pin=self.accept_host_key,
            mailbox=self.mailbox or "",
            relay=self.relay or "",
            ssh_options=self.ssh_options,
        )


class Cluster(concurrent.futures.Executor):
    """A cluster that this process has joined; make it with ``connect()``.

    It is a ``concurrent.futures.Executor``: ``submit``, ``map``, and a context manager that waits for its
    tasks at the end (or ends at once when an exception leaves the block). A script that ends without closing it
    finishes its tasks first, and Ctrl-C cancels them; a notebook's kernel that ends cancels them at once.
    """

    def __init__(
        self,
        target: str | None,
        *,
        cluster: str,
        workers: int,
        name: str | None,
        way: Way,
        progress: Callable[[str], None],
        settings: Settings,
    ) -> None:
        """For ``connect()``."""
        from p2p_ipython.client.records import Records
        from p2p_ipython.protocol.roster import is_title
        from p2p_ipython.task.payload import BufferStore

        self.target = target
        self.cluster = cluster
        self.name = name or _user()
        self.settings = settings
        self.store = BufferStore(settings.client_cache)
        self._workers = workers
        self.shared = target is not None and is_title(target)
        self._way = way
        self._progress = progress
        self._pid = os.getpid()
        self._bridge: Bridge | None = None
        self._local: LocalCluster | None = None
        self._records = Records(settings)
        self._futures: weakref.WeakValueDictionary[str, Future[Any]] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self._ending: concurrent.futures.Future[None] | None = None
        self._board_address = ""
        self.joined = False
        """Whether it has been joined, ever."""
        self.closed = False
        self._shut = False  # takes no more tasks
        self._hurries = in_kernel()

    # -- tasks --

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run ``fn(*args, **kwargs)`` on a worker; returns its future at once.

        What the call needs is frozen now: later changes to the arguments don't matter. Raises ``NotPicklable``
        before anything is sent, and ``UsageError`` after ``close``.
        """
        from p2p_ipython.task.task import make_call

        self._check_open()
        return self.submit_task(make_call(fn, args, kwargs, self.store, large=self.settings.large))

    def submit_task(self, task: Task, sink: OutputSink | None = None) -> Future[Any]:
        """Submit a task that is made already; ``sink`` shows its output.

        Without one it is shown as if it had been printed here; in a notebook, under the cell that submits.
        """
        future: Future[Any] = Future(task.id, task.label, self, self._decode)
        with self._lock:
            self._check_open()
            self._futures[task.id] = future
        assert self._bridge is not None
        self._bridge.submit(task, future, sink or future_module.default_sink())
        return future

    def withdraw(self, task_id: str) -> None:
        """For a future's ``cancel``."""
        if self._bridge is not None and self._pid == os.getpid():
            self._bridge.withdraw(task_id)

    def why(self, task_id: str) -> str:
        """Where a task is, or why it waits, in words; "" when it is over."""
        return self._bridge.why(task_id) if self._bridge is not None else ""

    # -- what has become of them --

    def journal(self) -> Any:
        """What has become of the tasks, the oldest first: a pandas DataFrame, or a list of dicts without pandas.

        Of those that are over the last 10,000 are listed. ``submitted``, ``sent`` (announced to a worker: on the link),
        ``started`` and ``ended`` are times: of this time zone in a DataFrame, Unix seconds in a list. ``waited``,
        ``travelled``, ``ran`` and ``returned`` are the seconds between them, of the last attempt; ``size_in`` and
        ``size_out`` are bytes; ``said`` is the last line of output. From any thread.
        """
        from p2p_ipython.client.table import table

        return table(self.record.rows())

    def timeline(self, last: int = 200) -> Timeline:
        """A picture of when the ``last`` tasks waited, travelled, ran and returned, by worker.

        Displayed in a notebook it is an SVG; ``.svg`` has it as text, ``print`` shows how well workers were used.
        From any thread.
        """
        from p2p_ipython.client.timeline import timeline

        workers = list(self._bridge.machine.workers.values()) if self._bridge is not None else []
        entries = list(self.record.entries.values())[-last:] if last > 0 else []
        return timeline(entries, time.time(), {worker.sid: worker.terms.slots for worker in workers})

    @property
    def record(self) -> Journal:
        """The record of the tasks' lives; it belongs to the loop's thread, but for ``rows``."""
        return self._records.journal

    @property
    def presence(self) -> Presence:
        """The other sessions of the cluster; it belongs to the loop's thread."""
        return self._records.presence

    def follow(self, wake: Callable[[], None]) -> Follower:
        """Collect what changes from now on; on the loop's thread.

        ``wake`` is called there at the first change since ``Follower.take``; it must be cheap and must not block.
        """
        return self._records.feed.follow(wake)

    def facts(self) -> ClusterFacts:
        """What holds of the cluster as a whole, and how its tasks have ended; on the loop's thread. Costs little."""
        bridge, record = self._bridge, self.record
        state, words, note, key = "closed" if self.closed else "connecting", "", "", ""
        if bridge is not None and not self.closed:
            membership = bridge.membership
            key = membership.standing.me
            if membership.board is not None:
                trouble, expelled = membership.trouble, bool(membership.machine.expelled)
                state, words, note = standing(membership.board.report, trouble, self._joined_by(), expelled=expelled)
            note = note or ("" if bridge.machine.workers else self._nobody())
        return ClusterFacts(
            state=state,
            words=words or state,
            kind="shared" if self.shared else "own" if self.target is not None else "personal",
            title=self._called(),
            board=self._board_name(),
            me=self._my_name(),
            key=key,
            note=note,
            since=self._records.since,
            done=record.done,
            failed=record.failed,
            cancelled=record.cancelled,
        )

    def reasons(self) -> dict[str, str]:
        """Why tasks wait, in words, by what they need of Python ("" for any); on the loop's thread."""
        return self._bridge.reasons() if self._bridge is not None else {}

    def shown(self, task_id: str) -> Future[Any] | None:
        """The future of a task, if somebody still has it; None otherwise. From any thread."""
        return self._futures.get(task_id)

    def source_of(self, task_id: str) -> str:
        """The source of a task that is a cell; "" for a call, and for one that was long ago. From any thread."""
        return self.record.source(task_id)

    def cancel_task(self, task_id: str) -> bool:
        """Withdraw a task by its id; False if it is over, or unknown. From any thread; returns at once."""
        future = self._futures.get(task_id)
        return future is not None and not future.done() and future.cancel()

    @property
    def idle(self) -> bool:
        """Whether all its tasks are over. From any thread."""
        return self._bridge is None or not self._bridge.open_tasks(limit=1)

    @property
    def way(self) -> Way:
        """What the user has said of the way to its board."""
        return self._way

    @property
    def pids(self) -> list[int]:
        """Processes that this cluster has started: a board's and workers'; none on a board that runs elsewhere."""
        return self._local.pids if self._local is not None else []

    # -- friends --

    def members(self) -> tuple[Member, ...]:
        """Who is in a shared cluster, its owner first; () in a personal one, and while the list has not come."""
        roster = self._bridge.membership.machine.roster if self._bridge is not None else None
        return roster.members if roster is not None else ()

    def trust(self, name: str, *, revoke: bool = False) -> str:
        """Let results of a member's workers be of any type, which lets them run any code here; or no more.

        It is kept for this cluster. A result that could not be read before can then be asked for again. Returns his
        name. Raises ``UsageError`` in personal clusters, and ``ConfigError`` where nobody is called so.
        """
        if not self.shared or self.target is None or self._bridge is None:
            raise UsageError("in a personal cluster all workers are your own", hint="There is nobody to trust.")
        from p2p_ipython.members import operations
        from p2p_ipython.members.profiles import Profiles

        found, profile = operations.trust(Profiles(), self.target, name, allow=not revoke)
        self._bridge.membership.trusted = profile.trusted
        return found

    # -- what it looks like --

    def status(self) -> ClusterStatus:
        """Board, members, offers and tasks, as they are now."""
        if self.closed or self._bridge is None:
            return ClusterStatus(self.cluster, self._where(), "closed", "", self.name, (), (), 0, 0, "It is closed.")
        return background().run(self._status(), timeout=10)

    def __str__(self) -> str:
        return self.status().text()

    def __repr__(self) -> str:
        return f"<Cluster {self.cluster} at {self._where()}{', closed' if self.closed else ''}>"

    def panel(self) -> Any:
        """A live view of the cluster, for a notebook's cell. Raises ``UsageError`` where the extension isn't loaded."""
        if views_module.views is None:
            raise UsageError("the panel needs a notebook", hint="Run there first: %load_ext p2p_ipython")
        return views_module.views.panel(self)

    def _repr_html_(self) -> str:
        return self.status().html()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any] | None:
        return views_module.views.mimebundle(self) if views_module.views is not None else None

    # -- the end --

    def close(self) -> None:
        """Cancel what isn't over, leave the board, end this cluster's own processes. Idempotent.

        An interrupt ends the wait, not the closing.
        """
        if self._pid != os.getpid():
            return
        self.closed = True  # nothing more is taken
        with self._lock:
            if self._ending is None:
                self._ending = background().start(self._close())
                _patience.end(self)
        self._ending.result(60)
        _open.discard(self)
        self.store.clear()
        printed.drain(DRAIN)
        callbacks.drain(DRAIN)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and close once those that there are are over; as for any executor.

        ``wait``: return when that has happened; otherwise return at once. ``cancel_futures``: cancel the tasks that
        no worker runs yet; those that run are finished. ``close`` cancels all of them.
        """
        if self._pid != os.getpid():
            return
        with self._lock:
            self._shut = True
            futures = [future for future in self._futures.values() if not future.done()]
        if cancel_futures:
            for future in futures:
                if not future.running():
                    future.cancel()
        over = threading.Event()
        threading.Thread(target=self._finish, args=(futures, over, wait), name="p2p-shutdown", daemon=True).start()
        if wait:
            over.wait()
            callbacks.drain()
            self.close()

    def __exit__(
        self, kind: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.shutdown()
        finally:  # also when an interrupt has ended the wait
            self.close()

    def _finish(self, futures: list[Future[Any]], over: threading.Event, waited_for: bool) -> None:
        """Wait for ``futures``; and close, unless somebody waits who does.

        In a thread of its own: an interrupt amid ``concurrent.futures.wait`` may leave a future locked.
        """
        concurrent.futures.wait(futures, NOTICE)
        for future in futures:
            future.warn_if_stuck()
        concurrent.futures.wait(futures)
        over.set()
        if not waited_for:
            callbacks.drain()
            self.close()

    # -- inside --

    def _decode(self, result: Arrived) -> Any:
        """The value of a result, or what it raises. What a worker of somebody who isn't trusted sends runs nothing."""
        from p2p_ipython.task.outcome import decode

        assert self._bridge is not None
        membership = self._bridge.membership
        trusted = membership.trusts(result.signer)
        worker = result.worker if trusted else membership.machine.name_of(result.signer) or result.worker
        return decode(result.header, result.inline, result.large, worker=worker, trusted=trusted)

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise UsageError(
                "this cluster was connected by another process, of which this one is a fork",
                hint="Connect in this process, with p2p_ipython.connect().",
            )
        if self.closed or self._shut:
            said = "closed" if self.closed else "shut down"
            raise UsageError(f"this cluster is {said}", hint="Connect again: %p2p_connect, or p2p_ipython.connect().")

    def _called(self) -> str:
        if self.target is None:
            return "personal, on this machine"
        return self.target if self.shared else self.cluster

    def _where(self) -> str:
        return self.target or "this machine"

    def _open(self) -> None:
        _open.add(self)
        try:
            background().run(self._join(), timeout=120)
        except BaseException:
            self.close()
            raise
        self.joined = True
        _patience.begin(self)

    async def _join(self) -> None:
        if self.target is None:
            await self._start_here()
        else:
            await self._join_elsewhere(self.target)

    async def _start_here(self) -> None:
        from p2p_ipython.client.local import LocalCluster

        some = "a worker" if self._workers == 1 else f"{self._workers} workers"
        self._progress(f"starting a board and {some} on this machine")
        from p2p_ipython.board.client.new_key import new_ed25519

        private, public = new_ed25519()
        self._local = LocalCluster(
            key=private,
            public_key=public,
            user=self.name,
            cluster=self.cluster,
            workers=self._workers,
            settings=self.settings,
            path=[os.getcwd(), *(folder for folder in sys.path if folder)],
            on_worker_end=self._worker_ended,
        )
        self._local.start()
        import io

        import paramiko

        from p2p_ipython.board.client.address import BoardAddress
        from p2p_ipython.board.client.keys import KeyChoice
        from p2p_ipython.members.access import given_access

        key = KeyChoice(paramiko.Ed25519Key.from_private_key(io.StringIO(private)), "made for this cluster")
        adopt()
        board = await self._local.board()
        self._progress("joining the board")
        address = BoardAddress.parse(board.address)
        access = given_access(
            address, key, self.cluster, me=self.name, settings=self.settings, pin=board.host_key, remember=False
        )
        bridge = await self._take_part(access, listen="127.0.0.1")
        bridge.open(board.mailbox, board.relay)

    async def _join_elsewhere(self, target: str) -> None:
        adopt()
        from p2p_ipython.members.access import rendezvous_of

        access = await self._access(target)
        self._board_address = str(access.address)
        self._progress(f"joining the board at {access.address}")
        try:
            bridge = await self._take_part(access, listen=None)
        except BoardUnreachable as error:
            meant = [] if self.shared else await asyncio.to_thread(_titles_called, target)
            if meant:
                error.hint = f"If you mean a cluster of friends: %p2p_connect {meant[0]}. {error.hint}"
            raise
        self._progress("asking where links are arranged")
        bridge.open(*await rendezvous_of(access, self._joined()))

    async def _access(self, target: str) -> Access:
        from p2p_ipython.members.access import personal_access, shared_access

        way = self._way
        if self.shared:
            await self._come_in(target)
            return await shared_access(
                target, me=self.name, settings=self.settings, identity=way.identity, ssh_options=way.ssh_options
            )
        return await personal_access(
            target,
            self.cluster,
            me=self.name,
            settings=self.settings,
            identity=way.identity,
            pin=way.accept_host_key,
            mailbox=way.mailbox or "",
            relay=way.relay or "",
            ssh_options=way.ssh_options,
        )

    async def _come_in(self, title: str) -> None:
        """Be a member of a shared cluster: by its profile, else by knocking."""
        from p2p_ipython.members.profiles import Profiles

        profiles, said = Profiles(), self._way
        if await asyncio.to_thread(profiles.find, title) is not None:
            return
        from p2p_ipython.client.knocking import come_in

        await come_in(
            title,
            way=said.to(said.board or ""),
            name=self.name,
            owner=said.owner or "",
            settings=self.settings,
            profiles=profiles,
            progress=self._progress,
        )

    async def _take_part(self, access: Access, listen: str | None) -> Bridge:
        """Join the board as a member of the cluster; nothing is said yet."""
        from p2p_ipython.client.bridge import Bridge
        from p2p_ipython.link.rendezvous import new_code
        from p2p_ipython.link.tls import TLSLinker

        membership = access.membership(await asyncio.to_thread(access.session, "client"))
        self._bridge = Bridge(
            settings=self.settings,
            name=self.name,
            membership=membership,
            linker=TLSLinker("client", settings=self.settings, listen_host=listen),
            store=self.store,
            new_code=new_code,
            records=self._records,
        )
        await membership.join()
        return self._bridge

    def _joined(self) -> Board:
        assert self._bridge is not None
        board = self._bridge.membership.board
        assert board is not None
        return board

    def _worker_ended(self, sid: bytes, why: str) -> None:
        if self._bridge is not None:
            self._bridge.worker_gone(sid, why)

    async def _status(self) -> ClusterStatus:
        bridge = self._bridge
        assert bridge is not None
        members = []
        for worker in bridge.machine.workers.values():
            end = bridge.links.get(worker.sid)
            link = end.link if end is not None else None
            members.append(
                MemberStatus(
                    name=worker.name,
                    state=worker.word + (f" ({worker.detail})" if worker.detail else ""),
                    slots=worker.terms.slots,
                    busy=min(len(worker.tasks), worker.terms.slots),
                    python=worker.terms.python,
                    platform=worker.terms.platform,
                    link=link.kind if link is not None else "",
                    rtt=link.rtt if link is not None else None,
                    done=worker.done,
                )
            )
        members.sort(key=lambda member: member.name)
        tasks = tuple(TaskStatus(label, state) for label, state in bridge.open_tasks(limit=20))
        counts = {state.value: number for state, number in bridge.machine.counts().items()}
        report = self._joined().report
        return ClusterStatus(
            cluster=self._called(),
            board=self._board_name(),
            board_state=report.state.value + (f": {report.detail}" if report.detail else "") + self._joined_by(),
            # Nobody has an account on the topics of friends; what one is called there is in their list.
            user="" if self.shared else self._joined().user,
            name=self._my_name(),
            members=tuple(members),
            tasks=tasks,
            pending=counts["waiting"],
            running=counts["sent"] + counts["running"],
            note=bridge.membership.trouble or ("" if members else self._nobody()),
        )

    def _board_name(self) -> str:
        return self._board_address if self.shared else self._where()

    def _my_name(self) -> str:
        """What the list of members calls this user; in clusters without one, what he calls himself."""
        membership = self._bridge.membership if self._bridge is not None else None
        return (membership.machine.name_of(membership.standing.me) if membership is not None else "") or self.name

    def _joined_by(self) -> str:
        """Being on the board's topic isn't all: what there is to say until a member has answered."""
        assert self._bridge is not None
        membership = self._bridge.membership
        if self.target is None or membership.answered:
            return ""
        return f"; {membership.silence or 'waiting for a member to answer'}"

    def _nobody(self) -> str:
        """What to do while there is no worker."""
        if self.target is None:
            return f"Its {self._workers} workers are starting." if self._workers > 1 else "Its worker is starting."
        assert self._bridge is not None
        membership = self._bridge.membership
        if self.shared:
            return f"No worker is here yet. Start one: p2p worker --cluster {self.target}"
        return (
            f"No worker is here yet. Start one: p2p worker --board {self.target} --cluster {self.cluster}\n"
            f"Only workers that hold your key are in it: {membership.standing.me} (p2p whoami shows a machine's)."
        )

    async def _close(self) -> None:
        try:
            if self._bridge is not None:
                await self._bridge.close(farewell=self._local is None)
        finally:
            if self._local is not None:
                await self._local.close()
            self._records.stands("closed")


class _Patience:
    """Has a busy main thread let the loop's thread run more often, while a cluster is open."""

    def __init__(self) -> None:
        self._clusters: weakref.WeakSet[Cluster] = weakref.WeakSet()
        self._before = 0.0

    def begin(self, cluster: Cluster) -> None:
        if not self._clusters:
            self._before = sys.getswitchinterval()
            sys.setswitchinterval(min(SWITCH_INTERVAL, self._before))
        self._clusters.add(cluster)

    def end(self, cluster: Cluster) -> None:
        if cluster in self._clusters:
            self._clusters.discard(cluster)
            if not self._clusters and sys.getswitchinterval() == SWITCH_INTERVAL:  # nobody else has set it meanwhile
                sys.setswitchinterval(self._before)


_patience = _Patience()

_open: weakref.WeakSet[Cluster] = weakref.WeakSet()


def _finish_all() -> None:
    """Finish the tasks of a script that ends, and close its clusters; in a kernel, close them at once."""
    clusters = list(_open)
    try:
        patient = [cluster for cluster in clusters if not cluster._hurries and not was_interrupted()]
        busy = [future for cluster in patient for future in cluster._futures.values() if not future.done()]
        notice = threading.Timer(NOTICE, log.warning, ["waiting for tasks that are not over; Ctrl-C cancels them"])
        notice.daemon = True
        if busy:
            notice.start()
        for cluster in patient:
            cluster.shutdown()
        notice.cancel()
    except KeyboardInterrupt:
        log.warning("tasks that are not over are cancelled")
    finally:
        for cluster in clusters:
            try:
                cluster.close()
            except Exception:
                log.exception("could not close %r", cluster)


at_end(Turn.CLUSTERS, _finish_all)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _titles_called(name: str) -> list[str]:
    """The clusters of friends that are called ``name``, without their owners'. Blocks."""
    from p2p_ipython.members.profiles import Profiles
    from p2p_ipython.protocol.roster import parse_title

    return [profile.title for profile in Profiles().all() if parse_title(profile.title)[1] == name]


def _user() -> str:
    """This user's name, as a board would have it (letters and digits)."""
    import getpass

    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = ""
    return "".join(c for c in name if c.isascii() and c.isalnum())[:50].lower() or "me"
