"""``dir()`` shows what users may call, as ``p2p_ipython.client.public`` lists it."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from typing import Any

import pytest

import p2p_ipython
from p2p_ipython.client import public
from p2p_ipython.client.cluster import Cluster
from p2p_ipython.client.completing import as_completed
from p2p_ipython.client.future import Future
from p2p_ipython.client.gathering import gather


class Nobody:
    def trusts(self, signer: str) -> bool:
        return signer in getattr(self, "trusted", ())

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


# --- each says what it is, with an example that runs ---


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with p2p_ipython.connect(workers=1) as made:
        yield made


def documented() -> list[Any]:
    """The classes and what they define of their public names, with its documentation."""
    whole = [(owner, name) for owner, names in ((Cluster, public.CLUSTER), (Future, public.FUTURE)) for name in names]
    return [
        pytest.param(vars(owner)[name], id=f"{owner.__name__}.{name}")
        for owner, name in sorted(whole, key=str)
        if name in vars(owner)
    ] + [
        pytest.param(Cluster.map, id="Cluster.map"),
        pytest.param(Cluster.options, id="Cluster.options"),
        pytest.param(Future, id="Future"),
        pytest.param(as_completed, id="as_completed"),
        pytest.param(gather, id="gather"),
    ]


@pytest.mark.parametrize("thing", documented())
def test_a_public_name_has_an_example_that_runs(
    thing: Any, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (thing.fget if isinstance(thing, property) else thing).__doc__
    names = {"cluster": cluster, "p2p_ipython": p2p_ipython, "gather": gather, "as_completed": as_completed}
    example = doctest.DocTestParser().get_doctest(text, names, "it", None, 0)
    assert example.examples
    with capsys.disabled():
        said: list[str] = []
        done = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(example, out=said.append)
    assert not done.failed, "".join(said)
