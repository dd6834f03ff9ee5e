"""``python -m p2p_ipython.worker``: a worker of a personal cluster.

Standard input: a line of JSON with what is known at once, a second one with the board's address once there is
a board; then nothing, until its end, which is the worker's end too. Standard output: one line of JSON when
the worker is ready. See client/local.py, which is at the other end.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys

from p2p_ipython import lifeline
from p2p_ipython.config import Settings
from p2p_ipython.errors import P2PError
from p2p_ipython.protocol.messages import NO_WALL
from p2p_ipython.worker.hardening import harden


def main() -> int:
    """Run the worker that standard input describes."""
    harden()
    first = lifeline.first_line()
    if first is None:
        return 0
    # The heavy imports come while the board starts.
    import paramiko

    import p2p_ipython.board.client.ssh
    import p2p_ipython.link.tls  # noqa: F401
    from p2p_ipython.board.client.keys import KeyChoice
    from p2p_ipython.worker.main import WorkerOptions, run_worker
    from p2p_ipython.worker.mounts import own_folder

    second = json.loads(lifeline.read_line() or b"null")
    if second is None:
        return 0
    options = WorkerOptions(
        board=second["board"],
        accept_host_key=second["host_key"],
        cluster=first["cluster"],
        name=first["name"],
        slots=first["slots"],
        settings=Settings(**first["settings"]),
        key=KeyChoice(paramiko.Ed25519Key.from_private_key(io.StringIO(first.pop("key"))), "made for this cluster"),
        path=tuple(first["path"]),
        folder=first["folder"],
        sandbox=first["sandbox"],
        mounts=own_folder(first["folder"]) if first["sandbox"] not in ("", NO_WALL) else (),
        listen="127.0.0.1",
        farewell=False,
    )

    def ready(name: str, sid: bytes, _sandbox: str) -> None:
        os.write(1, json.dumps({"name": name, "sid": sid.hex()}).encode() + b"\n")

    async def run() -> int:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def lost() -> None:
            loop.call_soon_threadsafe(ended.set)

        lifeline.hold(lost)
        return await run_worker(options, ready=ready, ended=ended)

    try:
        return asyncio.run(run())
    except P2PError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
