"""What a task can see of the worker's process: nothing that isn't meant for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from slot_support import worker

from p2p_ipython.errors import ConfigError
from p2p_ipython.sandbox.launch import LaunchOptions, prepare


async def test_the_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY", "P2P_IDENTITY", "JUPYTER_TOKEN", "HTTPS_PROXY", "EDITOR"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    async with worker(extra_env={"GIVEN": "yes"}) as it:
        env = (await it.cell("import os\ndict(os.environ)")).value
        assert "secret" not in env.values()
        assert env["HOME"] == (await it.cell("import os\nos.getcwd()")).value
        assert env["HOME"] != os.environ.get("HOME")
        assert env["LC_TIME"] == "C.UTF-8"
        assert env["GIVEN"] == "yes"
        assert env["OMP_NUM_THREADS"] == env["OPENBLAS_NUM_THREADS"] == "1"
        # Also where a C library, or a look at the process, would find it.
        assert b"secret" not in (await it.cell("open('/proc/self/environ', 'rb').read()")).value


async def test_no_descriptor_is_inherited(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    with secret.open() as file:
        os.set_inheritable(file.fileno(), True)
        async with worker() as it:
            opened = (
                "import os\n"
                "found = []\n"
                "for fd in os.listdir('/proc/self/fd'):\n"
                "    try: found.append(os.readlink(f'/proc/self/fd/{fd}'))\n"
                "    except OSError: pass\n"
                "found"
            )
            assert str(secret) not in (await it.cell(opened)).value
            child = (
                "import subprocess, sys\nsubprocess.run(['ls', '/proc/self/fd'], capture_output=True).stdout.split()"
            )
            assert (await it.cell(child)).value == [b"0", b"1", b"2", b"3"]  # 3 is ls's own
            assert (await it.cell("open(0, closefd=False).read()")).value == ""


async def test_the_limits_hold() -> None:
    async with worker() as it:
        limits = "import resource as r\nr.getrlimit(r.RLIMIT_CORE), r.getrlimit(r.RLIMIT_NOFILE)"
        assert (await it.cell(limits)).value == ((0, 0), (1024, 1024))


async def test_the_users_modules_can_be_imported_and_hide_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("x = 5")
    (tmp_path / "IPython.py").write_text("raise ImportError('not the real one')")
    (tmp_path / "json.py").write_text("raise ImportError('not the real one')")
    async with worker(path=(str(tmp_path),)) as it:
        assert (await it.cell("import beside\nbeside.x")).value == 5


def test_an_unknown_sandbox_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="process") as caught:
        prepare("bubble", LaunchOptions())
    assert "bubble" in caught.value.message
