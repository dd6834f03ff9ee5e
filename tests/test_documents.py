"""What the documents say is so: settings, commands, files and names in them exist."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import p2p_ipython
from p2p_ipython import cli
from p2p_ipython.config import MIB, Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "PROTOCOL.md", "JOURNEYS.md", "DECISIONS.md"]
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))

UNDONE = "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"])


def text_files() -> list[Path]:
    """Files of the project that people write."""
    folders = ["p2p_ipython", "tests", "notebooks", "binder", ".ci", "labextension/src", "labextension/tests"]
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    found += [path for path in ROOT.iterdir() if path.suffix in {".md", ".toml"} or path.name == "Makefile"]
    return [path for path in found if "__pycache__" not in path.parts and path.suffix not in {".pyc", ".png"}]


def settings_table() -> str:
    """README's table, from the settings."""
    lines = ["| Setting | Default | |", "|---|---|---|"]
    for setting in dataclasses.fields(Settings):
        value, unit = setting.default, setting.metadata["unit"]
        assert isinstance(value, int | float)
        if unit == "bytes" and value and value % MIB == 0:
            value, unit = value // MIB, "MiB"
        lines.append(f"| `{setting.name}` | {value:g} {unit} | {setting.metadata['help']} |".replace("  |", " |"))
    return "\n".join(lines)


def test_readme_has_the_settings_as_they_are() -> None:
    in_readme = re.search(r"<!-- settings:.*?-->\n(.*?)<!-- end of settings -->", README, re.S)
    assert in_readme is not None
    assert in_readme[1].strip() == settings_table(), f"README.md's table should be:\n\n{settings_table()}"


def test_each_setting_says_what_it_is() -> None:
    for setting in dataclasses.fields(Settings):
        assert setting.metadata["help"].endswith("."), setting.name
        assert setting.metadata["unit"] in {"", "s", "bytes", "tasks"}, setting.name


def test_commands_in_documents_are_ones_that_the_program_takes() -> None:
    """Every ``p2p …`` in backquotes or after a prompt; those with more than a command are whole command lines."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS if (ROOT / name).exists()]
    lines = [line for text in texts for line in re.findall(r"(?:`|^\$ )(p2p [^`\n]+)(?:`|$)", text, re.M)]
    assert len(lines) >= 4
    parser = cli.parser()
    known = set(re.findall(r"^    ([a-z]+)  ", parser.format_help(), re.M))
    assert {"board", "worker"} <= known
    for line in lines:
        words = line.replace("HOST:2222", "host:2222").replace("…", "AAAA").split()[1:]
        if len(words) > 1:
            assert parser.parse_args(words).command in line
        else:
            assert words[0] in known


def test_make_targets_in_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in DOCUMENTS:
        if (ROOT / name).exists():
            text = (ROOT / name).read_text(encoding="utf-8")
            for target in re.findall(r"(?:`|^\$ )make ([a-z]+)", text, re.M):
                assert re.search(rf"^{target}:", makefile, re.M), f"{name} mentions make {target}"


def test_magics_in_readme_exist() -> None:
    from p2p_ipython.notebook.friends import FriendsMagics
    from p2p_ipython.notebook.futures import FuturesMagics
    from p2p_ipython.notebook.lending import LendingMagics
    from p2p_ipython.notebook.magics import P2PMagics

    every = (P2PMagics, FriendsMagics, LendingMagics, FuturesMagics)
    known = {name for one in every for kind in ("line", "cell") for name in one.magics[kind]}
    assert set(re.findall(r"%%?(p2p\w*)", README)) <= known


def test_links_between_documents_lead_somewhere() -> None:
    for name in DOCUMENTS:
        path = ROOT / name
        if path.exists():
            for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
                assert (path.parent / target).exists(), f"{name} links to {target}"


HOP = re.compile(r"`([\w/.]+\.(?:py|ts|tsx)):([\w.]+)`")


def hops() -> list[tuple[str, str]]:
    """Each ``file:function`` of the journeys."""
    return HOP.findall((ROOT / "JOURNEYS.md").read_text(encoding="utf-8"))


def has(file: str, name: str) -> bool:
    """Whether a file defines a function, a class, or a method of a class."""
    path = ROOT / file if (ROOT / file).exists() else ROOT / "p2p_ipython" / file
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return re.search(rf"^\s*(?:export )?(?:function )?{re.escape(name)}\(", text, re.M) is not None
    body = ast.parse(text).body
    for part in name.split("."):
        found = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == part
        ]
        if not found:
            return False
        body = found[-1].body
    return True


def test_each_hop_of_the_journeys_exists() -> None:
    assert len(hops()) > 40
    assert [hop for hop in hops() if not has(*hop)] == []
    assert not has("client/bridge.py", "Bridge.no_such_method")
    assert not has("labextension/src/panel/store.ts", "noSuchFunction")


def test_the_three_questions_are_answered_three_steps_from_the_readme() -> None:
    """README → the journeys → the place, which is a hop of one of them."""
    assert "](JOURNEYS.md)" in README
    questions, *journeys = (ROOT / "JOURNEYS.md").read_text(encoding="utf-8").split("\n## ")[1:]
    asked = re.findall(r"\| this page → \*(.+?)\*, hop (\d+) → `(.+?)` \|", questions)
    assert len(asked) == 3
    for title, number, place in asked:
        journey = next(text for text in journeys if text.startswith(f"{title}\n"))
        (row,) = re.findall(rf"^\| {number} \|.*$", journey, re.M)
        assert f"`{place}`" in row


def test_python_in_readme_runs(tmp_path: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        done = subprocess.run(
            [sys.executable, "-c", block], capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "1024\n[1, 2, 3]\n"


def test_the_changelog_has_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(p2p_ipython.__version__)}\b", changelog, re.M)


def test_public_names_exist_and_say_what_they_are() -> None:
    for name in p2p_ipython.__all__:
        value = getattr(p2p_ipython, name)
        assert name.startswith("__") or (value.__doc__ or "").strip(), name
    assert set(p2p_ipython.__all__) <= set(dir(p2p_ipython))


def test_each_module_says_what_it_is_for() -> None:
    for path in (ROOT / "p2p_ipython").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        # Read, not imported: a module of the board's would put a reactor of its own in this process.
        assert not source.strip() or (ast.get_docstring(ast.parse(source)) or "").strip(), path


def test_nothing_is_left_for_later() -> None:
    for path in text_files():
        found = re.search(rf"\b({UNDONE})\b", path.read_text(encoding="utf-8"))
        assert found is None, f"{path}: {found and found[0]}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_kept_without_outputs(name: str) -> None:
    for cell in json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_scripts_that_are_run_directly_are_executable() -> None:
    for script in (".ci/run", "binder/postBuild"):
        assert os.access(ROOT / script, os.X_OK), script


def test_the_readme_opens_with_a_picture_of_the_panel_as_the_tests_take_it() -> None:
    start = README.split("\n## ")[0]
    picture = re.search(r"!\[[^\]]{20,}\]\(([^)]+)\)", start)
    assert picture is not None
    assert picture[1] == "notebooks/panel.png"
    data = (ROOT / picture[1]).read_bytes()
    size = [int.from_bytes(data[at : at + 4]) for at in (16, 20)]
    assert (data[:8], size) == (b"\x89PNG\r\n\x1a\n", [1280, 800])


def test_each_file_of_tests_has_a_name_of_its_own() -> None:
    """pytest imports them by their names alone: of two that are called alike it runs one."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, times in names.items() if times > 1] == []
