"""The agent's buffers: read while they arrive, kept within bounds, never another owner's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from p2p_ipython.errors import RemoteProtocolError
from p2p_ipython.worker.cache import BufferCache, Inbound, SourceFailed


async def read(source: Inbound) -> bytes:
    return b"".join([bytes(view) async for view in source])


async def test_a_buffer_can_be_read_while_it_arrives_and_by_several() -> None:
    source = Inbound("r", 10)
    readers = [asyncio.create_task(read(source)) for _ in range(3)]
    for piece in (b"01", b"234", b"56789"):
        await asyncio.sleep(0)
        assert not any(reader.done() for reader in readers)
        view = source.buffer_at(source.received, len(piece))
        view[:] = piece
        source.advance(len(piece))
    assert await asyncio.gather(*readers) == [b"0123456789"] * 3
    assert await read(source) == b"0123456789"
    assert await read(Inbound("empty", 0)) == b""


async def test_who_reads_a_buffer_that_fails_is_told_why() -> None:
    source = Inbound("r", 4)
    source.feed(b"12")
    reader = asyncio.create_task(read(source))
    await asyncio.sleep(0)
    source.fail("the link is lost")
    with pytest.raises(SourceFailed, match="the link is lost"):
        await reader


@pytest.mark.parametrize(("offset", "size"), [(0, 5), (1, 1), (0, -1), (4, 1)])
def test_bytes_out_of_turn_or_too_many_are_refused(offset: int, size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        Inbound("r", 4).buffer_at(offset, size)


@pytest.mark.parametrize("size", [-1, 1.5, "7", True, None, 1 << 62, 1 << 80])
def test_a_size_that_no_buffer_can_have_is_refused(size: object) -> None:
    with pytest.raises(RemoteProtocolError):
        BufferCache(100).begin("alice", "r", size)  # type: ignore[arg-type]


def test_owners_do_not_see_each_others_buffers() -> None:
    cache = BufferCache(100)
    cache.begin("alice", "same", 3).feed(b"abc")
    assert cache.get("bob", "same") is None
    cache.begin("bob", "same", 3).feed(b"xyz")
    alices = cache.get("alice", "same")
    assert alices is not None
    assert bytes(alices.buffer_at(3, 0)) == b""
    with pytest.raises(RemoteProtocolError, match="again"):
        cache.begin("bob", "same", 3)


def test_the_least_recently_used_that_nobody_needs_are_evicted() -> None:
    evicted: list[tuple[str, list[str]]] = []

    def note(owner: str, refs: Sequence[str]) -> None:
        evicted.append((owner, list(refs)))

    cache = BufferCache(20, note)
    for ref in "abcd":
        cache.begin("alice", ref, 10).feed(bytes(10))
        cache.pin("alice", ref)
    arriving = cache.begin("alice", "arriving", 1000)
    cache.pin("alice", "d")
    cache.get("alice", "a")  # used last, for now
    for ref in "abcd":
        cache.unpin("alice", ref)
    assert evicted == [("alice", ["b"])]
    assert cache.idle == 20
    assert cache.refs("alice") == ["c", "d", "a"]
    cache.unpin("alice", "d")
    assert evicted == [("alice", ["b"]), ("alice", ["c"])]
    assert cache.get("alice", "arriving") is arriving


def test_an_aborted_buffer_is_forgotten_and_a_complete_one_is_not() -> None:
    cache = BufferCache(100)
    half = cache.begin("alice", "half", 4)
    cache.pin("alice", "half")
    cache.begin("alice", "whole", 1).feed(b"1")
    for ref in ("half", "whole", "unknown"):
        cache.abort("alice", ref, "cancelled")
    cache.unpin("alice", "half")
    assert half.failed == "cancelled"
    assert cache.get("alice", "half") is None
    assert cache.refs("alice") == ["whole"]


def test_an_owner_that_leaves_takes_its_buffers_along() -> None:
    evicted: list[str] = []
    cache = BufferCache(100, lambda owner, refs: evicted.extend(refs))
    cache.begin("alice", "r", 1).feed(b"1")
    half = cache.begin("alice", "half", 2)
    cache.begin("bob", "r", 1).feed(b"2")
    cache.forget("alice")
    assert (cache.refs("alice"), cache.refs("bob"), evicted) == ([], ["r"], [])
    assert half.failed


def test_a_buffer_that_was_handed_over_is_known_and_costs_nothing() -> None:
    cache = BufferCache(limit=0)
    inbound = cache.begin("alice", "r", 3)
    cache.pin("alice", "r")
    inbound.feed(b"abc")
    cache.hand_over("alice", "r")
    assert not inbound.elsewhere  # a task still reads it
    cache.unpin("alice", "r")
    assert cache.get("alice", "r") is None  # over the limit

    kept = BufferCache(limit=10)
    kept.begin("alice", "r", 3).feed(b"abc")
    kept.hand_over("alice", "r")
    found = kept.get("alice", "r")
    assert found is not None
    assert found.elsewhere
    assert kept.idle == 0


def test_bytes_that_are_lost_elsewhere_arrive_again_where_a_task_needs_them_and_are_evicted_where_none_does() -> None:
    gone: list[tuple[str, list[str]]] = []
    cache = BufferCache(limit=10, on_evict=lambda owner, refs: gone.append((owner, list(refs))))
    for owner in ("alice", "bob"):
        cache.begin(owner, "r", 3).feed(b"abc")
        cache.hand_over(owner, "r")
    cache.pin("alice", "r")
    assert cache.lost("r") == ["alice"]
    assert gone == [("bob", ["r"])]
    again = cache.get("alice", "r")
    assert again is not None
    assert again.received == 0
    again.feed(b"abc")
    assert again.complete
    assert cache.get("bob", "r") is None


def test_what_has_begun_and_nobody_needs_is_forgotten_and_that_is_said() -> None:
    evicted: list[tuple[str, list[str]]] = []
    cache = BufferCache(1 << 20, on_evict=lambda owner, refs: evicted.append((owner, list(refs))))
    for number in range(100):
        ref = f"r{number}"
        inbound = cache.begin("mallory", ref, 1000)
        cache.pin("mallory", ref)
        inbound.feed(bytes(999))
        cache.unpin("mallory", ref)
        assert inbound.failed
    assert not cache._buffers
    assert evicted == [("mallory", [f"r{number}"]) for number in range(100)]


def test_pinned_bytes_are_counted_by_owner_those_to_come_included() -> None:
    cache = BufferCache(0)
    for owner, ref in (("alice", "a"), ("alice", "b"), ("bob", "a")):
        cache.begin(owner, ref, 1000)
        cache.pin(owner, ref)
    cache.pin("alice", "a")
    assert (cache.pinned("alice"), cache.pinned("bob")) == (2000, 1000)
    cache.unpin("alice", "a")
    assert cache.pinned("alice") == 2000
    cache.unpin("alice", "a")
    assert cache.pinned("alice") == 1000
    cache.abort("alice", "b", "cancelled")
    cache.forget("bob")
    assert not cache._pinned


def test_a_buffer_larger_than_the_free_memory_is_refused() -> None:
    cache = BufferCache(0)
    with pytest.raises(RemoteProtocolError, match="no room"):
        cache.begin("mallory", "r", 1 << 36)
    assert not cache._buffers
