"""The ``p2p`` command as a person has it: started as a process, in a home folder of its own."""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import DEADLINE, Home, address, end

from p2p_ipython import __version__
from p2p_ipython.cli.arguments import PERSONAL, duration, size
from p2p_ipython.sandbox.mechanisms import bubblewrap, internet

COMMANDS = ("board", "worker", "bench", "setup", "doctor", "whoami")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def board(home: Home) -> Iterator[dict[str, object]]:
    """A board that knows the key of ``home`` as alice; the addresses that it printed."""
    users = home.folder / "users"
    users.write_text(f"alice {home.public_line}\n")
    with home.running("board", "--port", "0", "--users", str(users), "--json") as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())


# -- help and usage --


def test_version_is_the_packages(home: Home) -> None:
    done = home.run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"p2p_ipython {__version__}")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(home: Home, command: str) -> None:
    done = home.run(command, "--help")
    assert done.returncode == 0
    assert f"  p2p {command}" in done.stdout.partition("examples:")[2]


def test_help_names_every_command(home: Home) -> None:
    text = home.run("--help").stdout
    assert all(re.search(rf"^    {command} ", text, re.M) for command in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["board", "--port", "70000"],
        ["board", "--port", "ssh"],
        ["worker", "--board", "h", "--duration", "soon"],
        ["worker", "--board", "h", "--slots", "0"],
        ["bench", "--cluster", "mine"],
        ["bench", "--board", "h", "--workers", "2"],
        ["bench", "--repeats", "0"],
        ["bench", "--cluster", "alice/friends", "--board", "h"],
        ["bench", "--cluster", "alice/friends", "--workers", "2"],
        ["bench", "--relay", "tcp:h:1"],
    ],
)
def test_wrong_usage_is_said_and_ends_with_2(home: Home, arguments: list[str]) -> None:
    done = home.run(*arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("p2p")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (["bench", "--bogus"], "usage: p2p bench "),
        (["-v", "whoami", "more"], "usage: p2p whoami "),
        (["--bogus", "whoami"], "usage: p2p [-h]"),
    ],
)
def test_what_a_command_does_not_know_is_answered_with_its_own_usage(
    home: Home, arguments: list[str], usage: str
) -> None:
    done = home.run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(usage)
    assert "unrecognized arguments: " in done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("14d", 14 * 86400), ("1h30m", 5400), ("1.5h", 5400), ("45", 45)],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2 h", "2w", "-2h", "0s", "1e3s", "inf", "2h!", "٣s٣"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        duration(text)


@pytest.mark.parametrize(
    ("text", "bytes_"), [("512M", 512 << 20), ("2G", 2 << 30), ("1.5GiB", 3 << 29), ("64k", 65536), ("100", 100)]
)
def test_a_size_is_a_number_with_a_unit(text: str, bytes_: int) -> None:
    assert size(text) == bytes_


@pytest.mark.parametrize("text", ["", "G", "-1G", "0", "2X", "1e9", "2 G!"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        size(text)


def test_the_default_cluster_is_the_clients_own() -> None:
    from p2p_ipython.client import connect

    assert connect.PERSONAL == PERSONAL


def test_the_default_board_is_the_same_for_those_who_host_and_those_who_look() -> None:
    from p2p_ipython.cli.arguments import PICO_BOARD
    from p2p_ipython.members import operations

    assert operations.PICO_BOARD == PICO_BOARD


# -- errors --


def test_an_error_is_one_message_with_what_to_do_and_ends_with_1(home: Home) -> None:
    done = home.run("whoami", "--board", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("p2p: ")
    assert "Is the board running?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_in_the_environment_is_named(home: Home) -> None:
    done = home.run("worker", "--board", "127.0.0.1:1", P2P_LEASE="long")
    assert done.returncode == 1
    assert "P2P_LEASE" in done.stderr


def test_vv_shows_where_an_error_comes_from(home: Home) -> None:
    assert "Traceback" in home.run("-vv", "whoami", "--board", "127.0.0.1:1").stderr
    assert "Traceback" in home.run("whoami", "--board", "127.0.0.1:1", "-vv").stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("arguments", [["--help"], ["host", "--help"], ["doctor", "--board", "127.0.0.1:1"], ["dance"]])
def test_help_and_errors_come_in_any_encoding(home: Home, encoding: str, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "p2p_ipython", *arguments],
        env={**home.environment, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    text = (done.stdout + done.stderr).decode(encoding)
    assert "Traceback" not in text
    assert ("SHA256:…" if encoding in ("cp1252", "utf-8") else "SHA256:...") in text or "host" not in arguments
    assert "127.0.0.1" in text or "p2p" in text


@pytest.mark.parametrize("command", [["worker", "--cluster", "alice/friends"], ["members", "alice/friends"]])
def test_a_folder_for_data_that_is_a_file_is_a_sentence(home: Home, command: list[str]) -> None:
    file = home.folder / "file"
    file.write_text("")
    done = home.run(*command, P2P_DATA=str(file))
    assert done.returncode == 1
    assert done.stderr == f"p2p: P2P_DATA is {file}, which is no folder\nSet it to a folder; it need not exist yet.\n"


# -- whoami --


def test_whoami_says_which_key_and_where_it_is_from(home: Home) -> None:
    done = home.run("whoami")
    assert done.returncode == 0, done.stderr
    assert home.public_line in done.stdout
    assert str(home.key_file) in done.stdout
    assert "SHA256:" in done.stdout
    assert "PRIVATE" not in done.stdout
    assert not (home.folder / "data").exists()


def test_whoami_without_a_key_says_how_to_make_one(home: Home) -> None:
    home.key_file.unlink()
    done = home.run("whoami")
    assert done.returncode == 1
    assert "ssh-keygen -t ed25519" in done.stderr


def test_whoami_refuses_an_unknown_host_key_and_remembers_an_accepted_one(home: Home, board: dict[str, object]) -> None:
    where, fingerprint = address(board), str(board["fingerprint"])
    unknown = home.run("whoami", "--board", where)
    assert unknown.returncode == 1
    assert f"--accept-host-key {fingerprint}" in unknown.stderr
    accepted = home.run("whoami", "--board", where, "--accept-host-key", fingerprint)
    assert f"on {where}: alice" in accepted.stdout, accepted.stderr
    assert f"on {where}: alice" in home.run("whoami", "--board", where).stdout


# -- board --


def test_a_board_says_what_to_type_elsewhere_and_ctrl_c_ends_it(home: Home) -> None:
    with home.running("board", "--port", "0") as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        status, _, err = end(process, signal.SIGINT)
    text = "".join(lines)
    assert re.search(r"%p2p_connect 127\.0\.0\.1:\d+ ", text)
    assert re.search(r"p2p worker --board 127\.0\.0\.1:\d+ ", text)
    assert status == 0
    assert "Traceback" not in err


def test_a_board_keeps_its_host_key(home: Home) -> None:
    keys = set()
    for _ in range(2):
        with home.running("board", "--port", "0", "--json") as process:
            assert process.stdout is not None
            keys.add(json.loads(process.stdout.readline())["host_key"])
            end(process, signal.SIGTERM)
    assert len(keys) == 1
    assert (home.folder / "data" / "board").is_dir()


def test_a_board_until_eof_ends_with_its_starter(home: Home) -> None:
    with home.running("board", "--port", "0", "--json", "--until-eof") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(DEADLINE) == 0


def test_a_port_that_is_taken_is_an_error_that_names_it(home: Home, board: dict[str, object]) -> None:
    port = address(board).rpartition(":")[2]
    done = home.run("board", "--port", port)
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr


# -- worker --


def test_a_worker_serves_a_notebook_elsewhere_and_ctrl_c_ends_it(home: Home, board: dict[str, object]) -> None:
    """The client is a process of its own, since its key is that of ``home``."""
    where, fingerprint = address(board), str(board["fingerprint"])
    client = (
        "import p2p_ipython, sys\n"
        "with p2p_ipython.connect(sys.argv[1], cluster='mine', accept_host_key=sys.argv[2]) as cluster:\n"
        "    future = cluster.submit(pow, 2, 10)\n"
        "    print(future.result(50), future.worker)"
    )
    arguments = ("--board", where, "--cluster", "mine", "--accept-host-key", fingerprint)
    with home.running("worker", *arguments, "--name", "attic") as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline().startswith("attic lends 1 slot to mine")
        done = subprocess.run(
            [sys.executable, "-c", client, where, fingerprint],
            env=home.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.stdout == "1024 attic\n", done.stderr
        status, _, err = end(worker, signal.SIGINT)
    assert status == 0, err
    assert "Traceback" not in err


def test_a_worker_ends_when_its_time_is_up(home: Home, board: dict[str, object]) -> None:
    done = home.run(
        *("worker", "--board", address(board), "--accept-host-key", str(board["fingerprint"]), "--duration", "1s")
    )
    assert done.returncode == 0, done.stderr


def test_a_worker_says_what_it_shares_and_shares_nothing_without_walls(home: Home, board: dict[str, object]) -> None:
    where, fingerprint = address(board), str(board["fingerprint"])
    arguments = ("worker", "--board", where, "--accept-host-key", fingerprint, "--duration", "1s", "--mount")
    shared = home.folder / "shared"
    shared.mkdir(mode=0o755)
    done = home.run(*arguments, str(shared))
    assert (done.returncode, done.stdout) == (1, "")
    assert "your files are in reach anyway" in done.stderr
    done = home.run(*arguments, f"{shared}/nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no" in done.stderr
    done = home.run(*arguments, str(shared), "--network", "--sandbox", "landlock")
    assert "can't give tasks the internet" in done.stderr
    if bubblewrap.available() is None:
        if internet.lacks() is None:
            done = home.run(*arguments, str(shared), "--sandbox", "bubblewrap", "--network")
            assert f", in bubblewrap, with the internet and {shared} (to read); Ctrl-C" in done.stdout, done.stderr
        done = home.run(*arguments, str(shared), "--sandbox", "bubblewrap")
        assert f", in bubblewrap, with {shared} (to read); Ctrl-C" in done.stdout, done.stderr


# -- doctor --


def test_the_doctor_finds_a_board_of_ours_well(home: Home, board: dict[str, object]) -> None:
    arguments = ("doctor", "--board", address(board), "--accept-host-key", str(board["fingerprint"]))
    done = home.run(*arguments)
    lines = done.stdout.splitlines()
    signs = [line[0] for line in lines if line[:1] not in (" ", "")]
    assert signs[:10] == ["✓"] * 10, done.stdout
    assert (signs[10:], done.returncode) in ((["✓", "E"], 0), (["✗", "T"], 1))  # where no sandbox works
    assert "as alice" in done.stdout
    assert "\x1b" not in done.stdout
    known = home.run("doctor", "--board", address(board), "--json")
    assert json.loads(known.stdout)["first_failed"] in (None, "sandbox"), "the host key was remembered"


def test_the_doctor_names_the_sandbox_that_auto_takes_or_what_to_install(home: Home) -> None:
    listed = home.run("sandbox").stdout
    found = json.loads(home.run("doctor", "--board", "127.0.0.1:1", "--json").stdout)["checks"][-1]
    assert found["check"] == "sandbox"
    if first := re.search(r"^auto, the default for clusters of friends, is (\w+)", listed, re.M):
        assert (found["result"], found["why"]) == ("ok", f"auto is {first[1]}, which has passed its self-test")
    else:
        assert found["result"] == "failed"
        assert "no sandbox works" in found["why"]
        assert "p2p sandbox" in found["todo"] or "nstall" in found["todo"]


def test_the_doctor_names_the_first_hop_that_fails_and_ends_with_1(home: Home) -> None:
    done = home.run("doctor", "--board", "127.0.0.1:1")
    assert done.returncode == 1
    assert re.search(r"^✗  connection .*nothing listens on port 1$", done.stdout, re.M), done.stdout
    assert re.search(r"^ +→ Is the board running", done.stdout, re.M)
    assert done.stdout.splitlines()[-1].startswith("The first thing that fails is: connection.")


def test_the_doctor_speaks_json_to_programs(home: Home) -> None:
    done = home.run("doctor", "--board", "127.0.0.1:1", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["ok"], found["first_failed"], found["board"]) == (False, "tcp", "127.0.0.1:1")
    assert {entry["check"]: entry["result"] for entry in found["checks"][:-1]} == {
        "key": "ok",
        "name": "ok",
        "tcp": "failed",
        **dict.fromkeys(("host-key", "log-in", "echo", "clock", "mailbox", "relay", "link"), "skipped"),
    }


def test_the_doctor_writes_what_a_plain_terminal_can_show(home: Home) -> None:
    done = home.run("doctor", "--board", "127.0.0.1:1", PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert re.search(r"^NO  connection ", done.stdout, re.M), done.stderr


def test_the_doctor_looks_at_a_cluster_as_it_was_joined(home: Home, board: dict[str, object]) -> None:
    from p2p_ipython.members.profile import Profile
    from p2p_ipython.members.profiles import Profiles

    owner = "SHA256:" + "A" * 43
    Profiles(home.folder / "data" / "clusters").save(
        Profile(
            title="alice/friends",
            cluster=f"{owner}/friends",
            board=address(board),
            host_key=str(board["host_key"]),
            mailbox=str(board["mailbox"]),
            relay=str(board["relay"]),
            identity=str(home.key_file),
            signer=owner,
            topic="p2p-" + "0" * 32,
            key=bytes(32),
            roster=b"",
        )
    )
    done = home.run("doctor", "--cluster", "alice/friends", "--json")
    found = json.loads(done.stdout)
    assert found["first_failed"] in (None, "sandbox"), found
    assert [found[name] for name in ("board", "mailbox", "relay")] == [
        address(board),
        board["mailbox"],
        board["relay"],
    ]
    assert bytes(32).hex() not in done.stdout
    assert home.run("doctor", "--cluster", "alice/others").returncode == 1


def test_a_way_that_ssh_would_take_is_taken_and_what_is_not_supported_is_named(home: Home) -> None:
    jumping = home.run("doctor", "--board", "127.0.0.1:1", "--ssh-option", "-J localhost:2", "--json")
    assert "through localhost port 2" in jumping.stdout, jumping.stderr
    for command in ("doctor", "whoami", "worker", "bench"):
        done = home.run(command, "--board", "127.0.0.1:1", "--ssh-option", "-X yes")
        assert done.returncode == 1
        assert "'-X yes' is not supported" in done.stderr, done.stderr


def test_the_doctor_takes_a_board_or_a_cluster(home: Home) -> None:
    assert home.run("doctor", "--cluster", "a/b", "--board", "h").returncode == 2
