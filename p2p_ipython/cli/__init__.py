"""The ``p2p`` command: boards, workers, measurements, and which key one is known by.

Each command has a module here with two functions: ``add`` says what the command line looks like, and another turns
parsed arguments into a call. What it calls is imported there, so that ``--help`` costs only argparse. No secret is
ever an argument: keys are named by file, or come from the agent.

Exit status: 0 it worked, 1 an error (said in one message, with what to do next), 2 wrong usage, 130 Ctrl-C
(which is the usual end of a board or a worker that runs: 0 there).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from p2p_ipython import __version__
from p2p_ipython.cli import bench, board, doctor, host, invite, join, members, setup, terminal, whoami, worker
from p2p_ipython.cli.arguments import Commands
from p2p_ipython.errors import P2PError

log = logging.getLogger(__name__)

INTERRUPTED = 130
"""What a shell expects of a program that Ctrl-C ended: 128 + SIGINT."""

MODULES = (board, worker, host, invite, join, members, bench, setup, doctor, whoami)
"""Whose ``add`` makes the commands, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's) and return the exit status."""
    options = parser().parse_args(arguments)
    terminal.log_to_stderr(options.verbose)
    try:
        return int(options.run(options))
    except P2PError as error:
        log.debug("the error's origin", exc_info=True)
        print(f"p2p: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`p2p bench | head`): the rest has nowhere to go, at exit too.
        sys.stdout = None
        return 1


def parser() -> argparse.ArgumentParser:
    """The command line. What it reads has ``run``, which takes what was read, and returns an exit status."""
    whole = argparse.ArgumentParser(
        prog="p2p",
        description="Share spare Python compute among friends, from a notebook.",
        epilog="In a notebook you need none of these: %load_ext p2p_ipython, then %p2p_connect.\n"
        "Each command explains itself: p2p worker --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"p2p_ipython {__version__}")
    commands = Commands(whole)
    for module in MODULES:
        module.add(commands)
    return whole
