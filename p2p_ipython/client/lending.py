"""Lending this machine from a notebook: a worker, a process of ours, for a cluster that this user is in.

It is run as those of a personal cluster are (local.py), and shows the user's own SSH key, which it finds as
``p2p worker`` does: nothing secret is handed to it. It ends when it is told to, when its time is up, and with this
process, however that one ends.

A ``Lender`` knows what this process lends; ``lender()`` has the one there is. Its methods may be called from any
thread but the loop's, and each has a deadline; ``states`` and ``follow`` may be called from any thread.
"""

from __future__ import annotations

# Functions import what is heavy (cryptography, paramiko, cloudpickle): the extension must load quickly.
import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from p2p_ipython import errors
from p2p_ipython.client.ending import Turn, at_end
from p2p_ipython.client.face import wait_for
from p2p_ipython.client.lending_state import HEEDS, LIVE, LendingState
from p2p_ipython.client.local import Child
from p2p_ipython.config import Settings
from p2p_ipython.errors import BoardUnreachable, ConfigError, P2PError, RemoteProtocolError, UsageError
from p2p_ipython.jobs import Jobs
from p2p_ipython.protocol.questions import ANSWERS, MAX_NUMBER, Answered, Asked, read_asked
from p2p_ipython.sandbox.launch import CHOICES

if TYPE_CHECKING:
    from p2p_ipython.client.cluster import Cluster

log = logging.getLogger(__name__)

T = TypeVar("T")

READY = 120.0
"""Seconds that a worker may take until it lends: its SSH key may have to be touched, its board be far away."""

ANSWER = 15.0
"""Seconds that it may take to pause or to go on."""

STOPPING = 3.0
"""Seconds for which ``stop`` waits for the end; tasks that run may take longer."""

DRAIN = 75.0
"""Seconds that a worker which is told to stop may take; it gives its tasks 60 (worker/main.py)."""

SLACK = 15.0
"""Seconds more that the loop may take to do any of this."""

MAX_SLOTS = 256

MAX_SECONDS = 365 * 24 * 3600.0

SANDBOXES = CHOICES
"""The words that ``Lender.lend`` takes for ``sandbox``."""


@dataclass
class _Lending:
    state: LendingState
    child: Child
    failed: P2PError | None = None
    stopping: bool = False
    asked: int = 0  # the question's number at the worker
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Lender:
    """See the module."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lendings: dict[str, _Lending] = {}
        self._states: tuple[LendingState, ...] = ()
        self._wakes: dict[object, Callable[[], None]] = {}
        self._number = 0
        self._questions = 0
        self._jobs = Jobs(log)
        self._closed = False

    # -- from any thread --

    def states(self) -> tuple[LendingState, ...]:
        """Return what is lent, the oldest first; and what has failed, until it is lent anew or stopped."""
        return self._states

    def follow(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` on the loop's thread after each change; returns what ends that. ``wake`` must not block."""
        key = object()
        self._wakes = {**self._wakes, key: wake}

        def unfollow() -> None:
            self._wakes = {other: wakes for other, wakes in self._wakes.items() if other is not key}

        return unfollow

    # -- from any thread but the loop's --

    def lend(
        self,
        where: Cluster | str,
        *,
        slots: int | None = None,
        seconds: float | None = None,
        name: str | None = None,
        only: Sequence[str] = (),
        tags: Sequence[str] = (),
        sandbox: str = "",
        limits: Mapping[str, float] | None = None,
        mounts: Sequence[str] = (),
        network: bool = False,
        gpu: bool = False,
        ask: bool = False,
    ) -> LendingState:
        """Lend ``slots`` tasks at a time to a cluster of friends, by its title, or to one that is connected.

        What isn't said here is as the user's policy has it (``p2p lending policy``).

        Returns once the worker lends. ``seconds``: until it ends by itself (None: it doesn't). ``name``: what others
        see (default: this machine's name). ``only``: members, by name or fingerprint, for whom it is (default: for
        all). ``tags``: what the machine is good for, in words. ``sandbox``: the mechanism that tasks run behind ("":
        the first that works here for friends, none for one's own tasks). ``limits``: settings such as ``task_memory``
        that bound each task there. ``mounts``: folders and files to share with tasks, as "PATH", "PATH:ro" or
        "PATH:rw". ``network``: whether tasks have the internet, though never your own network. ``gpu``: whether tasks
        have this machine's graphics cards, which are divided among the slots. ``ask``: whether to ask before each task
        of another member, for which ``LendingState.question`` and ``answer`` are; to members that are known, unless
        ``only`` or the policy says for whom.

        Raises ``UsageError``, ``ConfigError``, ``NoKey`` (also for a key with a passphrase that no agent holds),
        ``NotAdmitted``, or a ``BoardError``.
        """
        if sys.platform == "win32":
            raise UsageError("workers don't run on Windows itself", hint="Lend from WSL, or from another machine.")
        if slots is not None and not 1 <= slots <= MAX_SLOTS:
            raise ConfigError(f"{slots} slots can't be lent", hint=f"Give a number from 1 to {MAX_SLOTS}.")
        if seconds is not None and not 0 < seconds <= MAX_SECONDS:
            raise ConfigError("that is no time to lend for", hint="Give more than nothing, and a year at most.")
        title, given = _given(where)
        given |= {"slots": slots, "seconds": seconds, "name": name, "only": list(only), "tags": list(tags)}
        given |= {"sandbox": sandbox, "mounts": list(mounts), "network": network, "gpu": gpu, "ask": ask}
        given["settings"] = asdict(Settings.load({}, **given["settings"] | dict(limits or {})))
        state = LendingState("", title, name or "", "starting", slots=slots or 1, only=tuple(only), tags=tuple(tags))
        state = replace(state, network=network)
        made: list[str] = []
        try:
            return self._wait(self._lend(state, given, made), READY + SLACK, f"lending to {title}")
        except BaseException:  # an interrupt may come when it lends already
            if made and any(one.id == made[0] for one in self._states):
                self.stop(made[0])
            raise

    def pause(self, which: str) -> LendingState:
        """Take no new tasks; what runs goes on. Raises ``UsageError`` for what isn't lent."""
        return self._wait(self._tell(which, "pause"), ANSWER + SLACK, "pausing")

    def resume(self, which: str) -> LendingState:
        """Take tasks again."""
        return self._wait(self._tell(which, "resume"), ANSWER + SLACK, "going on")

    def answer(self, number: int, answer: str) -> Asked:
        """Answer the question with this number: "once", "member" or "same" are yes, "no" is no. Returns the question.

        Raises ``UsageError`` for one that isn't asked any more.
        """
        if answer not in ANSWERS:
            raise UsageError(f"{answer[:40]!r} is no answer", hint=f"Say one of: {', '.join(ANSWERS)}.")
        return self._wait(self._answer(number, answer), ANSWER + SLACK, "answering")

    def stop(self, which: str) -> LendingState:
        """Lend no more: at once where nothing runs, else when that is over, after a minute at the latest.

        Returns after some seconds at most; a second ``stop`` ends what runs. A worker that has failed is forgotten.
        """
        return self._wait(self._stop(which), STOPPING + 2 * SLACK, "ending the worker")

    def close(self) -> None:
        """End all workers at once. Idempotent."""
        if self.pid == os.getpid() and not self._closed:
            self._closed = True
            self._wait(self._close(), 2 * SLACK, "ending the workers")

    # -- on the loop --

    def _wait(self, work: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
        return wait_for(work, seconds, what, pid=self.pid)

    async def _lend(self, state: LendingState, given: dict[str, Any], made: list[str]) -> LendingState:
        state = replace(state, title=await self._title(given, state.title))
        if self._closed:
            raise UsageError("this notebook lends nothing any more", hint="Load the extension again.")
        for other in list(self._lendings.values()):
            if other.state.title != state.title:
                continue
            if not other.state.is_over:
                raise UsageError(
                    f"this notebook lends to {state.title} already",
                    hint="Stop that first (%p2p_lend --stop), or pause it (%p2p_lend --pause).",
                )
            del self._lendings[other.state.id]
        self._number += 1
        which = f"lend-{self._number}"
        try:
            child = Child(
                "p2p_ipython.worker.lend",
                asyncio.get_running_loop(),
                on_end=lambda _child: self._ended(which),
                on_word=lambda said: self._said(which, said),
            )
        except OSError as error:
            raise P2PError(f"no worker can be started: {error}", hint="Is this machine out of memory?") from None
        lending = self._lendings[which] = _Lending(replace(state, id=which), child)
        self._changed(lending)
        made.append(which)
        try:
            child.tell(given)
            said = await asyncio.wait_for(asyncio.shield(child.ready), READY)
            if (failed := _failure(said) or lending.failed) is not None:
                raise failed
            if child.ended.done():
                raise P2PError(f"the worker for {state.title} has ended: {_last_words(child)}")
        except BaseException as error:
            self._lendings.pop(which, None)
            self._changed(lending)
            child.close_input()
            self._jobs.start(child.close())
            if isinstance(error, TimeoutError):
                raise BoardUnreachable(
                    f"the worker for {state.title} was not there after {READY:.0f} s: {_last_words(child)}",
                    hint="Is the board reachable? p2p doctor says which hop fails.",
                ) from None
            if lending.stopping:
                raise UsageError(f"lending to {state.title} was stopped before it began") from None
            raise
        until, before = said.get("until"), lending.state.state
        self._set(
            lending,
            state="lending" if before == "starting" else before,  # it may have been paused already
            name=str(said.get("name")),
            sandbox=str(said.get("sandbox")),
            mounts=str(said.get("mounts", "")),
            cards=str(said.get("cards", "")),
            policy=str(said.get("policy", "")),
            conditions=str(said.get("conditions", "")),
            slots=int(said.get("slots", lending.state.slots)),
            until=float(until) if isinstance(until, int) else 0.0,
        )
        return lending.state

    async def _title(self, given: dict[str, Any], text: str) -> str:
        if given["board"] is not None:
            return text
        from p2p_ipython.members import operations
        from p2p_ipython.members.profiles import Profiles

        title: str = await asyncio.to_thread(operations.find_title, Profiles(), text)
        given["cluster"] = title
        return title

    async def _tell(self, which: str, command: str) -> LendingState:
        lending = self._found(which)
        if lending.state.is_over or lending.stopping:
            raise UsageError(f"lending to {lending.state.title} is over, or ending", hint="Lend anew: %p2p_lend")
        wanted = {"pause": "paused", "resume": "lending"}[command]
        lending.child.tell({"do": command})
        end = asyncio.get_running_loop().time() + ANSWER
        while lending.state.state in HEEDS and lending.state.state != wanted:
            if not await _within(lending.news, end):
                raise P2PError("the worker doesn't answer", hint="Stop it, and lend anew: %p2p_lend --stop")
        if lending.state.state != wanted:
            raise UsageError(f"lending to {lending.state.title} has ended, or ends", hint="Lend anew: %p2p_lend")
        return lending.state

    async def _answer(self, number: int, answer: str) -> Asked:
        lending = next((one for one in self._lendings.values() if _asks(one, number)), None)
        if lending is None or (question := lending.state.question) is None:
            raise UsageError(f"question {number} is not asked any more", hint="No answer in 2 minutes is no.")
        if answer == "same" and not question.same:
            raise UsageError("not all of this task is here yet, so nothing is the same", hint="Say yes to it once.")
        lending.child.tell({"do": "answer"} | Answered(lending.asked, answer).fields())
        end = asyncio.get_running_loop().time() + ANSWER
        while not lending.state.is_over and _asks(lending, number):
            if not await _within(lending.news, end):
                raise P2PError("the worker doesn't answer", hint="Stop it, and lend anew: %p2p_lend --stop")
        return question

    async def _stop(self, which: str) -> LendingState:
        lending = self._found(which)
        if lending.state.is_over:
            del self._lendings[which]
            self._changed(lending)
            return lending.state
        again, lending.stopping = lending.stopping, True
        if again or lending.state.state == "starting":
            await lending.child.close()
            return lending.state
        self._set(lending, state="ending")
        lending.child.tell({"do": "stop"})
        self._jobs.start(self._see_off(lending.child))
        await asyncio.wait({lending.child.ended}, timeout=STOPPING)
        return lending.state

    async def _see_off(self, child: Child) -> None:
        await asyncio.wait({child.ended}, timeout=DRAIN)
        await child.close()

    async def _close(self) -> None:
        children = [lending.child for lending in self._lendings.values()]
        for child in children:  # before anything is awaited: whatever happens to this coroutine, they end
            child.close_input()
        await asyncio.gather(*(child.close() for child in children), return_exceptions=True)
        await self._jobs.end()
        self._lendings.clear()
        self._changed(None)

    def _found(self, which: str) -> _Lending:
        lending = self._lendings.get(which)
        if lending is None:
            raise UsageError("that is lent no more", hint="%p2p_lend TITLE lends this machine to a cluster.")
        return lending

    # -- what workers say, and their ends --

    def _said(self, which: str, said: dict[str, Any]) -> None:
        lending = self._lendings.get(which)
        if lending is None:
            return
        failed = _failure(said)
        if failed is not None:
            lending.failed = failed
            return
        if "asked" in said:
            self._asks(lending, said["asked"])
            return
        state = str(said.get("state"))
        self._set(
            lending,
            state="ending" if lending.stopping else state if state in LIVE else lending.state.state,
            words=str(said.get("words", "")),
            busy=int(said.get("busy", 0)),
            news=tuple(str(words) for words in said.get("news", ())),
            policy=str(said.get("policy", lending.state.policy)),
            conditions=str(said.get("conditions", lending.state.conditions)),
            logged=int(said.get("logged", 0)),
            unknown={str(key): str(name) for key, name in dict(said.get("unknown", {})).items()},
            usage={str(key): (int(used[0]), float(used[1])) for key, used in dict(said.get("usage", {})).items()},
        )

    def _asks(self, lending: _Lending, said: object) -> None:
        """Note the question that a worker asks now, under a number that no other question has here."""
        try:
            question = read_asked(said)
        except RemoteProtocolError as error:
            log.warning("a question of the worker for %s is not shown: %s", lending.state.title, error)
            question = None
        if question is not None:
            self._questions = self._questions % MAX_NUMBER + 1
            lending.asked, question = question.number, replace(question, number=self._questions)
        self._set(lending, question=question)

    def _ended(self, which: str) -> None:
        lending = self._lendings.get(which)
        if lending is None or lending.state.state == "starting":  # who waits for it says why
            return
        in_order = lending.failed is None and (lending.child.ended.result() == 0 or lending.stopping)
        if in_order:
            del self._lendings[which]
            lending.state = replace(lending.state, state="ended", busy=0, question=None)
            self._changed(lending)
            return
        words = str(lending.failed) if lending.failed is not None else _last_words(lending.child)
        log.warning("the worker that lent to %s has ended: %s", lending.state.title, words)
        self._set(lending, state="failed", words=words, busy=0, question=None)

    def _set(self, lending: _Lending, **changes: Any) -> None:
        state = replace(lending.state, **changes)
        if state != lending.state:
            lending.state = state
            self._changed(lending)

    def _changed(self, lending: _Lending | None) -> None:
        self._states = tuple(one.state for one in self._lendings.values())
        if lending is not None:
            lending.news.set()
        for wake in list(self._wakes.values()):
            try:
                wake()
            except Exception:
                log.exception("who follows the lender failed")


def _given(where: Cluster | str) -> tuple[str, dict[str, Any]]:
    """Return what a cluster is called, and what its worker has to know of the way to it."""
    given: dict[str, Any] = {
        "board": None,
        "cluster": "",
        "identity": None,
        "pin": None,
        "ssh_options": [],
        "log_level": logging.getLogger("p2p_ipython").getEffectiveLevel(),
    }
    if isinstance(where, str):
        return where, {**given, "cluster": where, "settings": asdict(Settings.load())}
    if where.closed:
        raise UsageError("that cluster is closed", hint="Connect again: %p2p_connect")
    if where.target is None:
        raise UsageError(
            "the personal cluster on this machine has workers of its own",
            hint="To lend to friends, say to which cluster: %p2p_lend alice/friends",
        )
    way = where._core.way
    given |= {
        "identity": None if way.identity is None else str(Path(way.identity).absolute()),
        "pin": way.pin,
        "ssh_options": list(way.ssh_options),
        "settings": asdict(where.settings),
    }
    if where.shared:
        return where.target, {**given, "cluster": where.target}
    return f"{where.cluster} at {where.target}", {**given, "board": where.target, "cluster": where.cluster}


def _failure(said: Mapping[str, Any]) -> P2PError | None:
    """Why a worker has failed, if that is what it says: an error of ours, as it raised it."""
    failed = said.get("failed")
    if not isinstance(failed, dict):
        return None
    kind = getattr(errors, str(failed.get("kind")), P2PError)
    if not (isinstance(kind, type) and issubclass(kind, P2PError)):
        kind = P2PError
    message, hint = str(failed.get("message")), str(failed.get("hint"))
    try:
        return kind(message, hint=hint)
    except TypeError:  # one that says more than that
        return P2PError(message, hint=hint)


def _last_words(child: Child) -> str:
    return " ".join(child.last_words)[-300:] or "it said nothing"


def _asks(lending: _Lending, number: int) -> bool:
    return lending.state.question is not None and lending.state.question.number == number


async def _within(event: asyncio.Event, end: float) -> bool:
    """Wait for an event, which is then cleared; False when it doesn't come before ``end``, in the loop's time."""
    try:
        await asyncio.wait_for(event.wait(), max(0.0, end - asyncio.get_running_loop().time()))
    except TimeoutError:
        return False
    event.clear()
    return True


_lock = threading.Lock()
_lender: Lender | None = None


def lender() -> Lender:
    """Return the lender of this process, made on first use."""
    global _lender  # noqa: PLW0603 - a process lends its machine once
    with _lock:
        if _lender is None or _lender.pid != os.getpid():
            _lender = Lender()
        return _lender


def end() -> None:
    """Lend nothing any more; ``lender()`` begins anew."""
    global _lender
    with _lock:
        old, _lender = _lender, None
    if old is not None:
        old.close()


def _close_all() -> None:
    try:
        end()
    except Exception:
        log.exception("could not end what this notebook lends")


at_end(Turn.LENDER, _close_all)
