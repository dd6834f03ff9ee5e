"""A result that needs trust waits for it: asked before, the future says so; asked after, it gives the value."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any

import pytest
from frame_support import read_result

from p2p_ipython.client.arrived import Arrived
from p2p_ipython.client.future import Future
from p2p_ipython.errors import NotKept, NotTrusted
from p2p_ipython.task import safe
from p2p_ipython.task.outcome import decode
from p2p_ipython.task.payload import pack_result


class Cluster:
    """Trusts whose keys it is told."""

    def __init__(self) -> None:
        self.trusted: set[str] = set()
        self.decoded = 0

    def trusts(self, signer: str) -> bool:
        return signer in getattr(self, "trusted", ())

    def withdraw(self, task_id: str) -> None: ...

    def why(self, task_id: str) -> str:
        return ""

    def decode(self, result: Arrived) -> Any:
        self.decoded += 1
        trusted = result.signer in self.trusted
        return decode(result.result, result.inline, result.large, worker=result.worker, trusted=trusted)


def arrived(value: object) -> Arrived:
    packed = pack_result(value)
    header = {"ok": True, "codec": "pickle", "segments": packed.segments, "type": "Model", "at": ""}
    return Arrived(read_result(header), packed.inline, packed.large, "bob", "SHA256:bob")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def future(cluster: Cluster) -> Future[Any]:
    made: Future[Any] = Future("t1", "cell", cluster, cluster.decode)
    made._promise.arrived(arrived([1, 2]))
    return made


def test_a_result_that_needs_trust_is_there_and_stays(cluster: Cluster, future: Future[Any]) -> None:
    for _ in range(2):
        assert future.done()
        with pytest.raises(NotTrusted, match="Model"):
            future.result()
        assert isinstance(future.exception(), NotTrusted)
        assert future.state_text == "done on bob"
    cluster.trusted.add("SHA256:bob")
    assert future.exception() is None
    assert future.result() == [1, 2]
    assert future.result() is future.result()
    before = cluster.decoded
    cluster.trusted.clear()
    assert future.result() == [1, 2]
    assert cluster.decoded == before


def test_each_name_that_came_with_it_is_read_alone(cluster: Cluster) -> None:
    plain, pickled = safe.encode({"a": 1}), pack_result(range(3))
    entries = [
        {"what": "name", "name": "plain", "codec": "safe", "segments": plain.segments},
        {"what": "name", "name": "model", "codec": "pickle", "segments": pickled.segments, "type": "Model"},
        {"what": "name", "name": "big", "codec": "left", "segments": [], "type": "\x1b[2JFrame"},
    ]
    value = pack_result("value")
    header = {"ok": True, "codec": "pickle", "segments": value.segments, "type": "V", "attached": entries}
    body = value.inline + plain.inline + pickled.inline
    future: Future[Any] = Future("t1", "cell", cluster, cluster.decode)
    future._promise.arrived(Arrived(read_result(header), body, {}, "bob", "SHA256:bob"))
    assert future.names == ("plain", "model", "big")
    assert future["plain"] == {"a": 1}
    with pytest.raises(NotTrusted, match="Model"):
        future["model"]
    with pytest.raises(NotKept, match=r"'big', of the type .*Frame, stayed on bob") as caught:
        future["big"]
    assert "\x1b" not in str(caught.value)
    with pytest.raises(KeyError, match="has not bound 'other'"):
        future["other"]
    with pytest.raises(TypeError):
        list(future)  # type: ignore[call-overload]
    cluster.trusted.add("SHA256:bob")
    assert future["model"] == range(3)
    assert future.result() == "value"


async def test_awaiting_it_raises_until_the_worker_is_trusted(cluster: Cluster, future: Future[Any]) -> None:
    with pytest.raises(NotTrusted):
        await future
    cluster.trusted.add("SHA256:bob")
    assert await future == [1, 2]


async def test_awaiting_it_before_it_has_come_raises_too(cluster: Cluster) -> None:
    future: Future[Any] = Future("t1", "cell", cluster, cluster.decode)
    waiting = asyncio.wrap_future(future)
    future._promise.arrived(arrived(3))
    with pytest.raises(NotTrusted):
        await asyncio.wait_for(waiting, 10)
    cluster.trusted.add("SHA256:bob")
    assert await future == 3


def test_it_counts_as_done_where_futures_are_waited_for(cluster: Cluster, future: Future[Any]) -> None:
    done, pending = concurrent.futures.wait([future], timeout=0, return_when="FIRST_EXCEPTION")
    assert (done, pending) == ({future}, set())
    assert list(concurrent.futures.as_completed([future], timeout=0)) == [future]
    heard: list[Any] = []
    future.add_done_callback(heard.append)
    assert heard == [future]


def test_what_a_task_of_a_stranger_raised_is_decided_once(cluster: Cluster) -> None:
    future: Future[Any] = Future("t1", "cell", cluster, cluster.decode)
    error = {"kind": "exception", "class": "builtins.KeyError", "message": "'k'", "bases": [], "traceback": ""}
    failure = read_result({"ok": False, "segments": [], "error": error})
    future._promise.arrived(Arrived(failure, b"", {}, "bob", "SHA256:bob"))
    assert type(future.exception()) is KeyError
    assert future.exception() is future.exception()
