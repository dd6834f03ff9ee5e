"""The doctor against real servers: all of them well, and then one thing broken at a time."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from board_support import PATIENCE, Key, make_key, pico_board, running, ssh_files
from cli_support import agent

from p2p_ipython.board.server.server import BoardServer
from p2p_ipython.doctor import examine as examining
from p2p_ipython.doctor import wormhole
from p2p_ipython.doctor.checks import CHECKS, Outcome, Report, Result, ok
from p2p_ipython.doctor.examine import Places, examine
from p2p_ipython.doctor.network import Web
from p2p_ipython.errors import ConfigError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """A TCP server of the test's own; its port."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()
        for _ in range(5):  # their readers' tasks end
            await asyncio.sleep(0)


def answering(head: str) -> Handler:
    """A web server that always says the same."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        await writer.drain()
        writer.close()

    return handler


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


_unused: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody listens on, until the test's end: it is taken, so that no other test's server gets it."""
    _unused.append(socket.socket())
    _unused[-1].bind(("127.0.0.1", 0))
    return int(_unused[-1].getsockname()[1])


@pytest.fixture(autouse=True)
def _free_ports_are_given_back() -> Iterator[None]:
    yield
    while _unused:
        _unused.pop().close()


@contextmanager
def dropping() -> Iterator[int]:
    """A port that swallows what would connect to it, as a firewall does: its queue of connections is full."""
    with socket.socket() as sock, socket.socket() as first, socket.socket() as second:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        yield int(sock.getsockname()[1])


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return make_key(tmp_path)


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def places(server: BoardServer, key: Key, folder: Path, **changes: Any) -> Places:
    where = server.addresses
    given = Places(f"{where.host}:{where.port}", key.path, where.host_key, files=ssh_files(folder))
    return replace(given, **changes)


def nowhere(port: int, key: Key, folder: Path, **changes: Any) -> Places:
    """A board at a port of loopback, and neither mailbox nor relay anywhere."""
    return replace(Places(f"127.0.0.1:{port}", key.path, files=ssh_files(folder)), **changes)


ALL_OK = dict.fromkeys((check.name for check in CHECKS), "ok")


def outcomes(report: Report) -> dict[str, str]:
    return {name: result.outcome.value for name, result in report.results.items()}


def assert_first_failed(report: Report, name: str, *words: str) -> None:
    """``name`` is the hop to mend; its result has ``words``; nothing that it needs has failed."""
    assert report.first_failed is not None, outcomes(report)
    result = report.results[name]
    assert report.first_failed.name == name, (report.first_failed.name, report.results[report.first_failed.name])
    assert result.todo
    assert not report.healthy
    for word in words:
        assert word in f"{result.why}\n{result.todo}"


async def test_where_all_is_well_every_hop_is(key: Key, tmp_path: Path) -> None:
    told = []
    async with running() as server:
        report = await examine(places(server, key, tmp_path), lambda check, result: told.append((check.name, result)))
        where = server.addresses
    assert outcomes(report) == {**ALL_OK, "sandbox": "unknown"}, report.results
    assert report.healthy
    assert report.first_failed is None
    assert told == list(report.results.items())
    assert [name for name, _ in told] == [check.name for check in CHECKS]
    assert report.places == {"board": f"{where.host}:{where.port}", "mailbox": where.mailbox, "relay": where.relay}
    measured = {name for name, result in report.results.items() if result.seconds is not None}
    assert measured >= {"tcp", "log-in", "echo", "mailbox", "relay", "link"}
    assert "without an account" in report.results["log-in"].why


async def test_an_account_is_named(key: Key, tmp_path: Path) -> None:
    async with running(users_inline={"alice": key.line}) as server:
        report = await examine(places(server, key, tmp_path))
    assert report.results["log-in"].why == "as alice"


async def test_an_accepted_host_key_is_remembered_when_that_was_asked_for(
    key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2P_DATA", str(tmp_path / "data"))
    async with running() as server:
        given = places(server, key, tmp_path, host_key=server.addresses.fingerprint)
        await examine(given)
        assert not (tmp_path / "data" / "known_hosts").exists()
        await examine(replace(given, remember=True))
    assert server.addresses.host_key.split()[1] in (tmp_path / "data" / "known_hosts").read_text()


async def test_the_sandboxs_check_is_the_one_that_was_handed_in(key: Key, tmp_path: Path) -> None:
    async def none() -> Result:
        raise ConfigError("no sandbox works here", hint="Install it: sudo apt-get install bubblewrap")

    async def one() -> Result:
        return ok("auto is bubblewrap")

    async with running() as server:
        without = await examine(places(server, key, tmp_path), sandbox=none)
        having = await examine(places(server, key, tmp_path), sandbox=one)
    assert_first_failed(without, "sandbox", "no sandbox works here", "sudo apt-get install bubblewrap")
    assert outcomes(without) == {**ALL_OK, "sandbox": "failed"}
    assert outcomes(having) == ALL_OK


# -- the key --


async def test_without_a_key_one_is_to_be_made_and_only_what_needs_it_is_skipped(tmp_path: Path, key: Key) -> None:
    async with running() as server:
        report = await examine(places(server, key, tmp_path, identity=None))
    assert_first_failed(report, "key", "no SSH key", "ssh-keygen -t ed25519")
    assert outcomes(report) == {
        **ALL_OK,
        "sandbox": "unknown",
        "key": "failed",
        "log-in": "skipped",
        "echo": "skipped",
        # Only the board knows where its mailbox is, and nobody could ask it.
        **dict.fromkeys(("clock", "mailbox", "relay", "link"), "skipped"),
    }


async def test_a_public_mailbox_is_asked_only_once_the_board_has_said_that_it_has_none(
    tmp_path: Path, key: Key
) -> None:
    fallbacks = {"fallback_mailbox": f"ws://127.0.0.1:{free_port()}/v1", "fallback_relay": "tcp:127.0.0.1:1"}
    async with running() as server:
        with_its_own = await examine(places(server, key, tmp_path, **fallbacks))
        refused = await examine(places(server, key, tmp_path, **fallbacks, host_key=key.line))
        server.services_at = lambda host: ("", "")  # type: ignore[method-assign]
        without = await examine(places(server, key, tmp_path, **fallbacks))
    assert with_its_own.healthy
    assert outcomes(refused)["mailbox"] == "skipped"
    assert_first_failed(without, "mailbox", fallbacks["fallback_mailbox"])


async def test_a_key_with_a_passphrase_is_to_be_given_to_the_agent(tmp_path: Path) -> None:
    locked = make_key(tmp_path, "locked", passphrase="x")
    async with running() as server:
        report = await examine(places(server, locked, tmp_path))
    assert_first_failed(report, "key", "passphrase", f"ssh-add {locked.path}")


async def test_a_key_that_is_too_short_is_named(tmp_path: Path) -> None:
    weak = asyncssh.generate_private_key("ssh-rsa", key_size=1024)
    weak.write_private_key(str(tmp_path / "weak"))
    async with running() as server:
        report = await examine(places(server, Key(tmp_path / "weak", weak), tmp_path))
    assert_first_failed(report, "key", "not accepted", "ssh-keygen -t ed25519", "2048 bits")


async def test_an_agent_that_is_gone_is_mentioned(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    async with running() as server:
        report = await examine(places(server, key, tmp_path))
    assert report.healthy, "the key is there all the same"
    assert f"the SSH agent ({tmp_path / 'agent'}) can't be reached" in report.results["key"].why


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="OpenSSH's agent is not installed")
async def test_an_agent_that_is_empty_or_locked_is_mentioned(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent(tmp_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        without = await examine(nowhere(free_port(), key, tmp_path))
        await asyncio.to_thread(subprocess.run, ["ssh-add", "-q", str(key.path)], check=True, timeout=PATIENCE)
        with_it = await examine(nowhere(free_port(), key, tmp_path))
    assert "the SSH agent holds no keys, or is locked" in without.results["key"].why
    assert "the SSH agent holds 1 key" in with_it.results["key"].why


# -- name and connection --


async def test_a_name_that_nobody_knows(tmp_path: Path, key: Key) -> None:
    report = await examine(replace(nowhere(1, key, tmp_path), board="a..b:2222"))
    assert_first_failed(report, "name", "there is no host called a..b", "offline")
    assert [outcomes(report)[name] for name in ("tcp", "host-key", "log-in", "echo")] == ["skipped"] * 4
    assert report.results["tcp"].why == "needs: name of the board"


async def test_a_port_where_nobody_listens(tmp_path: Path, key: Key) -> None:
    port = free_port()
    report = await examine(nowhere(port, key, tmp_path))
    assert_first_failed(report, "tcp", f"nothing listens on port {port}", "Is the board running?")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a server that never answers, a short wait will do; not for those hops that are to be found well."""
    monkeypatch.setattr(examining, "CONNECT_WITHIN", 1.0)


@pytest.mark.usefixtures("impatient")
async def test_a_port_that_is_blocked_while_the_web_is_open(tmp_path: Path, key: Key) -> None:
    async with listening(silent) as https:
        with dropping() as port:
            web = Web(http=free_port(), https=https)
            report = await examine(nowhere(port, key, tmp_path, web=web))
    assert_first_failed(
        report, "tcp", f"answers on port 443 and not on port {port}", "another network", "ProxyJump", "--port 443"
    )


@pytest.mark.usefixtures("impatient")
async def test_a_network_that_wants_a_log_in_first(tmp_path: Path, key: Key) -> None:
    page = "HTTP/1.1 302 Found\nLocation: https://login.hotel.example/start\nContent-Length: 0"
    async with listening(answering(page)) as http:
        with dropping() as port:
            report = await examine(nowhere(port, key, tmp_path, web=Web(http, free_port())))
    assert_first_failed(report, "tcp", "log in there first", "http://login.hotel.example/")


@pytest.mark.usefixtures("impatient")
async def test_a_machine_behind_a_web_proxy(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy.example:3128")
    with dropping() as port:
        report = await examine(nowhere(port, key, tmp_path, web=Web(free_port(), free_port())))
    assert_first_failed(report, "tcp", "proxy.example:3128", "another network")
    assert "secret" not in str(report.as_json())


# -- host key and log-in --


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_says_nothing_is_no_ssh_server(tmp_path: Path, key: Key) -> None:
    async with listening(silent) as port:
        report = await examine(nowhere(port, key, tmp_path))
    assert_first_failed(report, "host-key", "does not speak SSH", "Check the port")


async def test_a_web_server_is_no_ssh_server(tmp_path: Path, key: Key) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with listening(web) as port:
        report = await examine(nowhere(port, key, tmp_path))
    assert_first_failed(report, "host-key", "does not speak SSH", "Check the port")
    assert outcomes(report)["log-in"] == "skipped"


async def test_a_host_key_that_is_not_known_yet(tmp_path: Path, key: Key) -> None:
    async with running() as server:
        report = await examine(places(server, key, tmp_path, host_key=None))
        shown = server.addresses.fingerprint
    assert_first_failed(report, "host-key", "not known yet", f"--accept-host-key {shown}")


async def test_a_host_key_that_has_changed(tmp_path: Path, key: Key) -> None:
    async with running() as server:
        report = await examine(places(server, key, tmp_path, host_key=key.line))
    assert_first_failed(report, "host-key", f"{key.fingerprint} was expected", "Ask its owner")


async def test_a_board_that_does_not_let_the_key_in(tmp_path: Path, key: Key) -> None:
    class Refusing(asyncssh.SSHServer):
        def public_key_auth_supported(self) -> bool:
            return True

    host_key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen("127.0.0.1", 0, server_factory=Refusing, server_host_keys=[host_key])
    async with server:
        line = host_key.export_public_key("openssh").decode()
        report = await examine(nowhere(server.get_port(), key, tmp_path, host_key=line))
    assert_first_failed(report, "log-in", "does not let the key", key.fingerprint, "--identity")
    assert outcomes(report)["echo"] == "skipped"


async def test_a_jump_host_is_where_the_way_begins(tmp_path: Path, key: Key) -> None:
    port = free_port()
    config = (
        f"Host board\n  HostName 127.0.0.1\n  Port 9\n  ProxyJump jump\nHost jump\n  HostName localhost\n  Port {port}"
    )
    given = replace(nowhere(1, key, tmp_path), board="board", files=ssh_files(tmp_path, config))
    report = await examine(given)
    assert "through localhost" in report.results["name"].why
    assert_first_failed(report, "tcp", f"localhost is there, but nothing listens on port {port}")


async def test_a_jump_host_may_be_named_by_an_option_of_ssh(tmp_path: Path, key: Key) -> None:
    port = free_port()
    report = await examine(nowhere(1, key, tmp_path, ssh_options=(f"-J localhost:{port}",)))
    assert_first_failed(report, "tcp", f"localhost is there, but nothing listens on port {port}")


# -- the board's lines --


async def test_a_board_like_picos_is_fine_with_a_mailbox_from_elsewhere(tmp_path: Path, key: Key) -> None:
    async with pico_board() as pico, running() as ours:
        elsewhere = {"fallback_mailbox": ours.addresses.mailbox, "fallback_relay": ours.addresses.relay}
        report = await examine(places(pico, key, tmp_path, **elsewhere))
    assert report.healthy, report.results
    assert report.places["mailbox"] == ours.addresses.mailbox


async def test_a_board_that_refuses_topics_lets_one_in_all_the_same(tmp_path: Path, key: Key) -> None:
    async with running(sessions=0) as server:
        report = await examine(places(server, key, tmp_path))
    assert_first_failed(report, "echo", "too many sessions")
    assert outcomes(report)["log-in"] == "ok"


async def test_a_board_that_takes_lines_and_delivers_none(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "ECHO_WITHIN", 1.0)
    async with running() as server:
        monkeypatch.setattr(server.topics, "publish", lambda *_: [])
        report = await examine(places(server, key, tmp_path))
    assert_first_failed(report, "echo", "did not come back", "tell its operator")
    assert outcomes(report)["link"] == "ok", "the other hops are looked at all the same"


# -- clock, mailbox, relay, link --


async def test_a_clock_that_is_off_is_a_fault(tmp_path: Path, key: Key) -> None:
    past = "HTTP/1.1 200 OK\nDate: Mon, 02 Mar 2020 10:00:00 GMT\nContent-Length: 0"
    async with running() as server, listening(answering(past)) as port:
        report = await examine(places(server, key, tmp_path, mailbox=f"ws://127.0.0.1:{port}/v1"))
    assert_first_failed(report, "clock", "ahead of that of 127.0.0.1", "Set the clock")


async def test_what_is_no_mailbox_is_said_to_be_none_and_a_clock_that_nobody_tells_is_unknown(
    tmp_path: Path, key: Key
) -> None:
    page = "HTTP/1.1 404 Not Found\nContent-Length: 0"
    async with running() as server, listening(answering(page)) as port:
        report = await examine(places(server, key, tmp_path, mailbox=f"ws://127.0.0.1:{port}/v1"))
    assert report.results["clock"].outcome is Outcome.UNKNOWN
    assert_first_failed(report, "mailbox", "404", "--mailbox")
    assert outcomes(report)["link"] == "skipped"


async def test_a_mailbox_that_is_gone(tmp_path: Path, key: Key) -> None:
    async with running() as server:
        report = await examine(places(server, key, tmp_path, mailbox=f"ws://127.0.0.1:{free_port()}/v1"))
    assert_first_failed(report, "mailbox", "nothing listens at that port", "--mailbox")
    assert outcomes(report) == {
        **ALL_OK,
        "sandbox": "unknown",
        "clock": "unknown",
        "mailbox": "failed",
        "link": "skipped",
    }


@pytest.mark.parametrize("mailbox", ["http://127.0.0.1/", "ws://", "nonsense", "ws://127.0.0.1:99999/v1"])
async def test_what_is_no_address_of_a_mailbox(tmp_path: Path, key: Key, mailbox: str) -> None:
    async with running() as server:
        report = await examine(places(server, key, tmp_path, mailbox=mailbox))
    assert_first_failed(report, "mailbox", "is no address of a mailbox")


async def test_a_relay_that_is_gone(tmp_path: Path, key: Key) -> None:
    port = free_port()
    async with running() as server:
        report = await examine(places(server, key, tmp_path, relay=f"tcp:127.0.0.1:{port}"))
    assert_first_failed(report, "relay", f"the relay tcp:127.0.0.1:{port} is not there", "--relay")
    assert outcomes(report)["link"] == "skipped"


async def test_what_is_no_relay(tmp_path: Path, key: Key) -> None:
    async def unwilling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"bad handshake\n")
        writer.close()

    async with running() as server, listening(unwilling) as port:
        report = await examine(places(server, key, tmp_path, relay=f"tcp:127.0.0.1:{port}"))
    assert_first_failed(report, "relay", "refuses", "bad handshake")


async def test_a_relay_that_joins_and_then_carries_nothing(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wormhole, "LINK_WITHIN", 2.0)

    async def lying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"ok\n")
        await reader.read()

    async with running() as server, listening(lying) as port:
        report = await examine(places(server, key, tmp_path, relay=f"tcp:127.0.0.1:{port}"))
    assert_first_failed(report, "link", "does not come about")


# -- as a whole --


async def test_when_the_time_is_over_the_rest_is_skipped(tmp_path: Path, key: Key) -> None:
    async with running() as server:
        report = await examine(places(server, key, tmp_path), within=0.0)
    assert set(outcomes(report).values()) == {"skipped"}
    assert not report.healthy


async def test_what_is_no_address_of_a_board_is_a_wrong_call(tmp_path: Path, key: Key) -> None:
    with pytest.raises(ConfigError):
        await examine(replace(nowhere(1, key, tmp_path), board="no board"))


async def test_nothing_secret_is_in_a_report(tmp_path: Path, key: Key, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "p2p_ipython")
    async with running() as server:
        seen: list[str] = []
        resolve = server.topics.resolve
        server.topics.resolve = lambda join: seen.append(join.topic) or resolve(join)  # type: ignore[method-assign]
        report = await examine(places(server, key, tmp_path))
    assert seen
    assert not any(topic in f"{report} {caplog.text}" for topic in seen)
