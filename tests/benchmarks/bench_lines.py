"""How long a line takes to make and to check, with real keys. Run by hand.

``python tests/benchmarks/bench_lines.py``: a worker's hello, with its certificate as always, in a cluster of M members
whose roster is asked who may speak. "First" is a session's first line, whose certificate is checked, too. Malformed
lines are of four kinds: noise, noise in base64, a line cut short, noise under the cluster's key. Figures are the median
of ``REPEATS`` runs, microseconds a line.
"""

from __future__ import annotations

import base64
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "protocol"))

import nacl.bindings
from friends import machine, roster, secret, session
from people import NOW

from p2p_ipython.protocol.messages import Hello, Terms
from p2p_ipython.protocol.roster import Parts, Roster, parts_of
from p2p_ipython.protocol.wire import MAGIC, PREFIX, LineReader, LineWriter

REPEATS = 7
LINES = 500
HELLO = Hello("m1", int(NOW), Terms(slots=4, free=4, python="3.11", platform="linux", cores=8, memory=1 << 34), epoch=3)


def median(measure: Callable[[], float]) -> float:
    """The median of what ``measure`` finds: microseconds."""
    return statistics.median(measure() for _ in range(REPEATS))


def each(begun: float, count: int) -> float:
    """Microseconds for one of ``count`` since ``begun``."""
    return (time.perf_counter() - begun) / count * 1e6


def reader(known: Roster) -> LineReader:
    """A member's ears."""
    membership = machine("m0", known)
    return LineReader(secret(), lambda one: membership.admits(one, NOW))


def writer() -> LineWriter:
    return LineWriter(session("m1"), secret(), os.urandom)


def making() -> float:
    made = writer()
    begun = time.perf_counter()
    for _ in range(LINES):
        made.write(HELLO, introduce=True)
    return each(begun, LINES)


def checking(known: Roster) -> float:
    ears, made = reader(known), writer()
    first, *lines = [made.write(HELLO, introduce=True) for _ in range(LINES + 1)]
    assert ears.read(first, NOW)
    begun = time.perf_counter()
    assert all(ears.read(line, NOW) for line in lines)
    return each(begun, LINES)


def meeting(known: Roster) -> float:
    line = writer().write(HELLO, introduce=True)
    ears = [reader(known) for _ in range(100)]
    begun = time.perf_counter()
    assert all(one.read(line, NOW) for one in ears)
    return each(begun, len(ears))


def gathering(known: Roster) -> float:
    parts = parts_of(known)
    begun = time.perf_counter()
    gathered = Parts()
    *_, wire = [gathered.add(b"s", part) for part in parts]
    assert Roster.parse(wire or b"", known.cluster) == known
    return each(begun, 1)


def refusing(lines: list[bytes]) -> float:
    ears = reader(roster(3, "m0"))
    begun = time.perf_counter()
    assert not any(ears.read(line, NOW) for line in lines)
    return each(begun, len(lines))


def main() -> None:
    print(f"{'members':>8}{'make':>8}{'check':>8}{'first':>8}{'parts of the roster':>21}{'gathered, ms':>14}")
    for members in (2, 30, 300, 900):
        known = roster(3, *(f"m{number}" for number in range(members - 1)))
        check, first, gather = (median(partial(of, known)) for of in (checking, meeting, gathering))
        lines = f"{median(making):>8.0f}{check:>8.0f}{first:>8.0f}"
        print(f"{members:>8}{lines}{len(parts_of(known)):>21}{gather / 1000:>14.1f}")
    noise = list(malformed(100_000))
    took = median(lambda: refusing(noise))
    print(f"100,000 malformed lines: {took / 10:.2f} s, {took:.1f} µs each")


def malformed(count: int) -> Iterable[bytes]:
    """Lines that are none."""
    rng = random.Random(1)
    good = writer().write(HELLO, introduce=True)
    for number in range(count):
        noise = rng.randbytes(rng.randrange(90, 300))
        match number % 4:
            case 0:
                yield noise
            case 1:
                yield MAGIC + base64.b64encode(noise)
            case 2:
                yield good[: rng.randrange(len(good))]
            case _:
                sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
                    noise, PREFIX, bytes(24), secret().key
                )
                yield MAGIC + base64.b64encode(bytes(24) + sealed)


if __name__ == "__main__":
    main()
