"""joblib's backend "p2p" beside loky, in turns, two workers each; run by hand.

``.venv/bin/python tests/benchmarks/bench_joblib.py [REPEATS]``. Each figure is a median. Ratios are of the medians,
below 1 where "p2p" is quicker. The first use of each isn't counted: it starts processes and imports scikit-learn.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import p2p_ipython

BACKENDS = ("p2p", "loky")


def in_turns(what: str, work: Callable[[], Any], repeats: int) -> None:
    figures: dict[str, list[float]] = {name: [] for name in BACKENDS}
    for number in range(repeats + 1):
        for name in BACKENDS:
            with joblib.parallel_config(name, n_jobs=2):
                begun = time.perf_counter()
                work()
                if number:
                    figures[name].append(time.perf_counter() - begun)
    ours, theirs = (statistics.median(figures[name]) for name in BACKENDS)
    each = ", ".join(f"{a:.2f}/{b:.2f}" for a, b in zip(figures["p2p"], figures["loky"], strict=True))
    print(f"{what:<52} {ours:7.3f} s {theirs:7.3f} s   ratio {ours / theirs:.2f}   ({each})", flush=True)


def large(rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, 100))
    return X, X[:, 0] + rng.standard_normal(rows)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    scans, digits = load_digits(return_X_y=True)
    grid = {"C": np.logspace(-2, 2, 8), "gamma": np.logspace(-4, -2, 5)}
    depths = {"max_depth": range(1, 41)}
    with p2p_ipython.connect(workers=2) as cluster:
        cluster.wait_for_workers(2)
        print(f"{'':<52} {'p2p':>9} {'loky':>9}")
        in_turns("GridSearchCV, 200 fits of an SVC", lambda: GridSearchCV(SVC(), grid).fit(scans, digits), repeats)
        tree = DecisionTreeClassifier(random_state=0)
        in_turns("GridSearchCV, 200 fits of a tree", lambda: GridSearchCV(tree, depths).fit(scans, digits), repeats)
        few = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0, 100.0]}, cv=2, refit=False)
        X, y = large(125_000)
        in_turns("GridSearchCV, 8 fits with 100 MB", lambda: few.fit(X, y), repeats)

        def anew() -> None:
            X[0, 0] += 1.0
            few.fit(X, y)

        in_turns("the same, with data that is new each time", anew, repeats)
        sums = [joblib.delayed(np.sum)(X) for _ in range(50)]
        in_turns("50 sums of 100 MB", lambda: joblib.Parallel(batch_size=1)(sums), repeats)
        empty = [joblib.delayed(abs)(n) for n in range(5000)]
        in_turns("5,000 calls of abs", lambda: joblib.Parallel()(empty), repeats)


if __name__ == "__main__":
    main()
