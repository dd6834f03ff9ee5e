"""joblib on a cluster, by its backend "p2p", and scikit-learn with it; joblib's own tests are beside this."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from multiprocessing import TimeoutError as Late
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest
from joblib import Parallel, delayed, parallel_config

import p2p_ipython
import p2p_ipython.joblib
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.errors import ClusterClosed, NotConnected, NotPicklable, UsageError

PATIENCE = 60.0


@pytest.fixture(scope="module")
def connected() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=2) as made:
        yield made


@pytest.fixture
def cluster(connected: Cluster) -> Iterator[Cluster]:
    """A cluster that joblib uses; nothing of it is left on the way."""
    with parallel_config("p2p", cluster=connected):
        yield connected
    until_idle(connected)


def until_idle(cluster: Cluster) -> None:
    end = time.monotonic() + PATIENCE
    while not cluster._core.idle:
        assert time.monotonic() < end, cluster.status()
        time.sleep(0.01)


def pid(_n: int = 0) -> int:
    return os.getpid()


def unless_five(n: int) -> int:
    if n == 5:
        raise ZeroDivisionError("five")
    return n


# --- whose cluster ----------------------------------------------------------------------------------------------------


SCRIPT = """
import sys
import p2p_ipython
assert "joblib" not in sys.modules
EARLY
with p2p_ipython.connect(workers=2):
    LATE
    import os
    def square(n):
        return n * n, os.getpid()
    with joblib.parallel_config("p2p"):
        found = joblib.Parallel()(joblib.delayed(square)(n) for n in range(9))
    print([n for n, _ in found], {pid for _, pid in found}.isdisjoint({os.getpid()}))
    print(joblib.Parallel(backend="p2p", n_jobs=2)(joblib.delayed(lambda n: -n)(n) for n in range(3)))
"""


@pytest.mark.parametrize("when", ["EARLY", "LATE"])
def test_a_script_that_connects_needs_no_other_word(when: str) -> None:
    late = 'assert "joblib" not in sys.modules; import joblib'
    text = SCRIPT.replace(when, late).replace("EARLY", "").replace("LATE", "")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout.splitlines() == ["[0, 1, 4, 9, 16, 25, 36, 49, 64] True", "[0, -1, -2]"], done.stderr
    assert done.stderr == ""


def test_without_a_cluster_it_says_what_to_do() -> None:
    text = (
        "import joblib, p2p_ipython.joblib\nfor use in joblib.parallel_config, joblib.parallel_backend:\n"
        "    try: use('p2p')\n    except p2p_ipython.joblib.NotConnected as error: print(error)"
    )
    text = text.replace("p2p_ipython.joblib.NotConnected", "p2p_ipython.P2PError")
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.count("none is connected\nConnect first: %p2p_connect in a notebook") == 2


def test_of_several_clusters_one_has_to_be_named(connected: Cluster) -> None:
    with p2p_ipython.connect(workers=1) as other:
        with pytest.raises(UsageError, match=r"several clusters .*\n.*cluster=cluster"):
            parallel_config("p2p")
        with parallel_config("p2p", cluster=other):
            assert joblib.effective_n_jobs(-1) == 1
        used = parallel_config("p2p", cluster=other)
        used.unregister()
    with pytest.raises(ClusterClosed):
        Parallel(backend=used.parallel_config["backend"])(delayed(pid)() for _ in range(2))


def test_what_is_no_cluster_is_refused() -> None:
    with pytest.raises(UsageError, match="no cluster"):
        parallel_config("p2p", cluster="alice/friends")
    with pytest.raises(TypeError):
        parallel_config("p2p", scatter=[1])
    assert issubclass(NotConnected, UsageError)


# --- how many ---------------------------------------------------------------------------------------------------------


def test_all_jobs_are_as_many_as_there_are_slots(cluster: Cluster) -> None:
    assert [joblib.effective_n_jobs(n) for n in (-1, -2, -5, 1, 2, 8)] == [2, 1, 1, 1, 2, 2]
    assert joblib.effective_n_jobs(None) == 2
    with pytest.raises(ValueError, match="no meaning"):
        joblib.effective_n_jobs(0)
    assert Parallel(n_jobs=1)(delayed(pid)() for _ in range(2)) == [os.getpid()] * 2


def test_a_cluster_of_one_slot_is_used(connected: Cluster) -> None:
    with p2p_ipython.connect(workers=1) as one, parallel_config("p2p", cluster=one):
        for found in (Parallel()(delayed(pid)() for _ in range(3)), Parallel(n_jobs=-1)([delayed(pid)()])):
            assert len(set(found)) == 1
            assert os.getpid() not in found
        with Parallel() as managed:
            assert os.getpid() not in managed(delayed(pid)() for _ in range(3))


def noted(log: str) -> int:
    """Write down when the call begins and ends."""
    for word in ("begins", "ends"):
        with open(log, "a") as file:
            print(word, file=file)
    return 0


def meets_another(folder: str, n: int) -> bool:
    """Return whether another call runs at the same time; wait for it."""
    Path(folder, str(n)).touch()
    end = time.monotonic() + PATIENCE
    while len(os.listdir(folder)) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    return len(os.listdir(folder)) == 2


def test_fewer_jobs_than_slots_run_at_a_time(cluster: Cluster, tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "folder"
    folder.mkdir()
    Parallel(n_jobs=-2, batch_size=1)(delayed(noted)(str(log)) for _ in range(12))
    assert log.read_text().split() == ["begins", "ends"] * 12
    assert all(Parallel(n_jobs=2, batch_size=1)(delayed(meets_another)(str(folder), n) for n in range(2)))


# --- values and errors ------------------------------------------------------------------------------------------------


def test_an_error_is_the_calls_own_with_the_call_that_raised_it(cluster: Cluster) -> None:
    with pytest.raises(ZeroDivisionError, match=r"^five$") as failed:
        Parallel()(delayed(unless_five)(n) for n in range(20))
    shown = "".join(traceback.format_exception(failed.value))
    assert "unless_five(5)" in shown
    assert 'raise ZeroDivisionError("five")' in shown


def test_an_argument_that_cannot_travel_ends_the_call_whenever_it_comes(cluster: Cluster) -> None:
    for at in (0, 15):
        calls = [delayed(id)(threading.Lock() if n == at else n) for n in range(20)]
        with pytest.raises(NotPicklable, match=r"^argument 1 \("):
            Parallel(batch_size=2, pre_dispatch=3)(calls)


def test_values_come_one_by_one_of_two_generators_at_a_time(cluster: Cluster) -> None:
    first, second = (Parallel(return_as="generator")(delayed(abs)(-n) for n in range(50)) for _ in range(2))
    assert [next(first), next(second), next(first)] == [0, 0, 1]
    with pytest.warns(UserWarning, match="cancelled|not used"):
        del first
    assert list(second) == list(range(1, 50))
    assert sorted(Parallel(return_as="generator_unordered")(delayed(abs)(-n) for n in range(50))) == list(range(50))


def test_a_call_that_takes_too_long_is_stopped_where_it_runs(cluster: Cluster) -> None:
    with pytest.raises(Late):
        Parallel(timeout=0.2)(delayed(time.sleep)(600) for _ in range(4))
    until_idle(cluster)
    assert Parallel()(delayed(abs)(n) for n in (-1, -2)) == [1, 2]


def test_a_killed_workers_calls_go_to_another_worker(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def attempt(n: int) -> int:
        with open(log, "a") as file:
            print(os.getpid(), file=file)
        while n == 0 and log.read_text().count("\n") < 2 + 1:  # the first one waits to be killed, beside the other
            time.sleep(0.01)
        return n

    with p2p_ipython.connect(workers=2) as cluster, parallel_config("p2p", cluster=cluster):
        values = Parallel(return_as="generator", batch_size=1, pre_dispatch=1)(delayed(attempt)(n) for n in range(4))
        end = time.monotonic() + PATIENCE
        while not (log.exists() and log.read_text().endswith("\n")):
            assert time.monotonic() < end
            time.sleep(0.01)
        runner = psutil.Process(int(log.read_text().split()[0]))
        agent = next(parent for parent in runner.parents() if parent.pid in cluster.pids)
        agent.kill()
        with open(log, "a") as file:
            file.write("and\nanother\n")
        assert list(values) == [0, 1, 2, 3]
        assert len({*log.read_text().split()} - {"and", "another"}) > 1


def test_an_array_is_kept_once_however_many_calls_have_it(cluster: Cluster) -> None:
    array = np.random.default_rng(0).random(2_000_000)
    cluster._core.store.clear()
    sums = Parallel(batch_size=1)(delayed(np.sum)(array) for _ in range(12))
    assert sums == [array.sum()] * 12
    until_idle(cluster)
    assert cluster._core.store.idle == array.nbytes

    def changing() -> Iterator[Any]:
        for _ in range(6):
            array[7] += 1.0
            yield delayed(np.sum)(array)

    before = array.sum()  # joblib takes two calls from the generator before it sends the first
    assert np.allclose(np.array(Parallel(batch_size=1)(changing())) - before, [2, 2, 4, 4, 6, 6])


# --- inside a call ----------------------------------------------------------------------------------------------------


def nested(backend: str | None) -> Any:
    inner = Parallel(n_jobs=2, backend=backend)
    return os.getpid(), inner(delayed(pid)() for _ in range(3)), type(inner._backend).__name__, joblib.cpu_count()


@pytest.mark.parametrize("backend", [None, "p2p"])
def test_calls_inside_a_call_stay_in_its_worker(cluster: Cluster, backend: str | None) -> None:
    for own, inside, kind, cores in Parallel()(delayed(nested)(backend) for _ in range(4)):
        assert own != os.getpid()
        assert (set(inside), kind, cores) == ({own}, "ThreadingBackend", 1)


def blas_threads() -> set[int]:
    import threadpoolctl

    return {each["num_threads"] for each in threadpoolctl.threadpool_info() if np is not None}


def test_libraries_have_one_thread_unless_more_are_asked_for(connected: Cluster) -> None:
    for asked, expected in ((None, 1), (2, 2), (None, 1)):
        with parallel_config("p2p", cluster=connected, inner_max_num_threads=asked):
            assert Parallel()(delayed(blas_threads)() for _ in range(4)) == [{expected}] * 4


# --- what is built on joblib ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_scikit_learn_finds_on_workers_what_it_finds_here(connected: Cluster) -> None:
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.svm import SVC

    X, y = load_iris(return_X_y=True)

    def found() -> list[Any]:
        search = GridSearchCV(SVC(), {"C": [0.1, 1.0, 10.0], "gamma": [0.01, 0.1]}, cv=3).fit(X, y)
        forest = RandomForestClassifier(20, random_state=0).fit(X, y)  # prefers threads
        scores = cross_val_score(forest, X, y, cv=3)
        probable = forest.predict_proba(X)  # wants memory that is shared: it runs here
        return [search.best_params_, search.cv_results_["mean_test_score"].tolist(), scores.tolist(), probable.tolist()]

    here = found()
    before = len(connected.journal())
    with parallel_config("p2p", cluster=connected):
        there = found()
    labels = {str(label) for label in connected.journal()["label"][before:]}
    assert there == here
    assert {label.split(" ")[0] for label in labels} == {"_fit_and_score", "_parallel_build_trees"}


def test_scores_are_plain_data_so_that_any_friends_worker_may_send_them() -> None:
    from sklearn.datasets import load_iris
    from sklearn.model_selection._validation import _fit_and_score
    from sklearn.tree import DecisionTreeClassifier

    from p2p_ipython.task import safe

    X, y = load_iris(return_X_y=True)
    tree = DecisionTreeClassifier()
    fit = _fit_and_score(
        tree,
        X,
        y,
        scorer=tree.score.__func__,
        train=np.arange(100),
        test=np.arange(100, 150),
        verbose=0,
        parameters={"max_depth": 2},
        fit_params={},
        score_params={},
        return_n_test_samples=True,
        return_times=True,
    )
    safe.encode([fit])


def test_a_remembered_function_is_called_once_for_all_workers_of_a_machine(cluster: Cluster, tmp_path: Path) -> None:
    memory = joblib.Memory(tmp_path / "memory", verbose=0)
    log = tmp_path / "log"

    @memory.cache
    def slow(n: int) -> int:
        with open(log, "a") as file:
            print(n, file=file)
        return n * n

    assert cluster.submit(slow, 3).result(PATIENCE) == 9
    assert slow(3) == 9
    assert slow.check_call_in_cache(3)
    assert Parallel()(delayed(slow)(n) for n in range(6)) == [0, 1, 4, 9, 16, 25]
    assert Parallel()(delayed(slow)(n) for n in range(6)) == [0, 1, 4, 9, 16, 25]
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3", "4", "5"]


def test_where_its_folder_is_not_a_remembered_function_computes_each_time(cluster: Cluster, tmp_path: Path) -> None:
    memory = joblib.Memory(tmp_path / "memory", verbose=0)
    log = tmp_path / "log"

    def slow(n: int) -> int:
        with open(log, "a") as file:
            print(n, file=file)
        return n * n

    def within(n: int) -> tuple[int, bool]:
        return memory.cache(slow)(n), memory.store_backend is None

    kept = memory.cache(slow)
    shutil.rmtree(tmp_path / "memory")  # as on a machine that never had it
    assert [cluster.submit(kept, 3).result(PATIENCE) for _ in range(2)] == [9, 9]
    assert cluster.submit(within, 4).result(PATIENCE) == (16, True)
    assert log.read_text().split() == ["3", "3", "4"]
    assert not (tmp_path / "memory").exists()


def test_calls_are_a_group_that_counts_what_is_over(cluster: Cluster) -> None:
    groups, begun = cluster._core.groups, list[Any]()
    new = groups.new

    def noted(*args: Any, **keywords: Any) -> Any:
        begun.append(new(*args, **keywords))
        return begun[-1]

    groups.new = noted  # type: ignore[method-assign]
    try:
        with parallel_config("p2p", cluster=cluster):
            assert Parallel()(delayed(abs)(-n) for n in range(50)) == list(range(50))
            with pytest.raises(ZeroDivisionError):
                Parallel(batch_size=1)(delayed(divmod)(1, n) for n in (1, 0))
    finally:
        groups.new = new  # type: ignore[method-assign]
    assert [(each.label, each.standing.state) for each in begun] == [("abs", "done"), ("divmod", "failed")]
    assert (begun[0].standing.done, begun[1].standing.failed) == (50, 1)
