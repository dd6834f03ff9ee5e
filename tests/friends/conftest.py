"""A board, and people around it, for the tests of friends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from friends_support import Village, village


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    """A board that stays while a module's people come and go."""
    with village(tmp_path_factory.mktemp("board")) as made:
        yield made


@pytest.fixture
def here(board: Village, tmp_path: Path) -> Iterator[Village]:
    """People of their own for each test, at one board."""
    with village(tmp_path, board=False) as made:
        made.board = board.board
        yield made


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Village]:
    """People at a board of their own, for a test whose own process acts as one of them: it has no home here."""
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("P2P_DATA", str(tmp_path / "nobody" / "data"))
    with village(tmp_path) as made:
        yield made
