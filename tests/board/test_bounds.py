"""THREATS.md has the table of bounds as the code has it, and each of its lines names a test that exists."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from p2p_ipython.board.server.bounds import Bounds, table
from p2p_ipython.board.server.options import ServerOptions

ROOT = Path(__file__).parents[2]


def test_the_table_in_threats_is_that_of_the_code():
    wanted = "\n".join(table())
    assert wanted in (ROOT / "THREATS.md").read_text(encoding="utf-8"), f"THREATS.md should have:\n{wanted}"


def test_each_bound_names_a_test_that_exists():
    for each in fields(Bounds):
        file, name = each.metadata["row"][-1].split("::")
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.M), f"{file}::{name}"


def test_a_board_has_no_number_for_strangers_beside_the_table():
    """What the server's modules read of their bounds is in the table: they have no other way to them."""
    names = {each.name for each in fields(Bounds)}
    assert names <= {each.name for each in fields(ServerOptions)}
    text = "".join(path.read_text() for path in (ROOT / "p2p_ipython/board/server").glob("*.py"))
    for name in names:
        assert re.search(rf"(bounds|options|Bounds)\.{name}\b", text), f"nothing looks at {name}"
