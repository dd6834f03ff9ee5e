"""The Future API, the same wherever tasks run: in this process, on workers here, on a friend's worker by a board."""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from IPython.core.inputtransformer2 import TransformerManager

import p2p_ipython
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.future import Future
from p2p_ipython.client.task_options import TaskOptions
from p2p_ipython.errors import UsageError
from p2p_ipython.task.task import make_cell
from tests.friends.friends_support import village

PATIENCE = 60

CODE = """
import os, random, sys, warnings
x = 1
kept = [1]

def read():
    return x, list(kept)

def change():
    global x
    x += 1
    kept.append(2)
    return x, kept

def fails(what):
    raise LookupError(what)

def draws(_n=0):
    return random.random()

def elsewhere():
    os.chdir("/")
    os.environ["P2P_TEST_CHANGED"] = "yes"
    random.seed(1)
    return os.getcwd(), random.random()

def within(n):
    import p2p_ipython
    with p2p_ipython.connect("alice/anything") as cluster:
        futures = [cluster.submit(pow, each, 2) for each in range(n)]
        return [future.result() for future in futures], cluster.slots, cluster.submit(os.getpid).result() == os.getpid()

def for_ever():
    import time
    while True:
        time.sleep(0.01)

def ends(how):
    sys.exit(how)
"""
"""A notebook's functions: they travel by value, wherever they are called."""


@pytest.fixture(scope="module")
def friends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Alice's side of a cluster, in which bob lends."""
    with village(tmp_path_factory.mktemp("friends"), aloud=False) as made, pytest.MonkeyPatch.context() as patch:
        made.found("bob")
        alice = made.person("alice")
        made.person("bob").worker("friends", "--slots", "2")
        for name in ("HOME", "P2P_DATA"):
            patch.setenv(name, alice.environment[name])
        with p2p_ipython.connect("alice/friends", identity=alice.key_file) as cluster:
            cluster.wait_for_workers(1, PATIENCE)
            yield cluster


@pytest.fixture(scope="module")
def local() -> Iterator[Cluster]:
    with p2p_ipython.connect("local", workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def inline() -> Iterator[Cluster]:
    with p2p_ipython.connect("inline") as cluster:
        yield cluster


@pytest.fixture(params=["inline", "local", "friends"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    made: Cluster = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def home() -> dict[str, Any]:
    """The namespace of a notebook."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(CODE, space)
    return space


def run(cluster: Cluster, source: str, home: dict[str, Any], **options: Any) -> Future[Any]:
    """Submit a cell."""
    task = make_cell(source, home, cluster._core.store, transform=TransformerManager().transform_cell, label="cell")
    return cluster._core.submit_task(task, options=TaskOptions(**options))


def at_once(cluster: Cluster) -> bool:
    return cluster.cluster == "inline"


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_a_call_uses_is_as_it_was_when_it_was_submitted(cluster: Cluster, home: dict[str, Any]) -> None:
    gate = cluster.submit(abs, -1)
    futures = [cluster.submit(home["read"]), run(cluster, "x, kept", home), run(cluster, "read()", home)]
    home["x"] = 7
    home["kept"].append(7)
    assert [future.result(PATIENCE) for future in futures] == [(1, [1])] * 3
    assert cluster.submit(home["read"]).result(PATIENCE) == (7, [1, 7])
    assert gate.result(PATIENCE) == 1


def test_what_a_task_changes_stays_its_own(cluster: Cluster, home: dict[str, Any]) -> None:
    for _ in range(2):
        assert cluster.submit(home["change"]).result(PATIENCE) == (2, [1, 2])
        assert run(cluster, "change(); x += 1; kept.append(3); x, kept", home).result(PATIENCE) == (3, [1, 2, 3])
    assert (home["x"], home["kept"]) == (1, [1])


def test_a_lazy_task_runs_when_it_is_asked_for(cluster: Cluster, home: dict[str, Any]) -> None:
    options: Any = getattr(cluster, "options", None)
    if options is None:
        pytest.skip("there are no options yet")
    future = options(lazy=True).submit(home["draws"])
    assert not future.done()
    assert 0 <= future.result(PATIENCE) < 1


def test_a_task_in_a_task_runs_in_the_same_place(cluster: Cluster, home: dict[str, Any]) -> None:
    future = cluster.submit(home["within"], 4)
    assert future.result(PATIENCE) == ([0, 1, 4, 9], 1, True)
    assert "the one slot that the task has" in future.stderr


def test_a_cluster_that_travels_is_the_slot_of_the_task(cluster: Cluster, home: dict[str, Any]) -> None:
    home["cluster"] = cluster
    source = "print(cluster.slots)\nsum(cluster.map(abs, range(-3, 0))), cluster.submit(within, 2).result()"
    assert run(cluster, source, home).result(PATIENCE) == (6, ([0, 1], 1, True))


def test_an_error_is_the_same_with_the_place_where_it_was_raised(cluster: Cluster, home: dict[str, Any]) -> None:
    for future in (cluster.submit(home["fails"], "no such thing"), run(cluster, "fails('no such thing')", home)):
        with pytest.raises(LookupError, match="no such thing") as caught:
            future.result(PATIENCE)
        assert type(caught.value) is LookupError
        assert caught.value.args == ("no such thing",)
        text = "".join(traceback.format_exception(caught.value))
        assert "fails" in text
        assert future.exception() is caught.value
        assert future.done()
        assert future.state_text.startswith("failed on ")


def test_an_error_that_ends_programs_does_so_here_only_where_the_worker_is_trusted(
    cluster: Cluster, home: dict[str, Any]
) -> None:
    error = cluster.submit(home["ends"], 3).exception(PATIENCE)
    if cluster.shared:
        assert isinstance(error, p2p_ipython.TaskError)
    else:
        assert isinstance(error, SystemExit)
        assert error.code == 3


def test_what_would_end_a_loop_of_the_caller_is_an_error_of_the_task(cluster: Cluster) -> None:
    assert isinstance(cluster.submit(next, iter(())).exception(PATIENCE), p2p_ipython.TaskError)


def test_output_comes_in_order(cluster: Cluster, home: dict[str, Any]) -> None:
    future = run(
        cluster,
        "print('one')\nprint('two', file=sys.stderr)\nsys.stdout.write('three')\nprint('four', file=sys.stderr)\n"
        "print('five')\n6;",
        home,
    )
    assert future.result(PATIENCE) is None
    assert (future.stdout, future.stderr) == ("one\nthreefive\n", "two\nfour\n")
    assert "".join(each["text"] for each in future.outputs) == "one\ntwo\nthreefour\nfive\n"


def test_output_comes_from_a_task_that_fails(cluster: Cluster, home: dict[str, Any]) -> None:
    future = run(cluster, "print('before')\nfails('now')", home)
    assert isinstance(future.exception(PATIENCE), LookupError)
    assert future.stdout == "before\n"


def test_a_value_is_shown_unless_it_is_told_not_to_be(cluster: Cluster, home: dict[str, Any]) -> None:
    sources = {"6 * 7": 42, "6 * 7;": None, "y = 6": None, "None": None, "6 * 7  # forty-two": 42, "": None}
    for source, value in sources.items():
        assert run(cluster, source or "pass", home).result(PATIENCE) == value


def test_a_cell_may_await(cluster: Cluster, home: dict[str, Any]) -> None:
    source = "import asyncio\nawait asyncio.sleep(0)\nawait asyncio.sleep(0, 5)"
    assert run(cluster, source, home).result(PATIENCE) == 5


def test_random_numbers_of_the_notebook_are_left_alone(cluster: Cluster, home: dict[str, Any]) -> None:
    random.seed(5)
    before = random.getstate()
    drawn = [cluster.submit(home["draws"]).result(PATIENCE) for _ in range(3)]
    assert len(set(drawn)) == 3
    assert random.getstate() == before
    assert random.Random(5).random() not in drawn


def test_random_numbers_follow_from_a_seed(cluster: Cluster, home: dict[str, Any]) -> None:
    seeded = [list(cluster.seeded(7).map(home["draws"], range(3))) for _ in range(2)]
    assert seeded[0] == seeded[1] == [0.059247144475457536, 0.46549147079471676, 0.8567000020711201]


def test_the_folder_and_the_environment_are_left_alone(cluster: Cluster, home: dict[str, Any]) -> None:
    before = os.getcwd(), dict(os.environ), random.getstate()
    assert cluster.submit(home["elsewhere"]).result(PATIENCE) == ("/", random.Random(1).random())
    assert (os.getcwd(), dict(os.environ), random.getstate()) == before


def test_asking_whether_a_task_is_over_never_waits(cluster: Cluster, home: dict[str, Any]) -> None:
    if at_once(cluster):
        assert cluster.submit(abs, -1).done()
        return
    future = cluster.submit(home["for_ever"])
    assert not future.done()
    with pytest.raises(TimeoutError):
        future.result(0)
    until(future.running)
    assert not future.done()
    assert future.cancel()
    until(future.done)


def test_a_task_that_runs_can_be_cancelled(cluster: Cluster, home: dict[str, Any]) -> None:
    thread = threading.Thread(target=lambda: cluster.submit(home["for_ever"]))
    thread.start()
    until(lambda: any(future.running() for future in cluster._core.open_futures()))
    (future,) = cluster._core.open_futures()
    assert future.cancel()
    until(future.done)
    assert future.cancelled()
    with pytest.raises(Exception, match="was cancelled"):
        future.result(PATIENCE)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not cluster.submit(abs, -2).exception(PATIENCE)


def test_a_task_that_is_over_cannot_be_cancelled(cluster: Cluster) -> None:
    future = cluster.submit(abs, -2)
    assert future.result(PATIENCE) == 2
    assert not future.cancel()
    assert future.result() == 2


def test_a_task_has_a_label(cluster: Cluster, home: dict[str, Any]) -> None:
    assert cluster.submit(home["read"]).label == "read"
    assert run(cluster, "1", home).label == "cell"
    named = cluster._core.submit_call(abs, (-1,), {}, label="mine")
    assert named.result(PATIENCE) == 1
    assert named.label == "mine"
    assert "mine" in repr(named)


def test_a_value_is_the_same_each_time(cluster: Cluster) -> None:
    future = cluster.submit(sorted, [3, 1, 2])
    assert future.result(PATIENCE) == [1, 2, 3]
    assert future.result() is future.result()


def test_a_task_runs_again_as_it_was(cluster: Cluster, home: dict[str, Any]) -> None:
    future = cluster.submit(home["change"])
    home["x"] = 9
    assert future.result(PATIENCE) == future.again().result(PATIENCE) == (2, [1, 2])
    failed = cluster.submit(home["fails"], "again")
    for each in (failed, failed.again()):
        assert isinstance(each.exception(PATIENCE), LookupError)


def test_a_future_among_the_arguments_is_its_value(cluster: Cluster) -> None:
    assert cluster.submit(sum, [cluster.submit(abs, -3), 4]).result(PATIENCE) == 7
    with pytest.raises(p2p_ipython.TaskError, match="among its arguments failed"):
        cluster.submit(abs, cluster.submit(int, "x")).result(PATIENCE)


def test_map_is_the_built_in_one(cluster: Cluster, home: dict[str, Any]) -> None:
    assert list(cluster.map(pow, range(5), range(5))) == list(map(pow, range(5), range(5)))
    with pytest.raises(LookupError, match="3"):
        list(cluster.map(home["fails"], "345"))


def test_names_that_a_cell_binds_come_along(cluster: Cluster, home: dict[str, Any]) -> None:
    task = make_cell("y = x + 1", home, cluster._core.store, transform=str)
    future = cluster._core.submit_task(replace(task, names=("y",)))
    assert future["y"] == 2
    assert "y" not in home


def test_the_journal_and_the_status_know_what_ran(cluster: Cluster) -> None:
    future = cluster.submit(abs, -2)
    assert future.result(PATIENCE) == 2
    assert len(cluster.journal()) > 0
    until(lambda: cluster._core.record.entries[future.task_id].ended)
    assert cluster._core.record.entries[future.task_id].state.value == "done"
    status = cluster.status()
    assert status.members
    assert (status.pending, status.running) == (0, 0)
    assert cluster.slots >= 1
    cluster.wait_for_workers(1, PATIENCE)


def test_after_its_end_it_takes_nothing() -> None:
    for target in ("inline", "local"):
        cluster = p2p_ipython.connect(target)
        future = cluster.submit(abs, -2)
        cluster.shutdown()
        assert future.result(PATIENCE) == 2
        with pytest.raises(RuntimeError, match="closed"):
            cluster.submit(abs, 1)
        assert cluster.status().board_state == "closed"


def test_output_that_is_not_shown_is_kept(cluster: Cluster, home: dict[str, Any], capfd: Any) -> None:
    source = "print('one')\nprint('two', file=sys.stderr)\nprint('three')"
    for way, shown in (("off", ""), ("end", "one\nthree\n"), ("live", "one\nthree\n")):
        future = run(cluster, source, home, stdout=way)
        assert future.result(PATIENCE) is None
        seen = capfd.readouterr()
        assert (seen.out, seen.err) == (shown, "two\n" if shown else "")
        assert (future.stdout, future.stderr) == ("one\nthree\n", "two\n")
        future.replay()
        assert capfd.readouterr().out == "one\nthree\n"
    again = run(cluster, source, home, stdout="off")
    assert again.again().result(PATIENCE) is None
    assert capfd.readouterr().out == ""
    called = cluster.options(stdout="off").submit(print, "called")
    assert called.result(PATIENCE) is None
    assert (called.stdout, capfd.readouterr().out) == ("called\n", "")
    with pytest.raises(UsageError, match="stdout is 'loud'"):
        cluster.options(stdout="loud")


WARNS = """
import warnings
class Own(UserWarning):
    pass
def warns():
    warnings.warn("first", UserWarning)
    print("between")
    warnings.warn("second", RuntimeWarning)
    warnings.warn("third", Own)
    return 5
"""


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are shown, as in a program: pytest records them."""

    def _showwarnmsg_impl(message: Any) -> None:
        sys.stderr.write(warnings._formatwarnmsg(message))  # type: ignore[attr-defined]

    monkeypatch.setattr(warnings, "_showwarnmsg_impl", _showwarnmsg_impl)


@pytest.mark.usefixtures("plainly")
def test_warnings_are_raised_again_when_the_value_is_asked_for(
    cluster: Cluster, home: dict[str, Any], capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exec(WARNS, home)
    monkeypatch.setitem(vars(sys.modules["__main__"]), "Own", home["Own"])  # a notebook is __main__
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        futures = [cluster.submit(home["warns"]) for _ in range(2)]
        unasked = cluster.submit(home["warns"])
        with warnings.catch_warnings(record=True) as caught:
            assert [future.result(PATIENCE) for future in futures] == [5, 5]
        assert [(each.category, str(each.message)) for each in caught[:3]] == [
            (UserWarning, "first"),
            (RuntimeWarning, "second"),
            (home["Own"], "third"),
        ]
        assert (len(caught), caught[0].lineno, caught[0].filename) == (6, 6, "<string>")
        with warnings.catch_warnings(record=True) as caught:
            assert futures[0].result() == 5
        assert not caught
        until(unasked.done)
        unasked.exception()
        seen = capfd.readouterr()
        assert seen.err.count("UserWarning: first") == 3  # once each, as it came
        assert futures[0].stderr.count("second") == 1
        assert futures[0].stdout == "between\n"


def test_a_filter_makes_a_warning_of_a_task_an_error(cluster: Cluster, home: dict[str, Any]) -> None:
    exec(WARNS, home)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        future = cluster.submit(home["warns"])
        until(future.done)
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(RuntimeWarning, match="second"):
            future.result(PATIENCE)
        assert future.result() == 5  # each once


@pytest.mark.usefixtures("plainly")
def test_warnings_that_were_not_shown_are_shown_with_the_value(
    cluster: Cluster, home: dict[str, Any], capfd: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        future = run(cluster, "import warnings\nwarnings.warn('unseen')\n6", home, stdout="off")
        until(future.done)
        assert capfd.readouterr().err == ""
        assert future.result(PATIENCE) == 6
        future.result()
        assert capfd.readouterr().err.count("UserWarning: unseen") == 1


LOGS = """
import logging
def logs(error=None):
    logger = logging.getLogger("p2p_test")
    logger.debug("too low")
    logger.info("a %s of %d", "record", 3)
    logging.getLogger("p2p_test.below").warning("100 % of it")
    logging.getLogger("p2p_else").warning("elsewhere")
    try:
        raise KeyError(error)
    except KeyError:
        logger.exception("caught")
"""


class Kept(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)
        self.records.append(record)


def test_records_of_chosen_loggers_are_handled_here(cluster: Cluster, home: dict[str, Any]) -> None:
    exec(LOGS, home)
    handler, logger = Kept(), logging.getLogger("p2p_test")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        future = cluster.options(log=["p2p_test"]).submit(home["logs"])
        future.result(PATIENCE)
        assert [(each.name, each.levelname, each.getMessage()) for each in handler.records] == [
            ("p2p_test", "INFO", "a record of 3"),
            ("p2p_test.below", "WARNING", "100 % of it"),
            ("p2p_test", "ERROR", "caught"),
        ]
        assert (handler.records[0].lineno, handler.records[0].funcName) == (6, "logs")
        assert "KeyError: None" in handler.records[2].exc_text
        if not at_once(cluster):
            assert {each.p2p_worker for each in handler.records} == {"bob" if cluster.shared else future.worker}
            assert "caught" not in future.stderr
        again = future.again()
        again.result(PATIENCE)
        assert len(handler.records) == 6
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
