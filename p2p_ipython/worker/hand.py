"""The lender's hand on a worker: Ctrl-C, and the commands of ``p2p lending`` or of the notebook that has started it.

``finish`` takes no more tasks and ends with the last one that runs; ``stop`` ends what runs, and tells its owners. The
first Ctrl-C is the one, the second the other. Belongs to the worker's loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from p2p_ipython.errors import P2PError
from p2p_ipython.lending.control import Command, WorkerState
from p2p_ipython.lending.policy import Policy
from p2p_ipython.lending.policy_file import conditions
from p2p_ipython.protocol.plain import count
from p2p_ipython.worker.agent import Agent
from p2p_ipython.worker.keeper import Keeper


class Hand:
    """See the module. ``finishing`` and ``stopping`` are set when a command says so."""

    def __init__(self, agent: Agent, keeper: Keeper, *, title: str, policy: str, told: Callable[[str], None]) -> None:
        self.finishing = asyncio.Event()
        self.stopping = asyncio.Event()
        self._agent, self._keeper = agent, keeper
        self._title, self._policy = title, policy
        self._told = told

    @property
    def policy(self) -> Policy:
        """The policy that counts now: the file's, and the options that win over it."""
        return self._keeper.policy

    @property
    def unknown(self) -> dict[str, str]:
        """The members whom the lender doesn't know yet: names by keys."""
        return self._keeper.unknown()

    @property
    def logged(self) -> int:
        """How many entries this worker has written to the lending log."""
        return self._keeper.logged

    def interrupted(self) -> None:
        """Finish, or stop what is finishing already, on Ctrl-C."""
        if self.finishing.is_set():
            self._heed("stop")
        else:
            self._heed("finish")
            if busy := self._agent.machine.busy():
                self._told(f"{count(busy, 'task')} may end first; Ctrl-C again stops now")

    def heed(self, command: Command) -> WorkerState:
        """Do as the lender says; return how the worker stands then. Raises ``P2PError`` for one that is ending."""
        self._heed(command)
        return self.state()

    def _heed(self, command: Command) -> None:
        if command in ("pause", "resume") and (self.finishing.is_set() or self.stopping.is_set()):
            raise P2PError("it is ending")
        match command:
            case "pause":
                self._keeper.pause()
            case "resume":
                self._keeper.resume()
            case "finish":
                self.finishing.set()
            case "stop":
                self.finishing.set()
                self.stopping.set()
            case "state":
                pass

    def state(self) -> WorkerState:
        """Return how the worker stands."""
        machine, keeper = self._agent.machine, self._keeper
        ending = self.finishing.is_set() or self.stopping.is_set()
        name = "ending" if ending else "paused" if keeper.hand else "lending"
        terms = machine.hello(0).offer
        return WorkerState(
            pid=os.getpid(),
            cluster=self._title,
            name=machine.hello(0).name,
            state=name,
            words="" if ending or keeper.hand else keeper.words,
            slots=terms.slots if terms is not None else 0,
            busy=machine.busy(),
            policy=self._policy,
            conditions=conditions(self._keeper.policy),
        )
