"""Virtual machines: what is special to them. One small environment is packed and started, as each of the two users."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from arena import USERS, Arena, NotOffered

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the attacks need Linux"),
    pytest.mark.timeout(900),  # a machine is built, and without KVM each instruction is computed
]


@pytest.fixture(scope="module", params=USERS)
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    """Make a lender with machines."""
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(Arena("qemu", request.param))
        except NotOffered as why:
            pytest.skip(f"qemu as {request.param}: {why}")
        yield made


def machines_of(arena: Arena) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("qemu-system") and str(arena.folder) in " ".join(process.parent().cmdline()):
                found.append(process)
    return found


def test_how_a_task_has_ended_its_machine_is_told(arena: Arena) -> None:
    assert "exit code 7" in arena.attack("import os\nos._exit(7)").failure
    assert "signal 11" in arena.attack("import os\nos.kill(os.getpid(), 11)").failure
    assert arena.serves() == ""


def test_a_machine_has_what_the_c_library_loads_as_a_thread_ends(arena: Arena) -> None:
    assert arena.attack("import ctypes\nctypes.CDLL('libgcc_s.so.1') is not None").value is True


@pytest.mark.parametrize("size", [1000, 4096, 10_000, 200_000])
def test_a_task_of_any_size_reaches_its_machine_whole(arena: Arena, size: int) -> None:
    """Look at frames that come in several pieces: a machine's port hands 4 KiB over at a time."""
    assert arena.attack("len(G['much'])", much="x" * size).value == size


_DRAWN = """
import os, random, sys, time, uuid
[time.time(), [os.urandom(8).hex(), random.random(), hash("x"), uuid.uuid4().hex, uuid.uuid1().node,
 open("/proc/sys/kernel/random/uuid").read(), open("/proc/sys/kernel/random/boot_id").read()]]
"""


def test_machines_of_one_state_draw_other_numbers_and_know_the_time(arena: Arena) -> None:
    assert arena.serves() == ""
    drawn = []
    for _ in range(2):
        before = time.time()
        ended = arena.next_member(_DRAWN)
        assert ended.value is not None, ended.failure
        assert before - 1 < ended.value[0] < time.time() + 1
        drawn.append(ended.value[1])
        assert arena.serves() == ""  # mallory's: the next one is carol's again, in a machine of its own
    assert all(one != other for one, other in zip(*drawn, strict=True)), drawn


def test_a_task_finds_its_own_system_and_nothing_of_the_lenders(arena: Arena) -> None:
    ended = arena.attack(
        "import os, socket\nfrom pathlib import Path\n"
        "[sorted(each.name for each in Path('/home').iterdir()) if Path('/home').exists() else [], os.getuid(),"
        " sorted(os.listdir('/sys/class/net')), open('/proc/mounts').read(), len(os.listdir('/proc')) < 300,"
        " socket.gethostname(), os.access('/', os.W_OK)]"
    )
    assert ended.value is not None, ended.failure
    homes, user, cards, mounts, is_small, name, writable = ended.value
    assert (homes, user, cards, name, writable) == ([], 1000, ["lo"], "sandbox", False)
    assert is_small
    disks = [line.split() for line in mounts.splitlines() if line.startswith("/dev/")]
    assert [(kind, options.split(",")[0]) for _, _, kind, options, *_ in disks] == [("squashfs", "ro")]


_GREEDY = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        kept = bytearray(b"x") * (400 << 20)
        time.sleep(600)
time.sleep(600)
"""


def test_a_task_over_its_memory_is_told_which_limit(arena: Arena) -> None:
    failure = arena.attack(_GREEDY).failure
    assert failure.startswith("memory: "), failure
    assert "of the 1.00 GiB of memory that it may have" in failure or "GiB of its virtual machine" in failure
    assert arena.serves() == ""


def test_its_files_are_its_owners_alone_and_qemu_is_nobody(arena: Arena) -> None:
    folders = [each for each in (arena.cache / "machines").iterdir() if each.is_dir()]
    assert len(folders) == 1
    for file in (folders[0], *folders[0].glob("state-*"), folders[0] / "disk"):
        assert file.stat().st_mode & 0o077 == 0
        assert file.stat().st_uid == arena.home.stat().st_uid
    assert list(folders[0].glob("state-*"))
    machines = machines_of(arena)
    assert machines
    for machine in machines:
        assert machine.uids().real != 0
        assert machine.uids().real == arena.home.stat().st_uid or arena.user == "root"
        assert "NoNewPrivs:\t1" in Path(f"/proc/{machine.pid}/status").read_text()


@pytest.mark.parametrize("killed", ["agent", "guard"])
def test_a_killed_agent_or_guard_leaves_no_machine(arena: Arena, killed: str) -> None:
    assert arena.serves() == ""
    machines = machines_of(arena)
    assert len(machines) == 2
    if killed == "agent":
        arena.kill_agent()
    else:
        for machine in machines:
            machine.parent().kill()
    _, alive = psutil.wait_procs(machines, timeout=30)
    assert not alive
    if killed == "agent":
        arena.restart_worker()
    assert arena.serves() == ""
