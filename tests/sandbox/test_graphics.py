"""Graphics cards: found, divided among slots, and shown to tasks with what they need, and nothing beside them.

The cards are stand-ins (card_support.py). None of this has been seen on a real card.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from card_support import GIB, amd, node, nvidia, text, uuid
from docker_engine import docker_engine
from slot_support import needs, worker

from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError
from p2p_ipython.protocol.messages import CardKind
from p2p_ipython.sandbox.graphics import Graphics, find, kinds
from p2p_ipython.sandbox.launch import MECHANISMS, WITH_GRAPHICS, LaunchOptions, unable
from p2p_ipython.worker.sandboxes import choose

A40, RTX = "NVIDIA A40", "NVIDIA GeForce RTX 4090"


def found(root: Path, environ: dict[str, str] | None = None, memories: dict[str, int] | None = None) -> Graphics:
    return find(root, environ or {}, lambda: memories or {})


def test_nvidias_cards_are_found_with_their_names_and_their_memory(tmp_path: Path) -> None:
    nvidia(tmp_path, A40, RTX, RTX)
    cards = found(tmp_path, memories={uuid(0): 45 * GIB, uuid(1): 24 * GIB, uuid(2): 24 * GIB}).cards
    assert [(card.which, card.name) for card in cards] == [(uuid(0), A40), (uuid(1), RTX), (uuid(2), RTX)]
    assert [[place.name for place in card.nodes] for card in cards] == [["nvidia0"], ["nvidia1"], ["nvidia2"]]
    assert kinds(cards) == (CardKind(1, A40, 45 * GIB), CardKind(2, RTX, 24 * GIB))


def test_amds_cards_are_found_with_their_names_and_their_memory(tmp_path: Path) -> None:
    amd(tmp_path, 24 * GIB, 24 * GIB)
    text(tmp_path / "sys/devices/pci0000:40/0000:42:00.0/product_name", "AMD Instinct MI210\n")
    cards = found(tmp_path).cards
    assert [card.which for card in cards] == ["GPU-0000000000000001", "GPU-0000000000000002"]
    assert kinds(cards) == (
        CardKind(1, "AMD Radeon RX 7900 XTX", 24 * GIB),
        CardKind(1, "AMD Instinct MI210", 24 * GIB),
    )


def test_another_makers_card_that_only_draws_is_none(tmp_path: Path) -> None:
    amd(tmp_path, GIB)
    text(tmp_path / "sys/devices/pci0000:40/0000:41:00.0/vendor", "0x8086\n")
    with pytest.raises(ConfigError, match="no graphics card"):
        found(tmp_path)


def test_only_the_cards_that_the_lenders_own_variables_name_are_lent(tmp_path: Path) -> None:
    nvidia(tmp_path, A40, RTX, RTX)
    amd(tmp_path, GIB, GIB)
    environ = {"CUDA_VISIBLE_DEVICES": f"1,{uuid(2)}", "ROCR_VISIBLE_DEVICES": "1"}
    assert [card.which for card in found(tmp_path, environ).cards] == [uuid(1), uuid(2), "GPU-0000000000000002"]
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES"):
        found(tmp_path, dict.fromkeys(environ, ""))


def test_a_driver_that_is_half_loaded_is_said_with_what_to_do(tmp_path: Path) -> None:
    nvidia(tmp_path, A40)
    (tmp_path / "dev/nvidia-uvm").unlink()
    with pytest.raises(ConfigError, match="nvidia-uvm") as caught:
        found(tmp_path)
    assert "nvidia-modprobe -u -c 0" in caught.value.hint


def test_a_slot_has_whole_cards_and_no_card_is_in_two_slots(tmp_path: Path) -> None:
    nvidia(tmp_path, A40, RTX, RTX)
    whole = found(tmp_path)
    slots = whole.divided(2)
    assert [[card.which for card in slot.cards] for slot in slots] == [[uuid(0), uuid(2)], [uuid(1)]]
    assert slots[0].variables()["CUDA_VISIBLE_DEVICES"] == f"{uuid(0)},{uuid(2)}"
    assert slots[0].variables()["ROCR_VISIBLE_DEVICES"] == ""
    assert [seen.name for _, seen in slots[1].nodes() if seen.name[-1].isdigit()] == ["nvidia1"]
    with pytest.raises(ConfigError, match="4 slots can't have a graphics card each: there are 3 cards") as caught:
        whole.divided(4)
    assert "--slots" in caught.value.hint


def test_cudas_variable_hides_no_card_of_amds_which_heed_it_too(tmp_path: Path) -> None:
    amd(tmp_path, GIB)
    variables = found(tmp_path).variables()
    assert "CUDA_VISIBLE_DEVICES" not in variables
    assert variables["ROCR_VISIBLE_DEVICES"] == "GPU-0000000000000001"


def test_libraries_outside_usr_are_shown_one_by_one(tmp_path: Path) -> None:
    nvidia(tmp_path, A40)
    for name in ("libcuda.so.1", "libnvidia-ml.so.550.54.14", "libother.so.1", "diary.txt"):
        text(tmp_path / "home/alice/driver" / name)
    seen = {str(place) for _, place in found(tmp_path, {"LD_LIBRARY_PATH": "/home/alice/driver:/usr/lib"}).files()}
    below = {place for place in seen if not place.startswith("/sys/")}
    assert below == {"/home/alice/driver/libcuda.so.1", "/home/alice/driver/libnvidia-ml.so.550.54.14"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a node to a group")
def test_the_groups_that_may_open_a_card_are_known(tmp_path: Path) -> None:
    amd(tmp_path, GIB)
    os.chown(tmp_path / "dev/kfd", 0, 44)
    os.chown(tmp_path / "dev/dri/renderD128", 0, 109)
    for name in ("dev/kfd", "dev/dri/renderD128"):
        (tmp_path / name).chmod(0o660)
    assert found(tmp_path).groups() == (44, 109)


LOOK = """
import os, stat
seen = {"sys": [], "env": dict(os.environ)}
try: seen["dev"] = sorted(os.listdir("/dev"))
except PermissionError: pass
for folder, _, names in os.walk("/sys"):
    seen["sys"] += [os.path.join(folder, name) for name in names]
seen["opened"] = []
for name in opened:
    try:
        with open(name, "r+b", 0) as file:
            seen["opened"].append([name, stat.S_ISCHR(os.fstat(file.fileno()).st_mode), file.write(b"x")])
    except OSError as error:
        seen["opened"].append([name, error.errno, 0])
seen["rocm"] = os.path.isdir("/opt/rocm-6.2/lib")
seen
"""


async def look(wall: str, graphics: Graphics, opened: list[str]) -> Any:
    async with worker(mechanism=wall, graphics=graphics) as it:
        return (await it.cell(LOOK, {"opened": opened})).value


async def test_bubblewrap_shows_a_slots_own_cards_and_nothing_beside_them(tmp_path: Path) -> None:
    needs("bubblewrap")
    nvidia(tmp_path, A40, RTX)
    amd(tmp_path, GIB)
    async with worker(mechanism="bubblewrap") as it:
        plain = (await it.cell("import os\nsorted(os.listdir('/dev')), os.path.exists('/sys')")).value
    assert plain[1] is False  # never by default
    both = found(tmp_path)
    cards = replace(both, cards=both.cards[:1])
    seen = await look("bubblewrap", cards, ["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia1", "/dev/kfd"])
    assert set(seen["dev"]) - set(plain[0]) == {"nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"}
    assert seen["opened"][:2] == [["/dev/nvidia0", True, 1], ["/dev/nvidiactl", True, 1]]
    assert [number for _, number, _ in seen["opened"][2:]] == [2, 2]  # ENOENT
    assert "/sys/devices/pci0000:00/0000:01:00.0/vendor" in seen["sys"]
    assert not [place for place in seen["sys"] if "0000:02:00.0" in place or "0000:41" in place]
    assert seen["env"]["CUDA_VISIBLE_DEVICES"] == uuid(0)
    assert seen["rocm"] is False


async def test_bubblewrap_shows_an_amd_card_with_its_topology(tmp_path: Path) -> None:
    needs("bubblewrap")
    amd(tmp_path, GIB, GIB)
    seen = await look("bubblewrap", found(tmp_path).divided(2)[1], ["/dev/kfd", "/dev/dri/renderD129"])
    assert seen["opened"] == [["/dev/kfd", True, 1], ["/dev/dri/renderD129", True, 1]]
    assert "/sys/devices/virtual/kfd/kfd/topology/nodes/0/properties" in seen["sys"]
    assert "/sys/devices/pci0000:40/0000:42:00.0/mem_info_vram_total" in seen["sys"]
    assert not [place for place in seen["sys"] if "0000:41:00.0" in place]
    assert seen["rocm"] is True
    assert seen["env"]["ROCR_VISIBLE_DEVICES"] == "GPU-0000000000000002"
    async with worker(mechanism="bubblewrap", graphics=found(tmp_path).divided(2)[1]) as it:
        outcome = await it.cell(AROUND)
    assert outcome.value == [f"{GIB}\n", "cpu_cores_count 4\n", 30, 30, 30]  # EROFS


AROUND = """
found = [open("/sys/dev/char/226:129/device/mem_info_vram_total").read()]
found.append(open("/sys/class/kfd/kfd/topology/nodes/0/properties").read())
for place in ("/sys/x", "/dev/x", "/opt/rocm-6.2/x"):
    try: open(place, "w")
    except OSError as error: found.append(error.errno)
found
"""


@pytest.mark.parametrize("name", ["podman", "docker"])
async def test_a_container_shows_a_slots_own_cards_and_no_other(name: str, tmp_path: Path) -> None:
    nvidia(tmp_path, A40, RTX)
    with docker_engine() if name == "docker" else contextlib.nullcontext():
        needs(name)
        seen = await look(name, found(tmp_path).divided(2)[1], ["/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia0"])
    assert seen["opened"] == [["/dev/nvidia1", True, 1], ["/dev/nvidiactl", True, 1], ["/dev/nvidia0", 2, 0]]
    assert seen["env"]["CUDA_VISIBLE_DEVICES"] == uuid(1)


async def test_without_a_wall_the_variables_name_a_slots_cards(tmp_path: Path) -> None:
    nvidia(tmp_path, A40, RTX)
    assert (await look("process", found(tmp_path).divided(2)[1], []))["env"]["CUDA_VISIBLE_DEVICES"] == uuid(1)


async def test_other_sandboxes_are_refused_with_the_names_of_those_that_can(tmp_path: Path) -> None:
    nvidia(tmp_path, A40)
    options = LaunchOptions(graphics=found(tmp_path))
    assert {name for name in MECHANISMS if unable(name, options) is None} == set(WITH_GRAPHICS)
    for name in ("firejail", "landlock"):
        with pytest.raises(ConfigError, match=f"{name} can't give tasks graphics cards") as caught:
            await choose(name, lends_to_others=True, options=options, settings=Settings())
        assert "--sandbox bubblewrap or podman" in caught.value.hint
    assert await choose("process", lends_to_others=True, options=options, settings=Settings()) == "process"


def test_a_card_without_its_node_is_none(tmp_path: Path) -> None:
    nvidia(tmp_path, A40, RTX)
    (tmp_path / "dev/nvidia0").unlink()
    text(tmp_path / "dev/nvidia0")  # a file is no device
    assert [card.name for card in found(tmp_path).cards] == [RTX]
    node(tmp_path / "dev/nvidia7")  # and one that the driver doesn't name is not for tasks
    assert not [seen for _, seen in found(tmp_path).nodes() if seen.name == "nvidia7"]
