"""The packet filter of runners that have the internet, as text. That it holds is in tests/attacks."""

from __future__ import annotations

import re
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.launch import MECHANISMS, WITH_NETWORK, LaunchOptions
from p2p_ipython.sandbox.mechanisms import internet
from p2p_ipython.worker.sandboxes import choose


def closed(address: str, own: tuple[str, ...] = ()) -> bool:
    """Return whether an address is in one of the filter's sets."""
    told = re.findall(r"daddr \{ (.*) \} reject", internet.rules(own))
    networks = [ip_network(each) for line in told for each in line.split(", ")]
    return any(ip_address(address) in each for each in networks if each.version == ip_address(address).version)


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.0.1", "169.254.169.254"),
        *("127.0.0.53", "0.0.0.0", "224.0.0.251", "255.255.255.255"),
        *("::1", "fc00::1", "fdff::1", "fe80::1", "fec0::1", "ff02::fb", "::ffff:10.0.0.1", "fd00:ec2::254"),
        *("64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::10.0.0.1", "2002:a00:1::", "2001::1"),
    ],
)
def test_what_is_private_is_closed(address: str) -> None:
    assert closed(address)


@pytest.mark.parametrize("address", ["9.9.9.9", "172.32.0.1", "100.128.0.1", "2620:fe::9", "64:ff9b::9.9.9.9"])
def test_the_internet_is_open(address: str) -> None:
    assert not closed(address)


def test_the_networks_of_the_machine_are_closed_and_those_beside_them_open() -> None:
    own = ("9.9.9.9/29", "9.9.9.10/32", "2620:fe::9/64", "10.1.2.3/16")
    for address in ("9.9.9.9", "9.9.9.15", "2620:fe::1", "64:ff9b::9.9.9.9"):
        assert closed(address, own)
    for address in ("9.9.9.16", "2620:fe:0:1::1"):
        assert not closed(address, own)


def test_the_machines_own_loopback_is_among_its_networks() -> None:
    assert "127.0.0.1/8" in internet.own_networks()
    assert "127.0.0.1" in internet.own_addresses()


def test_no_network_is_named_twice() -> None:  # nft refuses sets whose members overlap
    for line in re.findall(r"daddr \{ (.*) \} reject", internet.rules(("10.0.0.0/8", "10.0.0.0/9", "fd00::/64"))):
        networks = [ip_network(each) for each in line.split(", ")]
        assert not any(one.overlaps(two) for one in networks for two in networks if one is not two)


@pytest.mark.skipif(internet.lacks() is not None, reason="pasta, nft or /dev/net/tun is not here")
def test_without_its_filter_nothing_is_started(tmp_path: Path) -> None:
    for name in ("arguments", "filter"):
        (tmp_path / name).write_text(f"of {name}")
    reading = " ".join(f"<&{number}" for number in internet.DESCRIPTORS.values())
    command = internet.behind(tmp_path, ["sh", "-c", f"cat {reading}; echo started"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if "routable interface" in done.stderr:
        pytest.skip("this machine is in no network")
    assert done.stdout == "of filterstarted\n", done.stderr
    (tmp_path / "rules").write_text("table inet p2p { nonsense }")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "nonsense" in done.stderr
    assert done.stdout == ""
    assert done.returncode != 0


def test_the_noise_of_pasta_is_not_a_tasks_last_words() -> None:
    noise = "Couldn't write to /proc/self/uid_map: Operation not permitted\nCouldn't configure user mappings\n"
    assert internet.without_noise(f"{noise}Fatal Python error: oh\n") == "Fatal Python error: oh"


@pytest.mark.parametrize("asked", [each for each in MECHANISMS if each not in WITH_NETWORK])
async def test_a_mechanism_that_can_not_close_the_lenders_network_is_refused(asked: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        await choose(asked, lends_to_others=True, options=LaunchOptions(network=True), settings=Settings())
    said = f"{caught.value.message} {caught.value.hint}"
    assert ("networks are in reach anyway" if asked == "process" else "--sandbox bubblewrap") in said
