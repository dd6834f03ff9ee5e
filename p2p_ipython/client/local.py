"""A personal cluster on this machine: a board and workers, processes of ours on loopback.

All are started at once; the workers load what they need while the board starts, and are then told where it is.
Their keys go over standard input, which stays open: when it ends, because we close it or because this process
is gone, however it went, they end (see lifeline.py). Nothing is written to disk but the runners' scratch
folders, which the workers remove.

The key of such a cluster is made for it, lives in these processes' memory and ends with them: no key of the
user's is touched.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from p2p_ipython.config import Settings
from p2p_ipython.errors import BoardError, P2PError

log = logging.getLogger(__name__)

START_TIMEOUT = 60.0
"""Seconds that a child may take to be ready; on a busy machine the imports alone have taken 10."""

END_TIMEOUT = 5.0
"""Seconds that a child may take to end by itself before it is killed."""

RESTARTS = 5
"""How often in a row a worker that ends within ``LIVELY`` seconds is started again."""

LIVELY = 10.0


class Child:
    """A process of ours that says a line of JSON when it is ready. Threads read it; callbacks are the loop's."""

    def __init__(
        self,
        module: str,
        loop: asyncio.AbstractEventLoop,
        on_end: Callable[[Child], None],
        on_word: Callable[[dict[str, Any]], None] = lambda _said: None,
    ) -> None:
        """``on_end`` is told when it has ended, ``on_word`` of each line that it says after the first."""
        self.module = module
        self.ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()
        self.last_words: deque[str] = deque(maxlen=20)
        self._loop = loop
        self._on_end = on_end
        self._on_word = on_word
        self._process = subprocess.Popen(
            # -P: a file of the user's that is called like a module of Python's must not pass for it in there. A
            # secrets.py beside a notebook that connects would start board after board.
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A terminal's Ctrl-C is for the process that started the cluster; it ends its children in order.
            start_new_session=True,
        )
        self.pid = self._process.pid
        # Both threads end with the child: its end closes the pipes that they read.
        for work in (self._read_errors, self._read_output):
            threading.Thread(target=work, name=f"p2p-{module.rsplit('.', 1)[-1]}-{self.pid}", daemon=True).start()

    def tell(self, message: dict[str, Any]) -> None:
        """Write a line of options. A child that has ended meanwhile says so by ``ended``."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            log.debug("%s ended before it was told everything", self.module)

    async def close(self) -> None:
        """End the child: by the end of its input, else by force."""
        self.close_input()
        try:
            await asyncio.wait_for(asyncio.shield(self.ended), END_TIMEOUT)
        except TimeoutError:
            log.warning("%s did not end in time; killing it", self.module)
            self._process.kill()
            await self.ended

    def close_input(self) -> None:
        """Tell the child to end; returns at once."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:  # it had been told something that it didn't read
            pass

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                self.last_words.append(text)
                log.info("%s[%d]: %s", self.module, self.pid, text)

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    said = json.loads(line)
                    self._post(self._has_said, dict(said))
                except (ValueError, TypeError):  # a library or a sitecustomize that prints
                    log.info("%s[%d] printed: %.200r", self.module, self.pid, line)
        self._post(self._has_ended, self._process.wait())

    def _post(self, call: Callable[[Any], None], value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, value)
        except RuntimeError:  # the loop is gone: the interpreter is on its way out
            pass

    def _has_said(self, said: dict[str, Any]) -> None:
        if self.ready.done():
            self._on_word(said)
        else:
            self.ready.set_result(said)

    def _has_ended(self, code: int) -> None:
        self.close_input()
        if not self.ready.done():
            words = " ".join(self.last_words)[-500:]
            self.ready.set_exception(
                P2PError(f"{self.module} ended with status {code} before it was ready: {words or 'it said nothing'}")
            )
            self.ready.exception()  # seen, even if nobody waits for it any more
        self.ended.set_result(code)
        self._on_end(self)


@dataclass(frozen=True)
class LocalBoard:
    """Where the board of a personal cluster is."""

    address: str
    host_key: str
    mailbox: str
    relay: str


class LocalCluster:
    """The processes of a personal cluster. Make it and use it on the background loop."""

    def __init__(
        self,
        *,
        key: str,
        public_key: str,
        user: str,
        cluster: str,
        workers: int,
        settings: Settings,
        path: list[str],
        sandbox: str,
        on_worker_end: Callable[[bytes, str], None],
    ) -> None:
        """``key`` is a private key in OpenSSH's format; ``on_worker_end(sid, why)`` is told of workers that end.

        ``sandbox``: the mechanism that tasks run behind, "" for none.
        """
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._on_worker_end = on_worker_end
        self._closing = False
        self._first: dict[str, Any] = {
            "key": key,
            "cluster": cluster,
            "slots": 1,
            "settings": asdict(replace(settings, task_memory=settings.task_memory or _share(workers))),
            "path": path,
            "sandbox": sandbox,
            "folder": os.getcwd(),
            "log_level": logging.getLogger("p2p_ipython").getEffectiveLevel(),
        }
        self._second: dict[str, Any] | None = None
        self._workers: dict[Child, str] = {}
        self._started: dict[Child, float] = {}
        self._failures: dict[str, int] = {}
        self._restarts: set[asyncio.Task[None]] = set()
        self._board: Child | None = None
        self._users = {user: public_key}
        self._names = [f"worker-{number}" for number in range(1, workers + 1)]

    def start(self) -> None:
        """Start all processes. Raises ``OSError`` when one can't be; ``close`` ends the others."""
        self._board = Child("p2p_ipython.board.server", self._loop, self._board_ended)
        self._board.tell({"users": self._users, "log_level": self._first["log_level"]})
        for name in self._names:
            self._start_worker(name)

    async def board(self) -> LocalBoard:
        """Wait for the board, tell the workers where it is, and return that. Raises ``BoardError``."""
        assert self._board is not None, "start() comes first"
        try:
            said = await asyncio.wait_for(asyncio.shield(self._board.ready), START_TIMEOUT)
        except TimeoutError:
            raise BoardError(
                f"the board of the personal cluster was not ready after {START_TIMEOUT:.0f} s",
                hint="Is this machine very busy? Try %p2p_connect again.",
            ) from None
        except P2PError as error:
            raise BoardError(
                f"the board of the personal cluster could not start: {error.message}",
                hint="Run `p2p board --port 0` in a terminal to see more.",
            ) from None
        board = LocalBoard(
            f"{said['ssh']['host']}:{said['ssh']['port']}", said["host_key"], said["mailbox"], said["relay"]
        )
        self._second = {"board": board.address, "host_key": board.host_key}
        for worker in self._workers:
            worker.tell(self._second)
        return board

    @property
    def pids(self) -> list[int]:
        """Processes of the cluster, the board's first."""
        return [child.pid for child in (self._board, *self._workers) if child is not None]

    async def close(self) -> None:
        """End all processes. Idempotent."""
        self._closing = True
        for task in self._restarts:
            task.cancel()
        children = [child for child in (self._board, *self._workers) if child is not None]
        # Before anything is awaited: whatever happens to this coroutine, they end.
        for child in children:
            child.close_input()
        await asyncio.gather(*self._restarts, return_exceptions=True)
        await asyncio.gather(*(child.close() for child in children))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its workers."""
        return tuple(self._names)

    def _start_worker(self, name: str) -> None:
        worker = Child("p2p_ipython.worker", self._loop, self._worker_ended)
        self._workers[worker] = name
        self._started[worker] = self._loop.time()
        worker.tell({**self._first, "name": name})
        if self._second is not None:
            worker.tell(self._second)

    def _worker_ended(self, worker: Child) -> None:
        name = self._workers.pop(worker, "")
        lived = self._loop.time() - self._started.pop(worker, 0.0)
        if self._closing:
            return
        log.warning("%s has ended with status %s: %s", name, worker.ended.result(), " ".join(worker.last_words)[-300:])
        if worker.ready.exception() is None:
            self._on_worker_end(bytes.fromhex(worker.ready.result()["sid"]), "its process has ended")
        failures = self._failures[name] = 0 if lived > LIVELY else self._failures.get(name, 0) + 1
        if failures > RESTARTS:
            log.error("%s ended %d times in a row; it is not started again", name, failures)
            return
        task = self._loop.create_task(self._restart(name, after=0.1 * 2**failures))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _restart(self, name: str, after: float) -> None:
        while True:
            await asyncio.sleep(after)
            try:
                self._start_worker(name)
            except OSError as error:  # no memory or no process to be had: perhaps later
                after = min(2 * after, 60.0)
                log.error("%s can't be started: %s; again in %.0f s", name, error, after)
            else:
                return

    def _board_ended(self, _board: Child) -> None:
        if not self._closing:
            log.error("the personal cluster's board has ended; links that are up go on. Connect again for new workers.")


def _share(workers: int) -> int:
    """Memory that a task may use when ``workers`` share this machine and a quarter is left to its user, bytes."""
    import psutil  # heavy

    return int(psutil.virtual_memory().total) * 3 // 4 // workers
