"""A task finds the worker as the first one did, whatever the one before it has set."""

from __future__ import annotations

import pytest
from slot_support import worker

SHELL = "get_ipython()"
TEXT = f"{SHELL}.display_formatter.formatters['text/plain']"

PROCESS = {  # what a task does → what the next one looks at
    "import sys, threading\nfor m in (sys, threading): m.settrace(lambda *a: None); m.setprofile(lambda *a: None)":
        "import sys, threading\nsys.gettrace(), sys.getprofile(), threading._trace_hook, threading._profile_hook",
    "import asyncio\nclass P(asyncio.DefaultEventLoopPolicy): pass\nasyncio.set_event_loop_policy(P())":
        "import asyncio\ntype(asyncio.get_event_loop_policy()).__name__",
    "import asyncio\nawait asyncio.sleep(0)":
        "import asyncio\nasyncio.get_event_loop_policy()._local.__dict__",
    "import os, time\nos.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()":
        "import os, time\ntime.tzname, time.timezone, os.environ.get('TZ')",
    "import builtins\nbuiltins.added = 1\nbuiltins.print = abs\ndel builtins.ord":
        "import builtins\nhasattr(builtins, 'added'), builtins.print is abs, ord('a')",
    "import locale\nlocale.setlocale(locale.LC_ALL, 'C')":
        "import locale\nlocale.setlocale(locale.LC_ALL)",
    "import signal\nfor s in (15, 10): signal.signal(s, lambda *a: 0)\nsignal.signal(14, signal.SIG_IGN)\n"
    "signal.alarm(1000); signal.pthread_sigmask(signal.SIG_BLOCK, [10]);":
        "import signal\n"
        "[signal.getsignal(s) for s in (15, 10, 14)], signal.getitimer(0), signal.pthread_sigmask(0, ())",
    "import sys\nsys.path.append('/x'); sys.path = [*sys.path, '/y']":
        "import sys\n[each for each in sys.path if each in ('/x', '/y')]",
    "import sys\nclass F:\n    def find_spec(*a): return None\nsys.meta_path.insert(0, F()); sys.path_hooks.append(F)":
        "import sys\n[type(each).__name__ for each in sys.meta_path], len(sys.path_hooks)",
    "import sys, threading\nfor n in ('except', 'display', 'unraisable', 'breakpoint'): setattr(sys, n + 'hook', len)\n"
    "threading.excepthook = len; sys.stdin = None; sys.tracebacklimit = 0":
        "import sys, threading\n[getattr(sys, n + 'hook') is len for n in ('except', 'unraisable', 'breakpoint')],"
        "threading.excepthook is len, sys.stdin is None, hasattr(sys, 'tracebacklimit')",
    "import os\nos.umask(0o777);": "import os\nmask = os.umask(0o22)\nos.umask(mask)",
    "import os\nos.environ = {'A': '1'}; os.putenv('B', '1'); os.unsetenv('HOME')":
        "import os, subprocess\ntype(os.environ).__name__, os.environ.get('A'),"
        " subprocess.check_output('echo ${B-none} ${HOME+home}', shell=True)",
    "import logging\nlogging.disable(50); logging.getLogger('mine').setLevel(1); logging.captureWarnings(True)\n"
    "logging.getLogger('mine').addHandler(logging.StreamHandler()); logging.addLevelName(5, 'FIVE')":
        "import logging, warnings\nmine = logging.getLogger('mine')\nlogging.root.manager.disable, mine.level,"
        " mine.handlers, warnings.showwarning.__name__, logging.getLevelName(5)",
    "import warnings\nwarnings.showwarning = warnings.formatwarning = len; warnings.simplefilter('error')":
        "import warnings\nwarnings.showwarning is len, warnings.formatwarning is len, warnings.filters[0][0]",
    "import decimal\ndecimal.getcontext().prec = 3; decimal.setcontext(decimal.Context(prec=4))\n"
    "decimal.DefaultContext.prec = 5":
        "import decimal\ndecimal.getcontext().prec, decimal.DefaultContext.prec",
    "import gc\ngc.disable(); gc.set_threshold(3); gc.callbacks.append(lambda *a: 0); gc.freeze()":
        "import gc\ngc.isenabled(), gc.get_threshold(), gc.callbacks, gc.get_freeze_count()",
    "import sys\nsys.setrecursionlimit(5000); sys.setswitchinterval(1); sys.set_int_max_str_digits(0)":
        "import sys\nsys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits()",
    "import codecs\ncodecs.register(lambda name: codecs.lookup('utf-8') if name == 'mine' else None)":
        "import codecs\ntry: found = codecs.lookup('mine')\nexcept LookupError: found = None\nfound",
    "import socket\nsocket.setdefaulttimeout(3)": "import socket\nsocket.getdefaulttimeout()",
    "import tempfile\ntempfile.tempdir = '/nowhere'": "import tempfile\ntempfile.gettempdir()",
    "import multiprocessing\nmultiprocessing.set_start_method('spawn')":
        "import multiprocessing\nmultiprocessing.get_start_method(allow_none=True)",
    "import tracemalloc\ntracemalloc.start()": "import tracemalloc\ntracemalloc.is_tracing()",
    "import contextvars, asyncio\nasyncio.mine = contextvars.ContextVar('mine', default=0)\nasyncio.mine.set(3);":
        "import asyncio\ngetattr(asyncio, 'mine', None) and asyncio.mine.get() or 0",
}  # fmt: skip

SHELLS = {
    f"{TEXT}.for_type(int, lambda o, p, c: p.text('INT'));": f"{SHELL}.display_formatter.format(5)[0]",
    f"{SHELL}.display_formatter.formatters['text/html'].for_type(int, str);": f"{SHELL}.display_formatter.format(5)[0]",
    "%precision 2": f"{SHELL}.display_formatter.format(1/3)[0]",
    "%pprint": f"{SHELL}.display_formatter.format([1] * 100)[0]",
    f"{SHELL}.display_formatter.active_types = ['text/plain']": f"{SHELL}.display_formatter.active_types",
    "%autoawait off": f"{SHELL}.autoawait",
    "%autocall 2": f"{SHELL}.autocall",
    "%xmode Minimal": f"{SHELL}.InteractiveTB.mode, {SHELL}.xmode",
    "%colors nocolor": f"{SHELL}.colors",
    f"{SHELL}.ast_node_interactivity = 'all'": f"{SHELL}.ast_node_interactivity",
    "from IPython.core.magic import register_line_magic\n@register_line_magic\ndef mine(line): return 1":
        f"{SHELL}.find_line_magic('mine')",
    "%alias mine ls": f"{SHELL}.find_line_magic('mine')",
    "%load_ext autoreload\n%autoreload 2": "%load_ext autoreload",
    f"{SHELL}.set_custom_exc((ValueError,), lambda *a: None)": f"{SHELL}.custom_exceptions",
    f"{SHELL}.input_transformers_cleanup.append(lambda lines: lines)": f"len({SHELL}.input_transformers_cleanup)",
}  # fmt: skip

LIBRARIES = {
    "import matplotlib\nmatplotlib.use('svg')": "import matplotlib\nmatplotlib.get_backend()",
    "import matplotlib.pyplot as plt\nplt.switch_backend('agg')": "import matplotlib\nmatplotlib.get_backend()",
    "import matplotlib.pyplot as plt\nplt.style.use('ggplot'); plt.rcParams['figure.figsize'] = 1, 1; plt.figure();":
        "import matplotlib.pyplot as plt\n"
        "plt.rcParams['figure.figsize'], plt.rcParams['axes.facecolor'], plt.get_fignums()",
    "import matplotlib.pyplot as plt\n%config InlineBackend.figure_formats = ['svg']":
        "import matplotlib.pyplot as plt\n"
        f"sorted({SHELL}.display_formatter.format(plt.figure())[0]), plt.close()",
    "import pandas\npandas.set_option('display.precision', 1)":
        "import pandas\npandas.get_option('display.precision')",
    "import numpy\nnumpy.set_printoptions(precision=1); numpy.seterr(all='raise');":
        "import numpy\nstr(numpy.array([1 / 3])), numpy.geterr()",
    "import sklearn\nsklearn.set_config(display='text')": "import sklearn\nsklearn.get_config()['display']",
}  # fmt: skip


async def _finds_it_as_before(cases: dict[str, str]) -> None:
    async with worker() as it:
        for does, looks in cases.items():
            before = await it.cell(looks)
            done = await it.cell(does)
            assert done.result.ok, (does, done.error)
            after = await it.cell(looks)
            assert (after.result.ok, after.value, after.text()) == (True, before.value, before.text()), does
        assert it.deaths == []


async def test_a_task_finds_the_process_as_the_first_one_did() -> None:
    await _finds_it_as_before(PROCESS)


async def test_a_task_finds_the_shell_as_the_first_one_did() -> None:
    await _finds_it_as_before(SHELLS)


async def test_a_task_finds_the_libraries_as_the_first_one_did() -> None:
    for module in ("matplotlib", "pandas", "sklearn"):
        pytest.importorskip(module)
    await _finds_it_as_before(LIBRARIES)


async def test_what_the_first_task_sets_in_a_library_that_it_imports_is_undone_too() -> None:
    pytest.importorskip("pandas")
    async with worker() as it:
        await it.cell(
            "import pandas, matplotlib\npandas.options.display.precision = 1\nmatplotlib.rcParams['font.size'] = 3"
        )
        after = await it.cell("pandas.options.display.precision, matplotlib.rcParams['font.size']")
        assert not after.result.ok  # its names are its own
        after = await it.cell(
            "import pandas, matplotlib\npandas.options.display.precision, matplotlib.rcParams['font.size']"
        )
        assert after.value == (6, 10.0)


async def test_a_seed_of_one_task_is_none_of_the_next() -> None:
    pytest.importorskip("numpy")
    async with worker() as it:
        draw = "import random, numpy\nrandom.random(), float(numpy.random.rand())"
        seed = "import random, numpy\nrandom.seed(0); numpy.random.seed(0)\n"
        seeded = (await it.cell(seed + draw.partition("\n")[2])).value
        drawn = []
        for _ in range(2):
            await it.cell(seed)
            drawn.append((await it.cell(draw)).value)
        assert len({value for pair in (seeded, *drawn) for value in pair}) == 6


@pytest.mark.parametrize("name", ["AS", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK"])
async def test_a_limit_that_a_task_has_lowered_is_as_before_for_the_next_one(name: str) -> None:
    look = f"import resource\nresource.getrlimit(resource.RLIMIT_{name})"
    async with worker(memory=1 << 30) as it:
        before = (await it.cell(look)).value
        lower = 800 << 20 if name in ("AS", "DATA") else before[0] // 2 if before[0] > 0 else 1000
        lowered = await it.cell(f"{look}\nresource.setrlimit(resource.RLIMIT_{name}, ({lower}, {before[1]}))\n7")
        assert lowered.value == 7
        assert (await it.cell(look)).value == before
        assert it.deaths == []


async def test_each_task_is_warned_anew() -> None:
    async with worker() as it:
        source = "import warnings\nwarnings.warn_explicit('mind', UserWarning, 'f.py', 1, registry=warnings.__dict__)"
        for _ in range(2):
            assert "mind" in (await it.cell(source)).text("stderr")


@pytest.mark.parametrize(
    "change",
    [
        "import codecs\ncodecs.register_error('mine', lambda error: ('', error.end))",
        "import os\nos.register_at_fork(before=print)",
        "import faulthandler\nfaulthandler.disable();",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (10_000, 10_000))",
        "import sys\nsys.addaudithook(lambda *a: None)",
    ],
)
async def test_a_change_that_can_not_be_put_back_renews_the_runner(change: str) -> None:
    async with worker() as it:
        pid = (await it.cell("import os\nos.getpid()")).value
        assert (await it.cell(f"{change}\n7")).result.ok
        assert (await it.cell("import os\nos.getpid()")).value != pid
        assert it.deaths == []
