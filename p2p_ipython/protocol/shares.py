"""Fair shares: how much each member has had of a worker's slots lately, and whose turn it is.

Members are compared by their *recent use*: the seconds that slots were theirs, of which half is forgotten in
``HALF_LIFE``. A slot that they have now counts with the time that has passed. The member with the least use is first;
of equals, the one served longest ago. So a member's share doesn't depend on the number of their tasks and links, or on
the length of their tasks.

Only members who wait at the same time are compared. A member who comes, or comes back, starts level with them. Slots
that nobody else wanted are not held against anybody, and nobody can save up time in which they wanted none.

Pure: ``now`` is any clock that doesn't go back, seconds.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

HALF_LIFE = 600.0
"""Seconds in which half of a use is forgotten: far longer than most tasks, for which it changes nothing, and so short
that one task of a day doesn't keep its member from the slots for another day."""

AT_LEAST = 1.0
"""Seconds that a slot counts for, at least, while a member has it: of several that fall free at a time, one member
doesn't get all."""

MAX_REMEMBERED = 256
"""Members whose use is remembered while they have no slot; beyond that, the one served longest ago is forgotten."""

_RATE = math.log(2) / HALF_LIFE


@dataclass
class _Account:
    used: float = 0.0
    at: float = 0.0  # when that was so
    slots: list[float] = field(default_factory=list)  # since when, for each slot that is theirs now
    served: int = 0


class Shares:
    """The members' use of one worker's slots. A member is any text; an unknown one has used nothing."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._served = 0

    def begin(self, member: str, now: float) -> None:
        """Note that a member has got a slot."""
        account = self._accounts.get(member)
        if account is None:
            self._make_room()
            account = self._accounts[member] = _Account(at=now)
        account.slots.append(now)
        self._served += 1
        account.served = self._served

    def end(self, member: str, since: float, now: float) -> None:
        """Note that a member has given back the slot that was theirs from ``since`` on."""
        account = self._accounts[member]
        account.slots.remove(since)
        account.used, account.at = _worn(account, now) + _use(now - since), now

    def order(self, member: str, now: float) -> tuple[float, int]:
        """Return a member's place in the order: the least is next. It begins with their recent use in slot-seconds."""
        account = self._accounts.get(member)
        return (_total(account, now, AT_LEAST), account.served) if account is not None else (0.0, 0)

    def level(self, member: str, waiting: Collection[str], now: float) -> None:
        """Note that a member begins to wait: they start no better than the first of those in ``waiting``.

        If nobody has waited, all start level: nobody is owed anything.
        """
        if member not in self._accounts:
            self._make_room()
            self._accounts[member] = _Account(at=now)
        if waiting:
            uses = [_total(self._accounts[other], now) for other in waiting if other in self._accounts]
            _lift(self._accounts[member], min(uses, default=0.0), now)
        else:
            most = max(_total(account, now) for account in self._accounts.values())
            for account in self._accounts.values():
                _lift(account, most, now)

    def _make_room(self) -> None:
        idle = [member for member, account in self._accounts.items() if not account.slots]
        if len(idle) >= MAX_REMEMBERED:
            del self._accounts[min(idle, key=lambda member: self._accounts[member].served)]


def _worn(account: _Account, now: float) -> float:
    """Return what is left at ``now`` of the use that has ended."""
    return account.used * math.exp(_RATE * (account.at - now))


def _total(account: _Account, now: float, at_least: float = 0.0) -> float:
    return _worn(account, now) + sum(max(at_least, _use(now - since)) for since in account.slots)


def _lift(account: _Account, total: float, now: float) -> None:
    ahead = total - _total(account, now)
    if ahead > 0:
        account.used, account.at = _worn(account, now) + ahead, now


def _use(seconds: float) -> float:
    """Return what is left of the use of a slot, at its end."""
    return -math.expm1(-_RATE * seconds) / _RATE
