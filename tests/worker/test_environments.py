"""Environments of packages: made by the real uv, of wheels that the tests make; bounded, shared, and removed again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from packages_support import Index, needs_registry, needs_uv, silent_index

from p2p_ipython.worker.environments import Environments
from p2p_ipython.worker.installer import Bounds, Installer, NoPackages, Pin


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    made = Index(tmp_path / "index")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


class Counted(Installer):
    """Counts how often it has unpacked something."""

    count = 0

    async def unpack(self, pins: Sequence[Pin], folder: Path) -> Path:
        self.count += 1
        return await super().unpack(pins, folder)


def environments(
    place: Path, *, walled: bool = False, bounds: Bounds | None = None, most: int = 1 << 30
) -> Environments:
    installer = Counted(needs_uv(), walled=walled, bounds=bounds or Bounds())
    return Environments(installer, is_own=lambda member: member == "me", place=place / "environments", most=most)


async def refused(made: Environments, *packages: str) -> str:
    with pytest.raises(NoPackages) as error:
        (await made.get("carol", packages)).close()
    return error.value.message


def kept(place: Path) -> list[Path]:
    return list(place.glob("environments/*/*"))


def children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children(recursive=True) if "uv" in each.name() or "bwrap" in each.name()]


@pytest.mark.parametrize("walled", [False, True])
async def test_packages_are_installed_once_with_those_that_they_need(
    index: Index, tmp_path: Path, walled: bool
) -> None:
    if walled:
        from slot_support import needs

        needs("bubblewrap")
    index.wheel("tiny", needs=["other>=2"])
    index.wheel("other", "1.0")
    index.wheel("other", "2.1")
    made, said = environments(tmp_path, walled=walled), list[str]()
    first = await made.get("carol", ["tiny"], said.append)
    assert said[0] == "finding tiny"
    assert (first.folder / "tiny.py").read_text() == "version = '1.0'\n"
    assert (first.folder / "other.py").read_text() == "version = '2.1'\n"
    assert {each.stat().st_uid for each in first.folder.rglob("*")} == {os.getuid()}
    for wheel in index.folder.iterdir():
        wheel.unlink()
    again = await made.get("carol", ["tiny"], said.append)
    assert again.folder == first.folder
    assert not list(first.folder.parent.glob("*.new"))
    first.close()
    again.close()


async def test_each_member_has_environments_of_their_own_and_own_clusters_share_theirs(
    index: Index, tmp_path: Path
) -> None:
    index.wheel("tiny")
    made = environments(tmp_path)
    folders = []
    for member in ("carol", "dave", "me"):
        one = await made.get(member, ["tiny"])
        folders.append(one.folder)
        one.close()
    assert len({each.parent for each in folders}) == 3
    assert tmp_path.joinpath("environments").stat().st_mode & 0o777 == 0o700


async def test_two_tasks_that_ask_at_once_share_one_installation(index: Index, tmp_path: Path) -> None:
    index.wheel("tiny")
    made, other = environments(tmp_path), environments(tmp_path)  # as of two workers
    found = await asyncio.gather(*(each.get("carol", ["tiny"]) for each in (made, made, other)))
    assert len({each.folder for each in found}) == 1
    assert made._installer.count + other._installer.count == 1  # type: ignore[attr-defined]
    for each in found:
        each.close()


@pytest.mark.parametrize(
    "text",
    [
        "tiny @ file:///etc/passwd",
        "https://example.org/tiny-1.0-py3-none-any.whl",
        "-e .",
        "--index-url=http://127.0.0.1/",
        "-r/etc/passwd",
        "tiny\n--extra-index-url http://127.0.0.1/",
        "../../tiny",
        "./tiny-1.0-py3-none-any.whl",
        "tiny; python_version>'3'",
        "tiny --config-settings=x=y",
        "",
    ],
)
async def test_what_is_more_than_a_name_and_versions_reaches_no_program(
    index: Index, tmp_path: Path, text: str
) -> None:
    index.wheel("tiny")
    made = environments(tmp_path)
    assert await refused(made, text)
    assert made._installer.count == 0  # type: ignore[attr-defined]
    assert not kept(tmp_path)


async def test_what_has_no_wheel_is_refused_in_words_and_nothing_of_it_runs(index: Index, tmp_path: Path) -> None:
    index.sdist("source", f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom setuptools import setup\nsetup(name='source')")
    made = environments(tmp_path)
    words = await refused(made, "source")
    assert "Only wheels are installed, and none of theirs fits this machine." in words
    assert str(tmp_path) not in words
    assert not (tmp_path / "ran").exists()
    assert "absent" in await refused(made, "absent")
    # What can't be had leaves nothing: else each name would leave a file.
    assert not kept(tmp_path)


async def test_packages_bytes_and_seconds_are_bounded(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.wheel("tiny", needs=["other"])
    index.wheel("other")
    index.wheel("bomb", files={"bomb.bin": bytes(64 << 20)})  # 64 KiB that become 64 MiB
    made = environments(tmp_path, bounds=Bounds(packages=1, size=16 << 20))
    assert "they need 2 packages, and an environment here has at most 1" in await refused(made, "tiny")
    assert "they take more than the 16 MiB" in await refused(made, "bomb")
    index.wheel("bombs", files={f"bomb{number}.bin": bytes(4 << 20) for number in range(16)})
    assert "they take more than the 16 MiB" in await refused(made, "bombs")
    with silent_index() as address:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("UV_DEFAULT_INDEX", address)
        hurried = environments(tmp_path, bounds=Bounds(seconds=1))
        assert await refused(hurried, "other") == "they were not installed within 1 s"
    assert not children()
    assert not kept(tmp_path)


async def test_a_task_that_is_cancelled_ends_the_installation(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    with silent_index() as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", address)
        made = environments(tmp_path)
        begun = asyncio.Event()
        getting = asyncio.create_task(made.get("carol", ["other"], lambda _words: begun.set()))
        await begun.wait()
        async with asyncio.timeout(30):
            while not children():  # noqa: ASYNC110 - another process's start has no event
                await asyncio.sleep(0.01)
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting
    assert not children()
    assert not kept(tmp_path)


async def test_the_environment_that_was_not_used_for_longest_makes_room_and_none_in_use_does(
    index: Index, tmp_path: Path
) -> None:
    for name in ("one", "two", "three", "four"):
        index.wheel(name, files={f"{name}.bin": os.urandom(1 << 20)})
    made = environments(tmp_path, most=(5 << 20) // 2)  # room for two
    one = await made.get("carol", ["one"])  # stays in use
    two = await made.get("dave", ["two"])
    two.close()
    three = await made.get("carol", ["three"])
    assert [each.folder.exists() for each in (one, two, three)] == [True, False, True]
    assert await refused(made, "four") == "other environments that are in use take all the room there is for them"
    assert [each.folder.exists() for each in (one, two, three)] == [True, False, True]
    one.close()
    four = await made.get("dave", ["four"])
    assert [each.folder.exists() for each in (one, four, three)] == [False, True, True]
    four.close()
    three.close()
    assert len([each for each in kept(tmp_path) if each.suffix == ".lock"]) == 2


async def test_an_installation_that_its_worker_did_not_end_is_made_anew(index: Index, tmp_path: Path) -> None:
    index.wheel("tiny")
    made = environments(tmp_path)
    first = await made.get("carol", ["tiny"])
    first.close()
    left = first.folder.rename(first.folder.with_suffix(".new"))  # as by a worker that was killed
    again = await made.get("carol", ["tiny"])
    assert (again.folder / "tiny.py").exists()
    assert not left.exists()
    again.close()


@pytest.mark.parametrize("walled", [False, True])
async def test_the_lenders_secrets_are_not_with_what_installs(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walled: bool
) -> None:
    """A program in uv's place says what it has."""
    if walled:
        from slot_support import needs

        needs("bubblewrap")
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    monkeypatch.setenv("UV_INDEX_PRIVATE_PASSWORD", "hush")
    secret = Path.home() / ".p2p-test-secret"
    program = tmp_path / "index" / "uv"  # the index's folder is shown
    program.write_text(f"#!/bin/sh\nenv >&2\ncat {secret} >&2\ncat\nexit 1\n")
    program.chmod(0o755)
    made, new = Installer(str(program), walled=walled), tmp_path / "new"
    new.mkdir()
    secret.write_text("hush")
    try:
        with pytest.raises(NoPackages):
            await made.find(["tiny"], new)
    finally:
        secret.unlink()
    said = (new / "wrong").read_text()
    assert f"HOME={new / 'home'}" in said
    assert "UV_FIND_LINKS=" in said
    assert "SSH_AUTH_SOCK" not in said
    assert ("hush" in said) is not walled  # without a wall, files are in its reach; no variable has it
    assert said.count("hush") <= 1
    assert (new / "said").read_text() == "tiny\n"


async def test_the_real_registry_gives_a_real_package(tmp_path: Path) -> None:
    needs_registry()
    made = environments(tmp_path)
    found = await made.get("carol", ["six==1.16.0"])
    assert '__version__ = "1.16.0"' in (found.folder / "six.py").read_text()
    found.close()
