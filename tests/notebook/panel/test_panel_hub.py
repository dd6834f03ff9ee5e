"""The hub: snapshot and deltas say together what a later snapshot says, and nothing twice."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from p2p_ipython.notebook.panel.hub import PARTS, TABLES, Hub, difference

DEFAULTS = (0, 0.0, "", False, [], {})

# A field has one type, as in the contract.
rows = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(1, 3),
        "seconds": st.sampled_from([0.5, 1.5]),
        "words": st.sampled_from(["a", "b"]),
        "me": st.just(True),
        "roles": st.lists(st.sampled_from("xy"), min_size=1, max_size=2),
    },
)
ids = st.sampled_from(["1", "2", "3", "4"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(TABLES), ids, rows),
        st.tuples(st.just("drop"), st.sampled_from(TABLES), ids),
        st.tuples(st.just("set"), st.sampled_from(PARTS), rows),
        st.tuples(st.just("fill"), st.sampled_from(TABLES), st.dictionaries(ids, rows)),
        st.tuples(st.just("delta")),
        st.tuples(st.just("join")),
    ),
    max_size=40,
)


class Reader:
    """A panel, as the contract has it."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        said = json.loads(json.dumps(snapshot))
        self.rev = said["rev"]
        self.parts = {name: dict(said.get("set", {}).get(name, {})) for name in PARTS}
        self.tables = {name: dict(said.get("put", {}).get(name, {})) for name in TABLES}

    def read(self, delta: dict[str, Any]) -> None:
        said = json.loads(json.dumps(delta))
        assert said["base"] == self.rev
        self.rev = said["rev"]
        for name, gone in said.get("del", {}).items():
            for id in gone:
                del self.tables[name][id]
        for name, changes in said.get("put", {}).items():
            for id, fields in changes.items():
                self.tables[name][id] = {**self.tables[name].get(id, {}), **fields}
        for name, fields in said.get("set", {}).items():
            self.parts[name] |= fields

    def state(self) -> object:
        """Without what has its default."""

        def rest(fields: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in fields.items() if value not in DEFAULTS}

        tables = {name: {id: rest(row) for id, row in table.items()} for name, table in self.tables.items()}
        return {name: rest(part) for name, part in self.parts.items()}, tables


@given(steps)
def test_a_snapshot_and_the_deltas_after_it_say_what_a_later_snapshot_says(steps: list[Any]) -> None:
    hub = Hub()
    readers = [Reader(hub.snapshot(0.0))]
    for kind, *rest in [*steps, ("delta",)]:
        match kind:
            case "put":
                hub.put(*rest)
            case "drop":
                hub.drop(*rest)
            case "set":
                hub.set(*rest)
            case "fill":
                hub.fill(rest[0], rest[1].items())
            case "join":  # in the midst of changes that have not been told
                readers.append(Reader(hub.snapshot(0.0)))
                assert readers[-1].rev == hub.rev
            case "delta":
                delta = hub.delta(1.0)
                if delta is not None:
                    assert delta.keys() & {"put", "del", "set"}
                    for reader in readers:
                        reader.read(delta)
    last = Reader(hub.snapshot(2.0))
    assert all(reader.state() == last.state() for reader in readers)
    assert all(reader.rev == hub.rev for reader in readers)
    assert hub.picture(2.0) == hub.snapshot(2.0)
    assert hub.delta(3.0) is None


@given(rows, rows)
def test_a_difference_holds_what_differs_and_what_went_back_to_its_default(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    before = copy.deepcopy((old, new))
    changed = difference(old, new)
    merged = {**old, **changed}
    assert {name: value for name, value in merged.items() if value not in DEFAULTS} == new
    assert all(name not in old or old[name] != value for name, value in changed.items())
    assert (old, new) == before


def test_a_change_that_is_taken_back_is_not_told() -> None:
    hub = Hub()
    hub.put("tasks", "1", {"label": "a"})
    hub.delta(0.0)
    hub.put("tasks", "1", {"label": "b"})
    hub.put("tasks", "1", {"label": "a"})
    hub.put("tasks", "2", {"label": "c"})
    hub.drop("tasks", "2")
    assert hub.delta(1.0) is None
    assert hub.rev == 1


def test_a_delta_has_only_the_fields_that_changed() -> None:
    hub = Hub()
    hub.put("tasks", "1", {"label": "a", "state": "sent", "words": "on w"})
    hub.put("tasks", "2", {"label": "b"})
    hub.delta(0.0)
    hub.put("tasks", "1", {"label": "a", "state": "done"})
    assert hub.delta(1.0) == {
        "t": "delta",
        "rev": 2,
        "base": 1,
        "now": 1.0,
        "put": {"tasks": {"1": {"state": "done", "words": ""}}},
    }


def test_a_picture_has_what_was_not_told_yet_and_a_snapshot_has_not() -> None:
    hub = Hub()
    hub.put("tasks", "1", {"label": "a"})
    assert hub.picture(0.0)["put"] == {"tasks": {"1": {"label": "a"}}}
    assert "put" not in hub.snapshot(0.0)


def test_a_row_without_fields_is_a_row() -> None:
    hub = Hub()
    hub.put("offers", "1", {})
    delta = hub.delta(0.0)
    assert delta is not None
    assert delta["put"] == {"offers": {"1": {}}}
