"""Runs a lesson in kernels: plainly, and with each cell under ``%%p2p --wait`` before it runs plainly.

A cell that others depend on leaves its names on the worker. So each cell runs at home, too, after it ran away. It finds
the names, counts and files as they were before.

Of a lesson every other cell goes away in one kernel, the rest in another: what a cell has set on the worker, by chance,
is no help to the next one.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import queue
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.athome.lessons import Lesson
from tests.athome.seen import Seen, differences, seen_in
from tests.notebook.kernels import Notebook, notebook

PATIENCE = 40.0
"""Seconds that a cell may take."""

IN_KERNEL = Path(__file__).parent / "in_kernel"
SKIPPED = {"__pycache__", ".ipynb_checkpoints", ".pytest_cache"}


@dataclass
class Verdict:
    """What became of one cell."""

    id: str
    source: str
    found: dict[str, tuple[str, str]] = field(default_factory=dict)
    left_out: str = ""
    """Why it says nothing: two runs at home differ, or take too long."""
    changed: list[str] = field(default_factory=list)
    """Names that it changes in place."""
    notes: str = ""

    @property
    def same(self) -> bool:
        """Whether the worker did what home does."""
        return not self.found


@dataclass
class Run:
    """One run of a lesson: each cell as it was at home and, if it went away, as it was there."""

    home: dict[str, Seen] = field(default_factory=dict)
    away: dict[str, Seen] = field(default_factory=dict)


def compare(lesson: Lesson, scratch: Path) -> list[Verdict]:
    """Run a lesson as often as that takes, and judge each cell. ``scratch`` is an empty folder for what it writes."""
    plain = perform(lesson, scratch, away=set())
    tried = Run()
    for some in halves(lesson):
        half = perform(lesson, scratch, away=some)
        tried.away |= half.away
        tried.home |= {cell: seen for cell, seen in half.home.items() if cell in some}
    verdicts = []
    for piece in lesson.cells:
        home, away = plain.home.get(piece.id), tried.away.get(piece.id)
        # The same kernel's own run had the same state, random numbers included.
        beside = tried.home.get(piece.id)
        verdict = Verdict(piece.id, piece.source)
        verdicts.append(verdict)
        if home is None or not home.ended or (beside is not None and not beside.ended):
            verdict.left_out = "takes too long at home"
        elif away is None or beside is None:
            verdict.found = {"hangs": ("", "the kernel has died, or never came so far")}
        else:
            verdict.changed, verdict.notes = list(beside.changed), away.notes
            verdict.found = differences(beside, away)
            if not verdict.found and (again := differences(home, beside)):
                verdict.found = {f"at home afterwards: {aspect}": both for aspect, both in again.items()}
    if any(verdict.found for verdict in verdicts):
        again = perform(lesson, scratch, away=set())
        for verdict in verdicts:
            if verdict.found and differences(plain.home[verdict.id], again.home.get(verdict.id, Seen(ended=False))):
                verdict.left_out, verdict.found = "differs between two runs at home", {}
    return verdicts


def halves(lesson: Lesson) -> list[set[str]]:
    """Return the cells that go away in each kernel: examples together, since all that they build on runs at home."""
    cells = [piece.id for piece in lesson.cells]
    return [set(cells[::2]), set(cells[1::2])] if lesson.group == "lessons" else [set(cells)]


def perform(lesson: Lesson, scratch: Path, *, away: set[str]) -> Run:
    """Run a lesson in a kernel of its own, in a folder that is new and always has the same name."""
    run, folder = Run(), scratch / "notebook"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with notebook(environment(scratch), cwd=folder) as nb:
        if away:
            nb.run("%load_ext p2p_ipython")
            connected = nb.run("%p2p_connect --workers 1")
            assert connected.error is None, connected.error
        else:  # cells are counted, and shall have the same numbers
            nb.run("None")
            nb.run("None")
        kernel = Inside(nb)
        option = kernel.ask("start()")
        for piece in lesson.pieces:
            if not nb.manager.is_alive():
                break
            if piece.asked:
                kernel.ask(piece.asked)
            elif piece.quiet:
                kernel.ask(f"quietly({[piece.source]!r})")
            else:
                if piece.id in away:
                    with as_before(folder):
                        run.away[piece.id] = kernel.cell(f"%%p2p --wait{option}\n{piece.source}", folder, restore=True)
                        if not option:
                            run.away[piece.id].bound = None
                run.home[piece.id] = kernel.cell(piece.source, folder, restore=False)
    return run


class Inside:
    """A kernel, and what can be asked of it from inside."""

    def __init__(self, nb: Notebook) -> None:
        self._nb = nb
        self._number = 0

    def ask(self, what: str) -> str:
        """Return what a function of ``in_kernel`` answers; "" if it takes too long."""
        nb = self._nb
        expression = f"__import__('athome_inside').{what}"
        content = {"code": "", "silent": True, "store_history": False, "user_expressions": {"it": expression}}
        message = nb.client.session.msg("execute_request", {**content, "allow_stdin": False, "stop_on_error": False})
        nb.client.shell_channel.send(message)
        interrupted = False
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                reply = nb.client.get_shell_msg(timeout=1)
            except queue.Empty:
                if not nb.manager.is_alive():
                    return ""
                if time.monotonic() > deadline:
                    assert not interrupted, f"the kernel doesn't answer {what[:200]}"
                    nb.manager.interrupt_kernel()
                    interrupted, deadline = True, time.monotonic() + PATIENCE
                continue
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                answer = reply["content"].get("user_expressions", {}).get("it", {})
                if answer.get("status") != "ok":
                    assert interrupted or what.startswith(("quietly", "fresh")), answer
                    return ""
                return str(ast.literal_eval(answer["data"]["text/plain"]))

    def _payload(self, cell: str) -> list[dict[str, Any]]:
        """Return what the kernel's answer to a cell has for the front end besides its messages."""
        while True:
            try:
                reply = self._nb.client.get_shell_msg(timeout=5)
            except queue.Empty:
                return []
            if reply["parent_header"].get("msg_id") == cell:
                return list(reply["content"].get("payload", []))

    def cell(self, source: str, folder: Path, *, restore: bool) -> Seen:
        """Run a cell; return what is seen of it."""
        nb = self._nb
        self.ask("begin()")
        before = files(folder)
        self._number += 1
        cell = nb.start(source, cell_id=f"cell-{self._number}")
        deadline = time.monotonic() + PATIENCE
        nb.until(lambda: cell.idle or time.monotonic() > deadline or not nb.manager.is_alive())
        if not cell.idle and nb.manager.is_alive():
            nb.manager.interrupt_kernel()
            deadline = time.monotonic() + PATIENCE
            nb.until(lambda: cell.idle or time.monotonic() > deadline or not nb.manager.is_alive())
            ended = False
        else:
            ended = cell.idle
        pages = [part["data"]["text/plain"] for part in self._payload(cell.id) if part.get("source") == "page"]
        seen = seen_in(cell.messages, "".join(f"{page}\n" for page in pages))
        seen.ended = ended
        state = json.loads(self.ask(f"end({restore})") or "{}")
        after = files(folder)
        seen.files = {name: after.get(name, "gone") for name in sorted(before.keys() | after.keys())}
        seen.files = {name: print_ for name, print_ in seen.files.items() if before.get(name) != print_}
        seen.value, seen.bound = normalised(state.get("value")), normalised(state.get("bound"))
        seen.gone, seen.changed = state.get("gone", []), normalised(state.get("changed", {}))
        return seen


def normalised(prints: Any) -> Any:
    """Return fingerprints without what differs from run to run."""
    from tests.athome.seen import normal

    return json.loads(normal(json.dumps(prints, ensure_ascii=False)))


def files(folder: Path) -> dict[str, str]:
    """Return the hash of each file below a folder, and the links and folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if SKIPPED.isdisjoint(path.relative_to(folder).parts):
            regular = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if regular else "other"
    return found


@contextmanager
def as_before(folder: Path) -> Iterator[None]:
    """Have a folder's files as they were, at the end."""
    with tempfile.TemporaryDirectory() as kept:
        shutil.copytree(folder, f"{kept}/files", symlinks=True)
        yield
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(f"{kept}/files", folder, symlinks=True, dirs_exist_ok=True)


def environment(scratch: Path) -> Mapping[str, str]:
    """Return what kernels and workers live in: nothing of the user's, no network, sets in the same order each time."""
    home, profile = scratch / "home", scratch / "ipython" / "profile_default"
    for each in (home, profile):
        each.mkdir(parents=True, exist_ok=True)
    # The suite gives two cells the same number, which the file of the history wouldn't take.
    (profile / "ipython_config.py").write_text("c.HistoryManager.enabled = False\n", encoding="utf-8")
    nowhere = "http://127.0.0.1:9"
    own = {
        "HOME": str(home),
        "P2P_DATA": str(scratch / "data"),
        "IPYTHONDIR": str(scratch / "ipython"),
        "JUPYTER_CONFIG_DIR": str(scratch / "jupyter"),
        "MPLCONFIGDIR": str(scratch.parent / "matplotlib"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": str(IN_KERNEL),
        "PYTHONHASHSEED": "0",
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "no_proxy": "127.0.0.1,localhost",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    return {**{name: value for name, value in os.environ.items() if not name.startswith("P2P_")}, **own}
