"""``p2p worker``: lend this machine's spare time."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from p2p_ipython.cli.arguments import PERSONAL, Commands, address, amount, cluster_arguments, count, duration, size
from p2p_ipython.cli.terminal import run, say
from p2p_ipython.config import Settings

if TYPE_CHECKING:
    from p2p_ipython.worker.keeper import Given


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "worker",
        _worker,
        short="lend this machine's spare time to a cluster",
        text="Lend this machine's spare time: run the tasks of a cluster's notebooks, until --duration is over or\n"
        "Ctrl-C, which lets running tasks end; again, it stops them.\n"
        "Give the title of a cluster of friends (p2p join CODE comes first). Or give a board: then it is the\n"
        "cluster of your SSH key, which only notebooks that hold the same key can use.\n"
        "Tasks of friends run in a sandbox, out of reach of your files, keys and network; see p2p sandbox.",
        example="  p2p worker --cluster alice/friends\n"
        "  p2p worker --board localhost:2222\n"
        "  p2p worker --cluster alice/friends --only bob --tag gpu\n"
        "  p2p worker --board board.example.org:2222 --cluster mine --slots 2 --duration 2h",
    )
    cluster_arguments(parser, required=False, default=PERSONAL)
    parser.add_argument("--name", help="the name that others see (default: this machine's name)")
    parser.add_argument("--slots", type=count, metavar="N", help="tasks that may run at a time (default: 1)")
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
        help="a word that says what this machine is good for, as gpu: tasks may ask for it; may be repeated",
    )
    _policy_arguments(parser)
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
        "--engine",
        default="",
        metavar="ENGINE",
        help="run tasks on a cluster instead of this machine, whose slots are lent as this worker's: dask://HOST:PORT,"
        " a scheduler of dask's, or module:factory, a function that returns an Executor of concurrent.futures. It is no"
        " sandbox, so friends need --sandbox process. Memory and processors are its own. Without --slots, it has as"
        " many as the cluster has threads",
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
        "--mailbox",
        default="",
        metavar="URL",
        help="where the board's wormhole mailbox is reached from here (default: where the board is)",
    )
    parser.add_argument(
        "--relay", default="", metavar="tcp:HOST:PORT", help="where its relay is reached from here, likewise"
    )
    parser.add_argument(
        "--gpu",
        action="store_true",
        help="give tasks this machine's graphics cards (NVIDIA, AMD): each slot has whole cards of its own, so there"
        " are at most as many slots as cards; the offer names them",
    )


def _policy_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a policy says, and win over it."""
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="who, when and how much, in TOML; see p2p lending policy (default: that file, if it is there)",
    )
    parser.add_argument("--who", choices=("all", "known"), help="lend to all members, or to those that you know")
    parser.add_argument(
        "--ask",
        action="store_true",
        help="ask here before each task of another member (with --who known as the default)",
    )
    parser.add_argument(
        "--hours",
        action="append",
        metavar="HOURS",
        help='lend in these hours only, as 22:00-07:00 or "Mon-Fri 18-8"; may be repeated',
    )
    parser.add_argument(
        "--idle", type=duration, metavar="TIME", help="lend only when nobody has used keyboard or mouse for so long"
    )
    parser.add_argument("--mains", action="store_true", help="lend only on mains power")
    parser.add_argument(
        "--load", type=amount, metavar="N", help="lend only while other programs keep no more processors busy, as 1.5"
    )
    parser.add_argument(
        "--gpu-load", type=amount, metavar="N", help="lend only while they keep no more graphics cards busy, as 0.1"
    )
    parser.add_argument(
        "--packages",
        metavar="never|ask|any|NAMES",
        help="packages that others' tasks may have installed, from wheels, by uv: after your yes to each task, any,"
        " or those named, as numpy,pandas (default: never; your own tasks always may)",
    )
    parser.add_argument("--input", type=size, metavar="SIZE", help="the most that one task may bring, as 1G")
    parser.add_argument("--bytes-in", type=size, metavar="SIZE", help="the most that tasks may bring in a day, as 20G")
    parser.add_argument("--bytes-out", type=size, metavar="SIZE", help="the most that tasks may take along in a day")


def _packages(text: str | None) -> object:
    if text is None or text in ("never", "ask", "any"):
        return text
    return [name.strip() for name in text.split(",") if name.strip()]


def _given(options: argparse.Namespace) -> Given:
    """Return the policy: its file, and the options, which win. Raises ``PolicyError``."""
    from p2p_ipython.lending.policy_file import default_path
    from p2p_ipython.worker.engines.frames import MOST
    from p2p_ipython.worker.keeper import Given

    file = options.policy
    if file is None and default_path().exists():
        file = default_path()
    return Given.read(
        file,
        {
            "who": options.only or options.who,
            "ask": options.ask or None,
            "hours": options.hours,
            "idle": options.idle,
            "mains": options.mains or None,
            "load": options.load,
            "gpu_load": options.gpu_load,
            "slots": options.slots,
            "packages": _packages(options.packages),
            "input": options.input,
            "bytes_in": options.bytes_in,
            "bytes_out": options.bytes_out,
            "network": options.network or None,
            "gpu": options.gpu or None,
            "mounts": options.mount or None,
            "tags": options.tag or None,
            "limits.memory": options.memory,
            "limits.cpus": options.cpus,
            "limits.disk": options.disk,
            "limits.processes": options.processes,
            "limits.time": options.task_time,
        },
        most=MOST if options.engine else 0,
    )


def _worker(options: argparse.Namespace) -> int:
    from p2p_ipython.cli.consent import ask_lender
    from p2p_ipython.protocol.messages import NO_WALL
    from p2p_ipython.protocol.plain import count as plural
    from p2p_ipython.worker.hardening import harden
    from p2p_ipython.worker.keeper import policy_words
    from p2p_ipython.worker.main import WorkerOptions, run_worker
    from p2p_ipython.worker.mounts import mounts_text, read_mounts
    from p2p_ipython.worker.sandboxes import left_out

    given = _given(options)
    policy = given.policy

    walls: list[str] = []

    def ready(name: str, _session: bytes, sandbox: str) -> None:
        walls.append(sandbox)
        say(f"{name} lends {slots} to {options.cluster}{whom}, {place.format(sandbox=sandbox)}{shared}; Ctrl-C ends it")
        if sandbox == NO_WALL and options.sandbox:
            say("warning: process is no protection: tasks run as you, with your files in reach")
        elif sandbox != NO_WALL and (closed := left_out()):
            say(closed)
        if conditions := policy_words(policy):
            say(f"policy: {conditions}")

    limits = {f"task_{name}": value or None for name, value in asdict(policy.limits).items()}
    settings = Settings.load(**limits)
    harden()
    mounts = read_mounts(policy.mounts)
    also = ("the internet" if policy.network else "", "graphics cards" if policy.gpu else "", mounts_text(mounts))
    shares = [text for text in also if text]
    shared = f", with {' and '.join(shares)}" if shares else ""
    whom = f", for {' and '.join(options.only)} only" if options.only else ""
    slots = plural(policy.slots or 1, "slot") if policy.slots or not options.engine else "all slots"
    place = f"by the engine {options.engine}" if options.engine else "in {sandbox}"
    return run(
        run_worker(
            WorkerOptions(
                board=options.board,
                cluster=options.cluster,
                name=options.name,
                slots=policy.slots or (0 if options.engine else 1),
                duration=options.duration,
                identity=options.identity,
                accept_host_key=options.accept_host_key,
                ssh_options=tuple(options.ssh_option),
                settings=settings,
                only=tuple(options.only),
                tags=policy.tags,
                sandbox=options.sandbox,
                mounts=mounts,
                network=policy.network,
                gpu=policy.gpu,
                engine=options.engine,
                listen=options.listen,
                mailbox=options.mailbox,
                relay=options.relay,
                given=given,
            ),
            ready=ready,
            told=say,
            ask=lambda question: ask_lender(question, walled=NO_WALL not in walls),
        )
    )
