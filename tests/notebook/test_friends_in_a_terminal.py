"""The magics for friends in IPython on a terminal: all as text, printed as it happens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli_support import Home, Terminal, address

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@contextmanager
def ipython(home: Home) -> Iterator[Terminal]:
    options = ["--simple-prompt", "--no-banner", "--colors=NoColor", "--ext=p2p_ipython"]
    made = Terminal(sys.executable, "-m", "IPython", *options, environment=home.environment)
    try:
        made.expect("In [1]:")
        yield made
    finally:
        made.close()


def test_hosting_inviting_and_letting_in_is_text(tmp_path: Path) -> None:
    alice, bob = Home(tmp_path / "alice"), Home(tmp_path / "bob")
    with Home(tmp_path / "board").running("board", "--port", "0", "--json") as process, ipython(alice) as shell:
        assert process.stdout is not None
        board = json.loads(process.stdout.readline())
        way = ["--board", address(board), "--accept-host-key", board["fingerprint"]]
        shell.type(f"%p2p_host friends --owner alice {' '.join(way)}\n")
        shell.expect("alice/friends is hosted from this notebook")

        shell.type("%p2p_invite friends --wait\n")  # it asks here
        shell.expect("p2p join ")
        code = shell.expect("\n").split()
        with bob.running("join", *code, "--name", "bob") as guest:
            shell.expect("bob is here")
            shell.expect("Let bob in? [yes/no] ")
            shell.type("perhaps\n")
            shell.expect("Let bob in? [yes/no] ")
            shell.type("yes\n")
            shell.expect("bob is in alice/friends")
            out, err = guest.communicate(timeout=60)
            assert "you are in alice/friends" in out, err

        # Who knocks is said above the prompt, where it is answered.
        carol = Home(tmp_path / "carol")
        with carol.running("join", "alice/friends", "--name", "carol", *way) as guest:
            shell.expect("carol knocks at alice/friends")
            shell.expect("%p2p_refuse carol")
            shell.type("%p2p_refuse carol\n")
            shell.expect("is refused")
            out, err = guest.communicate(timeout=60)
            assert "does not want you" in err
        shell.type("%p2p_members\n")
        shell.expect("alice/friends, list number 2")
        shell.type("exit\n")
        assert shell.wait() == 0
        with alice.running("host", "friends") as other:  # the hosting has ended with the program
            assert other.stdout is not None
            assert "alice/friends is hosted at" in other.stdout.readline()
