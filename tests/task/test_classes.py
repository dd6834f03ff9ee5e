"""Classes of a notebook are made anew without the effects that making them had: no registry counts them twice."""

from __future__ import annotations

from collections.abc import Iterator
from enum import EnumType
from pathlib import Path

import pytest

from tests.task.elsewhere_support import Elsewhere, at_home, frozen, notebook

HOOK = """
reg = []
class Base:
    def __init_subclass__(cls, /, key='', **more):
        super().__init_subclass__(**more)
        reg.append((cls.__name__, key))
class A(Base, key='a'): pass
class B(A, key='b'): pass
"""

META = """
class Meta(type):
    made = []
    def __new__(meta, name, bases, body, tag='', **more): return super().__new__(meta, name, bases, body)
    def __init__(cls, name, bases, body, tag='', **more): Meta.made.append((name, tag))
class A(metaclass=Meta, tag='x'): pass
class B(A, tag='y'): v = 2
"""

PLANET = """
class Planet(enum.Enum):
    EARTH = (6, 4)
    MARS = (1, 3)
    TERRA = (6, 4)
    def __init__(self, mass, radius): self.mass, self.radius = mass, radius
    @property
    def pull(self): return self.mass / self.radius ** 2
"""

REGISTRIES = [
    (HOOK, "reg, [c.__name__ for c in (A, B)], A.__bases__, B.__mro__[1] is A"),
    (HOOK + "B.extra = reg", "reg, B.extra is reg, B.__qualname__"),
    (
        "class Base:\n  all = {}\n  def __init_subclass__(cls): cls.all[cls.__name__] = cls\nclass A(Base): pass",
        "sorted(Base.all), Base.all['A'] is A",
    ),
    (
        "reg = []\nclass Base:\n  __slots__ = ('a',)\n  def __init_subclass__(cls): reg.append(cls.__name__)\n"
        "class A(Base):\n  __slots__ = ('b',)\na = A(); a.a, a.b = 1, 2",
        "reg, a.a, a.b, A.__bases__ == (Base,), hasattr(a, '__dict__')",
    ),
    (
        "reg = []\nclass Base:\n  __slots__ = ()\n  def __init_subclass__(cls): reg.append(cls.__name__)\n"
        "class A(Base):\n  __slots__ = ('b',)\nclass B(Base): pass\nclass C(dict, Base): pass\n",
        "reg, [c.__bases__ == (Base,) for c in (A, B)], hasattr(A(), '__dict__'), len(C.__mro__)",
    ),
    (
        "reg = []\nclass Base(Exception):\n  def __init_subclass__(cls): reg.append(cls.__name__)\nclass A(Base): pass",
        "reg, A.__bases__ == (Base,), A('x')",
    ),
    (
        "T = typing.TypeVar('T')\nreg = []\nclass Base(typing.Generic[T]):\n"
        "  def __init_subclass__(cls, **more): super().__init_subclass__(**more); reg.append(cls.__name__)\n"
        "class A(Base[int]): pass\nclass B(Base[T]): pass",
        "reg, B[int], A.__orig_bases__, B.__parameters__",
    ),
    (
        "reg = {}\n@dataclasses.dataclass\nclass Base:\n  x: int\n"
        "  def __init_subclass__(cls, kind): cls.kind = kind; reg[kind] = cls\n"
        "@dataclasses.dataclass\nclass A(Base, kind='a'):\n  y: int = 2",
        "reg['a'](1), A.kind, sorted(reg)",
    ),
    (META, "Meta.made, B.v, type(B) is Meta"),
    (META.replace("type)", "abc.ABCMeta)"), "Meta.made, B.v, isinstance(B(), A), isinstance(3, A)"),
    ("class M(type):\n  def __setattr__(cls, k, v): raise AttributeError(k)\nclass A(metaclass=M): x = 1", "A.x"),
    (
        "class M(type):\n  def __eq__(cls, other): return False\n  __hash__ = type.__hash__\n"
        "class A(metaclass=M): x = 1",
        "A.x, isinstance(A(), A)",
    ),
]

SHAPES = [
    (
        "class A:\n  @property\n  def b(self): pass\n"
        "def say():\n  try: A().b = 1\n  except AttributeError as error: return str(error)",
        "say()",
    ),
    (
        "@dataclasses.dataclass(slots=True)\nclass P:\n  x: int\n  y: list = dataclasses.field(default_factory=list)",
        "P(1), hasattr(P(1), '__dict__'), P.__slots__",
    ),
    (
        "class A:\n  __slots__ = ('__x',)\n  def __init__(s): s.__x = 5\n  def get(s): return s.__x\na = A()",
        "a.get(), A().get(), hasattr(a, '__dict__')",
    ),
    ("class A:\n  __slots__ = {'x': 'its doc'}\na = A(); a.x = 1", "a.x, A.__slots__"),
    (
        "class A:\n  __slots__ = 'x'\nclass B(A):\n  __slots__ = ('y', '__weakref__')\nb = B(); b.x = b.y = 1",
        "b.x + b.y",
    ),
    ("class O:\n  class I: pass\ndef f():\n  class L: pass\n  return L\nL = f()", "O.I, type(O.I()), L.__qualname__"),
    ("class A(abc.ABC):\n  @abc.abstractmethod\n  def f(s): ...\nA.register(int)", "A.__abstractmethods__, A(), 1"),
    ("class A(abc.ABC): pass\nA.register(int)", "isinstance(3, A), isinstance('', A)"),
    (
        "class P(typing.NamedTuple):\n  x: int\n  y: int = 2\n  def s(self): return self.x + self.y\np = P(1)",
        "p, p.s()",
    ),
    ("class T(typing.TypedDict, total=False):\n  a: int\nt: T = {'a': 1}", "t, T.__annotations__, T.__total__, T(a=2)"),
    ("class N(typing.Generic[typing.T], abc.ABC):\n  x = 1\nclass M(N[int]): pass", "M().x, M.__orig_bases__, N[str]"),
    (
        "class P(typing.Protocol):\n  def f(self): ...\nclass A(P):\n  def f(self): return 3",
        "A().f(), A.__mro__[1] is P",
    ),
    (PLANET, "Planet.EARTH.pull, Planet.MARS.radius, Planet((1, 3)), list(Planet.__members__)"),
    (PLANET, "Planet.TERRA is Planet.EARTH, len(Planet), Planet['TERRA'], Planet.EARTH"),
    (
        "@dataclasses.dataclass\nclass D:\n  x: int\n  y: str\nclass C(D, enum.Enum):\n  A = 1, 'a'\n  B = 2, 'b'",
        "C.A.x, C.B.y, C.A, [C.B], isinstance(C.A, D)",
    ),
    (
        "class C(int, enum.Enum):\n  def __new__(cls, v, label):\n"
        "    made = int.__new__(cls, v); made._value_ = v; made.label = label; return made\n  A = (1, 'one')",
        "C.A + 1, C.A.label, C(1)",
    ),
    ("class C(tuple, enum.Enum):\n  A = 1, 'a'\n  B = 2, 'b'", "C.A[0], C.B, C((1, 'a'))"),
    ("import datetime\nclass C(datetime.date, enum.Enum):\n  A = 2020, 1, 2", "C.A.year, C.A"),
    ("class P(enum.Flag):\n  R = 1\n  W = 2\n  RW = 3\np = P.RW", "p, P.RW, list(P), P['RW'], ~P.R, p is P.RW"),
    ("class P(enum.IntFlag, boundary=enum.KEEP):\n  R = 1", "P(9)"),
    ("class C(enum.StrEnum):\n  A = enum.auto()\n  B = 'bee'", "C.A + 'x', C('bee')"),
    ("C = enum.Enum('C', 'A B')\nN = enum.IntFlag('N', ['X', 'Y'])", "C.A, list(C), N.X | N.Y"),
]

IMPORTS = "import abc, dataclasses, enum, typing\n"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    folder = tmp_path_factory.mktemp("worker")
    (folder / "with_hooks.py").write_text(LIBRARY)
    process = Elsewhere(folder)
    yield process
    process.close()


LIBRARY = """
names = []
class Base:
    def __init_subclass__(cls, **more): names.append(cls.__name__)
class Wants:
    def __init_subclass__(cls, key): cls.key = key
"""


@pytest.mark.parametrize(("source", "expression"), REGISTRIES + SHAPES)
def test_a_class_is_on_the_worker_what_it_is_at_home(elsewhere: Elsewhere, source: str, expression: str) -> None:
    home = notebook(IMPORTS + source)
    for _ in range(2):  # the process may know the class already
        assert elsewhere.ask(frozen(expression, home), expression).text == at_home(expression, home)


@pytest.mark.parametrize("source", [source for source, _ in SHAPES if "enum." in source])
def test_a_member_comes_home_as_the_notebook_s_own(elsewhere: Elsewhere, source: str) -> None:
    home = notebook(IMPORTS + source)
    name, kind = next((name, each) for name, each in home.items() if isinstance(each, EnumType))
    brought = elsewhere.ask(frozen(name, home), f"[*{name}]").value()
    assert list(map(id, brought)) == list(map(id, kind))


@pytest.mark.parametrize(("source", "expression"), [case for case in REGISTRIES if "__eq__" not in case[0]])
def test_a_result_changes_no_registry_at_home(elsewhere: Elsewhere, source: str, expression: str) -> None:
    home = notebook(IMPORTS + source)
    before = at_home(expression, home)
    names = [name for name, value in home.items() if isinstance(value, type)]
    listed = f"[{', '.join(names)}]"
    brought = elsewhere.ask(frozen(listed, home), listed, "type.__setattr__(A, 'more', 5)").value()
    assert list(map(id, brought)) == [id(home[name]) for name in names]
    assert at_home(expression, home) == before
    assert not hasattr(home["A"], "more")


def test_a_result_of_a_new_class_changes_no_registry_at_home(elsewhere: Elsewhere) -> None:
    home = notebook(HOOK)
    brought = elsewhere.ask(frozen("Base", home), "Z()", "class Z(Base, key='z'): pass").value()
    assert isinstance(brought, home["Base"])
    assert home["reg"] == [("A", "a"), ("B", "b")]


def test_a_class_that_the_task_makes_is_counted_there(elsewhere: Elsewhere) -> None:
    answer = elsewhere.ask(frozen("Base, reg, A", notebook(HOOK)), "reg", "class Z(Base, key='z'): pass")
    assert answer.text == "[('A', 'a'), ('B', 'b'), ('Z', 'z')]"


def test_what_a_task_does_to_a_class_does_not_reach_the_next_task(elsewhere: Elsewhere) -> None:
    home = notebook("class A:\n  n = 0\nkept = []")
    for _ in range(2):
        assert elsewhere.ask(frozen("A", home), "A.n", "import builtins; A.n += 1; builtins.kept = A").text == "1"
    assert home["A"].n == 0


def test_the_hook_of_a_library_runs_on_the_worker(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with_hooks.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    home = notebook(
        "import with_hooks\nclass A(with_hooks.Base): pass\nclass Own(with_hooks.Base):\n"
        "  def __init_subclass__(cls, **more): super().__init_subclass__(**more)\nclass B(Own): pass\n"
        "class C(with_hooks.Wants, key=3): pass"
    )
    expression = "[c.__name__ for c in (A, B)], sorted(set(with_hooks.names)), C.key"
    assert elsewhere.ask(frozen(expression, home), expression).text == "(['A', 'B'], ['A', 'B', 'Own'], 3)"
