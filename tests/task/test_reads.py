"""Which names a cell reads from its notebook; and that running it with these alone changes nothing."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from p2p_ipython.task.reads import parsed, reads, reads_in

transform = TransformerManager().transform_cell


def names(source: str) -> set[str]:
    return set(reads(source, transform).names)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a + 1\nx + b", "a b"),
        ("a, (b, *c) = d\na, b, c", "d"),
        ("x.y = 1; z[i] = 2; z[i:j]", "x z i j"),
        ("x += y", "x y"),
        ("x = 1\nx += y", "y"),
        ("n: T = 3\nn", "T"),
        ("n: int\nn", "int n"),
        ("del x", "x"),
        ("x = 1\ndel x\nx", ""),
        ("f'{a!r:{w}} {b=}'", "a w b"),
        ("(u := v); u", "v"),
        ("a and (w := b)\nw", "a b w"),
        ("0 < (a := x) < (b := y)\na, b", "x y b"),
        ("0 < x < (b := y)\nb", "x y b"),
        ("low < 3", "low"),
        ("(a := low) < 3 < a\na", "low"),
        ("(a := x) if c else y\na", "x c y a"),
        ("if c: v = 1\nelse: v = 2\nv", "c"),
        ("if c: v = 1\nv", "c v"),
        ("for i in r: s\ni", "r s i"),
        ("for i in r: t = i; t", "r"),
        ("for i in r: i\nelse: e", "r e"),
        ("while a: b = 1; b\nb", "a b"),
        ("try: v = f()\nexcept E as e: v = e\nv, e", "f E e"),
        ("try: v = f()\nexcept E: pass\nv", "f E v"),
        ("try: f()\nfinally: v = 1\nv", "f"),
        ("try: a = 1\nexcept* E: a = 2\nelse: b = a\na", "E"),
        ("with c() as (x, y): d = 1\nx, y, d", "c d"),
        ("match p:\n  case C(x=q, y=Z.k) if q: q\n  case {'a': m, **r}: m, r\n  case [h, *t] | (h, t): h", "p C Z"),
        ("match p:\n  case _: _", "p _"),
        ("import a, b.c as d, e.f\nfrom g import h as i\na, d, e, i, h", "h"),
        ("assert a, b", "a b"),
        ("[x for x in xs if x in ys]", "xs ys"),
        ("[x for x in xs if (last := x)]\nlast", "xs last"),
        ("[(x, y) for x in xs for y in x if z]", "xs z"),
        ("{k: v for k, v in d.items()}", "d"),
        ("f = lambda a, b=d, *c: a + b + e", "d e"),
        ("x = 1\nf = lambda: x", ""),
        ("def f(n): return f(n - 1)", ""),
        ("def f(n): return g(n) + k\ndef g(n): return f(n)\nf(1)", "k"),
        ("def f(): return g()\nf()\ndef g(): return 1", "g"),
        ("def f(): return k\nk = 1\nf()", "k"),
        ("def f(): return k", "k"),
        ("k = 1\ndef f(): return k", ""),
        ("@deco\ndef f(a: A = d, *, b=e) -> R: return f", "deco A d e R f"),
        ("def f():\n  global n\n  n += 1", "n"),
        ("def f():\n  global n\n  n = 1", ""),
        ("def f():\n  global n\n  del n", "n"),
        ("def f():\n  x = 1\n  def g():\n    nonlocal x\n    x += y\n  return g", "y"),
        ("def f():\n  def g(): return [h for h in i]\n  return g", "i"),
        ("def f():\n  class C:\n    a = a\n  return C", "a"),
        ("class C(B, metaclass=M):\n  a = b\n  c = a\n  def m(self): return a", "B M b a"),
        ("class C:\n  def g(self): return 1\n  p = property(g)", "property"),
        ("class C:\n  def m(self): return C, super().m()", "super"),
        ("class C:\n  def m(self): return __p", "_C__p"),
        ("class C:\n  @deco\n  def m(self, a=d) -> R: return 1", "deco d R"),
        ("class C:\n  class D(E):\n    def m(self): return z", "E z"),
        ("x = await f(y)\n[await z async for z in s()]", "f y s"),
        ("async with a as b:\n  async for c in b: c", "a"),
        ("async def f(): return await g()", "g"),
        ("print(__name__)", "print __name__"),
        ("%time y = q(z)\ny", "q z y"),
        ("%timeit -n 3 -r 2 f(x)", "f x"),
        ("%%time\nx = 1\nx + v", "v"),
        ("%%capture out\nprint(x)", "out print x"),
        ("files = !ls {d} $e\nfiles", "d e"),
        ("!echo {a + b['c']} $$y", "a b y"),
        ("%matplotlib inline\nx", "x"),
        ("%%bash\necho $HOME", ""),
        ("f?", "f"),
        ("A.b??", "A"),
        ("%psource f", "f"),
        ("from m import *\nx", "x"),
        ("", ""),
        ("# nothing", ""),
    ],
)
def test_a_cell_reads(source: str, expected: str) -> None:
    assert names(source) == set(expected.split())


def test_chains_of_attributes_are_kept_whole() -> None:
    assert reads("os.path.join(a.b, c().d.e).f", transform).dotted == {"os.path.join", "a.b"}


@pytest.mark.parametrize(
    ("source", "line"),
    [("x = = 1", 1), ("\n\n\nx = = 1", 4), ("a = 1\n\n%time 3\nfor", 4), ("return 3", 1), ("\nx = (", 2)],
)
def test_a_syntax_error_has_the_cells_own_line(source: str, line: int) -> None:
    with pytest.raises(SyntaxError) as caught:
        names(source)
    assert caught.value.lineno == line


@pytest.mark.parametrize("terms", [600, 1_000])
def test_a_very_deep_cell_reads_every_name_it_mentions(terms: int) -> None:
    try:
        assert "needle" in names("needle +" + "+".join(["x"] * terms))
    except RecursionError as error:  # some versions can't compile it, and say so
        assert "compil" in str(error)  # noqa: PT017


def test_a_cell_too_deep_to_walk_reads_every_name_in_it_also_those_that_it_has_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = sys.getrecursionlimit()
    source = "x = 1\n" + "+".join(["x"] * 120) + "+ needle"
    tree = parsed(source, transform)
    assert names(source) == {"needle"}
    depth = len(inspect.stack(0))
    sys.setrecursionlimit(depth + 100)
    try:
        found = reads_in(tree, transform).names
    finally:
        sys.setrecursionlimit(before)
    assert set(found) == {"x", "needle"}


# Small programs over a few names: what they do must not depend on which of the other names are there.

NAMES = "abcde"
name = st.sampled_from(NAMES)
atom = st.one_of(name, st.integers(0, 9).map(str))


def _call(pair: tuple[str, str]) -> str:
    return f"(call({pair[0]}) or {pair[1]})"


expression = st.recursive(
    atom,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"add({p[0]}, {p[1]})"),
        st.tuples(name, inner).map(lambda p: f"({p[0]} := {p[1]})"),
        st.tuples(inner, name, inner).map(lambda p: f"sum_([{p[0]} for {p[1]} in items({p[2]})])"),
        st.tuples(inner, inner, inner).map(lambda p: f"({p[0]} if {p[1]} else {p[2]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]} and {p[1]})"),
        inner.map(lambda e: f"(lambda: {e})()"),
        st.tuples(inner, name).map(lambda p: f"(lambda {p[1]}={p[0]}: {p[1]})()"),
        name.map(lambda n: f"call({n})"),
    ),
    max_leaves=4,
)


def indented(body: list[str]) -> str:
    return "\n".join("  " + line for statement in body for line in statement.split("\n"))


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = st.lists(inner, min_size=1, max_size=3).map(indented)
    return st.one_of(
        st.tuples(expression, body, body).map(lambda p: f"if {p[0]}:\n{p[1]}\nelse:\n{p[2]}"),
        st.tuples(name, expression, body).map(lambda p: f"for {p[0]} in items({p[1]}):\n{p[2]}"),
        st.tuples(body, name, body).map(lambda p: f"try:\n{p[0]}\nexcept Exception as {p[1]}:\n{p[2]}"),
        st.tuples(body, body).map(lambda p: f"try:\n{p[0]}\nfinally:\n{p[1]}"),
        st.tuples(name, body).map(lambda p: f"with swallow() as {p[0]}:\n{p[1]}"),
        st.tuples(name, name, body, expression).map(lambda p: f"def {p[0]}({p[1]}=1):\n{p[2]}\n  return {p[3]}"),
        st.tuples(name, name, body, expression).map(
            lambda p: f"def {p[0]}():\n  global {p[1]}\n{p[2]}\n  return {p[3]}"
        ),
        st.tuples(name, body).map(lambda p: f"class {p[0]}:\n{p[1]}"),
        st.tuples(expression, name, body).map(
            lambda p: f"match {p[0]}:\n  case 1: pass\n  case {p[1]}:\n{indented([p[2]])}"
        ),
    )


simple = st.one_of(
    st.tuples(name, expression).map(lambda p: f"{p[0]} = {p[1]}"),
    st.tuples(name, atom).map(lambda p: f"{p[0]} += {p[1]}"),
    name.map(lambda n: f"del {n}"),
    expression,
)
program = st.lists(st.recursive(simple, compound, max_leaves=6), min_size=1, max_size=5).map("\n".join)


class Swallow:
    def __enter__(self) -> int:
        return 5

    def __exit__(self, *_: object) -> bool:
        return True


def outcome(source: str, namespace: dict[str, Any]) -> object:
    """What running ``source`` shows: the text of its error, and the names it leaves that are numbers."""
    budget = iter(range(200))

    def tick(value: Any) -> Any:
        if next(budget, None) is None:
            raise KeyboardInterrupt  # a runaway recursion; not an Exception, so that no `except` goes on
        return value

    tools = {
        "add": lambda x, y: tick(x if isinstance(x, int) else 1) + (y if isinstance(y, int) else 1) & 63,
        "items": lambda x: range(tick(x) % 3) if isinstance(x, int) else (),
        "sum_": lambda xs: tick(sum(x for x in xs if isinstance(x, int)) & 63),
        "call": lambda f: tick(f)() if callable(f) else 0,
        "swallow": Swallow,
    }
    everything = namespace | tools
    try:
        exec(compile(source, "<cell>", "exec"), everything)
        error = ""
    except (Exception, KeyboardInterrupt) as caught:
        error = f"{type(caught).__name__}: {caught}"
    return error, {n: everything.get(n, "gone") for n in NAMES if isinstance(everything.get(n, "gone"), int)}


@settings(max_examples=200, deadline=None)
@given(program, st.sets(name))
def test_a_cell_does_the_same_with_only_the_names_it_reads(source: str, present: set[str]) -> None:
    try:
        read = reads(source, transform).names
    except SyntaxError:
        return  # e.g. a name that is a parameter and global
    home = {name: 40 + number for number, name in enumerate(NAMES) if name in present}
    away = {name: value for name, value in home.items() if name in read}
    error, left = outcome(source, dict(home))
    error_away, left_away = outcome(source, dict(away))
    assert error_away == error
    for name in NAMES:
        stayed_home = name in home and name not in away and name not in left_away
        assert left_away.get(name) == left.get(name) or (stayed_home and left[name] == home[name])
