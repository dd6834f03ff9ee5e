"""The profile and the command of macOS's sandbox, as text: nobody has run them on a Mac."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.launch import BY_NAME, LaunchOptions, Mount, prepare
from p2p_ipython.sandbox.mechanisms import seatbelt
from p2p_ipython.worker.sandboxes import choose


def balanced(text: str) -> bool:
    """Return whether each parenthesis outside of strings has its match."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"', "", text)
    depth = 0
    for letter in bare:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth < 0:
            return False
    return depth == 0 and '"' not in bare


def test_all_is_denied_but_what_is_named() -> None:
    lines = seatbelt.profile(["/usr"], ["/scratch"]).splitlines()
    assert lines[:2] == ["(version 1)", "(deny default)"]
    assert all(line.startswith("(allow ") for line in lines[2:])
    for service in ("network", "mach-lookup", "ipc-posix", "iokit", "system-socket", "(allow default)"):
        assert service not in "\n".join(lines[2:])


def test_only_scratch_and_dev_null_can_be_written_to() -> None:
    writing = [line for line in seatbelt.profile(["/usr"], ["/scratch"]).splitlines() if "file-write" in line]
    assert writing == [
        '(allow file-read* file-write-data (literal "/dev/null"))',
        '(allow file-read* file-write* (subpath "/scratch"))',
    ]


def test_the_contents_of_files_are_read_where_they_are_shown_only() -> None:
    reading = [line for line in seatbelt.profile(["/shown"], []).splitlines() if "file-read*" in line]
    assert [line for line in reading if "subpath" in line] == [
        '(allow file-read* file-map-executable process-exec* (subpath "/shown"))'
    ]
    assert all("literal" in line for line in reading if "subpath" not in line)


@pytest.mark.parametrize("name", ['a"b', "a\\b", 'a")) (allow default) ((subpath "b', "(a", "ä b"])
def test_a_folders_name_can_not_end_its_string(name: str) -> None:
    text = seatbelt.profile([f"/shown/{name}"], [])
    assert balanced(text)
    assert len(text.splitlines()) == len(seatbelt.profile(["/shown"], []).splitlines())


def test_real_paths_are_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    assert f'(subpath "{tmp_path}/real")' in seatbelt.profile([str(tmp_path / "link")], [])


def test_the_command_is_the_runners_behind_the_profile(tmp_path: Path) -> None:
    read, written = tmp_path / "read", tmp_path / "written"
    mounts = (Mount(str(read)), Mount(str(written), writable=True))
    launch = prepare("seatbelt", LaunchOptions(scratch=tmp_path, mounts=mounts))
    try:
        assert launch.command[:2] == ["/usr/bin/sandbox-exec", "-f"]
        assert launch.command[3:7] == [sys.executable, "-P", "-m", "p2p_ipython.sandbox.inside.runner"]
        text = Path(launch.command[2]).read_text()
        assert balanced(text)
        writing = [line for line in text.splitlines() if "file-write*" in line]
        assert [re.search(r'"(.*)"', line)[1] for line in writing] == [  # type: ignore[index]
            str(launch.folder),
            str(launch.folder.parent / "tmp"),
            str(written),
        ]
        assert f'process-exec* (subpath "{read}")' in text
        assert not Path(launch.command[2]).is_relative_to(launch.folder), "a task could change its profile"
    finally:
        launch.clean()
    assert not launch.folder.exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
async def test_elsewhere_it_is_not_offered() -> None:
    assert "seatbelt" in BY_NAME
    with pytest.raises(ConfigError, match="seatbelt is for macOS"):
        await choose("seatbelt", lends_to_others=True, options=LaunchOptions(), settings=Settings())
