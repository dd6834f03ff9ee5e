"""``p2p bench``: how quick is a cluster."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import json

from p2p_ipython.cli.arguments import Commands, cluster_arguments, count, which_cluster
from p2p_ipython.cli.terminal import Progress, say, wrong_usage


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "bench",
        _bench,
        short="measure how quick a cluster is",
        text="Measure a cluster: time to the first result, round trip of a task that does nothing, such tasks per\n"
        "second, and 100 MB in and out. Default: a personal cluster, started on this machine for it and ended\n"
        "afterwards. Figures are medians of repeats, after a warm-up. It takes about a minute.",
        example="  p2p bench\n  p2p bench --workers 2 --json\n  p2p bench --board localhost:2222 --cluster mine\n"
        "  p2p bench --cluster alice/friends",
    )
    cluster_arguments(parser, required=False, default=None)
    parser.add_argument(
        "--mailbox", metavar="URL", help="the wormhole mailbox, for a board that has none of its own (default: public)"
    )
    parser.add_argument("--relay", metavar="tcp:HOST:PORT", help="the relay, as with the mailbox")
    parser.add_argument(
        "--workers", type=count, metavar="N", help="workers of the personal cluster (default: number of cores)"
    )
    parser.add_argument(
        "--repeats", type=count, metavar="N", default=3, help="how often each figure is measured (default: %(default)s)"
    )
    parser.add_argument("--memory", action="store_true", help="measure memory, too: of a client, and of an idle worker")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def _bench(options: argparse.Namespace) -> int:
    target, cluster = which_cluster("bench", options)
    if (options.mailbox or options.relay) and not options.board:
        wrong_usage("bench", "--mailbox and --relay are for a cluster on a board: --board HOST[:PORT]")
    if target is not None and options.workers:
        wrong_usage(
            "bench", "--workers is for a cluster that is started here; on a board, start workers with p2p worker"
        )
    from p2p_ipython.bench import measure, table

    with Progress() as progress:
        figures = measure(
            target=target,
            cluster=cluster,
            workers=options.workers,
            repeats=options.repeats,
            memory=options.memory,
            progress=progress,
            identity=options.identity,
            accept_host_key=options.accept_host_key,
            ssh_options=options.ssh_option,
            mailbox=options.mailbox,
            relay=options.relay,
        )
    if options.json:
        say(json.dumps(figures.as_json()))
    else:
        from rich.console import Console

        Console().print(table(figures))
    return 0
