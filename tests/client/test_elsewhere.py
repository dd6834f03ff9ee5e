"""A board and a worker that run as commands of their own, joined with an SSH key and a pinned host key."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import joblib
import pytest

import p2p_ipython
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.lending import SANDBOXES
from p2p_ipython.errors import (
    BoardUnreachable,
    ConfigError,
    HostKeyChanged,
    HostKeyUnknown,
    NoKey,
    UsageError,
    WorkerLost,
)
from p2p_ipython.loop import background

PATIENCE = 60.0
T = TypeVar("T")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home with one SSH key; no agent."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True, mode=0o700)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / ".ssh" / "id_ed25519")], check=True
    )
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("P2P_DATA", str(folder / "data"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


@contextmanager
def command(*arguments: str, end: int = signal.SIGTERM) -> Iterator[subprocess.Popen[str]]:
    """``p2p …`` as a process, ended by a signal at the end, which it must heed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "p2p_ipython.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(end)
        try:
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()


@pytest.fixture
def board(home: Path, tmp_path: Path) -> Iterator[dict]:
    public = (home / ".ssh" / "id_ed25519.pub").read_text()
    (tmp_path / "users").write_text(f"alice {public}")
    with command("board", "--port", "0", "--json", "--users", str(tmp_path / "users")) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())


def address(board: dict) -> str:
    return f"{board['ssh']['host']}:{board['ssh']['port']}"


def on_loop(call: Callable[[], T]) -> T:
    async def work() -> T:
        return call()

    return background().run(work(), timeout=PATIENCE)


def wait_for_state(cluster: Cluster, future: p2p_ipython.Future, words: str) -> None:
    end = time.monotonic() + PATIENCE
    while words not in future.state_text:
        assert time.monotonic() < end, f"never {words!r}, but {future.state_text!r}"
        time.sleep(0.02)


def test_a_future_waits_for_a_worker_says_so_and_runs_when_one_comes(board: dict) -> None:
    where, pin = address(board), board["fingerprint"]
    with p2p_ipython.connect(where, cluster="mine", accept_host_key=pin) as cluster:
        future = cluster.submit(pow, 2, 10)
        wait_for_state(cluster, future, "waiting for a worker: none is here")
        assert cluster.status().user == "alice"
        assert f"p2p worker --board {where} --cluster mine" in str(cluster)
        assert "Only workers that hold your key are in it: SHA256:" in str(cluster)
        facts = on_loop(cluster._core.facts)
        assert (facts.state, facts.kind, facts.title, facts.board) == ("connected", "own", "mine", where)
        assert facts.note.startswith("No worker is here yet.")
        assert on_loop(cluster._core.reasons) == {"": "waiting for a worker: none is here"}
        arguments = ["--board", where, "--cluster", "mine", "--name", "lender", "--slots", "2"]
        with command("worker", *arguments, "--accept-host-key", pin, end=signal.SIGINT) as worker:
            assert future.result(PATIENCE) == 1024
            status = cluster.status()
            assert [(m.name, m.slots) for m in status.members] == [("lender", 2)]
        assert worker.returncode in (0, 130)
        # Ctrl-C said bye: nobody is offered any more.
        later = cluster.submit(pow, 2, 10)
        wait_for_state(cluster, later, "waiting for a worker: none is here")
        later.cancel()


def test_who_requires_a_sandbox_waits_for_a_worker_that_has_one(board: dict) -> None:
    where, pin = address(board), board["fingerprint"]
    arguments = ["--board", where, "--cluster", "mine", "--accept-host-key", pin]
    with p2p_ipython.connect(where, cluster="mine", accept_host_key=pin, sandboxed=True) as cluster:
        future = cluster.submit(pow, 2, 10)
        with command("worker", *arguments, "--name", "bare"):
            wait_for_state(cluster, future, "no worker here has a sandbox")
            assert [(m.name, m.sandbox, m.done) for m in cluster.status().members] == [("bare", "no sandbox", 0)]
            with command("worker", *arguments, "--name", "walled", "--sandbox", "auto"):
                assert future.result(PATIENCE) == 1024
                members = {m.name: (m.sandbox, m.done) for m in cluster.status().members}
        assert members["bare"] == ("no sandbox", 0)
        assert members["walled"] in [(name, 1) for name in SANDBOXES[1:-1]]


def test_a_worker_with_another_key_is_not_of_this_cluster(board: dict, tmp_path: Path) -> None:
    where, pin = address(board), board["fingerprint"]
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    arguments = ["--board", where, "--cluster", "mine", "--identity", str(other), "--accept-host-key", pin]
    with (
        command("worker", *arguments) as worker,
        p2p_ipython.connect(where, cluster="mine", accept_host_key=pin, request_every=0.2) as cluster,
    ):
        future = cluster.submit(pow, 2, 10)
        assert worker.stderr is not None
        wait_for_state(cluster, future, "waiting for a worker: none is here")
        with pytest.raises(TimeoutError):
            future.result(3)
        assert cluster.status().members == ()
        future.cancel()


def test_who_waits_for_a_worker_that_isnt_there_is_told_so(
    board: dict, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2p_ipython.client.future.NOTICE", 0.2)
    monkeypatch.setattr("p2p_ipython.client.cluster.NOTICE", 0.2)
    with p2p_ipython.connect(address(board), cluster="mine", accept_host_key=board["fingerprint"]) as cluster:
        future = cluster.submit(pow, 2, 10)
        wait_for_state(cluster, future, "waiting for a worker: none is here")
        with pytest.raises(TimeoutError):
            future.result(0.5)
        assert "pow is waiting for a worker: none is here" in caplog.text
        caplog.clear()

        def give_up() -> None:
            end = time.monotonic() + PATIENCE
            while "pow is waiting" not in caplog.text and time.monotonic() < end:
                time.sleep(0.02)
            future.cancel()

        threading.Thread(target=give_up).start()
    assert "pow is waiting for a worker: none is here" in caplog.text


def test_while_the_mailbox_is_down_the_future_waits_and_says_so(board: dict) -> None:
    where, pin = address(board), board["fingerprint"]
    with (
        command("worker", "--board", where, "--cluster", "mine", "--accept-host-key", pin),
        p2p_ipython.connect(where, cluster="mine", accept_host_key=pin, mailbox="ws://127.0.0.1:1/v1") as cluster,
    ):
        future = cluster.submit(pow, 2, 10)
        wait_for_state(cluster, future, "ws://127.0.0.1:1/v1")
        assert "waiting for a link to" in future.state_text
        future.cancel()


def test_while_the_relay_is_down_a_direct_link_does(board: dict) -> None:
    where, pin = address(board), board["fingerprint"]
    with (
        command("worker", "--board", where, "--cluster", "mine", "--accept-host-key", pin),
        p2p_ipython.connect(where, cluster="mine", accept_host_key=pin, relay="tcp:127.0.0.1:1") as cluster,
    ):
        assert cluster.submit(pow, 2, 10).result(PATIENCE) == 1024
        assert [m.link for m in cluster.status().members] == ["direct"]


def test_a_worker_ends_when_its_time_is_up(board: dict) -> None:
    where, pin = address(board), board["fingerprint"]
    arguments = ["--board", where, "--cluster", "mine", "--duration", "1s", "--accept-host-key", pin]
    with command("worker", *arguments) as worker:
        assert worker.wait(PATIENCE) == 0


def beside_others(n: int, folder: str) -> int:
    """Return ``n``; the first one waits for ``go``, and later ones for five at a time."""
    mark, place = Path(folder, str(n)), Path(folder)
    mark.touch()
    end = time.monotonic() + PATIENCE
    while not (place / "go").exists() or (n >= 4 and len(list(place.glob("[0-9]*"))) < 5):
        if (place / "met").exists():
            break
        assert time.monotonic() < end
        time.sleep(0.01)
    if n >= 4:
        (place / "met").touch()
    mark.unlink()
    return n


def test_joblib_uses_workers_that_come_while_it_runs(board: dict, tmp_path: Path) -> None:
    where, pin = address(board), board["fingerprint"]
    arguments = ["worker", "--board", where, "--cluster", "mine", "--accept-host-key", pin]
    folder = tmp_path / "marks"
    folder.mkdir()
    with p2p_ipython.connect(where, cluster="mine", accept_host_key=pin) as cluster, command(*arguments):
        cluster.wait_for_workers(1, timeout=PATIENCE)
        with joblib.parallel_config("p2p", cluster=cluster):
            assert joblib.effective_n_jobs(-1) == 1
            calls = [joblib.delayed(beside_others)(n, str(folder)) for n in range(30)]
            values = joblib.Parallel(batch_size=1, return_as="generator")(calls)
            with command(*arguments, "--slots", "6"):
                cluster.wait_for_workers(2, timeout=PATIENCE)
                (folder / "go").touch()
                assert list(values) == list(range(30))
                assert joblib.effective_n_jobs(-1) == 7
    assert (folder / "met").exists()


def test_joblib_says_so_when_no_worker_comes(board: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    from p2p_ipython.client import joblib_backend

    monkeypatch.setattr(joblib_backend, "PATIENCE", 0.1)
    where, pin = address(board), board["fingerprint"]
    with (
        p2p_ipython.connect(where, cluster="mine", accept_host_key=pin) as cluster,
        joblib.parallel_config("p2p", cluster=cluster),
        pytest.raises(WorkerLost) as lost,
    ):
        joblib.Parallel()(joblib.delayed(abs)(n) for n in range(3))
    assert "no worker is here" in str(lost.value)
    assert f"p2p worker --board {where}" in lost.value.hint


def test_an_unknown_host_key_is_refused_and_shown(board: dict) -> None:
    with pytest.raises(HostKeyUnknown) as caught:
        p2p_ipython.connect(address(board), cluster="mine")
    assert board["fingerprint"] in str(caught.value)
    assert "--accept-host-key" in str(caught.value)


def test_another_host_key_than_the_pinned_one_is_refused(board: dict) -> None:
    with pytest.raises((HostKeyChanged, HostKeyUnknown)):
        p2p_ipython.connect(address(board), cluster="mine", accept_host_key="SHA256:" + "A" * 43)


def test_a_board_that_isnt_there_is_unreachable(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # nobody listens there as long as it is taken, no other test either
        with pytest.raises(BoardUnreachable, match=str(port)):
            p2p_ipython.connect(f"127.0.0.1:{port}", accept_host_key="SHA256:" + "A" * 43)


def test_without_any_key_it_says_how_to_make_one(home: Path) -> None:
    for file in (home / ".ssh").iterdir():
        file.unlink()
    with pytest.raises(NoKey, match="ssh-keygen"):
        p2p_ipython.connect("127.0.0.1:1")


def test_options_that_dont_go_together_are_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="--workers"):
        p2p_ipython.connect("127.0.0.1:1", workers=2)
    with pytest.raises(UsageError, match="elsewhere"):
        p2p_ipython.connect(identity="~/.ssh/id_ed25519")
    with pytest.raises(UsageError, match="no board was named"):
        p2p_ipython.connect(cluster="friends")
    with pytest.raises(UsageError, match="have no sandbox"):
        p2p_ipython.connect(sandboxed=True)
    with pytest.raises(ConfigError):
        p2p_ipython.connect(workers=0)
    with pytest.raises(ConfigError, match="colour"):
        p2p_ipython.connect(colour=1)
