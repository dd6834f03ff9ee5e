"""A friend's task sees what the lender shares, at its own path, and can write to it only where that was allowed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest
from arena import MECHANISMS, USERS, Arena, NotOffered
from docker_engine import docker_engine

from p2p_ipython.sandbox.launch import HIDING, WITH_MOUNTS
from p2p_ipython.sandbox.scratch import STRANGERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes that share folders need Linux")

PAIRS = [(mechanism, user) for mechanism in MECHANISMS if mechanism in WITH_MOUNTS for user in USERS]


@pytest.fixture(scope="module", params=PAIRS, ids="-as-".join)
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    """Make an arena whose worker shares two folders."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(docker_engine() if "docker" in request.param else contextlib.nullcontext())
            made = stack.enter_context(Arena(*request.param, mounts=True))
        except NotOffered as why:
            pytest.skip(f"{' as '.join(request.param)}: {why}")
        yield made


def test_a_task_reads_what_is_shared_and_can_not_change_it(arena: Arena) -> None:
    table = arena.read_only / "table.csv"
    ended = arena.attack(f"open({str(table)!r}).read()")
    assert ended.value == "1,2\n", ended.failure
    for call in (
        "open(path, 'w')",
        "os.remove(path)",
        "os.rename(path, path + '2')",
        "open(path + '2', 'w')",
        "os.symlink('/', path + '2')",
        "os.mkdir(path + '2')",
        "os.truncate(path, 0)",
    ):
        ended = arena.attack(f"import os\npath = {str(table)!r}\n{call}\n0")
        assert "OSError" in ended.failure or "PermissionError" in ended.failure, (call, ended.value, ended.failure)
    assert [each.name for each in arena.read_only.iterdir()] == ["table.csv"]
    assert table.read_text() == "1,2\n"


def test_what_a_task_writes_where_it_may_stays_and_another_members_task_reads_it(arena: Arena) -> None:
    left = arena.shared / "model" / "left"
    ended = arena.attack(f"import os\nos.mkdir({str(left.parent)!r})\nopen({str(left)!r}, 'w').write('mine')")
    assert ended.value == 4, ended.failure
    assert left.read_text() == "mine"
    owner = left.stat().st_uid
    assert owner in STRANGERS if arena.user == "root" else owner == arena.home.stat().st_uid
    assert arena.next_member(f"open({str(left)!r}).read()").value == "mine"


def test_nothing_beside_it_is_shown(arena: Arena) -> None:
    arena.secret("document")
    ended = arena.attack(
        f"import os\nfound = []\nfor way in ({str(arena.shared)!r}, {str(arena.read_only)!r}):\n"
        "    try: found.append(open(way + '/../documents/letters/letter.txt').read())\n"
        "    except OSError: pass\nfound"
    )
    assert ended.value == []
    link = arena.shared / "link"
    ended = arena.attack(
        f"import os\nos.symlink({str(arena.home / '.ssh')!r}, {str(link)!r})\nos.listdir({str(link)!r})"
    )
    assert "Error" in ended.failure, ended.value


def test_a_project_is_shown_without_its_dot_files_which_stay_as_they_are(arena: Arena) -> None:
    if arena.mechanism not in HIDING:
        pytest.skip(f"{arena.mechanism} shares a folder with all that is in it")
    project, names = arena.project, ("data.txt", ".env", ".git/config")
    ended = arena.attack(
        f"import os\nfound = []\nfor name in {names!r}:\n"
        f"    path = os.path.join({str(project)!r}, name)\n"
        "    for way in (lambda: found.append(open(path).read()), lambda: open(path, 'a').write('x'),"
        " lambda: os.unlink(path), lambda: os.rename(path, path + '2'), lambda: os.chmod(path, 0o777)):\n"
        "        try: way()\n"
        "        except OSError: pass\n"
        f"open({str(project / 'made.txt')!r}, 'w').write('made')\nfound"
    )
    assert arena.secret("data.txt") in ended.value, ended.failure
    assert not arena.leaked(ended, ".env", ".git/config")
    assert (project / ".env").read_text() == arena.secret(".env")
    assert (project / ".git" / "config").read_text() == arena.secret(".git/config")
    assert (project / "made.txt").read_text() == "made"
