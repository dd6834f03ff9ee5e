"""``dir()`` shows what users may call, as ``p2p_ipython.client.public`` lists it."""

from __future__ import annotations

from typing import Any

import p2p_ipython
from p2p_ipython.client import public
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.future import Future


class Nobody:
    def withdraw(self, task_id: str) -> None:
        pass

    def why(self, task_id: str) -> str:
        return ""


def shown(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_dir_of_a_future_shows_its_public_names_alone() -> None:
    future: Future[Any] = Future("t1", "cell", Nobody(), lambda arrived: None)
    assert shown(future) == public.FUTURE


def test_the_class_of_clusters_has_its_public_names_alone() -> None:
    assert shown(Cluster) == public.CLUSTER


def test_dir_of_the_package_shows_what_it_exports() -> None:
    assert set(dir(p2p_ipython)) == set(p2p_ipython.__all__)
