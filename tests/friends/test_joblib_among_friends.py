"""scikit-learn on a friend's worker, over a real board: scores come as plain data, and models want trust."""

from __future__ import annotations

from friends_support import Village

TITLE = "alice/friends"
SEARCH = f"""
import joblib, numpy as np, p2p_ipython
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

X, y = load_iris(return_X_y=True)
large = np.tile(X, (400, 1))
c = p2p_ipython.connect({TITLE!r}, request_every=0.5, presence=1)

def search():
    return GridSearchCV(SVC(), {{"C": [0.1, 1.0]}}, cv=2).fit(X, y).cv_results_["mean_test_score"].tolist()

def forest():
    return RandomForestClassifier(4, random_state=0).fit(X, y).predict(X).tolist()
"""


def test_scores_of_a_friends_worker_need_no_trust_and_models_do(here: Village) -> None:
    here.found("carol")
    here.person("carol").worker("friends", "--slots", "1", "--name", "box")
    alice = here.person("alice").notebook(SEARCH)
    within = "with joblib.parallel_config('p2p'): answer = "
    assert alice.run("answer = search()") == alice.run(f"{within}search()")
    assert alice.run("answer = {row['label'] for row in c._core.record.rows()}") == "{'_fit_and_score'}"
    sums = "joblib.Parallel(batch_size=1)(joblib.delayed(np.sum)(large + n) for n in range(3))"
    assert alice.run(f"answer = {sums}") == alice.run(f"{within}{sums}")
    assert "NotTrusted" in alice.fails(f"{within}forest()")
    alice.run("answer = c.trust('carol')")
    assert alice.run("answer = forest()") == alice.run(f"{within}forest()")
