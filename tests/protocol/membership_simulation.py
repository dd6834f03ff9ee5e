"""Clusters of friends in virtual time: real membership machines and host machines, a board that loses, repeats and
reorders, an owner who lets people in and takes them out, people who leave and come back.

It stands for what members/membership.py and members/host.py do with the machines. Lines are not encrypted here, and
boxes are marked instead of sealed; who is admitted, and what is taken of who isn't, is as in protocol/wire.py.

``Violation`` is raised as soon as somebody gets a key that the owner never gave to a list with him in it, or when a
machine doesn't act at its own deadline.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from friends import LOBBY, OWNER, certificate, print_of, roster, secret
from people import NOW

from p2p_ipython.protocol import host_machine as hm
from p2p_ipython.protocol import membership_machine as mm
from p2p_ipython.protocol.host_machine import HostMachine
from p2p_ipython.protocol.identity import CLOCK_SLACK, MAX_LIFE, BadIdentity, Certificate, ClusterSecret
from p2p_ipython.protocol.membership_machine import MembershipMachine
from p2p_ipython.protocol.messages import Ask, Grant, Hello, Message, Request, RosterPart, decode_admission
from p2p_ipython.protocol.roster import Roster, parts_of

PRESENCE = 30.0
LOBBY_VISIT = 10.0
LINGER = 600.0


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass
class Profile:
    """What a process leaves on disk for the next one."""

    roster: Roster | None
    secret: ClusterSecret


@dataclass
class Owner:
    """The owner's file, and all that she has ever signed: (roster, number of its key)."""

    history: list[tuple[Roster, int]]

    @property
    def roster(self) -> Roster:
        return self.history[-1][0]

    @property
    def key(self) -> int:
        return self.history[-1][1]

    @property
    def names(self) -> list[str]:
        return [member.name for member in self.roster.members[1:]]

    def change(self, names: list[str], *, new_key: bool) -> None:
        key = self.key + 1 if new_key else self.key
        self.history.append((roster(self.roster.epoch + 1, *names, key=key), key))

    def may_have(self, name: str, topic: str) -> bool:
        """Whether she ever gave the key of a topic to a list with this name in it."""
        return any(secret(key).topic == topic and known.named(name) is not None for known, key in self.history)


@dataclass(eq=False)
class Process:
    """A session of somebody's: on a topic, perhaps on the lobby, too."""

    name: str
    role: str
    certificate: Certificate
    machine: MembershipMachine
    clock: float
    topics: set[str]
    host: HostMachine | None = None
    stubborn: bool = False
    alive: bool = True
    moving: bool = False
    said: Counter[str] = field(default_factory=Counter)
    lobby_times: list[float] = field(default_factory=list)
    alarm: float = float("inf")


class Gathering:
    """See the module. ``run`` lets time pass; the other methods are what people do."""

    def __init__(self, rng: random.Random, names: list[str], *, loss: float = 0.0, slowness: float = 0.1) -> None:
        self.rng = rng
        self.loss = loss
        self.slowness = slowness
        self.now = 0.0
        self.owner = Owner([(roster(1, *names), 1)])
        self.processes: list[Process] = []
        self.disks: dict[str, Profile] = {}
        self.told: list[hm.Knock] = []
        self._numbers = itertools.count(1)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    # -- what people do --

    def present(self) -> list[Process]:
        return [process for process in self.processes if process.alive]

    def invite(self, name: str) -> None:
        """Let somebody in; the invitation brings him the newest profile."""
        self.owner.change([*self.owner.names, name], new_key=False)
        self.disks[name] = Profile(self.owner.roster, secret(self.owner.key))
        self._hosts_look()

    def revoke(self, name: str) -> None:
        self.owner.change([other for other in self.owner.names if other != name], new_key=True)
        self._hosts_look()

    def start(self, name: str, role: str = "worker", *, clock: float = 0.0, profile: Profile | None = None) -> Process:
        """A process of somebody's begins, with what the last one has left on his disk."""
        chosen = profile or self.disks.setdefault(name, Profile(self.owner.history[0][0], secret(1)))
        known = certificate(name, role, next(self._numbers))

        def unseal(box: bytes) -> bytes:
            if not box.startswith(known.sid):
                raise BadIdentity("for somebody else")
            text = box[len(known.sid) :]
            if not self.owner.may_have(name, decode_admission(text).topic):
                raise Violation(f"{name} has got a key that was never his")
            return text

        machine = MembershipMachine(
            secret=chosen.secret,
            me=print_of(name),
            name=name,
            shared=True,
            host=role == "host",
            roster=chosen.roster,
            unseal=unseal,
            random=self.rng.random,
        )
        process = Process(name, role, known, machine, clock, {chosen.secret.topic})
        self.processes.append(process)
        self._act(process, machine.joined(self.now))
        self._later(self.rng.uniform(0, PRESENCE), lambda: self._presence(process))
        return process

    def start_host(self, profile: tuple[Roster, int] | None = None) -> Process:
        """A host begins, on the owner's profile, or on an old copy of it."""
        known, key = profile or self.owner.history[-1]
        process = self.start(OWNER, "host", profile=Profile(known, secret(key)))
        process.host = HostMachine(roster=known, secret=secret(key), seal=lambda to, text: to.sid + text)
        process.topics.add(LOBBY.topic)
        return process

    def stop(self, process: Process) -> None:
        process.alive = False
        process.topics.clear()

    # -- time --

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, happens = heapq.heappop(self._events)
            happens()
        self.now = end

    def settled(self) -> bool:
        """Whether everybody here who is in the newest roster has it, and is where it says."""
        newest, key = self.owner.history[-1]
        return all(
            process.machine.roster == newest and process.machine.secret == secret(key)
            for process in self.present()
            if newest.named(process.name) is not None and not process.stubborn
        )

    # -- the board --

    def _later(self, seconds: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), happens))

    def say(self, process: Process, topic: str, message: Message) -> None:
        process.said[type(message).__name__ + (" on the lobby" if topic == LOBBY.topic else "")] += 1
        taken: set[int] = set()  # by whom, so that a line counts once
        for other in self.present():
            if other is process or topic not in other.topics:
                continue
            for _ in range(2 if self.loss and self.rng.random() < self.loss / 2 else 1):
                if self.rng.random() >= self.loss:
                    delay = self.rng.uniform(0.01, self.slowness)
                    self._later(delay, lambda other=other: self._line(process, other, topic, message, taken))  # type: ignore[misc]

    def _line(self, by: Process, to: Process, topic: str, message: Message, taken: set[int]) -> None:
        if not to.alive or topic not in to.topics:
            return
        wall = NOW + self.now + to.clock
        if by.certificate.until + by.clock - wall > MAX_LIFE + CLOCK_SLACK:
            return  # his clock is too far from ours
        admitted = to.machine.admits(by.certificate, wall)
        if topic == LOBBY.topic:
            if id(to) not in taken:
                taken.add(id(to))
                self._on_lobby(by, to, message)
            return
        if admitted and id(to) in taken:
            return
        taken.add(id(to))
        if not admitted and not isinstance(message, Hello | RosterPart | Ask):
            return
        if to.host is not None and topic != to.machine.secret.topic:  # a topic on which a host lingers
            if admitted and isinstance(message, Ask):
                self._act_host(to, to.host.asked(by.certificate, message, topic, self.now))
            if isinstance(message, Hello):
                self._act_host(to, to.host.greeted(message, topic, self.now))
            return
        if to.stubborn and isinstance(message, RosterPart | Grant):
            return
        self._act(to, to.machine.heard(by.certificate, message, self.now, wall, admitted=admitted))
        if to.host is not None and admitted and isinstance(message, Ask):
            self._act_host(to, to.host.asked(by.certificate, message, topic, self.now))

    def _on_lobby(self, by: Process, to: Process, message: Message) -> None:
        if to.host is not None and isinstance(message, Ask):
            self._act_host(to, to.host.asked(by.certificate, message, LOBBY.topic, self.now))
        elif isinstance(message, Grant) and message.to == to.certificate.sid and not to.stubborn:
            self._act(to, to.machine.granted(by.certificate, message))

    # -- what the adapters do --

    def _presence(self, process: Process) -> None:
        if process.alive and not process.machine.expelled:
            if process.role != "client":
                self._act(process, [mm.SayHello()])
            else:
                self.say(process, process.machine.secret.topic, Request())
            self._later(PRESENCE, lambda: self._presence(process))

    def _hello(self, process: Process) -> Hello:
        return Hello(process.name, int(NOW + self.now + process.clock), epoch=process.machine.epoch)

    def _act(self, process: Process, actions: list[mm.Action]) -> None:
        machine = process.machine
        for action in actions:
            match action:
                case mm.Say(message=message):
                    self.say(process, machine.secret.topic, message)
                case mm.SayHello():
                    self.say(process, machine.secret.topic, self._hello(process))
                case mm.Installed(roster=known):
                    self._keep(process, known)
                case mm.Move(secret=chosen):
                    if not process.moving:
                        process.moving = True
                        self._later(self.rng.uniform(0.1, 1.5), lambda c=chosen: self._arrive(process, c))  # type: ignore[misc]
                case mm.VisitLobby(ask=ask):
                    process.lobby_times.append(self.now)
                    self._later(self.rng.uniform(0.1, 1.0), lambda a=ask: self._visit(process, a))  # type: ignore[misc]
                case mm.Expelled():
                    self.stop(process)
        self._set_alarm(process)

    def _set_alarm(self, process: Process) -> None:
        due = process.machine.deadline()
        if due is not None and process.alive and due < process.alarm:
            process.alarm = max(due, self.now)
            self._later(process.alarm - self.now, lambda: self._ring(process))

    def _ring(self, process: Process) -> None:
        process.alarm = float("inf")
        due = process.machine.deadline()
        if not process.alive or due is None:
            return
        actions = process.machine.tick(self.now, NOW + self.now + process.clock)
        again = process.machine.deadline()
        if due <= self.now and again is not None and again <= self.now:
            raise Violation("a deadline that is over was not acted on")
        self._act(process, actions)

    def _keep(self, process: Process, known: Roster | None) -> None:
        if process.host is None and process.role != "host":
            self.disks[process.name] = Profile(known, process.machine.secret)

    def _arrive(self, process: Process, chosen: ClusterSecret) -> None:
        process.moving = False
        if process.alive:
            lingers = process.host is not None
            if not lingers:
                process.topics.discard(process.machine.secret.topic)
            process.topics.add(chosen.topic)
            self._act(process, process.machine.moved(chosen, self.now))
            self._keep(process, process.machine.roster)

    def _visit(self, process: Process, ask: Ask) -> None:
        if process.host is not None:
            raise Violation("a host visits the lobby, where it is")
        if process.alive:
            process.topics.add(LOBBY.topic)
            self.say(process, LOBBY.topic, ask)
            self._later(LOBBY_VISIT, lambda: process.topics.discard(LOBBY.topic))

    def _hosts_look(self) -> None:
        for process in self.present():
            if process.host is not None:
                self._later(self.rng.uniform(0, 0.5), lambda p=process: self._look(p))  # type: ignore[misc]

    def _look(self, process: Process) -> None:
        known, key = self.owner.history[-1]
        if not process.alive or process.host is None or known.epoch <= process.host.roster.epoch:
            return
        old = process.machine.secret
        self._act(process, process.machine.install(known, self.now))
        if secret(key) != old:
            self._arrive(process, secret(key))
            self._later(LINGER, lambda: self._leave(process, old.topic))
        self._act_host(process, process.host.changed(known, secret(key)))
        for action in parts_of(known):
            self.say(process, old.topic, action)

    def _leave(self, process: Process, topic: str) -> None:
        if topic != process.machine.secret.topic:
            process.topics.discard(topic)

    def _act_host(self, process: Process, actions: list[hm.Action]) -> None:
        for action in actions:
            match action:
                case hm.Say(topic=topic, message=message):
                    self.say(process, topic, message)
                case hm.Tell(knock=knock):
                    self.told.append(knock)
                case hm.Outdated():
                    pass
