"""The catalogue of attacks, and how one is performed.

After each attack ``perform`` looks at all of the lender's files, programs and sockets, so that harm shows that no judge
expects. Only of the kernel's calls, and of duplicated descriptors, does the attack itself say that it succeeded.
"""

from __future__ import annotations

import os
from pathlib import Path

import attacks_by_excess
import attacks_on_files
import attacks_on_programs
import attacks_that_last
from arena import Arena, Ended
from attack import CATALOGUE, PRELUDE, Attack, Outcome

__all__ = ["CATALOGUE", "GROUPS", "MAY_DIFFER", "perform"]

GROUPS = (attacks_on_files, attacks_on_programs, attacks_by_excess, attacks_that_last)
"""The modules that fill the catalogue."""

MAY_DIFFER = frozenset({"see-processes", "stat-paths", "vsock", "keyctl"})
"""Attacks that a mechanism may leave open; ``p2p sandbox`` names them."""


def perform(arena: Arena, attack: Attack) -> Outcome:
    """Have mallory's task try an attack, and look at the lender's side from outside."""
    if why := _untried(arena, attack):
        return Outcome("not tried", why)
    ended = Ended(True)
    if attack.drive is not None:
        seen = [attack.drive(arena, PRELUDE + attack.code)]
    else:
        ended = arena.attack(PRELUDE + attack.code)
        seen = ["" if ended.over else ended.failure, attack.judge(arena, ended)]
        if attack.touches_alice and not arena.agent_died():
            seen.append(arena.check_alice())
    seen += arena.harm()
    seen.append(arena.serves())
    seen = [each for each in seen if each]
    if seen:
        return Outcome("succeeded", "; ".join(seen[:3]) + (f"; and {len(seen) - 3} more" if len(seen) > 3 else ""))
    return Outcome("stopped", ended.failure[:200])


def _untried(arena: Arena, attack: Attack) -> str:
    if attack.name in ("run-setuid", "open-by-handle") and os.getuid() != 0:
        return "only root can prepare it"
    needs = {"tcp6": "tcp6", "udp6": "udp6", "tcp-to-host": "host-tcp", "udp-to-host": "host-udp"}.get(attack.name)
    if needs and needs not in arena.facts()["sockets"]:
        return "this machine has no such address"
    if attack.name == "keyctl" and not Path("/proc/keys").exists():
        return "this kernel has no keys"
    return ""
