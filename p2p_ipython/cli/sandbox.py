"""``p2p sandbox``: which sandboxes there are on this machine, and whether they hold."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import textwrap
from typing import TYPE_CHECKING

from p2p_ipython.cli.arguments import Commands
from p2p_ipython.cli.terminal import run, say, wrong_usage
from p2p_ipython.config import Settings

if TYPE_CHECKING:
    from p2p_ipython.worker.sandboxes import Verdict


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "sandbox",
        _sandbox,
        short="show which sandboxes work on this machine",
        text="Show the sandboxes that tasks of friends can run in on this machine. Each is tested by a task that\n"
        "tries to read, erase and write files of yours, and to reach your network, key agents and other processes.\n"
        "Give a NAME to test one sandbox; the exit code then is 1 unless it holds.\n"
        "qemu, a virtual machine (quickemu uses the same program), needs a disk first: build qemu packs this\n"
        "environment and a kernel of Debian's into one, without root. Build it again when the environment changes.",
        example="  p2p sandbox\n  p2p sandbox bubblewrap\n  p2p worker --cluster alice/friends --sandbox bubblewrap\n"
        "  p2p sandbox build qemu",
    )
    parser.add_argument("--bench", action="store_true", help="measure what those that hold cost, instead")
    parser.add_argument("name", nargs="*", metavar="NAME", help="the sandbox to test (default: all), or: build qemu")


def _sandbox(options: argparse.Namespace) -> int:
    if options.name[:1] == ["build"]:
        if options.name[1:] != ["qemu"] or options.bench:
            wrong_usage("sandbox", "only qemu has something to build: p2p sandbox build qemu")
        return _build()
    if len(options.name) > 1:
        wrong_usage("sandbox", "give one NAME, or none for all")
    name = options.name[0] if options.name else None
    return run(_bench(name) if options.bench else _test(name))


def _build() -> int:
    from p2p_ipython.worker.main import bounded
    from p2p_ipython.worker.sandboxes import build

    folder = build(bounded(Settings.load(), 1)[0], say)  # for p2p worker without an option
    mib = sum(file.stat().st_size for file in folder.iterdir()) / (1 << 20)
    say(f"The disk is in {folder} ({mib:.0f} MiB). Lend with it: p2p worker --sandbox qemu")
    return 0


async def _test(name: str | None) -> int:
    from p2p_ipython.protocol.messages import NO_WALL
    from p2p_ipython.worker.sandboxes import left_out, test

    found = await test(name, Settings.load())
    first = next((verdict.name for verdict in found if verdict.holds and verdict.is_automatic), None)
    for verdict in found:
        say(_line(verdict))
        for hole in verdict.holes:
            say(f"{'':<14}{hole}")
        if verdict.missing is not None and verdict.missing.hint:
            say(f"{'':<14}{verdict.missing.hint}")
        elif verdict.missing is None and verdict.leaves:
            say(textwrap.fill(verdict.leaves, 100, initial_indent=" " * 14, subsequent_indent=" " * 14))
    if closed := left_out():
        say("")
        say(textwrap.fill(closed, 100, break_long_words=False, break_on_hyphens=False))
    if name is None:
        say("")
        say(
            f"auto, the default for clusters of friends, is {first}."
            if first
            else "auto finds none, so that a"
            f" worker refuses to lend to friends. --sandbox {NO_WALL} would lend without protection."
        )
    return 0 if name is None or found[0].holds else 1


async def _bench(name: str | None) -> int:
    from p2p_ipython.worker.sandbox_bench import compared, costs
    from p2p_ipython.worker.sandboxes import test

    holding = [verdict.name for verdict in await test(name, Settings.load()) if verdict.holds]
    say(f"{'':<14}{'start':>10}{'first task':>12}{'warm task':>12}{'open a file':>13}")
    found = await costs(holding)
    for cost in found:
        times = f"{cost.start_ms:>7.0f} ms{cost.first_task_ms:>9.0f} ms{cost.warm_ms:>9.3f} ms{cost.open_us:>10.0f} µs"
        say(f"{cost.name:<14}{times}")
        for line in compared(cost, found[0]):
            say(f"{'':<14}{line}")
    return 0


def _line(verdict: Verdict) -> str:
    if verdict.missing is not None:
        return f"{verdict.name:<14}is not there: {verdict.missing.why}"
    if verdict.holds:
        return f"{verdict.name:<14}holds; a runner starts in {verdict.seconds * 1000:.0f} ms"
    return f"{verdict.name:<14}{'is no protection' if verdict.is_no_wall else 'does not hold'}:"
