"""The schema of the panel's contract, and whether a message keeps to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "labextension/src/panel/contract.json").read_text(encoding="utf-8")
)
OBJECTS = {**SCHEMA["rows"], **SCHEMA["messages"]}
MESSAGES = {"snapshot": "Snapshot", "delta": "Delta", "did": "Did", "more": "Code"}

PLAIN = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


def keeps(message: Any) -> None:
    """Assert that a message from the kernel is one that the schema knows, with all that is in it."""
    fits(message, MESSAGES[message["t"]])


def fits(value: Any, type: str, where: str = "") -> None:
    """Assert that a value is of one of the schema's types."""
    where = where or type
    if type.endswith("[]"):
        assert isinstance(value, list), where
        for each in value:
            fits(each, type[:-2], where)
    elif type.startswith("{"):
        assert isinstance(value, dict), where
        for each in value.values():
            fits(each, type[1:-1], where)
    elif type.startswith("'"):
        assert value == type[1:-1], where
    elif type in PLAIN:
        assert isinstance(value, PLAIN[type]), f"{where}: {value!r} is no {type}"  # type: ignore[arg-type]
        assert type == "boolean" or not isinstance(value, bool), where
    elif type == "Action":
        assert value in SCHEMA["actions"], where
    elif type in SCHEMA["words"]:
        assert value in SCHEMA["words"][type], f"{where}: {value!r} is no {type}"
    elif type in SCHEMA["tuples"]:
        wanted = SCHEMA["tuples"][type]
        assert len(value) == len(wanted), where
        for each, one in zip(value, wanted, strict=True):
            fits(each, one, where)
    elif type == "Output":
        kind = f"'{value['kind']}'"
        fits(value, next(name for name in SCHEMA["unions"][type] if OBJECTS[name]["kind"] == kind), where)
    elif type == "Parts":
        for name, row in value.items():
            fits(row, SCHEMA["parts"][name], name)
    elif type == "Rows":
        for table, rows in value.items():
            fits(rows, f"{{{SCHEMA['tables'][table]}}}", table)
    elif type == "Gone":
        assert value.keys() <= SCHEMA["tables"].keys(), where
        fits(value, "{string[]}", where)
    elif type != "unknown":
        _object(value, type, where)


def _object(value: Any, type: str, where: str) -> None:
    wanted = {name.removesuffix("?"): kind for name, kind in OBJECTS[type].items()}
    assert value.keys() <= wanted.keys(), f"{where}: {sorted(value.keys() - wanted.keys())} are not of {type}"
    if type in SCHEMA["messages"]:  # rows leave out what has its default
        assert {name for name in OBJECTS[type] if not name.endswith("?")} <= value.keys(), where
    for name, one in value.items():
        fits(one, wanted[name], f"{where}.{name}")
