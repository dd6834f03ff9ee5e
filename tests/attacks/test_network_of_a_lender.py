"""With ``--network`` a friend's task has the internet, and nothing of the lender's own network, however it tries.

That the lender's network is there, and can be reached, shows under ``process``.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest
from arena import USERS, Arena, NotOffered
from lender_network import ADDRESS_OF_NAME, GROUP, PORT

from p2p_ipython.sandbox.launch import WITH_NETWORK
from p2p_ipython.sandbox.mechanisms import internet

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network of a lender needs Linux")

INTERNET = ("9.9.9.9", "2620:fe::9")
LENDERS = ("10.9.8.7", "9.1.1.1", "fd00:9::7", "169.254.169.254", "203.0.113.2", "2001:db8:1::2", "127.0.0.1", "::1")
NEIGHBOURS = ("10.1.2.3", "203.0.113.1", "2001:db8:1::1")

CALL = """
import socket
reached, interfaces = [], [b""]
interfaces += [name.encode() for _, name in socket.if_nameindex() if bound]
for address in addresses:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for interface in interfaces:
        for kind in ("tcp", "udp"):
            try:
                with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as caller:
                    caller.settimeout(0.5)
                    if interface:
                        caller.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface)
                    if kind == "tcp":
                        caller.connect((address, port))
                    else:
                        caller.sendto(address.encode(), (address, port))
                    if caller.recv(10) == b"here":
                        reached.append(f"{kind} {address}")
            except OSError:
                pass
sorted(set(reached))
"""


@contextlib.contextmanager
def arena_of(mechanism: str, user: str) -> Iterator[Arena]:
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(Arena(mechanism, user, network=True))
        except NotOffered as why:
            pytest.skip(f"{mechanism} as {user}: {why}")
        yield made


@pytest.fixture(scope="module", params=[(name, user) for name in WITH_NETWORK for user in USERS], ids="-as-".join)
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    """Make an arena whose tasks have the internet."""
    with arena_of(*request.param) as made:
        yield made


def call(arena: Arena, *addresses: str, port: int = PORT, bound: bool = True) -> list[str]:
    """Call addresses, also from sockets that are bound to each interface; return what answered."""
    ended = arena.attack(f"addresses, port, bound = {addresses!r}, {port}, {bound}\n{CALL}")
    assert isinstance(ended.value, list), ended.failure
    return ended.value


def heard(arena: Arena) -> list[str]:
    """Return what came to a listener, and forget it."""
    lines = arena.heard.read_text().splitlines() if arena.heard.exists() else []
    arena.heard.unlink(missing_ok=True)
    return lines


def test_a_task_reaches_the_internet(arena: Arena) -> None:
    found = call(arena, *INTERNET, bound=False)
    assert found == sorted(f"{kind} {address}" for kind in ("tcp", "udp") for address in INTERNET)


def test_a_task_resolves_names_by_the_lenders_resolver(arena: Arena) -> None:
    ended = arena.attack("import socket\nsocket.gethostbyname('example.org')")
    assert ended.value == ADDRESS_OF_NAME, ended.failure


@pytest.mark.parametrize("address", [*LENDERS, *NEIGHBOURS, GROUP, "127.0.0.53", "255.255.255.255", "64:ff9b::a09:807"])
def test_a_task_reaches_nothing_of_the_lenders_network(arena: Arena, address: str) -> None:
    heard(arena)
    assert call(arena, address) == []
    assert heard(arena) == []


def test_the_resolvers_address_leads_to_its_names_only(arena: Arena) -> None:
    heard(arena)
    assert call(arena, internet.resolver()) == []
    assert heard(arena) == []


def test_a_task_can_not_open_what_is_closed(arena: Arena) -> None:
    ended = arena.attack(
        "import subprocess, shutil\n"
        "nft, ip = (shutil.which(each, path='/usr/sbin:/sbin') for each in ('nft', 'ip'))\n"
        "[subprocess.run(each, capture_output=True).returncode != 0 for each in"
        " ([nft, 'flush', 'ruleset'], [ip, 'link', 'set', 'lo', 'down'], [ip, 'route', 'del', 'default'])]"
    )
    assert ended.value == [True, True, True], ended.failure
    assert call(arena, "10.9.8.7") == []


def test_the_last_words_of_a_task_are_its_own(arena: Arena) -> None:
    ended = arena.attack("import os\nos._exit(7)")
    assert ended.failure == "exit: The task ended its Python process with exit code 7."


def test_without_walls_all_of_it_is_reached() -> None:
    with arena_of("process", "user") as arena:
        there = (*INTERNET, *LENDERS, *NEIGHBOURS)
        assert call(arena, *there, bound=False) == sorted(f"{way} {each}" for way in ("tcp", "udp") for each in there)
        assert "lender tcp 169.254.169.254" in heard(arena)
