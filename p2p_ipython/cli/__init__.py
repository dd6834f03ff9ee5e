"""The ``p2p`` command: boards, workers, clusters of friends, measurements.

    arguments.py   how a command is made, kinds of values, groups of options
    terminal.py    what a command prints, asks and logs
    friends.py     what the commands for clusters of friends share

    board.py       p2p board: run a board
    worker.py      p2p worker: lend this machine's spare time
    lending.py     p2p lending: pause or stop the workers here; their log and policy
    sandbox.py     p2p sandbox: which sandboxes work here
    host.py        p2p host: host a cluster of friends
    invite.py      p2p invite: invite a friend, by a code
    join.py        p2p join, leave: join by a code or by knocking; forget a cluster
    members.py     p2p members, revoke, trust: the members, and on which terms
    run.py         p2p run: run a script on a cluster
    bench.py       p2p bench: measure a cluster
    setup.py       p2p setup: prepare this machine, step by step
    doctor.py      p2p doctor: find out what does not work
    trace.py       p2p trace: tell what became of a task
    whoami.py      p2p whoami: show the key that others see

Each command has a module with two functions: ``add`` describes the command line, and another turns parsed arguments
into a call. The modules that a command calls are heavy (asyncssh, paramiko, twisted) or import such: each command
imports them when it runs, so that ``--help`` costs only argparse. No secret is ever an argument: keys are named by
file, or come from the agent.

Exit status: 0 it worked, 1 an error (one message, with what to do next), 2 wrong usage, 130 Ctrl-C (which is the usual
end of a board or a worker that runs: 0 there).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from p2p_ipython import __version__
from p2p_ipython.cli import (
    bench,
    board,
    doctor,
    host,
    invite,
    join,
    lending,
    members,
    run,
    sandbox,
    setup,
    terminal,
    trace,
    whoami,
    worker,
)
from p2p_ipython.cli.arguments import Commands
from p2p_ipython.errors import P2PError
from p2p_ipython.tracing import VARIABLE

log = logging.getLogger(__name__)

INTERRUPTED = 130
"""The exit status that a shell expects of a program that Ctrl-C ended: 128 + SIGINT."""

MODULES = (board, worker, lending, sandbox, host, invite, join, members, run, bench, setup, doctor, trace, whoami)
"""The modules whose ``add`` makes the commands, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's) and return the exit status."""
    terminal.any_encoding()
    options = parser().parse_args(arguments)
    terminal.log_to_stderr(options.verbose)
    if options.trace:
        os.environ[VARIABLE] = os.path.abspath(options.trace)
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
    """Make the command line. The options that it reads have ``run``, which takes them and returns an exit status."""
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
