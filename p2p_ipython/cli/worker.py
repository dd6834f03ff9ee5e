"""``p2p worker``: lend this machine's spare time."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse

from p2p_ipython.cli.arguments import PERSONAL, Commands, address, amount, cluster_arguments, count, duration, size
from p2p_ipython.cli.terminal import run, say
from p2p_ipython.config import Settings


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "worker",
        _worker,
        short="lend this machine's spare time to a cluster",
        text="Lend this machine's spare time: run the tasks of a cluster's notebooks, until --duration is over or\n"
        "Ctrl-C. Give the title of a cluster of friends (p2p join CODE comes first). Or give a board: then it is the\n"
        "cluster of your SSH key, which only notebooks that hold the same key can use.\n"
        "Tasks of friends run in a sandbox, out of reach of your files, keys and network; see p2p sandbox.",
        example="  p2p worker --cluster alice/friends\n"
        "  p2p worker --board localhost:2222\n"
        "  p2p worker --cluster alice/friends --only bob --tag gpu\n"
        "  p2p worker --board board.example.org:2222 --cluster mine --slots 2 --duration 2h",
    )
    cluster_arguments(parser, required=False, default=PERSONAL)
    parser.add_argument("--name", help="the name that others see (default: this machine's name)")
    parser.add_argument(
        "--slots", type=count, metavar="N", default=1, help="tasks that may run at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--duration",
        type=duration,
        metavar="TIME",
        help="stop lending after this long: 90s, 30m, 2h, 14d (default: never)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="lend to this member of a cluster of friends, by name or fingerprint; may be repeated (default: to all)",
    )
    parser.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="WORD",
        help="a word that tells people what this machine is good for, as gpu; may be repeated",
    )
    parser.add_argument("--memory", type=size, metavar="SIZE", help="most memory of a task, as 2G (default: a share)")
    parser.add_argument(
        "--cpus",
        type=amount,
        metavar="N",
        help="most cores of a task, as 2 or 0.5: whole ones, but for docker and root's podman (default: all)",
    )
    parser.add_argument("--disk", type=size, metavar="SIZE", help="most that a task may write, as 1G (default: 512M)")
    parser.add_argument(
        "--processes", type=count, metavar="N", help="processes and threads that a task may have (default: 256)"
    )
    parser.add_argument("--task-time", type=duration, metavar="TIME", help="most time of a task, as 10m (default: any)")
    parser.add_argument(
        "--sandbox",
        metavar="NAME",
        default="",
        help="the sandbox that tasks run in, see p2p sandbox; process is no protection: tasks run as you, with your"
        " files in reach (default: auto, the first that works here; process for the cluster of your own key)",
    )
    parser.add_argument(
        "--mount",
        action="append",
        default=[],
        metavar="PATH[:ro|:rw]",
        help="share a folder or file with tasks, at its own path: to read (ro, the default), or to write, too (rw); may"
        " be repeated. All who are lent to share a writable one, and no limit holds how much they write there",
    )
    parser.add_argument(
        "--network",
        action="store_true",
        help="give tasks the internet, as this machine has it, but nothing of your own network: no private address, no"
        " address of this machine; sites see tasks as you (needs bubblewrap, passt and nftables)",
    )
    parser.add_argument(
        "--listen",
        type=address,
        metavar="ADDRESS",
        help="the only address of this machine that links may come to (default: those that they need, while there is"
        " something to meet; loopback if the board is on this machine)",
    )
    parser.add_argument(
        "--gpu",
        action="store_true",
        help="give tasks this machine's graphics cards (NVIDIA, AMD): each slot has whole cards of its own, so there"
        " are at most as many slots as cards; the offer names them",
    )


def _worker(options: argparse.Namespace) -> int:
    from p2p_ipython.protocol.messages import NO_WALL
    from p2p_ipython.worker.hardening import harden
    from p2p_ipython.worker.main import WorkerOptions, run_worker
    from p2p_ipython.worker.mounts import mounts_text, read_mounts
    from p2p_ipython.worker.sandboxes import left_out

    def ready(name: str, _session: bytes, sandbox: str) -> None:
        say(f"{name} lends {slots} to {options.cluster}{whom}, in {sandbox}{shared}; Ctrl-C ends it")
        if sandbox == NO_WALL and options.sandbox:
            say("warning: process is no protection: tasks run as you, with your files in reach")
        elif sandbox != NO_WALL and (closed := left_out()):
            say(closed)

    settings = Settings.load(
        task_memory=options.memory,
        task_cpus=options.cpus,
        task_disk=options.disk,
        task_processes=options.processes,
        task_time=options.task_time,
    )
    harden()
    mounts = read_mounts(options.mount)
    given = ("the internet" if options.network else "", "graphics cards" if options.gpu else "", mounts_text(mounts))
    shares = [text for text in given if text]
    shared = f", with {' and '.join(shares)}" if shares else ""
    whom = f", for {' and '.join(options.only)} only" if options.only else ""
    slots = "1 slot" if options.slots == 1 else f"{options.slots} slots"
    return run(
        run_worker(
            WorkerOptions(
                board=options.board,
                cluster=options.cluster,
                name=options.name,
                slots=options.slots,
                duration=options.duration,
                identity=options.identity,
                accept_host_key=options.accept_host_key,
                ssh_options=tuple(options.ssh_option),
                settings=settings,
                only=tuple(options.only),
                tags=tuple(options.tag),
                sandbox=options.sandbox,
                mounts=mounts,
                network=options.network,
                gpu=options.gpu,
                listen=options.listen,
            ),
            ready=ready,
        )
    )
