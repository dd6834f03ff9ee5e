"""The actions that a panel may ask for, done as the magics do them, on threads that may wait.

Each action is a method that returns words and, perhaps, data; the words of an error are its answer, too. Slow actions
wait for one another on one thread; quick ones (cancel, show) have a thread of their own. Every action is answered once:
when it has ended, or at its deadline.

Modules of ``members`` are imported in the actions that need them: together they take 0.2 s.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from p2p_ipython.board.client.passphrase import unattended
from p2p_ipython.client.lending import lender
from p2p_ipython.errors import NotConnected, P2PError, UsageError, in_notebook
from p2p_ipython.members.way import Way
from p2p_ipython.notebook.panel.asked import Do, checked
from p2p_ipython.notebook.panel.contract import Invited, Logged
from p2p_ipython.notebook.panel.rows import log_entry
from p2p_ipython.notebook.panel.shown import shown
from p2p_ipython.protocol.plain import count

if TYPE_CHECKING:
    from p2p_ipython.client.cluster import Cluster
    from p2p_ipython.client.errands import Visitor
    from p2p_ipython.client.groups import Group
    from p2p_ipython.client.reception import Reception

log = logging.getLogger(__name__)

USUAL = 60.0
"""Seconds that an action may take."""

LONG = 200.0
"""Seconds for actions that use a board; these have shorter deadlines of their own."""

DEADLINES = {"connect": LONG, "invite": LONG, "approve": LONG, "revoke": LONG, "lend": LONG}

QUICK = ("cancel", "show", "halt", "again", "answer", "log")
"""Actions that wait for nothing, or for moments only."""

MOST_ENTRIES = 30
"""Entries of the lending log that a panel shows."""

MOST_WAITING = 100
"""Actions that may wait for their turn, at most."""

Answer = Callable[[bool, str, Any], None]
"""(whether it was done, words, data)"""


class Notebook(Protocol):
    """The part of ``P2PMagics`` that actions use."""

    @property
    def cluster(self) -> Cluster | None:
        """The notebook's cluster, if there is one; it may be closed."""

    def connect_to(self, target: str, progress: Callable[[str], None]) -> str:
        """Connect to another cluster, as ``%p2p_connect`` does ("": a personal one); return the words for it."""

    def leave(self, cluster: Cluster) -> str:
        """Close a cluster; return the words for it."""


class Friends(Protocol):
    """The part of ``FriendsMagics`` that actions use."""

    @property
    def reception(self) -> Reception:
        """The reception, which deals with hosting and with people who would join."""


@dataclass(frozen=True)
class Done:
    """The outcome of an action."""

    say: str
    data: Any = None


class Actions:
    """See the module. ``perform`` from any thread; each action gets the cluster that its panel looks at."""

    def __init__(self, notebook: Notebook, friends: Friends) -> None:
        self._notebook = notebook
        self._friends = friends
        self._quick = _Thread("p2p-panel-quick")
        self._slow = _Thread("p2p-panel")

    def perform(self, asked: Do, cluster: Cluster | None, answer: Answer) -> float:
        """Begin an action; ``answer`` is called from its thread. Returns its deadline, in seconds from now."""
        thread = self._quick if asked.action in QUICK else self._slow
        if not thread.put(lambda: answer(*self._outcome(asked, cluster))):
            answer(False, "Too many actions wait already. Try again in a moment.", None)
        return DEADLINES.get(asked.action, USUAL)

    def close(self) -> None:
        """Start no more actions. Running ones are not waited for."""
        self._quick.close()
        self._slow.close()

    def _outcome(self, asked: Do, cluster: Cluster | None) -> tuple[bool, str, Any]:
        try:
            arguments = checked(asked)
            done: Done = getattr(self, f"_{asked.action}")(cluster, **arguments)
        except P2PError as error:
            return False, in_notebook(str(error)), None
        except Exception as error:
            log.exception("a panel's %s failed", asked.action)
            return False, f"It failed, and should not have ({type(error).__name__}). The kernel's log says more.", None
        return True, in_notebook(done.say), done.data

    # -- tasks --

    def _cancel(self, cluster: Cluster | None, task: str) -> Done:
        if _there(cluster).cancel_task(task):
            return Done("Cancelled.")
        raise UsageError("the task has ended already", hint="Its future has the result.")

    def _show(self, cluster: Cluster | None, task: str) -> Done:
        there = _there(cluster)
        return Done("", shown(there._core.source_of(task), there._core.shown(task)))

    def _halt(self, cluster: Cluster | None, group: str) -> Done:
        _group(cluster, group).cancel()
        return Done("Cancelled.")

    def _again(self, cluster: Cluster | None, group: str) -> Done:
        found = _group(cluster, group)
        if not found.may_again:
            raise UsageError("none of them can run again", hint="Run the cell again.")
        found.again()
        return Done("Those that had failed run again.")

    # -- clusters --

    def _connect(self, _cluster: Cluster | None, target: str) -> Done:
        with _unattended():
            return Done(self._notebook.connect_to(target, lambda _words: None))

    def _disconnect(self, cluster: Cluster | None) -> Done:
        return Done(self._notebook.leave(_open(cluster)))

    # -- people --

    def _invite(self, cluster: Cluster | None, title: str, who: str) -> Done:
        from p2p_ipython.members.invitation import CODE_LIFE

        way, own = Way(), False
        if not title and cluster is not None and not cluster.shared and cluster.target is not None:
            title, way, own = cluster.cluster, replace(cluster._core.way, board=cluster.target), True
        until = time.time() + CODE_LIFE
        with _unattended():
            invitation = self._friends.reception.invite(title, who or None, _Unseen(), way=way, own=own, yes=False)
        commands = [f"%p2p_join {invitation.arguments}", f"p2p join {invitation.arguments}"]
        words = "Give your guest the code. When they have come, this panel asks you. The code works once."
        return Done(words, Invited(code=invitation.code, commands=commands, until=round(until)))

    def _approve(self, _cluster: Cluster | None, key: str, title: str, called: str) -> Done:
        visitor = self._visitor(key, title)
        if called not in ("", visitor.called):
            raise UsageError(f"they would be called {visitor.called} now, not {called}", hint="Look again.")
        with _unattended():
            # Not by name: a member who has got this name since it was shown must not get another key by it.
            visitor, name = self._friends.reception.approve(visitor)
        if visitor.own:
            return Done(f"{visitor.called} is in {visitor.title} as a machine of your own.")
        return Done(f"{name} is in {visitor.title}." if name else f"{visitor.called} no longer waits.")

    def _refuse(self, _cluster: Cluster | None, key: str, title: str) -> Done:
        visitor = self._friends.reception.refuse(self._visitor(key, title))
        return Done(f"{visitor.called} is refused.")

    def _visitor(self, key: str, title: str) -> Visitor:
        for visitor in self._friends.reception.waiting():
            if (visitor.fingerprint, visitor.title) == (key, title):
                return visitor
        raise UsageError("this person no longer waits", hint="Somebody has answered, or they have gone.")

    def _revoke(self, _cluster: Cluster | None, title: str, member: str) -> Done:
        with _unattended():
            title, out = self._friends.reception.revoke(title, _whole(title, member), way=Way())
        words = f"{out.member} is removed from {title}; the others have another key now."
        if out.waiting:
            words += f" {out.waiting} of their processes don't have it yet; they get it while somebody hosts."
        return Done(words)

    def _trust(self, cluster: Cluster | None, member: str) -> Done:
        there = _open(cluster)
        name = there.trust(member)
        return Done(f"Results of {name}'s workers in {there.target} may be of any type now, and run code here.")

    def _distrust(self, cluster: Cluster | None, member: str) -> Done:
        name = _open(cluster).trust(member, revoke=True)
        return Done(f"Results of {name}'s workers are plain data again.")

    # -- lending --

    def _lend(
        self,
        cluster: Cluster | None,
        *,
        title: str,
        slots: int,
        hours: float,
        only: tuple[str, ...],
        tags: tuple[str, ...],
        sandbox: str,
        gpu: bool,
        cpus: float,
        ask: bool,
    ) -> Done:
        connected = cluster is not None and cluster.target == title  # the cluster knows its own way
        where: Cluster | str = title if title and not connected else _open(cluster)
        with _unattended():
            state = lender().lend(
                where,
                slots=slots or None,
                seconds=hours * 3600 or None,
                only=only,
                tags=tags,
                sandbox=sandbox,
                limits={"task_cpus": cpus},
                gpu=gpu,
                ask=ask,
            )
        return Done(f"{state.name} lends {count(state.slots, 'slot')} to {state.title}.")

    def _pause(self, _cluster: Cluster | None, lending: str) -> Done:
        lender().pause(lending)
        return Done("Paused: it takes no new tasks; running tasks continue.")

    def _resume(self, _cluster: Cluster | None, lending: str) -> Done:
        lender().resume(lending)
        return Done("It takes tasks again.")

    def _stop(self, _cluster: Cluster | None, lending: str) -> Done:
        lender().stop(lending)
        return Done("Stopped: it no longer lends.")

    def _answer(self, _cluster: Cluster | None, number: int, answer: str) -> Done:
        question = lender().answer(number, answer)
        what = "does not run here" if answer == "no" else "may run"
        return Done(f"{question.label} of {question.name or 'a member'} {what}.")

    def _welcome(self, _cluster: Cluster | None, lending: str, key: str) -> Done:
        from p2p_ipython.notebook.lending import welcome

        title, names = welcome(_lent_to(lending), [key])
        return Done(f"You know {', '.join(names)} in {title}: within seconds, their tasks may run as others' do.")

    def _log(self, _cluster: Cluster | None, lending: str) -> Done:
        from p2p_ipython.lending.record import LendingLog

        title = _lent_to(lending)
        last = deque((entry for entry in LendingLog().entries() if entry.cluster == title), maxlen=MOST_ENTRIES)
        return Done("", Logged(entries=[log_entry(entry) for entry in reversed(last)]))


class _Unseen:
    """The view of an action's progress: empty, since the panel shows it itself."""

    def show(self, text: str, news: str, visitors: tuple[Visitor, ...] = ()) -> None:
        pass


class _Thread:
    """A daemon thread that does one thing after another; the first one starts it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, work: Callable[[], None]) -> bool:
        """Do the work when its turn comes. Returns False if too much waits."""
        if self._closed:
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        try:
            self._work.put_nowait(work)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """End the thread after its present work."""
        self._closed = True
        while True:
            try:
                self._work.put_nowait(None)
                return
            except queue.Full:
                try:
                    self._work.get_nowait()
                except queue.Empty:
                    pass

    def _run(self) -> None:
        while (work := self._work.get()) is not None and not self._closed:
            try:
                work()
            except Exception:
                log.exception("a panel's action could not be answered")


def _lent_to(lending: str) -> str:
    title = next((state.title for state in lender().states() if state.id == lending), None)
    if title is None:
        raise UsageError("that is lent no more", hint="p2p lending log shows all that has run here.")
    return title


def _there(cluster: Cluster | None) -> Cluster:
    if cluster is None:
        raise NotConnected("no cluster is connected", hint="Connect first.")
    return cluster


def _group(cluster: Cluster | None, id: str) -> Group:
    found = _there(cluster)._core.groups.get(id)
    if found is None:
        raise UsageError("these tasks are no longer listed", hint="Their list of futures has them: its again_failed().")
    return found


def _open(cluster: Cluster | None) -> Cluster:
    if _there(cluster).closed:
        raise NotConnected("the cluster is disconnected", hint="Connect again.")
    assert cluster is not None
    return cluster


def _whole(title: str, member: str) -> str:
    """Return the name of the member who has the key ``member``.

    By the key itself only that one would be removed, and the member's other keys would stay.
    """
    from p2p_ipython.members.owner import roster_of
    from p2p_ipython.members.profiles import Profiles

    found = roster_of(Profiles().load(title)).member(member)
    return found.name if found is not None else member


def _unattended() -> Any:
    """Return a block in which no passphrase is asked for: nobody can type one into a panel."""

    return unattended()
