"""The notebook's settings, its environment and its random numbers, in tasks of a real kernel's personal cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.notebook.kernels import Cell, Notebook, connected


@pytest.fixture(scope="module")
def shared() -> Iterator[Notebook]:
    with connected(2, first="import os; os.environ['EARLY'] = 'before loading'") as one:
        yield one


@pytest.fixture
def nb(shared: Notebook) -> Notebook:
    shared.forget()
    return shared


def test_what_libraries_were_told_holds_in_tasks_and_no_longer_when_it_is_told_back(nb: Notebook) -> None:
    nb.done(
        "import numpy as np, pandas as pd, decimal, warnings\n"
        "np.set_printoptions(precision=3); pd.set_option('display.precision', 2); decimal.getcontext().prec = 5\n"
        "warnings.filterwarnings('ignore', 'old'); a = np.array([1 / 3]); df = pd.DataFrame({'x': [1 / 3]})"
    )
    cell = nb.done(
        "%%p2p --wait\nimport decimal, warnings\nprint(a, df.x.to_string(), decimal.Decimal(1) / 3)\n"
        "warnings.warn('old'); warnings.warn('new')"
    )
    assert "[0.333] 0    0.33 0.33333" in cell.text
    assert "UserWarning: new" in cell.text
    assert "UserWarning: old" not in cell.text
    nb.done(
        "np.set_printoptions(precision=8); pd.reset_option('display.precision'); \n"
        "decimal.setcontext(decimal.Context()); warnings.filters.pop(0)"
    )
    usual = nb.done("print(a, df.x.to_string())").text
    assert usual in nb.done("%%p2p --wait\nprint(a, df.x.to_string())").text


def test_what_loggers_were_told_holds_in_tasks_and_no_longer_when_it_is_told_back(nb: Notebook) -> None:
    nb.done(
        "import logging, sys\nlogging.basicConfig(level=logging.INFO, format='{name}: {message}', style='{')\n"
        "out = logging.StreamHandler(sys.stdout); out.setLevel(logging.ERROR); logging.root.addHandler(out)\n"
        "logging.getLogger('matplotlib').setLevel(logging.ERROR); logging.getLogger('loud').setLevel(5)\n"
        "logging.getLogger('silent').disabled = True"
    )
    ask = (
        "import logging\nimport matplotlib\nlogging.info('one'); logging.debug('two'); logging.error('three')\n"
        "logging.getLogger('matplotlib').warning('four'); logging.getLogger('loud').log(6, 'five')\n"
        "logging.getLogger('silent').error('six')"
    )

    def printed(cell: Cell) -> list[str]:
        return [
            "".join(each["text"] for each in cell.of("stream") if each["name"] == name) for name in ("stdout", "stderr")
        ]

    home, there = nb.done(ask), nb.done(f"%%p2p --wait\n{ask}")
    assert printed(home) == ["three\n", "root: one\nroot: three\nloud: five\n"]
    assert printed(there) == printed(home)
    nb.done(
        "logging.root.handlers.clear(); logging.root.setLevel(logging.WARNING)\n"
        "for name in 'matplotlib', 'loud': logging.getLogger(name).setLevel(0)\n"
        "logging.getLogger('silent').disabled = False"
    )
    usual = ["", "ERROR:root:three\nWARNING:matplotlib:four\nERROR:silent:six\n"]
    for _ in range(2):  # on each worker
        assert printed(nb.done(f"%%p2p --wait\n{ask}")) == usual
    assert printed(nb.done(f"{ask}\nlogging.root.handlers.clear()")) == usual


def size(cell: Cell) -> tuple[str, int, int]:
    [data] = [c["data"] for c in cell.of("display_data") if "image/png" in c["data"] or "image/svg+xml" in c["data"]]
    if "image/svg+xml" in data:
        return "svg", 0, 0
    import base64

    png = base64.b64decode(data["image/png"])
    return "png", int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def test_figures_have_the_notebook_s_style_and_format(nb: Notebook) -> None:
    nb.done("import matplotlib.pyplot as plt\nplt.style.use('ggplot'); plt.rcParams['figure.figsize'] = 3, 2")
    draw = "plt.plot([1, 2]); plt.show()"
    there, here = nb.done(f"%%p2p --wait\n{draw}"), nb.done(draw)
    assert size(there) == size(here)
    nb.done("%config InlineBackend.figure_format = 'svg'")
    assert size(nb.done(f"%%p2p --wait\n{draw}"))[0] == "svg"
    nb.done("%config InlineBackend.figure_format = 'png'\nplt.rcdefaults()")
    assert size(nb.done(f"%%p2p --wait\n{draw}")) == size(nb.done(draw))


def test_the_shell_s_settings_aliases_and_line_magics_hold_in_tasks(nb: Notebook) -> None:
    nb.done(
        "from __future__ import annotations\nfrom IPython.core.magic import register_line_magic\n"
        "factor = 2\n@register_line_magic\ndef double(line): return factor * int(line)\n"
        "%alias greet echo hello %s\n%precision 2\n%xmode Minimal"
    )
    cell = nb.done(
        "%%p2p --wait\ndef f(x: Missing): pass\nprint(f.__annotations__)\nx = %double 21\nprint(x)\n%greet you\n"
        "display(1 / 3)"
    )
    assert "{'x': 'Missing'}\n42\nhello you" in cell.text
    assert "0.33" in [c["data"]["text/plain"] for c in cell.of("display_data")]
    nb.done("factor = 3")
    assert "63" in nb.done("%%p2p --wait\nx = %double 21\nprint(x)").text
    failed = nb.run("%%p2p --wait\n1 / 0")
    assert failed.error is not None
    assert "Traceback" not in "".join(failed.error["traceback"])
    nb.done(
        "%xmode Context\n%precision\n%unalias greet\nip = get_ipython()\n"
        "del ip.magics_manager.magics['line']['double']\n"
        "type(ip).__mro__[1].ast_node_interactivity = 'all'"
    )
    cell = nb.done("%%p2p --wait\n11\n12")
    assert {"11", "12"} <= {
        c["data"]["text/plain"] for kind in ("display_data", "execute_result") for c in cell.of(kind)
    }
    nb.done("type(ip).__mro__[1].ast_node_interactivity = 'last_expr'")


def test_the_environment_is_the_notebook_s_and_its_values_are_not_shown(nb: Notebook) -> None:
    nb.done("import os\nos.environ['LATE'] = 'hush-1234'")
    ask = "import os\nprint(os.environ.get('EARLY'), os.environ.get('LATE'))"
    assert "before loading hush-1234" in nb.done(f"%%p2p --wait\n{ask}").text
    shown = nb.done(f"%%p2p --dry-run --env LATE\n{ask}").shown
    assert "LATE" in shown
    assert "EARLY" in shown
    assert "hush" not in shown
    nb.done("del os.environ['LATE']")
    assert "before loading None" in nb.done(f"%%p2p --wait\n{ask}").text
    missing = nb.run(f"%%p2p --env LATE\n{ask}")
    assert missing.error is not None
    assert "LATE" in missing.error["evalue"]


def test_a_seed_gives_the_same_numbers_and_without_one_no_two_tasks_are_alike(nb: Notebook) -> None:
    nb.done("import random, numpy as np\ndef draw(_=0): return random.random(), float(np.random.rand())")
    ask = "print(draw())"
    assert nb.done(f"%%p2p --wait --seed 5\n{ask}").text == nb.done(f"%%p2p --wait --seed 5\n{ask}").text
    same = "list(cluster.seeded(5).map(draw, range(6)))"
    assert nb.done(f"once, again = {same}, {same}\nonce == again, len(set(once))").value == "(True, 6)"
    assert nb.done("len(set(cluster.map(draw, range(12))))").value == "12"
    different = nb.done(
        "random.seed(1); np.random.seed(1)\n"
        "futures = [cluster.submit(f) for f in [random.random, np.random.rand] * 6]\n"
        "len({f.result() for f in futures})"
    )
    assert different.value == "12"


@pytest.mark.parametrize("draw", ["np.random.rand(3)", "numpy.random.rand(3)", "mine()", "rand(3)", "random.random()"])
def test_a_seed_that_stays_here_is_said(nb: Notebook, draw: str) -> None:
    begin = "import numpy, numpy as np, random\nfrom numpy.random import rand\ndef mine(): return np.random.rand()"
    nb.done(f"{begin}\nnp.random.seed(42); random.seed(42)")
    assert "stays in this notebook; --seed N" in nb.done(f"%%p2p\n{draw}").text
    assert "stays in this notebook" not in nb.done(f"%%p2p --seed 3\n{draw}").text
    assert "stays in this notebook" not in nb.done(f"%%p2p --wait\n{draw}").text, "it draws on"
    assert "stays in this notebook" not in nb.done("%%p2p\nnp.random.default_rng(3).normal()").text


def test_a_logger_that_writes_to_the_cell_does_so_in_tasks(nb: Notebook) -> None:
    nb.done(
        "import logging, sys\nlog = logging.getLogger('shop'); log.setLevel(logging.INFO); log.propagate = False\n"
        "handler = logging.StreamHandler(sys.stdout)\n"
        "handler.setFormatter(logging.Formatter('%(levelname)s %(name)s: %(message)s')); log.addHandler(handler)"
    )
    sold = "%%p2p --wait\nlog.info('sold'); log.debug('quiet')"
    for _ in range(2):
        cell = nb.done(sold)
        assert [(each["name"], each["text"]) for each in cell.of("stream")] == [("stdout", "INFO shop: sold\n")]
    sent = nb.done("%%p2p --wait\nhandler.formatter._fmt, handler.stream is sys.stdout, handler.lock is None")
    assert sent.value == "('%(levelname)s %(name)s: %(message)s', True, False)"
    nb.done("log.removeHandler(handler); log.propagate = True; log.setLevel(0)")
    assert nb.done(sold).text == ""
    assert nb.done("%%p2p --wait\nlog.warning('sold out'), len(log.handlers)").value == "(None, 0)"


@pytest.mark.parametrize("draw", ["np.random.rand()", "random.random()", "both()"])
@pytest.mark.parametrize("way", ["%%p2p --wait", "%%p2p --wait --bind all"])
def test_a_cell_that_is_waited_for_draws_on_and_the_notebook_after_it(nb: Notebook, draw: str, way: str) -> None:
    begin = "import numpy as np, random\nboth = lambda: (random.gauss(), np.random.rand())\n"
    seed = "np.random.seed(42); random.seed(42)"
    home = nb.done(f"{begin}{seed}\n[{draw} for _ in range(4)]").value
    nb.done(f"{seed}\nseen = [{draw}]")
    away = nb.done(f"{way}\n[{draw}, {draw}]").value
    nb.done(f"seen += {away}")
    failed = nb.run(f"{way}\n{draw}\n1 / 0")
    assert failed.error is not None
    assert failed.error["ename"] == "ZeroDivisionError"
    nb.done(f"{seed}\n_ = [{draw} for _ in range(4)]\nlater = {draw}\n{seed}\n_ = [{draw} for _ in range(3)]")
    nb.done(f"{way}\n_ = {draw}")
    assert nb.done(f"later == {draw}").value == "True"
    assert nb.done(f"seen == {home}[:3]").value == "True"


def test_a_cell_that_seeds_brings_its_seed_home(nb: Notebook) -> None:
    nb.done("import random")
    nb.done("%%p2p --wait\nrandom.seed(3)\n_ = random.random()")
    here = nb.done("random.random()").value
    assert nb.done("random.seed(3); _ = random.random(); random.random()").value == here
    assert nb.done("%%p2p --wait\n1\n").value == "1"
    assert nb.done("_p2p.names").value == "()"
