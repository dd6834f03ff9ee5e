"""Settings of libraries: what differs is read at home, and written where the library is there or comes."""

from __future__ import annotations

import decimal
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2p_ipython.errors import CaptureError
from p2p_ipython.task import seeds
from p2p_ipython.task.buffer_store import BufferStore
from p2p_ipython.task.environment import EnvironmentChanges, named
from p2p_ipython.task.payload import pack_task, unpack
from p2p_ipython.task.seed_sequence import child_words
from p2p_ipython.task.seeds import Seed
from p2p_ipython.task.settings import Collector, Settings


def script(code: str, *arguments: str) -> str:
    """Run a Python of its own, whose settings are the defaults; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(code), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HOME = """
import os, sys, warnings
os.environ["MPLBACKEND"] = "agg"
import matplotlib, numpy as np, pandas as pd, decimal, sklearn, locale
from p2p_ipython.task.settings import Collector
home = Collector()
assert home.collect() is None, home._seen
matplotlib.rcParams["figure.figsize"] = 3, 2
matplotlib.rcParams["font.sans-serif"] = ["Nice Sans"]
pd.set_option("display.precision", 2)
bias = 5
pd.options.display.float_format = lambda x: f"{x + bias:.1f}"
np.set_printoptions(precision=3)
np.seterr(divide="raise")
decimal.getcontext().prec = 5
sklearn.set_config(display="text")
warnings.filterwarnings("ignore", "old")
sys.setrecursionlimit(2345)
locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
found = home.collect()
assert home.collect() is not None
open(sys.argv[1], "wb").write(bytes(found.packed))
"""

WORKER = """
import sys
from p2p_ipython.task.settings import Settings
undo = Settings(open(sys.argv[1], "rb").read()).enter()
late = [name for name in ("numpy", "pandas", "matplotlib", "sklearn") if name in sys.modules]
import json, decimal, warnings, locale
import matplotlib, numpy as np, pandas as pd, sklearn
with warnings.catch_warnings(record=True) as shown:
    warnings.warn("old"); warnings.warn("new")
print(json.dumps([
    late, list(matplotlib.rcParams["figure.figsize"]), matplotlib.rcParams["font.sans-serif"][0],
    pd.get_option("display.precision"), str(pd.Series([1.25])[0:1]).split()[1], str(np.array([1 / 3])),
    np.geterr()["divide"], str(decimal.Decimal(1) / 3), sklearn.get_config()["display"],
    [str(w.message) for w in shown],
    sys.getrecursionlimit(), locale.setlocale(locale.LC_NUMERIC), type(np.__spec__.loader).__name__,
]))
undo()
assert not [finder for finder in sys.meta_path if "p2p" in type(finder).__module__]
"""


def test_settings_hold_there_and_no_library_is_imported_for_them(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    file = str(tmp_path / "settings")
    script(HOME, file)
    assert json.loads(script(WORKER, file)) == [
        [], [3, 2], "Nice Sans", 2, "6.2", "[0.333]", "raise", "0.33333", "text", ["new"], 2345, "C.UTF-8",
        "SourceFileLoader",
    ]  # fmt: skip


def test_what_nobody_has_changed_is_read_once_and_packed_once() -> None:
    collector = Collector()
    with warnings.catch_warnings(), decimal.localcontext():
        collector.collect()
        decimal.getcontext().prec = 7
        first = collector.collect()
        assert first is not None
        assert collector.collect() is first
        decimal.getcontext().prec = 8
        assert collector.collect() is not first


def test_a_value_that_cannot_travel_stays_and_the_others_travel() -> None:
    assert (
        script("""
        import sys, threading, pickle
        import pandas as pd
        from p2p_ipython.task.settings import Collector
        pd.set_option("display.precision", 3)
        lock = threading.Lock()
        pd.options.display.float_format = lambda x: str((x, lock))
        [entry] = [e for e in pickle.loads(Collector().collect().packed) if e[0] == "pandas"]
        print(pickle.loads(entry[2]))
    """)
        == "{'display.precision': 3}"
    )


def test_settings_of_another_version_of_python_or_of_an_unknown_kind_are_left_alone() -> None:
    import pickle

    data = pickle.dumps((("recursion", (2, 7), pickle.dumps(50)), ("unheard", None, b""), ("decimal", None, b"broken")))
    before = sys.getrecursionlimit()
    Settings(data).enter()()
    assert sys.getrecursionlimit() == before


# --- the environment --------------------------------------------------------------------------------------------------


def test_the_environment_s_changes_travel_and_are_shown_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = EnvironmentChanges(same_machine=False)
    monkeypatch.setenv("A_TOKEN", "hush-1234")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("TMPDIR", "/nowhere")
    found = changes.collect()
    assert found is not None
    assert ("A_TOKEN", "hush-1234") in found.entries
    assert not {"PATH", "TMPDIR"} & {name for name, _ in found.entries}
    assert "hush" not in repr(found)
    assert changes.collect() is found


def test_an_entry_that_was_there_at_the_start_and_is_gone_is_removed_there() -> None:
    assert (
        script("""
        import os
        from p2p_ipython.task.environment import EnvironmentChanges
        changes = EnvironmentChanges(same_machine=True)
        assert changes.collect() is None, changes.collect()
        os.environ["NEW"] = "1"
        part = changes.collect()
        del os.environ["NEW"]
        part.enter()
        print(os.environ["NEW"])
    """)
        == "1"
    )


def test_named_entries_are_read_now_and_one_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "hush-1234")
    found = named(["A_TOKEN", "A_TOKEN"])
    assert found is not None
    assert found.entries == (("A_TOKEN", "hush-1234"),)
    assert named([]) is None
    with pytest.raises(CaptureError, match="no 'NOT_THERE'"):
        named(["NOT_THERE"])
    assert "NOT_THERE" not in os.environ


# --- random numbers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def generators() -> Iterator[None]:
    plain, numpys = random.getstate(), np.random.get_state()
    yield
    random.setstate(plain)
    np.random.set_state(numpys)


@pytest.mark.usefixtures("generators")
def test_task_n_begins_with_child_n_of_the_seed() -> None:
    drawn = []
    for index in (0, 1, 0):
        Seed(42, index).enter()()
        drawn.append((random.random(), np.random.rand()))
    child = np.random.SeedSequence(42).spawn(2)[1]
    assert drawn[1][1] == np.random.RandomState(np.random.MT19937(child)).rand()
    assert drawn[0] == drawn[2]
    assert drawn[0][0] != drawn[1][0]


@given(st.integers(0, (1 << 128) - 1), st.integers(0, 1 << 70))
@example(0, 0)
@example(1 << 96, (1 << 32) - 1)
def test_the_words_of_a_child_are_those_that_numpy_gives(seed: int, index: int) -> None:
    child = np.random.SeedSequence(seed, spawn_key=(index,))
    assert child_words(seed, index, 9) == child.generate_state(9).tolist()


def test_random_begins_alike_where_numpy_is_and_where_it_is_not() -> None:
    code = """
        import sys
        from p2p_ipython.task.seeds import Seed
        if sys.argv[1] == "without":
            sys.modules["numpy"] = None
        Seed(7, 3).enter()
        import random
        print(random.random())
    """
    child = np.random.SeedSequence(7).spawn(4)[3].generate_state(4).astype("<u4")
    alike = str(random.Random(int.from_bytes(child.tobytes(), "little")).random())
    assert (script(code, "with"), script(code, "without")) == (alike, alike)


@pytest.mark.usefixtures("generators")
def test_torch_is_seeded_by_words_of_the_same_child(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    torch = ModuleType("torch")  # the real one has 200 MB
    torch.manual_seed = seeded.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    Seed(7, 3).enter()()
    low, high = np.random.SeedSequence(7).spawn(4)[3].generate_state(6).tolist()[4:]
    assert seeded == [(low + (high << 32)) >> 1]


def test_a_generator_that_is_imported_later_is_seeded_then() -> None:
    code = """
        import sys
        from p2p_ipython.task.seeds import Seed
        if sys.argv[1] == "before":
            import numpy.random
        Seed(7, 3).enter()
        assert sys.argv[1] == "before" or "numpy" not in sys.modules
        import numpy as np
        print(np.random.rand(3))
    """
    assert script(code, "before") == script(code, "after")


@pytest.mark.usefixtures("generators")
@pytest.mark.parametrize("function", [random.random, random.randint, np.random.rand, np.random.normal])
def test_methods_of_hidden_generators_travel_without_their_state(function: object) -> None:
    store = BufferStore(1 << 20)
    random.seed(1)
    np.random.seed(1)
    first = pack_task([random.Random(3), function], store)
    random.seed(2)
    np.random.seed(2)
    assert pack_task([random.Random(3), function], store).inline == first.inline
    own, arrived = unpack(first.segments, first.inline, first.large)
    assert own.random() == random.Random(3).random()
    assert arrived.__self__ is function.__self__  # type: ignore[attr-defined]


def test_nothing_but_a_hidden_generator_is_had_by_name() -> None:
    with pytest.raises(ValueError, match="no generator"):
        seeds.hidden("os", "environ")
