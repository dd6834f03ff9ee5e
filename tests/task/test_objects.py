"""Objects of a notebook's classes travel as they are, whatever their classes do when they are made or asked."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from p2p_ipython.task.payload import pack_result
from tests.task.elsewhere_support import Elsewhere, at_home, frozen, notebook

E1 = """
class E1(Exception):
    def __init__(self, code, msg):
        super().__init__(f'{code}: {msg}')
        self.code = code
e = E1(3, 'x')
"""


def caught(statement: str) -> str:
    return f"try:\n  {statement}\nexcept BaseException as each:\n  e = each"


CHAINED = "try:\n    1 / 0\n  except Exception as z:\n    raise ValueError('v')"

EXCEPTIONS = [
    (E1, "e, e.code, e.args"),
    ("class E(Exception):\n  def __init__(self, *, code): self.code = code\ne = E(code=4)", "e, e.code, e.args"),
    (
        "class E(Exception):\n  def __init__(s, a, b): s.a, s.b = a, b\n  def __str__(s): return f'{s.a}-{s.b}'\n"
        "e = E(1, 2)",
        "str(e), e.args, e",
    ),
    (
        "class E(Exception):\n  def __init__(s, a, b): super().__init__(a); s.b = b\n"
        "  def __reduce__(s): return E, (s.args[0], s.b + 1)\ne = E(1, 2)",
        "e, type(e).__name__",
    ),
    (
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass E(Exception):\n  code: int\ne = E(3)",
        "e.code, e",
    ),
    ("class E(Exception):\n  __slots__ = ('code',)\n  def __init__(s, c): s.code = c\ne = E(3)", "e.code, e.args"),
    ("e = ValueError('x'); e.add_note('a note'); e.more = 5", "e, e.__notes__, e.more"),
    (
        caught("try:\n    1 / 0\n  except Exception as z:\n    raise ValueError('v') from z"),
        "e.__cause__, e.__context__",
    ),
    (caught(CHAINED), "e.__cause__, e.__context__, e.__suppress_context__"),
    (caught(CHAINED + " from None"), "e.__cause__, e.__context__, e.__suppress_context__"),
    (
        "import urllib.error\ne = urllib.error.HTTPError('http://x', 404, 'nf', {'a': 'b'}, None)",
        "e, e.code, e.reason, e.filename, e.headers, e.url",
    ),
    ("e = FileNotFoundError(2, 'No such', 'f.txt')", "e, e.errno, e.filename, e.args"),
    (
        "class Mine(OSError):\n  def __init__(s, path): super().__init__(5, 'bad', path); s.extra = 1\ne = Mine('p')",
        "e, e.errno, e.filename, e.extra, str(e)",
    ),
    ("e = ImportError('x', name='n', path='p')", "e, e.name, e.path"),
    (caught("[].foo"), "e, e.name"),
    (caught("b'\\xff'.decode()"), "e, e.start, e.object"),
    (caught("compile('a b', 'f', 'exec')"), "e, e.lineno, e.text, e.filename"),
    ("e = SystemExit(3)", "e, e.code"),
    ("import json\n" + caught("json.loads('{')"), "str(e), e.pos, e.doc"),
    (E1 + "e = ExceptionGroup('g', [e, ValueError(1)])", "e, e.exceptions[0].code"),
    (
        "class G(ExceptionGroup):\n  def __new__(cls, msg, excs, code):\n"
        "    made = super().__new__(cls, msg, excs); made.code = code; return made\n"
        "  def derive(s, excs): return G(s.message, excs, s.code)\ne = G('m', [ValueError(1)], 3)",
        "e.code, e.split(ValueError)[0].code",
    ),
]

OBJECTS = [
    (
        "class D:\n  def __init__(s, x): s.inner = x\n  def __getattr__(s, n): return getattr(s.inner, n)\n"
        "d = D([1, 2])",
        "d.index(2), type(d).__name__",
    ),
    (
        "class D:\n  __slots__ = ('inner',)\n  def __init__(s, x): s.inner = x\n"
        "  def __getattr__(s, n): return getattr(s.inner, n)\nd = D([1, 2])",
        "d.index(2)",
    ),
    (
        "class D:\n  def __init__(s): object.__setattr__(s, 'x', 1)\n"
        "  def __setattr__(s, n, v): raise AttributeError('frozen')\nd = D()",
        "d.x",
    ),
    (
        "class Proxy:\n  def __init__(s, o): object.__setattr__(s, '_o', o)\n"
        "  def __getattribute__(s, n): return getattr(object.__getattribute__(s, '_o'), n)\np = Proxy([3, 1])",
        "p.index(1)",
    ),
    (
        "class C:\n  def __init__(s): s.x = 1; s.f = lambda: 0\n  def __getstate__(s): return {'x': s.x + 1}\n"
        "  def __getattr__(s, n): raise AttributeError(n)\nc = C()",
        "c.x if 'f' in vars(c) else c.x - 1",
    ),
    (
        "class Lower(dict):\n  def __init__(s): s.count = 0\n"
        "  def __setitem__(s, k, v): s.count += 1; super().__setitem__(k.lower(), v)\nd = Lower(); d['A'] = 1",
        "d, d.count",
    ),
    (
        "class Log(list):\n  def __init__(s): s.log = []\n"
        "  def append(s, x): s.log.append(x); super().append(x)\n  def extend(s, xs): raise TypeError\n"
        "l = Log(); l.append(1)",
        "l, l.log",
    ),
    (
        "import collections\nclass D(collections.defaultdict):\n  def __init__(s): super().__init__(list)\n"
        "d = D(); d['a'].append(1)",
        "d['a'], d['b'], type(d).__name__",
    ),
    ("class S(set):\n  def __init__(s): super().__init__(); s.tag = 't'\ns = S(); s.add(1)", "s.tag, s"),
    ("class F(frozenset):\n  def __new__(cls, *xs): return super().__new__(cls, xs)\nf = F(1)", "f, type(f).__name__"),
    (
        "import collections\nclass Recent(collections.OrderedDict):\n"
        "  def __init__(s, size): s.size = size; super().__init__()\n  def __setitem__(s, k, v):\n"
        "    super().__setitem__(k, v)\n    while len(s) > s.size: s.popitem(last=False)\n"
        "o = Recent(2); o[1] = 1; o[2] = 2; o[3] = 3",
        "list(o), o.size",
    ),
    (
        "import collections\nclass C(collections.Counter):\n"
        "  def __init__(s, tag): s.tag = tag; super().__init__('aab')\n"
        "c = C('t')",
        "c.tag, c['a']",
    ),
    (
        "import collections\nclass Q(collections.deque):\n  def __init__(s, n): super().__init__(maxlen=n); s.n = n\n"
        "q = Q(2); q.extend([1, 2, 3])",
        "list(q), q.maxlen, q.n",
    ),
    (
        "class T(tuple):\n  def __new__(cls, a, b): return super().__new__(cls, (a, b))\nt = T(1, 2)",
        "t, type(t).__name__",
    ),
    (
        "class N(int):\n  def __new__(cls, v, unit):\n    made = super().__new__(cls, v); made.unit = unit\n"
        "    return made\nn = N(3, 'm')",
        "n + 1, n.unit",
    ),
    (
        "class N(int):\n  def __new__(cls, v, unit):\n    made = int.__new__(cls, v); made.unit = unit + 'm'\n"
        "    return made\n  def __getnewargs__(s): return (int(s), s.unit[:-1])\nn = N(3, 'c')",
        "n, n.unit",
    ),
    ("class C:\n  def __new__(cls, a):\n    made = super().__new__(cls); made.a = a; return made\nc = C(3)", "c.a"),
    (
        "import datetime\nclass D(datetime.date):\n  def __new__(cls, y): return super().__new__(cls, y, 1, 1)\n"
        "d = D(2020)",
        "d.year, type(d).__name__",
    ),
    (
        "class S:\n  one = None\n  def __new__(cls):\n    cls.one = cls.one or super().__new__(cls)\n"
        "    return cls.one\ns = S()",
        "S() is s",
    ),
    (
        "import numpy\nclass M(numpy.ndarray):\n  def __new__(cls, x, tag=''):\n"
        "    made = numpy.asarray(x).view(cls); made.tag = tag; return made\n"
        "  def __array_finalize__(s, other): s.tag = getattr(other, 'tag', '')\nm = M([1, 2], 'hi')",
        "m.tag, type(m).__name__, m.sum().item()",
    ),
    ("import struct\ns = struct.Struct('<i')\ndef f(x): return s.pack(x)", "f(1), s.format"),
    (
        "class Own(property):\n  def __init__(s, f): super().__init__(f)\nclass A:\n  @Own\n  def x(s): return 4",
        "A().x",
    ),
    (
        "import weakref\nclass N:\n  def __init__(s, up=None):\n"
        "    s.up = up and weakref.ref(up); s.down = N(s) if not up else 0\nn = N()",
        "n.down.up() is n",
    ),
    ("import weakref\nw = weakref.ref(set())", "w()"),
    ("import re\nms = list(re.finditer(r'(?P<k>\\w)=(\\d)', 'a=1 b=2'))", "[m.groupdict() for m in ms], ms[1].span()"),
    ("import re\nm = re.fullmatch('a|ab', 'ab')", "m, m.span(), m.re"),
    ("import contextvars\nv = contextvars.ContextVar('v')\nv.set(4)\ndef f(): return v.get()", "f()"),
    ("import contextvars\nv = contextvars.ContextVar('v', default=5)", "v.get(), v.name"),
    (
        "import numpy\nf = numpy.frompyfunc(lambda a, b: a + b, 2, 1, identity=0)",
        "f.reduce([1, 2]), f.identity, f.nout",
    ),
    ("import numpy\nv = numpy.vectorize(lambda x: x > 1, otypes=[bool])\nv([1])", "v([1, 2]).tolist()"),
    ("import numpy\nf = numpy.add\ng = numpy.multiply.outer", "f(1, 2).item(), g([1], [2]).tolist(), f is numpy.add"),
]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    process = Elsewhere()
    yield process
    process.close()


@pytest.mark.parametrize(("source", "expression"), EXCEPTIONS + OBJECTS)
def test_an_object_is_on_the_worker_what_it_is_at_home(elsewhere: Elsewhere, source: str, expression: str) -> None:
    home = notebook(source)
    assert elsewhere.ask(frozen(expression, home), expression).text == at_home(expression, home)


@pytest.mark.parametrize(("source", "expression"), EXCEPTIONS + OBJECTS)
def test_an_object_that_the_worker_made_is_at_home_what_it_was_there(
    elsewhere: Elsewhere, source: str, expression: str
) -> None:
    home = notebook(source)
    used = {node.id for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Name)} & home.keys()
    answer = elsewhere.ask(frozen("1", {}), f"{{{', '.join(f'{name!r}: {name}' for name in sorted(used))}}}", source)
    assert at_home(expression, {**home, **answer.value()}) == at_home(expression, home)


def test_an_exception_of_a_long_chain_travels_alone() -> None:
    first = error = ValueError(0)
    for number in range(1, 5000):
        error.__context__ = error = ValueError(number)  # type: ignore[assignment]
    packed = pack_result(first)
    assert len(packed.inline) < 200
