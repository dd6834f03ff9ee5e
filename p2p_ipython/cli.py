"""The ``p2p`` command: boards, workers, measurements, and which key one is known by.

Each command is a function that turns parsed arguments into a call; what it calls is imported there, so that
``--help`` costs only argparse. No secret is ever an argument: keys are named by file, or come from the agent.

Exit status: 0 it worked, 1 an error (said in one message, with what to do next), 2 wrong usage, 130 Ctrl-C
(which is the usual end of a board or a worker that runs: 0 there).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import re
import secrets
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from p2p_ipython import __version__
from p2p_ipython.config import Settings, data_dir
from p2p_ipython.errors import P2PError

if TYPE_CHECKING:
    from p2p_ipython.bench import Figures
    from p2p_ipython.board.address import BoardAddress, SSHFiles
    from p2p_ipython.board.base import BoardReport
    from p2p_ipython.board.keys import KeyChoice

T = TypeVar("T")

log = logging.getLogger("p2p_ipython.cli")  # by name: the module is also run as __main__

PERSONAL = "personal"
"""The cluster's name where none is given; as in client/cluster.py, which is not worth loading for --help."""

INTERRUPTED = 130
"""What a shell expects of a program that Ctrl-C ended: 128 + SIGINT."""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's) and return the exit status."""
    options = _parser().parse_args(arguments)
    _log_to_stderr(options.verbose)
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


def duration(text: str) -> float:
    """Seconds in a duration such as ``90s``, ``30m``, ``2h``, ``14d`` or ``1h30m``; a bare number is seconds.

    Raises ``argparse.ArgumentTypeError``, which argparse shows as wrong usage.
    """
    number = r"\d+(?:\.\d+)?"
    if re.fullmatch(number, text):
        seconds = float(text)
    elif re.fullmatch(rf"(?:{number}[smhd])+", text):
        seconds = sum(float(amount) * _UNITS[unit] for amount, unit in re.findall(rf"({number})([smhd])", text))
    else:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 30m, 2h or 14d")
    if seconds <= 0:
        raise argparse.ArgumentTypeError("a duration must be more than nothing")
    return seconds


# -- the command line --------------------------------------------------------------------------------------------------


class _Command(argparse.ArgumentParser):
    """A command's parser. What it doesn't know is its own to refuse: argparse would show the usage of ``p2p``."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="p2p",
        description="Share spare Python compute among friends, from a notebook.",
        epilog="In a notebook you need none of these: %load_ext p2p_ipython, then %p2p_connect.\n"
        "Each command explains itself: p2p worker --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"p2p_ipython {__version__}")
    # Given before or after the command: the second default would else overwrite the first's value.
    verbosity = _Command(add_help=False)
    verbosity.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=argparse.SUPPRESS,
        help="say more about what happens (-vv: much more)",
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True, parser_class=_Command
    )

    def command(name: str, run: Any, short: str, text: str, example: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=short,
            description=text,
            epilog=f"examples:\n{example}",
            parents=[verbosity],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        return made

    _board_arguments(
        command(
            "board",
            _board,
            "run a message board, where notebooks and workers meet",
            "Run a message board: an SSH server on which notebooks and workers find one another, with a Magic\n"
            "Wormhole mailbox and a relay beside it. It sees who talks to whom, and only encrypted messages.\n"
            "It listens on this machine only, unless --host says otherwise. Ctrl-C ends it.",
            "  p2p board\n"
            "  p2p board --host 0.0.0.0 --users friends.txt   for others, with names for their keys\n"
            "  p2p board --port 0 --json                      any free port, for programs",
        )
    )
    _worker_arguments(
        command(
            "worker",
            _worker,
            "lend this machine's spare time to a cluster",
            "Lend this machine's spare time: run the tasks of a cluster's notebooks, until --duration is over or\n"
            "Ctrl-C. The cluster is that of your SSH key: only notebooks that hold the same key can use it.\n"
            "Tasks run as you, with your files in reach.",
            "  p2p worker --board localhost:2222\n"
            "  p2p worker --board board.example.org:2222 --cluster mine --slots 2 --duration 2h",
        )
    )
    _bench_arguments(
        command(
            "bench",
            _bench,
            "measure how quick a cluster is",
            "Measure a cluster: time to the first result, round trip of a task that does nothing, such tasks per\n"
            "second, and 100 MB in and out. Default: a personal cluster, started on this machine for it and ended\n"
            "afterwards. Figures are medians of repeats, after a warm-up. It takes about a minute.",
            "  p2p bench\n  p2p bench --workers 2 --json\n  p2p bench --board localhost:2222 --cluster mine",
        )
    )
    _whoami_arguments(
        command(
            "whoami",
            _whoami,
            "say which SSH key would be offered to a board, and who that is there",
            "Say which SSH key would be offered to a board, where it comes from, and its fingerprint. With --board,\n"
            "ask that board which user name the key has there.",
            "  p2p whoami\n  p2p whoami --board localhost:2222",
        )
    )
    return parser


def _board_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 is all of this machine's (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=_port, metavar="N", default=2222, help="SSH port; 0 picks a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--mailbox-port", type=_port, metavar="N", default=0, help="port of the wormhole mailbox (default: a free one)"
    )
    parser.add_argument(
        "--relay-port", type=_port, metavar="N", default=0, help="port of the relay (default: a free one)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder that keeps the board's host key (default: board, in this user's p2p_ipython data folder)",
    )
    parser.add_argument(
        "--users",
        type=Path,
        metavar="FILE",
        help="names for keys, a line each: NAME ssh-ed25519 AAAA…; read again when it changes (default: no names)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON with the addresses, once it is ready"
    )
    parser.add_argument(
        "--until-eof", action="store_true", help="end when standard input does: for programs that start it"
    )


def _worker_arguments(parser: argparse.ArgumentParser) -> None:
    _cluster_arguments(parser, required=True, default=PERSONAL)
    parser.add_argument("--name", help="what others see this worker as (default: this machine's name)")
    parser.add_argument(
        "--slots", type=_count, metavar="N", default=1, help="tasks that may run at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--duration",
        type=duration,
        metavar="TIME",
        help="stop lending after this long: 90s, 30m, 2h, 14d (default: never)",
    )


def _bench_arguments(parser: argparse.ArgumentParser) -> None:
    _cluster_arguments(parser, required=False, default=None)
    parser.add_argument(
        "--workers", type=_count, metavar="N", help="workers of the personal cluster (default: number of cores)"
    )
    parser.add_argument(
        "--repeats", type=_count, metavar="N", default=3, help="how often each figure is taken (default: %(default)s)"
    )
    parser.add_argument("--memory", action="store_true", help="also memory: what a client adds, and an idle worker")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def _whoami_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--board", metavar="[USER@]HOST[:PORT]", help="a board to ask (its settings in ~/.ssh/config count)"
    )
    _key_arguments(parser)


def _cluster_arguments(parser: argparse.ArgumentParser, *, required: bool, default: str | None) -> None:
    parser.add_argument("--board", required=required, metavar="[USER@]HOST[:PORT]", help="the board to meet at")
    parser.add_argument(
        "--cluster", default=default, metavar="NAME", help=f"the cluster's name on the board (default: {PERSONAL})"
    )
    _key_arguments(parser)


def _key_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--identity",
        type=Path,
        metavar="FILE",
        help="SSH key to show (default: as ~/.ssh/config and the agent have it)",
    )
    parser.add_argument(
        "--accept-host-key", metavar="SHA256:…", help="the board's fingerprint, the first time you go there"
    )


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("a port is between 0 and 65535")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


# argparse names the type in "invalid … value".
_port.__name__ = "port"
_count.__name__ = "whole number"


# -- the commands ------------------------------------------------------------------------------------------------------


def _board(options: argparse.Namespace) -> int:
    from p2p_ipython.board.command import board_command
    from p2p_ipython.board.server import ServerOptions

    server = ServerOptions(
        host=options.host,
        port=options.port,
        mailbox_port=options.mailbox_port,
        relay_port=options.relay_port,
        data=options.data or data_dir() / "board",
        users=options.users,
    )
    _run(board_command(server, json=options.json, out=_say, until_eof=options.until_eof))
    return 0


def _worker(options: argparse.Namespace) -> int:
    from p2p_ipython.worker.main import WorkerOptions, run_worker

    slots = "1 slot" if options.slots == 1 else f"{options.slots} slots"
    return _run(
        run_worker(
            WorkerOptions(
                board=options.board,
                cluster=options.cluster,
                name=options.name,
                slots=options.slots,
                duration=options.duration,
                identity=options.identity,
                accept_host_key=options.accept_host_key,
                settings=Settings.load(),
            ),
            ready=lambda name, _session: _say(f"{name} lends {slots} to {options.cluster}; Ctrl-C ends it"),
        )
    )


def _bench(options: argparse.Namespace) -> int:
    if options.cluster and not options.board:
        _wrong_usage("bench", "--cluster needs --board")
    if options.board and options.workers:
        _wrong_usage(
            "bench", "--workers is for a cluster that is started here; on a board, start workers with p2p worker"
        )
    from p2p_ipython.bench import measure, table

    with _Progress() as progress:
        figures: Figures = measure(
            target=options.board,
            cluster=options.cluster,
            workers=options.workers,
            repeats=options.repeats,
            memory=options.memory,
            progress=progress,
            identity=options.identity,
            accept_host_key=options.accept_host_key,
        )
    if options.json:
        _say(json.dumps(figures.as_json()))
    else:
        from rich.console import Console

        Console().print(table(figures))
    return 0


def _whoami(options: argparse.Namespace) -> int:
    from p2p_ipython.board.address import BoardAddress, SSHFiles
    from p2p_ipython.board.keys import choose_among, choose_key

    if options.board is None:  # to look is enough: nothing of ours is read, or made
        files = SSHFiles(Path.home() / ".ssh", config=None, known_hosts=(), accepted=None)
        choice = choose_among(files, identity=options.identity)
    else:
        files = SSHFiles.default()
        address = BoardAddress.parse(options.board)
        choice = choose_key(address, identity=options.identity, files=files)
    _say(f"key          {choice.fingerprint}")
    _say(f"from         {choice.source}")
    _say(f"public key   {choice.public_line}")
    if options.board is not None:
        user = _run(_ask_board(address, choice, files, options.accept_host_key))
        _say(f"on {options.board}: {user or 'it does not say'}")
    return 0


async def _ask_board(address: BoardAddress, choice: KeyChoice, files: SSHFiles, pin: str | None) -> str:
    """Join a topic of our own for a moment; return the user name that the board has for the key.

    A host key that was accepted with ``pin`` is remembered.
    """
    from p2p_ipython.board.login import remember_accepted
    from p2p_ipython.board.ssh import SSHBoard

    board = SSHBoard(
        address, secrets.token_hex(16), _Deaf(), key=choice, pin=pin, files=files, settings=Settings.load()
    )
    await board.open()
    try:
        await asyncio.to_thread(remember_accepted, board, pin)
        return board.user
    finally:
        await board.close()


class _Deaf:
    """A listener for who only asks."""

    def on_line(self, line: bytes) -> None:
        pass

    def on_board(self, report: BoardReport) -> None:
        pass


def _wrong_usage(command: str, message: str) -> None:
    print(f"p2p {command}: {message} (p2p {command} --help)", file=sys.stderr)
    raise SystemExit(2)


# -- the terminal ------------------------------------------------------------------------------------------------------


def _run(work: Coroutine[Any, Any, T]) -> T:
    # A selector loop everywhere: on Windows, Twisted's asyncio reactor can't use the proactor.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(work)


def _say(text: str) -> None:
    # Flushed, since who waits for the line may be a program at the other end of a pipe.
    print(text, flush=True)


class _Progress:
    """Shows what is being waited for, on standard error; silent where nobody looks."""

    def __init__(self) -> None:
        self._status: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)


def _log_to_stderr(verbose: int) -> None:
    """Log to standard error: warnings; with -v what happens, with -vv everything of this package.

    Other packages stay at warnings: at their finer levels some log what is secret here, such as topics.
    """
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(console=Console(stderr=True), show_path=verbose > 1, rich_tracebacks=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.getLogger("p2p_ipython").setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
