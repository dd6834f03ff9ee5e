"""Tasks that ask for packages, in a slot: which version they get, and what packages can do that mean harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from packages_support import Index, needs_uv
from slot_support import Outcome, Worker, needs, until, worker

from p2p_ipython.worker.environments import Environments
from p2p_ipython.worker.installer import Installer

WALLS = ("bubblewrap", "landlock")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    made = Index(tmp_path / "index")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture(params=["process", *WALLS])
def mechanism(request: pytest.FixtureRequest) -> str:
    needs(request.param)
    return str(request.param)


def environments(place: Path, mechanism: str) -> Environments:
    installer = Installer(needs_uv(), walled=mechanism == "bubblewrap")
    return Environments(installer, place=place / "environments")


def text_of(file: str) -> str:
    return Path(file).read_text()


async def cell(one: Worker, source: str, *packages: str, owner: str = "carol") -> Outcome:
    one.begin({}, run="cell", source=source, packages=packages, owner=owner)
    return await one.over()


async def test_the_packages_asked_for_win_over_the_workers_own_and_are_gone_afterwards(
    index: Index, tmp_path: Path, mechanism: str
) -> None:
    index.wheel("idna", "0.1", files={"idna/__init__.py": "version = 'asked for'\n"})
    index.wheel("json", "9", files={"json.py": "version = 'no'\n"})
    own = "import idna\nidna.__file__"
    async with worker(mechanism=mechanism, environments=environments(tmp_path, mechanism)) as one:
        before = (await cell(one, own)).value
        got = await cell(one, "import idna, importlib.metadata as m\nidna.version, m.version('idna')", "idna==0.1")
        assert got.value == ("asked for", "0.1")
        assert one.prepared[0] == "finding idna==0.1"
        assert one.prepared[-1] == ""
        runner = one.slot._runner
        # The next task that asks for the same has the same runner; programs that it starts find them, too.
        started = "import subprocess, sys\nsubprocess.check_output([sys.executable, '-c', PROGRAM])"
        started = started.replace("PROGRAM", repr("import idna; print(idna.version)"))
        assert (await cell(one, started, "idna==0.1")).value == b"asked for\n"
        assert one.slot._runner is runner
        # The standard library comes first, whatever a package is called.
        assert (await cell(one, "import json\nhasattr(json, 'version')", "json")).value is False
        assert (await cell(one, own)).value == before
        assert one.slot._runner is not runner


async def test_packages_that_cant_be_had_end_the_task_in_words_and_the_slot_goes_on(
    index: Index, tmp_path: Path
) -> None:
    index.wheel("tiny")
    async with worker(environments=environments(tmp_path, "process")) as one:
        failure = (await cell(one, "1", "tiny>=2", "other")).error
        assert failure.what == "packages"
        assert failure.message.startswith("tiny>=2, other: Because ")
        assert (await cell(one, "import tiny\ntiny.version", "tiny")).value == "1.0"
    async with worker() as one:  # where nothing is installed
        assert (await cell(one, "1", "tiny")).error.message == "tiny: no packages are installed there"


async def test_a_task_that_is_cancelled_while_its_packages_are_found_frees_its_slot(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from packages_support import silent_index

    index.wheel("tiny")
    async with worker(environments=environments(tmp_path, "process")) as one:
        with silent_index() as address, monkeypatch.context() as other:
            other.delenv("PIP_NO_INDEX")
            other.setenv("UV_DEFAULT_INDEX", address)
            task = one.begin({}, run="cell", source="1", packages=("other",))
            await until(lambda: one.prepared, "the installation began")
            one.slot.cancel(task)
            assert (await one.over()).error.what == "interrupted"
        assert (await cell(one, "import tiny\ntiny.version", "tiny")).value == "1.0"


@pytest.mark.parametrize("wall", WALLS)
async def test_behind_a_wall_environments_are_only_read_and_those_of_others_are_not_there(
    index: Index, tmp_path: Path, wall: str
) -> None:
    needs(wall)
    index.wheel("tiny")
    index.wheel("secret")
    attack = """
import os, tiny
def tries(what, *args, **more):
    try:
        return what(*args, **more)
    except OSError:
        return None
place = os.path.dirname(tiny.__file__)
found = [
    tries(open, tiny.__file__, "w"),
    tries(open, place + "/new.py", "w"),
    tries(os.unlink, tiny.__file__),
    tries(os.rename, tiny.__file__, place + "/b.py"),
    tries(os.mkdir, place + "/folder"),
    tries(os.symlink, "/etc/passwd", place + "/link"),
    tries(os.listdir, os.path.dirname(os.path.dirname(place))),
    tries(open, theirs),
]
beside = tries(os.listdir, os.path.dirname(place)) or [os.path.basename(place)]
found, beside == [os.path.basename(place)], os.path.exists(place)
"""
    async with worker(mechanism=wall, environments=environments(tmp_path, wall)) as one:
        theirs = (await cell(one, "import secret\nsecret.__file__", "secret", owner="dave")).value
        one.begin({"theirs": theirs}, run="cell", source=attack, packages=("tiny",), owner="carol")
        found, alone, there = (await one.over()).value
        if wall == "bubblewrap":  # folders above are there, and hold nothing else
            found[6] = None
        assert (found, alone, there) == ([None] * 8, True, True)
        assert text_of(theirs) == "version = '1.0'\n"
        assert (await cell(one, "import tiny\ntiny.version", "tiny")).value == "1.0"


async def test_nothing_of_a_package_runs_but_what_a_task_imports(index: Index, tmp_path: Path, mechanism: str) -> None:
    """Not by a ``.pth`` file, a ``sitecustomize``, a program or a name like one of ours, and never in the agent."""
    mark = tmp_path / "mark"
    writes = f"import os; open({str(mark)!r}, 'a').write(f'{{os.getpid()}}\\n')"
    index.wheel(
        "harm",
        files={
            "harm.pth": f"{writes}\n",
            "harm-nspkg.pth": f"{writes}\n",
            "sitecustomize.py": writes,
            "usercustomize.py": writes,
            "p2p_ipython/__init__.py": writes,
            "p2p_ipython/worker/__init__.py": writes,
            "psutil.py": writes,
            "cbor2.py": writes,
            "harm.py": "import os\npid = os.getpid()\n",
            "harm-1.0.dist-info/entry_points.txt": "[console_scripts]\nuv = harm:pid\nbwrap = harm:pid\n",
        },
    )
    async with worker(mechanism=mechanism, environments=environments(tmp_path, mechanism)) as one:
        got = await cell(one, "import harm\nharm.pid", "harm")
        assert got.value
        assert got.value != os.getpid()
        assert (await cell(one, "import p2p_ipython.errors\n1", "harm")).value == 1
    assert not mark.exists()
