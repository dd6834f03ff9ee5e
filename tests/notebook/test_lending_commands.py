"""What is done about workers that lend when one of them has ended: at real processes that answer as those do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2p_ipython.client import lending
from p2p_ipython.client.lending import Lender
from p2p_ipython.client.lending_state import LendingState
from p2p_ipython.client.local import Child
from p2p_ipython.errors import UsageError
from p2p_ipython.loop import background
from p2p_ipython.notebook.lending import LendingMagics

ANSWERS = """
import json, sys
def say(**words): print(json.dumps(words), flush=True)
say(name="desk", until=0)
for line in sys.stdin:
    say(state={"pause": "paused", "resume": "lending", "stop": "ending"}[json.loads(line)["do"]])
"""


@pytest.fixture
def lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lender]:
    """Of two workers the first ends at the first word that it is told, the second does as it is told."""
    (tmp_path / "p2p_answers.py").write_text(ANSWERS)
    (tmp_path / "p2p_ends.py").write_text("input()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    lender = Lender()
    monkeypatch.setattr(lending, "lender", lambda: lender)

    async def begin() -> None:
        for id, module in (("one", "p2p_ends"), ("two", "p2p_answers")):
            child = Child(
                module,
                asyncio.get_running_loop(),
                on_end=lambda _child, id=id: lender._ended(id),  # type: ignore[misc]
                on_word=lambda said, id=id: lender._said(id, said),  # type: ignore[misc]
            )
            state = LendingState(id, f"alice/{id}", "desk", "lending")
            lender._lendings[id] = lending._Lending(state, child)
        lender._changed(None)

    background().run(begin())
    yield lender
    lender.close()


def test_a_worker_that_ends_while_it_is_told_to_pause_is_not_said_to_be_paused(lent: Lender) -> None:
    with pytest.raises(UsageError, match="lending to alice/one has ended"):
        lent.pause("one")
    assert lent.pause("two").state == "paused"
    assert lent.resume("two").state == "lending"


def test_one_that_has_failed_does_not_keep_the_others_from_being_paused(
    lent: Lender, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> None:
        first = lent._lendings["one"]
        lent._set(first, state="failed", words="no board")

    background().run(fail())
    LendingMagics(None, None).p2p_lend("--pause")  # type: ignore[arg-type]
    assert "desk is paused" in capsys.readouterr().out
    assert [state.state for state in lent.states()] == ["failed", "paused"]
