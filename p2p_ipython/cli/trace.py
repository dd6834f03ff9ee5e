"""``p2p trace``: what became of a task, from the traces of the machines that dealt with it."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from p2p_ipython.cli.arguments import Commands
from p2p_ipython.cli.terminal import say
from p2p_ipython.errors import UsageError


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "trace",
        _trace,
        short="tell what became of a task, from a trace",
        text="Tell the story of one task: when it was sent where, what each side said, and what came of it. Programs\n"
        "that run with P2P_TRACE=FILE write a trace, and so do commands with --trace FILE. It holds ids, kinds, sizes\n"
        "and times, and no source, output or secret.",
        example="  P2P_TRACE=trace.jsonl jupyter lab\n  p2p trace trace.jsonl --task 3f2a\n"
        "  p2p trace client.jsonl worker.jsonl --task 3f2a",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="traces, of one or more processes")
    parser.add_argument("--task", required=True, metavar="ID", help="the task's id, or how it begins")


def _trace(options: argparse.Namespace) -> int:
    from p2p_ipython.protocol.tracing import mentions, story

    lines = [line for path in options.files for line in _lines(path)]
    ids = {found for line in lines if (found := mentions(line, options.task))}
    if len(ids) != 1:
        some = ", ".join(sorted(ids)[:5])
        raise UsageError(
            f"{len(ids)} tasks begin with {options.task!r}: {some}" if ids else f"no task begins with {options.task!r}",
            hint="Give more of its id: cluster.journal() lists them under `task`.",
        )
    begun = 0.0
    for at, sentence in story(lines, ids.pop()):
        begun = begun or at
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        say(f"{clock}.{int(at % 1 * 1000):03} +{at - begun:8.3f} s  {sentence}")
    return 0


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read a trace; a last line that was cut is left out."""
    try:
        with path.open("rb") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict):
                    yield line
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}", hint="Give the file that P2P_TRACE named."
        ) from None
