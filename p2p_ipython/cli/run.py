"""``p2p run``: run a script on a cluster."""

from __future__ import annotations

# Functions import the modules that are heavy: --help must be quick (see the package).
import argparse
import os
import sys
from pathlib import Path

from p2p_ipython.cli.arguments import Commands, cluster_arguments, which_cluster
from p2p_ipython.cli.terminal import Progress


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add(
        "run",
        _run,
        short="run a script on a cluster",
        text="Run a script of Python on a worker. What it prints comes here while it runs, the exit status is its\n"
        "own, and Ctrl-C ends it. Modules beside it that it imports travel along. Files that it writes on a friend's\n"
        "machine come to p2p-files/SCRIPT. Default: a personal cluster, started on this machine for it.",
        example="  p2p run fit.py\n  p2p run --cluster alice/friends --file data.csv fit.py --rounds 100",
    )
    cluster_arguments(parser, required=False, default=None)
    parser.add_argument("--file", action="append", default=[], metavar="FILE", help="send a file along; repeatable")
    parser.add_argument(
        "--with",
        dest="packages",
        action="append",
        default=[],
        metavar="PACKAGES",
        help="have packages installed on the worker first, as 'numpy>=2'; repeatable, and in the script's own metadata",
    )
    parser.add_argument("--python", metavar="VERSION", help="run it by this version of Python, as 3.12")
    parser.add_argument("script", metavar="SCRIPT", type=Path, help="the script")
    parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="what follows is the script's own")


def _run(options: argparse.Namespace) -> int:
    target, cluster_name = which_cluster("run", options)
    from p2p_ipython.client.asking import asked_for, module_advice, takes_packages
    from p2p_ipython.client.connect import connect
    from p2p_ipython.client.scripts import read_script, submit_script
    from p2p_ipython.client.surroundings import read_files

    script = read_script(options.script)
    asked = asked_for(script.source, options.packages, options.python)
    files = read_files(options.file, os.getcwd()) if options.file else {}
    sys.path.insert(0, str(options.script.resolve().parent))  # its modules are the cluster's own, as at home
    with Progress() as progress:
        cluster = connect(
            target,
            cluster=cluster_name,
            workers=1 if target is None else None,
            identity=options.identity,
            accept_host_key=options.accept_host_key,
            ssh_options=options.ssh_option,
            progress=progress,
        )
    with cluster:
        future = submit_script(cluster._core, script, options.arguments, files, asked)
        error = future.exception()
        for path in future.files.save():
            print(f"p2p: left {path}", file=sys.stderr)
        if error is None:
            return future.result()
        print(error.__cause__ or f"{type(error).__name__}: {error}", file=sys.stderr)
        words = module_advice(error, script.imports, "p2p run --with")
        if words and takes_packages(cluster._core):
            print(f"p2p: {words}", file=sys.stderr)
        return 1
