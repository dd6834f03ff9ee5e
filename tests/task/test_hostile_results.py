"""Results that a worker has made to harm: nothing in them runs, they take little memory, an error says what they are.

Those that are after memory are decoded in a process of its own, which may take ``ROOM`` bytes more than it has.
"""

from __future__ import annotations

import base64
import functools
import io
import itertools
import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from frame_support import read_result

from p2p_ipython.errors import NotTrusted, RemoteError, RemoteProtocolError, TaskError
from p2p_ipython.task.outcome import decode
from p2p_ipython.task.payload import pack_result

MIB = 1 << 20
ROOM = 1200 * MIB


def result(first: bytes | str, *others: bytes, codec: str = "safe", **header: Any) -> tuple[dict[str, Any], bytes, Any]:
    """A result of these segments; all but the first are large ones."""
    text = first.encode() if isinstance(first, str) else first
    large = {f"r{number}": memoryview(bytearray(other)) for number, other in enumerate(others)}
    segments = [[len(text), None], *([view.nbytes, ref] for ref, view in large.items())]
    return {"ok": True, "codec": codec, "segments": segments} | header, text, large


def read(parts: tuple[dict[str, Any], bytes, Any]) -> Any:
    header, inline, large = parts
    return decode(read_result(header), inline, large, worker="mallory", trusted=False)


def refused(parts: tuple[dict[str, Any], bytes, Any]) -> str:
    """What the error says; it names the worker, and stays short."""
    with pytest.raises(RemoteProtocolError) as caught:
        read(parts)
    assert caught.value.peer == "mallory"
    assert "mallory" in caught.value.message
    assert caught.value.hint
    assert len(str(caught.value)) < 1000
    return str(caught.value)


# --- pickles ----------------------------------------------------------------------------------------------------------


class Gadget:
    """Its pickle makes a file where it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> Any:
        return open, (self.canary, "w")


@pytest.fixture
def canary(tmp_path: Path) -> Any:
    """A file that a gadget would make. There must be none afterwards."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


def gadgets(canary: Path) -> dict[str, tuple[dict[str, Any], bytes, Any]]:
    evil = pickle.dumps(Gadget(canary))
    objects = np.array([Gadget(canary)], dtype=object)
    packed = pack_result([objects, np.zeros(1 << 18)])
    archive = io.BytesIO()
    np.save(archive, objects, allow_pickle=True)
    zipped = io.BytesIO()
    np.savez_compressed(zipped, x=objects)
    array = '{"!array":["|u1",[%d],"C",1]}'
    return {
        "as a pickle": result(evil, codec="pickle"),
        "without a word about its kind": ({"ok": True, "segments": [[len(evil), None]]}, evil, {}),
        "as a pickle with arrays": (
            {"ok": True, "codec": "pickle", "segments": packed.segments},
            packed.inline,
            packed.large,
        ),
        "said to be safe": result(evil),
        "said to be safe and pickled by value": result(cloudpickle.dumps(lambda: Gadget(canary))),
        "as a segment that nothing refers to": result("[]", evil),
        "as another segment": result(array % len(evil), evil),
        "as bytes": result('{"!bytes":1}', evil),
        "as base64": result(json.dumps({"!bytes": base64.b64encode(evil).decode()})),
        "as .npy": result(json.dumps({"!bytes": base64.b64encode(archive.getvalue()).decode()})),
        "as .npz": result('{"!bytes":1}', zipped.getvalue()),
        "as an array of objects": result('{"!array":["|O",[1],"C",1]}', bytes(8)),
        "as an array of fields of objects": result('{"!array":[[["a"],["|O"],[0],8],[1],"C",1]}', bytes(8)),
        "as a type in words": result('{"!array":["O",[1],"C",1]}', bytes(8)),
        "as a type that numpy would parse": result('{"!array":["f8,O",[1],"C",1]}', bytes(16)),
        "as a kind of its own": result(json.dumps({"!pickle": base64.b64encode(evil).decode()})),
        "as a reduction": result(json.dumps({"py/reduce": [{"py/function": "builtins.open"}, [str(canary), "w"]]})),
        "as a kind of nothing": result('{"!":"' + "x" * 100_000 + '"}'),
        "as an unknown codec": result(evil, codec="dill"),
        "as an error": ({"ok": False, "segments": [[len(evil), None]], "error": {"kind": "exception"}}, evil, {}),
        "as an error that is well": (
            {"ok": False, "segments": [[len(evil), None]], "error": {"kind": "unloadable", "class": "os.system"}},
            evil,
            {},
        ),
    }


@pytest.mark.parametrize("where", gadgets(Path("x")))
def test_a_pickle_runs_nowhere(where: str, canary: Path) -> None:
    ended: object
    try:
        ended = read(gadgets(canary)[where])
    except (RemoteProtocolError, TaskError) as error:
        ended = str(error)
    # It is data, and stays it; or the error names who sent it.
    assert type(ended) in (bytes, np.ndarray, dict) or "mallory" in str(ended)


def test_a_gadget_works_where_the_worker_is_trusted(tmp_path: Path) -> None:
    """So the tests above could fail."""
    header, inline, large = gadgets(tmp_path / "executed")["as a pickle"]
    decode(read_result(header), inline, large, worker="me", trusted=True).close()
    assert (tmp_path / "executed").exists()


def test_a_pickled_value_says_what_it_is_and_what_to_do() -> None:
    with pytest.raises(NotTrusted) as caught:
        read(result(b"x", codec="pickle", type="sklearn.Model", at="[3]['x']"))
    assert caught.value.worker == "mallory"
    assert caught.value.type_name == "sklearn.Model"
    assert "sklearn.Model at [3]['x']" in caught.value.message
    assert "%p2p_trust mallory" in caught.value.hint
    with pytest.raises(NotTrusted) as caught:
        read(result(b"x", codec="pickle", type="\x1b[2J" * 50, at="\x1b[2J" * 50))
    assert len(str(caught.value)) < 1000
    assert "\x1b" not in str(caught.value)


# --- words ------------------------------------------------------------------------------------------------------------


class Loaded(Exception):
    """A class that is loaded here: a stranger must not choose it."""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("builtins.ValueError", ValueError),
        (f"{__name__}.Loaded", RemoteError),
        ("subprocess.CalledProcessError", RemoteError),
        ("builtins.SystemExit", RemoteError),
        ("builtins.KeyboardInterrupt", RemoteError),
        ("builtins.GeneratorExit", RemoteError),
        ("builtins.StopIteration", RemoteError),
        ("builtins.eval", RemoteError),
        ("builtins.__loader__", RemoteError),
        ("__main__.__builtins__", RemoteError),
        ("p2p_ipython.errors.NotTrusted", RemoteError),
    ],
)
def test_an_error_in_words_is_of_a_built_in_class_or_a_stand_in(name: str, expected: type) -> None:
    error = {"kind": "exception", "class": name, "bases": [name], "message": "m", "traceback": "\x1b]0;t\x07at x"}
    with pytest.raises(BaseException) as caught:
        read(({"ok": False, "segments": [], "error": error}, b"", {}))
    assert type(caught.value) is expected
    assert "\x1b" not in str(caught.value.__cause__)


def test_a_package_that_a_stranger_names_is_not_one_to_install() -> None:
    error = {"kind": "missing", "class": "builtins.ModuleNotFoundError", "message": "m", "name": "evil-package"}
    with pytest.raises(TaskError) as caught:
        read(({"ok": False, "segments": [], "error": error}, b"", {}))
    assert "pip install" not in str(caught.value)


# --- lies -------------------------------------------------------------------------------------------------------------

ARRAY = '{"!array":[%s,%s,"C",1]}'
CATEGORY = '{"!series":[["category",{"!array":["|i1",[2],"C","%s"]},%s,false],{"!index.range":[0,2,1,null]},null]}'
LABELS = '{"!index":[["object",["a","b"]],null,null]}'

LIES: dict[str, tuple[str, list[bytes]]] = {
    "nothing": ("", []),
    "half a list": ("[1,2", []),
    "two values": ("[] []", []),
    "bytes that are not text": ("", []),
    "a number that is none": ("[NaN]", []),
    "a tag that is none": ('{"!float":"nano"}', []),
    "a key twice": ('{"a":1,"a":2}', []),
    "a key of a dict twice": ('{"!dict":[[1,2],[1,3]]}', []),
    "equal keys of two types": ('{"!dict":[[1,2],[1.0,3]]}', []),
    "an element twice": ('{"!set":[1,1]}', []),
    "a key that can't be one": ('{"!dict":[[[],1]]}', []),
    "a set of lists": ('{"!set":[[]]}', []),
    "a dict of triples": ('{"!dict":[[1,2,3]]}', []),
    "a tuple of a number": ('{"!tuple":3}', []),
    "a tuple of a tuple": ('{"!tuple":{"!tuple":[]}}', []),
    "a segment that isn't there": ('{"!bytes":1}', []),
    "the text itself": ('{"!bytes":0}', []),
    "a segment of a negative number": ('{"!bytes":-1}', [b"x"]),
    "a segment twice": ('[{"!bytes":1},{"!bytes":1}]', [b"x"]),
    "a segment not at all": ("3", [b"x"]),
    "truth for a number": ('{"!bytes":true}', [b"x"]),
    "half a base64": ('{"!bytes":"eHl6e"}', []),
    "base64 with rubbish": ('{"!bytes":"eHl6\\n!!!!"}', []),
    "fewer bytes than its shape": (ARRAY % ('"<f8"', "[3]"), [bytes(16)]),
    "more bytes than its shape": (ARRAY % ('"<f8"', "[1]"), [bytes(16)]),
    "a shape that overflows": (ARRAY % ('"<f8"', "[4294967296,4294967296,4]"), [bytes(32)]),
    "a shape that overflows to nothing": (ARRAY % ('"|u1"', "[1099511627776,1099511627776,0]"), [b""]),
    "a negative shape": (ARRAY % ('"|u1"', "[-1,-4]"), [bytes(4)]),
    "a shape of truth": (ARRAY % ('"|u1"', "[true,4]"), [bytes(4)]),
    "a hundred dimensions": (ARRAY % ('"|u1"', json.dumps([1] * 100)), [b"x"]),
    "items of no bytes": (ARRAY % ('"<U0"', "[1000000000000]"), [b""]),
    "items of two gigabytes": (ARRAY % ('"|V4000000000"', "[1]"), [b"x"]),
    "a longdouble": (ARRAY % ('"<f16"', "[1]"), [bytes(16)]),
    "a truth value of 255": (ARRAY % ('"|b1"', "[64]"), [b"\xff" * 64]),
    "a truth value of 2 in a field": (ARRAY % ('[["a","b"],["|i1","|b1"],[0,1],2]', "[1]"), [b"\x00\x02"]),
    "a character beyond all": (ARRAY % ('"<U1"', "[1]"), [b"\xff\xff\xff\x7f"]),
    "a field beyond its item": (ARRAY % ('[["a"],["<f8"],[4],8]', "[1]"), [bytes(8)]),
    "a field before its item": (ARRAY % ('[["a"],["<f8"],[-8],8]', "[1]"), [bytes(8)]),
    "two fields of one name": (ARRAY % ('[["a","a"],["|u1","|u1"],[0,1],2]', "[1]"), [bytes(2)]),
    "fields in fields": (ARRAY % ('[["a"],[[["b"],["|u1"],[0],1]],[0],1]', "[1]"), [bytes(1)]),
    "an unknown order": ('{"!array":["|u1",[1],"K",1]}', [b"x"]),
    "an int that is none": ('{"!int":"0x_g"}', []),
    "a complex text": ('{"!complex":["1","2"]}', []),
    "a fraction by nothing": ('{"!fraction":[1,0]}', []),
    "a fraction of a million digits": ('{"!fraction":[{"!int":"%s"},3]}' % ("f" * 1_000_000), []),
    "a decimal of an absurd exponent": ('{"!decimal":"1e999999999999"}', []),
    "a decimal that is none": ('{"!decimal":"one"}', []),
    "a range of an absurd length": ('{"!range":[0,{"!int":"%s"},1]}' % ("f" * 1000), []),
    "a range of no step": ('{"!range":[0,1,0]}', []),
    "a date that is none": ('{"!date":"2020-02-31"}', []),
    "an absurd duration": ('{"!timedelta":[9999999999,0,0]}', []),
    "a moment of an unknown zone": ('{"!datetime":["2020-01-01T00:00:00",["zone","No/Where"],0]}', []),
    "a zone that is a path": ('{"!datetime":["2020-01-01T00:00:00",["zone","../../etc/passwd"],0]}', []),
    "a zone of a thousand hours": ('{"!datetime":["2020-01-01T00:00:00",["offset",3600000000000],0]}', []),
    "codes of no category": (CATEGORY % (base64.b64encode(b"\x00\x07").decode(), LABELS), []),
    "codes below all": (CATEGORY % (base64.b64encode(b"\x00\x80").decode(), LABELS), []),
    "categories twice": (CATEGORY % ("AAA=", '{"!index":[["object",["a","a"]],null,null]}'), []),
    "categories of nothing": (CATEGORY % ("AAA=", "[]"), []),
    "a column longer than its index": (
        '{"!frame":[{"!index.range":[0,1,1,null]},[["object",[1,2]]],{"!index.range":[0,1,1,null]}]}',
        [],
    ),
    "more labels than columns": ('{"!frame":[{"!index.range":[0,9,1,null]},[],{"!index.range":[0,1,1,null]}]}', []),
    "an index of an absurd length": ('{"!index.range":[0,4611686018427387904,1,null]}', []),
    "an index of an absurd frequency": (
        '{"!index":[{"!array":["<M8[ns]",[2],"C","AAAAAAAAAAAAAAAAAAAAAA=="]},null,"999999999D"]}',
        [],
    ),
    "levels that don't fit": (f'{{"!index.many":[[{LABELS}],[{{"!array":["|i1",[1],"C","Bw=="]}}],[null]]}}', []),
    "a named tuple of code": ('{"!named":["P","x=__import__(\\"os\\")"],[1]]}', []),
    "a named tuple of names that are none": ('{"!named":["P",["x y"],[1]]}', []),
    "a named tuple of hidden names": ('{"!named":["P",["__class__"],[1]]}', []),
    "a named tuple of keywords": ('{"!named":["P",["class"],[1]]}', []),
    "a named tuple of a name that is none": ('{"!named":["P;x",["x"],[1]]}', []),
    "a named tuple of one name twice": ('{"!named":["P",["x","x"],[1,2]]}', []),
    "a named tuple of more values than names": ('{"!named":["P",["x"],[1,2]]}', []),
    "a named tuple of a thousand names": (
        json.dumps({"!named": ["P", [f"x{n}" for n in range(1000)], [0] * 1000]}),
        [],
    ),
    "ten thousand named tuples": (
        json.dumps([{"!named": [f"P{n}", ["x"], [1]]} for n in range(10_000)]),
        [],
    ),
    "a default of eval": ('{"!default":["eval",[]]}', []),
    "a deque longer than it may be": ('{"!deque":[1,[1,2]]}', []),
    "a deque of a negative length": ('{"!deque":[-1,[]]}', []),
    "a counter with a key twice": ('{"!counter":[[1,2],[1,3]]}', []),
    "a view of nothing": ('{"!view":["mro",[]]}', []),
    "items that are none": ('{"!view":["items",[[1,2]]]}', []),
    "a period of an unknown frequency": ('{"!period":["XYZ",1]}', []),
    "a period beyond all years": ('{"!period":["Y-DEC",99999999]}', []),
    "an interval that ends before it begins": ('{"!interval":[2,1,"both"]}', []),
    "missing values of another number": (
        '{"!series":[["masked","Int8",{"!array":["|i1",[2],"C","AAA="]},{"!array":["|b1",[1],"C","AA=="]}],'
        '{"!index.range":[0,2,1,null]},null]}',
        [],
    ),
    "values of another type than they say": (
        '{"!series":[["masked","Int64",{"!array":["|i1",[1],"C","AA=="]},{"!array":["|b1",[1],"C","AA=="]}],'
        '{"!index.range":[0,1,1,null]},null]}',
        [],
    ),
    "nested a hundred thousand deep": ("[" * 100_000 + "]" * 100_000, []),
    "nested and hidden behind a quote": ('["\\\\"' + ",[" * 1000 + "]" * 1000 + ',"\\""]', []),
    "nested tags": ('{"!tuple":[' * 1000 + "]}" * 1000, []),
    "a number of a million digits": ("[" + "9" * 1_000_000 + "]", []),
    "a float of a million digits": ("[0." + "9" * 1_000_000 + "]", []),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused(lie: str) -> None:
    text, others = LIES[lie]
    parts = result(b"\xff[1]" if lie == "bytes that are not text" else text, *others)
    begun = time.thread_time()
    refused(parts)
    assert time.thread_time() - begun < 5  # of work, for all: nothing here may take quadratic time


@pytest.mark.parametrize(
    "segments",
    [[], [[1, "r0"]], [[5, None]], [[0, None]], [[1, None], [3, "r1"]]],
)
def test_segments_that_do_not_fit_are_refused(segments: Any) -> None:
    refused(({"ok": True, "codec": "safe", "segments": segments}, b"3", {"r1": bytearray(4)}))


def test_two_segments_of_the_same_bytes_are_refused() -> None:
    array = '{"!array":["|u1",[4],"C",%d]}'
    text = f"[{array % 1},{array % 2}]".encode()
    header = {"ok": True, "codec": "safe", "segments": [[len(text), None], [4, "r0"], [4, "r0"]]}
    refused((header, text, {"r0": bytearray(4)}))


# --- bombs ------------------------------------------------------------------------------------------------------------


def _zip(size: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(size))
    return made.getvalue()


def in_each_others_way() -> list[int]:
    """Keys of different hashes, most of which a dict can put only behind most of the others.

    A third of its table is filled along the row of places that it tries in the end. The rest lead into that row.
    """
    bits, count = 17, 30_000
    mask, length = (1 << bits) - 1, 2 * (1 << (bits - 1)) // 3 + 2
    row = [0]
    while len(row) < length:
        row.append((5 * row[-1] + 1) & mask)
    at = np.full(1 << bits, -1)
    at[row] = np.arange(length)
    found: list[int] = []
    for start in itertools.count(1 << bits, 1 << 21):
        keys = rest = np.arange(start, start + (1 << 21))
        place = keys & mask
        while len(keys) and rest.any():
            rest = rest >> 5
            keys, place, rest = (each[at[place] >= 0] for each in (keys, place, rest))
            place = (5 * place + rest + 1) & mask
        found += keys[(at[place] >= 0) & (at[place] < length // 4)].tolist()
        if len(found) >= count:
            return row + found[:count]
    raise AssertionError("there are no more numbers")


def categories_in_each_others_way(count: int, *, level: bool = False) -> tuple[dict[str, Any], bytes, Any]:
    """Categories that pandas' own table puts in one row: their 64 bits are folded to the same 32."""
    low = np.arange(count, dtype="u8")
    labels = (((low ^ (low << np.uint64(11))) & np.uint64(0xFFFFFFFF)) << np.uint64(33)) | low
    labels = np.random.default_rng(0).permutation(labels).view("i8")
    array = {"!array": ["<i8", [count], "C", 1]}
    index = {"!index": [array, None, None]}
    codes = {"!array": ["|i1", [1], "C", base64.b64encode(b"\0").decode()]}
    value = {"!series": [["category", codes, index, False], {"!index.range": [0, 1, 1, None]}, None]}
    many = {"!index.many": [[index], [codes], [None]]}
    return result(json.dumps(many if level else value), labels.tobytes())


def one_hash(count: int) -> list[dict[str, str]]:
    prime = (1 << 61) - 1
    return [{"!int": format(7 + (number << 64) * prime, "x")} for number in range(count)]


BOMBS: dict[str, Callable[[], tuple[dict[str, Any], bytes, Any]]] = {
    "empty lists": lambda: result("[" + "[]," * (8 * MIB) + "[]]"),
    "empty objects": lambda: result("[" + "{}," * (8 * MIB) + "{}]"),
    "numbers": lambda: result("[" + "1," * (40 * MIB) + "1]"),
    "pairs": lambda: result('{"a":' * 3 + "[" + '{"a":1},' * (4 * MIB) + "1]" + "}" * 3),
    "strings": lambda: result("[" + '"ab",' * (16 * MIB) + "1]"),
    "one wide character": lambda: result('["' + "a" * (200 * MIB) + '\U0001f600"]'),
    "one escape": lambda: result('["' + "a" * (200 * MIB) + '\\ud83d\\ude00"]'),
    "sets": lambda: result("[" + '{"!set":[1]},' * (2 * MIB) + "1]"),
    "a set": lambda: result('{"!set":[' + ",".join(map(str, range(4 * MIB))) + "]}"),
    "tuples": lambda: result("[" + '{"!tuple":[]},' * (4 * MIB) + "1]"),
    "dates": lambda: result("[" + '{"!date":"2020-01-01"},' * (3 * MIB) + "1]"),
    "brackets": lambda: result("[" * (60 * MIB)),
    "quotes": lambda: result("[" + '"",' * (20 * MIB) + "1]"),
    "unfinished": lambda: result('["' + '\\"' * (100 * MIB)),
    "keys of one hash": lambda: result(json.dumps({"!set": one_hash(200_000)})),
    "keys of a dict of one hash": lambda: result(json.dumps({"!dict": [[key, 1] for key in one_hash(200_000)]})),
    "tuples of one hash": lambda: result(json.dumps({"!set": [{"!tuple": [key]} for key in one_hash(100_000)]})),
    "keys in each other's way": lambda: result(json.dumps({"!dict": [[key, 1] for key in in_each_others_way()]})),
    "categories in each other's way": lambda: categories_in_each_others_way(1_000_000),
    "labels of a level in each other's way": lambda: categories_in_each_others_way(1_000_000, level=True),
    "labels of one hash": lambda: result(json.dumps({"!index": [["object", one_hash(100_000)], None, None]})),
    "a segment that is not there": lambda: result('{"!array":["<f8",[1000000000000],"C",1]}', b""),
    "text of wide items": lambda: result('{"!array":["<U100000000",[1000],"C",1]}', b""),
    "a wide frame": lambda: result(
        '{"!frame":[{"!index.range":[0,999999,1,null]},['
        + ",".join(['["object",[1]]'] * 999_999)
        + '],{"!index.range":[0,1,1,null]}]}'
    ),
    "many indexes": lambda: result("[" + '{"!index.range":[0,1,1,null]},' * 400_000 + "1]"),
    "many series": lambda: result(
        "[" + '{"!series":[["object",[]],{"!index.range":[0,0,1,null]},null]},' * 200_000 + "1]"
    ),
    "an index of an absurd length": lambda: result(
        '{"!frame":[%s,[],%s]}' % (('{"!index.range":[0,9e99,1,null]}',) * 2)
    ),
}

HARMLESS: dict[str, Callable[[], tuple[dict[str, Any], bytes, Any]]] = {
    "a zip": lambda: result('{"!bytes":1}', _zip(1 << 28)),
    "a quarter of a gigabyte": lambda: result(f'{{"!array":["|u1",[{256 * MIB}],"C",1]}}', bytes(256 * MIB)),
}


def _child() -> None:
    """Decode the bomb that is named; say how it ended, and what memory and time that took."""
    import resource

    name = sys.argv[1]
    import numpy  # noqa: F401 - what the results need is no part of what they take
    import pandas  # noqa: F401
    import psutil

    parts = (BOMBS | HARMLESS)[name]()
    room = psutil.Process().memory_info().vms + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    try:
        ended = f"a {type(read(parts)).__name__}"
    except BaseException as error:
        ended = f"{type(error).__name__}: {error}"
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps([ended[:500], taken, time.process_time() - begun]))


@functools.cache
def ending(name: str) -> tuple[str, int, float]:
    """How the bomb ended: its words, bytes, and seconds."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    code = "import test_hostile_results as t; t._child()"
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        check=True,
        capture_output=True,
        timeout=100,
        env=environment,
        cwd=Path(__file__).parent,
    )
    words, taken, seconds = json.loads(done.stdout)
    return words, taken, seconds


@pytest.mark.skipif(sys.platform != "linux", reason="an address space has a limit on Linux only")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory_or_time(name: str) -> None:
    pytest.importorskip("pandas")
    words, taken, seconds = ending(name)
    assert words.startswith("RemoteProtocolError: mallory"), words
    assert "MemoryError" not in words
    assert taken < 1024 * MIB
    assert seconds < 30


@pytest.mark.skipif(sys.platform != "linux", reason="an address space has a limit on Linux only")
@pytest.mark.parametrize("name", HARMLESS)
def test_what_nobody_unpacks_takes_no_more_than_it_is(name: str) -> None:
    pytest.importorskip("pandas")
    words, taken, _ = ending(name)
    assert words in ("a bytes", "a ndarray")
    assert taken < 64 * MIB
