"""The kernel's half of the contract declares what contract.json says; the browser's half: labextension/tests/panel."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, is_typeddict

import pytest

from p2p_ipython.board.base import BoardReport, BoardState
from p2p_ipython.client.lending_state import LIVE
from p2p_ipython.client.status import standing
from p2p_ipython.notebook.panel import comm, contract, hub, static, watch
from p2p_ipython.notebook.panel.asked import ARGUMENTS, COUNT, FLAG, NUMBER, TEXT, TEXTS
from p2p_ipython.notebook.panel.shown import IMAGES
from p2p_ipython.protocol.client_machine import TaskState
from tests.notebook.panel.contract_support import OBJECTS, SCHEMA

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", Any: "unknown"}
KINDS = {TEXT: "string", TEXTS: "string[]", COUNT: "integer", NUMBER: "number", FLAG: "boolean"}
DECLARED = {name: value for name, value in vars(contract).items() if not name.startswith("_")}
WORDS = {name: value for name, value in DECLARED.items() if get_origin(value) is Annotated}
ROWS = SCHEMA["rows"].keys()


def written(hint: Any) -> str:
    """A type as the schema writes it."""
    if hint in PLAIN:
        return PLAIN[hint]
    named = [name for name, value in DECLARED.items() if value == hint]
    if named:
        return named[0]
    match get_origin(hint), get_args(hint):
        case origin, (inner,) if origin is list:
            return f"{written(inner)}[]"
        case origin, (_, inner) if origin is dict:
            return f"{{{written(inner)}}}"
        case origin, (word,) if origin is Literal:
            return f"'{word}'"
        case origin, (inner,) if origin in (typing.Required, typing.NotRequired):
            return written(inner)
    raise AssertionError(f"the schema has no way to write {hint}")


@pytest.mark.parametrize("name", OBJECTS)
def test_a_type_has_the_schemas_fields_and_no_others(name: str) -> None:
    declared = DECLARED[name]
    hints = typing.get_type_hints(declared, include_extras=True)
    optional = () if name in ROWS else declared.__optional_keys__
    assert {f"{field}?" if field in optional else field: written(hint) for field, hint in hints.items()} == OBJECTS[
        name
    ]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_may_leave_out_all_but_what_is_in_words(name: str) -> None:
    in_words = {field for field, type in SCHEMA["rows"][name].items() if type in SCHEMA["words"]}
    assert DECLARED[name].__required_keys__ == in_words


def test_words_and_unions_are_the_schemas() -> None:
    assert {name: list(get_args(hint)[1:]) for name, hint in WORDS.items() if name != "Action"} == SCHEMA["words"]
    unions = {name: value for name, value in DECLARED.items() if isinstance(value, types.UnionType)}
    assert {name: [one.__name__ for one in get_args(hint)] for name, hint in unions.items()} == SCHEMA["unions"]
    assert [PLAIN[one] for one in get_args(contract.Attempt)] == SCHEMA["tuples"]["Attempt"]


def test_the_words_are_those_of_the_records_that_rows_are_made_from() -> None:
    words = SCHEMA["words"]
    assert words["TaskState"] == [state.value for state in TaskState]
    assert words["LendingState"] == [*LIVE, "failed"]
    states = {standing(BoardReport(state, ""), trouble, "")[0] for state in BoardState for trouble in ("", "alone")}
    assert {*states, watch.NO_CLUSTER["state"]} == set(words["ClusterState"])
    assert words["ImageType"] == list(IMAGES)
    assert {watch.WAITING, *watch.OVER, *static._SHAPES} == set(words["TaskState"])


def test_tables_and_parts_are_the_schemas() -> None:
    def members(declared: Any) -> Mapping[str, str]:
        return {name: written(hint) for name, hint in typing.get_type_hints(declared, include_extras=True).items()}

    assert members(contract.Parts) == SCHEMA["parts"]
    assert members(contract.Rows) == {name: f"{{{row}}}" for name, row in SCHEMA["tables"].items()}
    assert (list(hub.PARTS), list(hub.TABLES)) == (list(SCHEMA["parts"]), list(SCHEMA["tables"]))


def test_actions_want_the_schemas_arguments() -> None:
    wanted = {action: {name: KINDS[kind] for name, kind in args.items()} for action, args in ARGUMENTS.items()}
    assert wanted == SCHEMA["actions"]


def test_nothing_is_declared_that_the_schema_does_not_know() -> None:
    objects = {name for name, value in DECLARED.items() if is_typeddict(value)}
    assert objects == {*OBJECTS, "Parts", "Rows"}


def test_version_and_targets_are_the_schemas() -> None:
    assert SCHEMA["version"] == contract.VERSION
    assert SCHEMA["targets"] == {"HERE": comm.HERE, "PANEL": comm.PANEL}
