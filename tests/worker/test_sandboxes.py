"""Which sandbox a worker takes: by its self-test, and never less than was promised."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError
from p2p_ipython.protocol.messages import NO_WALL
from p2p_ipython.sandbox.launch import MECHANISMS, LaunchOptions, Missing, mechanism
from p2p_ipython.worker import sandboxes
from p2p_ipython.worker.sandboxes import Verdict, choose, examine, examined

WALLED = [name for name in MECHANISMS if name != NO_WALL]


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep no verdict of these tests, and use none of anybody's."""
    folder = tmp_path / "data"
    monkeypatch.setenv("P2P_DATA", str(folder))
    return folder


async def chosen(asked: str, *, lends_to_others: bool) -> str:
    return await choose(asked, lends_to_others=lends_to_others, options=LaunchOptions(), settings=Settings())


async def test_the_test_finds_that_a_plain_process_protects_from_nothing() -> None:
    verdict = await examine(NO_WALL, LaunchOptions(), Settings())
    assert not verdict.holds
    assert set(verdict.holes) == {
        "a task can read files of the home folder",
        "a task can read the environment of other processes",
        "a task can erase files",
        "a task can write outside its scratch folder",
        "a task can reach this machine's network",
        "a task can reach sockets such as those of a key agent",
        "a task can end other processes",
    }
    assert not list(Path.home().glob(".p2p-test-*"))


@pytest.mark.parametrize("name", WALLED)
async def test_each_mechanism_holds_or_says_what_it_lacks(name: str) -> None:
    verdict = await examine(name, LaunchOptions(), Settings())
    if verdict.missing is not None:
        assert verdict.missing.why
        pytest.skip(f"{name}: {verdict.missing.why}")
    assert verdict.holes == ()
    assert verdict.holds
    assert verdict.seconds > 0


@pytest.mark.parametrize("name", MECHANISMS)
def test_each_mechanism_says_what_it_leaves_to_a_task(name: str) -> None:
    assert isinstance(Verdict(name).leaves, str)


async def test_friends_get_a_sandbox_and_oneself_a_process() -> None:
    if all(mechanism(name).available() is not None for name in WALLED):
        pytest.skip("no sandbox is installed")
    assert await chosen("", lends_to_others=True) in WALLED
    assert await chosen("", lends_to_others=False) == NO_WALL
    assert await chosen("process", lends_to_others=True) == NO_WALL


async def test_one_that_is_not_there_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"the sandbox bubblewrap can't be used: it isn't there") as caught:
        await chosen("bubblewrap", lends_to_others=True)
    assert "nstall" in caught.value.hint


async def test_one_that_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="there is no sandbox called 'chroot'") as caught:
        await chosen("chroot", lends_to_others=True)
    assert "bubblewrap" in caught.value.hint


async def test_without_any_a_worker_refuses_to_lend_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sandboxes, "MECHANISMS", ("bubblewrap", NO_WALL))
    with pytest.raises(ConfigError, match="no sandbox works on this system") as caught:
        await chosen("", lends_to_others=True)
    assert "--sandbox process" in caught.value.hint


async def test_one_that_fails_its_test_is_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(name: str, _options: LaunchOptions, _settings: Settings) -> Verdict:
        return Verdict(name, holes=("a task can erase files",), seconds=0.1)

    monkeypatch.setattr(sandboxes, "_tested", fails)
    monkeypatch.setattr(sandboxes, "MECHANISMS", ("bubblewrap", NO_WALL))
    if mechanism("bubblewrap").available() is not None:
        pytest.skip("bubblewrap is not installed")
    for asked in ("", "auto", "bubblewrap"):
        with pytest.raises(ConfigError, match="a task can erase files"):
            await chosen(asked, lends_to_others=True)


async def test_a_passed_test_is_remembered_until_something_has_changed(
    own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next((name for name in WALLED if mechanism(name).available() is None), None)
    if name is None:
        pytest.skip("no sandbox is installed")
    first = await examined(name, LaunchOptions(), Settings())
    assert first.holds

    async def again(name: str, _options: LaunchOptions, _settings: Settings) -> Verdict:
        return Verdict(name, holes=("it was tested again",))

    monkeypatch.setattr(sandboxes, "_tested", again)
    assert (await examined(name, LaunchOptions(), Settings())).holds
    file = own_data / "sandboxes.json"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(json.dumps(json.loads(file.read_text()) | {"here": "another boot"}))
    assert (await examined(name, LaunchOptions(), Settings())).holes == ("it was tested again",)
    file.write_text("nonsense")
    assert (await examined(name, LaunchOptions(), Settings())).holes == ("it was tested again",)


@pytest.mark.parametrize("ask", [examined, examine])
async def test_what_a_mechanism_lacks_is_asked_once_and_beside_the_event_loop(
    ask: Callable[[str, LaunchOptions, Settings], Awaitable[Verdict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, missing = [], sandboxes._missing

    def note(name: str, options: LaunchOptions) -> Missing | None:
        asked.append(threading.get_ident())
        return missing(name, options)

    async def holds(name: str, _options: LaunchOptions, _settings: Settings) -> Verdict:
        return Verdict(name, seconds=0.1)

    monkeypatch.setattr(sandboxes, "_missing", note)
    monkeypatch.setattr(sandboxes, "_tested", holds)
    for name in MECHANISMS:
        asked.clear()
        await ask(name, LaunchOptions(), Settings())
        assert len(asked) == 1
        assert threading.get_ident() not in asked


async def test_without_a_place_to_remember_the_test_runs_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2P_DATA", os.devnull)
    name = next((name for name in WALLED if mechanism(name).available() is None), None)
    if name is None:
        pytest.skip("no sandbox is installed")
    assert (await examined(name, LaunchOptions(), Settings())).holds
