"""Which names a cell binds, and which of the notebook's values it changes."""

from __future__ import annotations

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from p2p_ipython.task.bindings import bindings_in
from p2p_ipython.task.reads import parsed

transform = TransformerManager().transform_cell


@pytest.mark.parametrize(
    ("cell", "bound"),
    [
        ("a = b = 1", "a b"),
        ("a, (b, *c) = 1, (2, 3)\nfor d in b: e = d\nelse: f = 1", "a b c d e f"),
        ("import numpy as np, os.path\nfrom math import pi as p", "np os p"),
        ("def f(x):\n    y = x\nclass C:\n    z = 1", "f C"),
        ("def f():\n    global g\n    g = 1", "f g"),
        ("with open('x') as f, a as (b, c): pass", "f b c"),
        ("try: a = 1\nexcept E as e: b = 1\nfinally: c = 1", "a b c"),
        ("if (n := 1): pass\n[i for i in range(3) if (last := i)]", "n last"),
        ("match x:\n    case [a, *b] if a: pass\n    case {'k': c, **d}: pass", "a b c d"),
        ("a.b = 1\na[0] = 2\na += 1\nx: int = 3\ny: int", "a x y"),
        ("files = !ls\nout = %time 1", "files out"),
        ("print(1); lambda: (z := 1)", ""),
        ("%%time\na = 1\nfor b in 'ab': pass", "a b"),
        ("%time c = 1", "c"),
        ("%%capture caught --no-stderr\n%time d = 1\nimport e", "caught d e"),
        ("%%capture\nf = 1", "f"),
        ("%%capture --no-stdout\n(", ""),
        ("%%timeit g = 1\nh = 1", ""),
        ("%%bash\ni=1", ""),
        ("@(d := str)\ndef f(): pass", "f d"),
        ("from math import *", ""),
    ],
)
def test_the_names_that_a_cell_binds(cell: str, bound: str) -> None:
    assert set(bindings_in(parsed(cell, transform), transform).bound) == set(bound.split())


@pytest.mark.parametrize(
    ("cell", "changed"),
    [
        ("df['b'] = 1", "df"),
        ("df.loc[0, 'b'] = 1", "df"),
        ("L.append(1)\nd.setdefault('a', []).append(2)", "L d"),
        ("model.fit(X, y)", "model"),
        ("pipe.steps[0].fit(X)", "pipe"),
        ("df.drop(columns='a', inplace=True)\ndf2.drop(columns='a', inplace=False)", "df"),
        ("del d['a']\nx.y += 1", "d x"),
        ("random.shuffle(L)\nheappush(h, 1)", "L h"),
        ("L = [1]\nL.append(2)", ""),
        ("def f():\n    L.append(2)", ""),
        ("a = L.index(1)\nb = d.get('a')", ""),
    ],
)
def test_the_values_of_the_notebook_that_a_cell_changes(cell: str, changed: str) -> None:
    assert set(bindings_in(parsed(cell, transform), transform).changed) == set(changed.split())


def test_imports_are_told_apart() -> None:
    found = bindings_in(parsed("import numpy as np\nimport os.path\nx = 1", transform), transform)
    assert found.imported == {"np", "os"}


@pytest.mark.parametrize(
    ("cell", "imports"),
    [
        ("import a", [("a", "a", "")]),
        ("import a.b, a.c", [("a", "a.b", ""), ("a", "a.c", "")]),
        ("import a as x, a.b.c as y", [("x", "a", ""), ("y", "a.b", "c")]),
        ("from a.b import c, d as e", [("c", "a.b", "c"), ("e", "a.b", "d")]),
        ("%matplotlib inline\nimport a", [("a", "a", "")]),
        ("from a import *", [("*", "a", "*")]),
        ("from . import a\nfrom .b import c", []),
        ("def f(): import a", []),
    ],
)
def test_what_a_cell_imports(cell: str, imports: list[tuple[str, str, str]]) -> None:
    assert list(bindings_in(parsed(cell, transform), transform).imports) == imports
