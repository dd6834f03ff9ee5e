"""``python -m p2p_ipython.worker.lend``: a worker that a notebook has started, to lend its user's machine.

Standard input: a line of JSON that says where and how to lend; then a line for each command, ``{"do": "pause"}``,
``"resume"``, ``"stop"``, or ``"answer"`` with the answer to a question; its end is the worker's end. Standard output: a
line of JSON when the worker lends, or ``{"failed": …}``; then one whenever something has changed: state, policy, slots
that are busy, what members have used, what the lender is to read; and ``{"asked": …}`` for each question to the lender,
or null when none waits (protocol/questions.py). See client/lending.py, which is at the other end.

No key comes this way: the worker finds the user's as ``p2p worker`` does. It has nobody to ask for a passphrase.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from p2p_ipython import lifeline
from p2p_ipython.config import Settings
from p2p_ipython.errors import P2PError, RemoteProtocolError
from p2p_ipython.protocol.messages import cards_words
from p2p_ipython.protocol.plain import plain
from p2p_ipython.protocol.questions import MAX_NUMBER, Answer, Answered, Asked, asked
from p2p_ipython.worker.hardening import harden

if TYPE_CHECKING:
    from p2p_ipython.worker.agent import Agent
    from p2p_ipython.worker.consent import Question
    from p2p_ipython.worker.hand import Hand

log = logging.getLogger(__name__)

LOOK_EVERY = 0.5
"""Seconds between two looks at whether there is something to say."""

MAX_NEWS = 8
"""Sentences for the lender that are kept."""

MAX_NEWS_WORDS = 400

MAX_UNKNOWN = 8
"""Members whom the lender may welcome that are named; the others follow."""

GONE = 20.0
"""Seconds after which this process ends, whatever it waits for, when its starter is gone."""


def main() -> int:
    """Run the worker that standard input describes."""
    harden()
    given = lifeline.first_line()
    if given is None:
        return 0
    try:
        return asyncio.run(_Lent(given).run())
    except asyncio.CancelledError:  # the starter has gone before there was a worker
        return 0
    except P2PError as error:
        _say({"failed": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}})
    except Exception as error:
        log.exception("the worker failed")
        _say({"failed": {"kind": "", "message": f"the worker failed: {type(error).__name__}: {error}", "hint": ""}})
    return 1


class _Lent:
    """A worker, and what is said of it."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        self._agent: Agent | None = None
        self._hand: Hand | None = None
        self._news: list[str] = []
        self._name = self._sandbox = self._mounts = ""
        self._state = "starting"
        self._last: dict[str, Any] = {}
        self._number = 0
        self._asked: Asked | None = None
        self._asked_last: Asked | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._ended: asyncio.Event
        self._enough: asyncio.Event

    async def run(self) -> int:
        # Late: it is heavy (paramiko, cryptography), and a starter that has gone needs no worker.
        from p2p_ipython.lending.policy_file import default_path
        from p2p_ipython.worker.keeper import Given
        from p2p_ipython.worker.main import WorkerOptions, run_worker
        from p2p_ipython.worker.mounts import mounts_text, read_mounts

        given, file = self._given, default_path()
        policy = Given.read(
            file if file.exists() else None,
            {
                "who": given["only"] or None,
                "slots": given["slots"],
                "tags": given["tags"] or None,
                "mounts": given["mounts"] or None,
                "network": given["network"] or None,
                "gpu": given["gpu"] or None,
                "ask": given["ask"] or None,
            },
        )
        settings, usual = Settings(**given["settings"]), asdict(Settings())
        limits = {f"task_{name}": value for name, value in asdict(policy.policy.limits).items() if value}
        # A limit that the notebook has set wins over the policy's.
        settings = replace(settings, **{k: v for k, v in limits.items() if getattr(settings, k) == usual[k]})
        mounts = read_mounts(policy.policy.mounts)
        self._mounts = mounts_text(mounts)
        loop, whole = asyncio.get_running_loop(), asyncio.current_task()
        assert whole is not None
        self._ended, self._enough = asyncio.Event(), asyncio.Event()

        def lost() -> None:
            timer = threading.Timer(GONE, os._exit, (1,))
            timer.daemon = True
            timer.start()
            # Who has not begun to lend may wait for a board: nobody wants that any more.
            loop.call_soon_threadsafe(self._ended.set if self._agent is not None else whole.cancel)

        def told(line: bytes) -> None:
            loop.call_soon_threadsafe(self._told, line)

        lifeline.hold(lost, told=told)
        options = WorkerOptions(
            board=given["board"],
            cluster=given["cluster"],
            name=given["name"],
            slots=policy.policy.slots or 1,
            duration=given["seconds"],
            identity=Path(given["identity"]) if given["identity"] else None,
            accept_host_key=given["pin"],
            settings=settings,
            ssh_options=tuple(given["ssh_options"]),
            only=tuple(given["only"]),
            tags=policy.policy.tags,
            sandbox=given["sandbox"],
            mounts=mounts,
            network=policy.policy.network,
            gpu=policy.policy.gpu,
            given=policy,
        )
        looking = loop.create_task(self._look())
        try:
            return await run_worker(
                options,
                ready=self._is_here,
                lends=self._lends,
                held=self._is_held,
                told=self._is_told,
                ask=self._is_asked,
                ended=self._ended,
                enough=self._enough,
            )
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    def _is_here(self, name: str, _sid: bytes, sandbox: str) -> None:
        self._name, self._sandbox = name, sandbox

    def _is_held(self, hand: Hand) -> None:
        self._hand = hand
        if self._state == "paused":  # before it began
            hand.heed("pause")

    def _is_told(self, words: str) -> None:
        """Keep a sentence for the lender: the notebook shows the last ones."""
        words = words.replace("p2p lending welcome ", "%p2p_lend --welcome ")
        self._news = [*self._news, plain(words, MAX_NEWS_WORDS)][-MAX_NEWS:]
        self._report()

    async def _is_asked(self, question: Question) -> Answer:
        """Ask the notebook, and return its answer. It has so long as the caller waits."""
        from p2p_ipython.worker.consent import PATIENCE

        self._number = self._number % MAX_NUMBER + 1
        self._answer = asyncio.get_running_loop().create_future()
        self._asked = asked(
            self._number,
            until=time.time() + PATIENCE,
            name=question.name,
            key=question.key,
            label=question.label,
            run=question.kind,
            source=question.source,
            size=question.size,
            options=question.options,
            same=question.whole,
        )
        self._report()
        try:
            return await self._answer
        finally:
            self._asked = self._answer = None
            self._report()

    def _is_answered(self, line: dict[str, Any]) -> None:
        """Note an answer, if it is to the question that is asked now."""
        try:
            said = Answered.read(line)
        except RemoteProtocolError as error:
            log.warning("%s", error)
            return
        if self._asked is not None and self._answer is not None and said.number == self._asked.number:
            self._answer.set_result(cast("Answer", said.answer))
            self._asked = self._answer = None

    def _lends(self, agent: Agent) -> None:
        self._agent = agent
        if self._state == "starting":
            self._state = "lending"
        told: dict[str, Any] = {"name": self._name, "sandbox": self._sandbox, "mounts": self._mounts}
        told["cards"] = cards_words(agent.machine.terms().cards)
        told["slots"] = agent.machine.terms().slots
        _say(told | self._conditions() | {"until": agent.machine.terms().until})
        self._report()

    def _told(self, line: bytes) -> None:
        try:
            said = json.loads(line)
            command = said["do"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if command == "answer":
            self._is_answered(said)
            return
        if command == "stop":
            self._enough.set()
        if self._state == "ending":
            return
        match command:
            case "pause" | "resume" if self._hand is not None:
                if self._hand.finishing.is_set():
                    return
                self._hand.heed(command)
                self._state = self._by_hand()
            case "pause":
                self._state = "paused"
            case "resume":
                self._state = "starting"
            case "stop":
                self._state = "ending"
            case _:
                return
        self._report()

    def _report(self) -> None:
        """Say how it stands, if that is not what was said last."""
        if self._agent is None:
            return
        machine, membership = self._agent.machine, self._agent.membership
        stands = self._hand.state() if self._hand is not None else None
        if stands is not None and self._state in ("lending", "paused"):  # p2p lending may have paused it, too
            self._state = self._by_hand()
        refused = f"takes nothing now: {stands.words}" if stands is not None and stands.words else ""
        now = {
            "state": "ending" if machine.terms().slots == 0 else self._state,
            "news": self._news,
            "busy": machine.busy(),
            "usage": {member: list(used) for member, used in machine.usage.items()},
            "words": membership.trouble or membership.silence or refused,
            "logged": self._hand.logged if self._hand is not None else 0,
            "unknown": dict(list(self._hand.unknown.items())[:MAX_UNKNOWN]) if self._hand is not None else {},
            **self._conditions(),
        }
        if now != self._last:
            self._last = now
            _say(now)
        if self._asked != self._asked_last:
            self._asked_last = self._asked
            _say({"asked": self._asked.fields() if self._asked is not None else None})

    def _conditions(self) -> dict[str, str]:
        """Return the policy that counts now: in a sentence, and as its file would have it."""
        from p2p_ipython.lending.policy_file import conditions
        from p2p_ipython.worker.keeper import policy_words

        if self._hand is None:
            return {"policy": "", "conditions": ""}
        return {
            "policy": plain(policy_words(self._hand.policy), MAX_NEWS_WORDS),
            "conditions": conditions(self._hand.policy),
        }

    def _by_hand(self) -> str:
        assert self._hand is not None
        if self._agent is None:
            return "paused" if self._hand.state().state == "paused" else "starting"
        return self._hand.state().state

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._report()


def _say(words: dict[str, Any]) -> None:
    line = json.dumps(words).encode() + b"\n"
    try:
        while line:
            line = line[os.write(1, line) :]
    except OSError:  # nobody listens any more; that is told by standard input, too
        pass


if __name__ == "__main__":
    sys.exit(main())
