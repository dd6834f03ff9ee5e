"""The rules of topics, without a network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2p_ipython.board.topics import (
    MAX_TOPIC,
    Cut,
    Deliver,
    Denied,
    Direction,
    Dispatch,
    Join,
    Listed,
    Ready,
    Topics,
)


def wish(session: str, user: str, topic: str, direction: Direction = Direction.PIPE, **options) -> Join:  # type: ignore[no-untyped-def]
    return Join(
        session, f"label {session}", user, f"SHA256:{user}", direction, topic, fresh=f"fresh{session}", **options
    )


def join(topics: Topics, want: Join) -> str:
    name = topics.resolve(want)
    topics.join(want, name)
    return name


def read_by(topics: Topics, session: str) -> list[str]:
    chunks = [action for action in topics.publish(session, b"x") if isinstance(action, Deliver)]
    return [to for chunk in chunks for to in chunk.to if to != chunk.but]


def test_short_and_full_name_are_one_topic_for_the_owner():
    topics = Topics()
    assert join(topics, wish("1", "alice", "t")) == join(topics, wish("2", "alice", "alice/t")) == "alice/t"
    assert read_by(topics, "1") == ["2"]


def test_somebody_elses_topic_without_an_access_list_is_a_shadow():
    topics = Topics()
    join(topics, wish("1", "alice", "t"))
    assert join(topics, wish("2", "bob", "alice/t")) == "bob/alice/t"
    assert read_by(topics, "1") == []


def test_attack_first_session_of_a_stranger_is_not_admitted_by_his_own_empty_list():
    topics = Topics()
    join(topics, wish("1", "alice", "t", access=("bob",)))
    assert join(topics, wish("2", "eve", "alice/t")) == "eve/alice/t"
    assert join(topics, wish("3", "eve", "alice/t", access=("eve",))) == "eve/alice/t"
    assert join(topics, wish("4", "bob", "alice/t")) == "alice/t"


def test_a_key_without_a_name_is_admitted_by_its_fingerprint():
    topics = Topics()
    join(topics, wish("1", "alice", "t", access=("SHA256:key",)))
    stranger = replace(wish("2", "public", "alice/t"), fingerprint="SHA256:key")
    assert join(topics, stranger) == "alice/t"
    assert join(topics, wish("3", "public", "alice/t")) == "public/alice/t"


def test_the_owner_is_on_the_topic_even_if_the_list_forgets_the_owner():
    topics = Topics()
    join(topics, wish("1", "alice", "t", access=("bob",)))
    assert join(topics, wish("2", "alice", "alice/t")) == "alice/t"


def test_the_first_session_stores_the_list_even_an_empty_one():
    topics = Topics()
    join(topics, wish("1", "alice", "t"))
    join(topics, wish("2", "alice", "t", access=("bob",)))
    assert join(topics, wish("3", "bob", "alice/t")) == "bob/alice/t"


def test_an_access_list_ends_with_its_creator():
    topics = Topics()
    join(topics, wish("1", "alice", "t", access=("bob",)))
    join(topics, wish("2", "alice", "t"))
    join(topics, wish("3", "bob", "alice/t"))
    topics.leave("1")
    assert join(topics, wish("4", "bob", "alice/t")) == "bob/alice/t"
    assert read_by(topics, "2") == ["3"], "who is in stays in"


def test_a_public_topic_with_a_list_denies_subscribers_and_gives_writers_a_fresh_one():
    topics = Topics()
    join(topics, wish("1", "alice", "t", public=True, access=("bob",)))
    assert join(topics, wish("2", "bob", "t", public=True)) == "public/t"
    assert join(topics, wish("3", "eve", "t", public=True)) == "public/fresh3"
    with pytest.raises(Denied, match="access denied"):
        topics.resolve(wish("4", "eve", "t", Direction.SUB, public=True))
    assert topics.leave("4") == []


def test_a_chunk_goes_to_every_reader_in_the_order_of_joining_but_its_writer():
    topics = Topics()
    for session in "123":
        join(topics, wish(session, "alice", "t"))
    join(topics, wish("4", "alice", "t", Direction.SUB))
    join(topics, wish("5", "alice", "t", Direction.PUB))
    assert topics.publish("2", b"x") == [Deliver("alice/t", ("1", "2", "3", "4"), b"x", "2")]


def test_with_replay_the_writer_reads_it_too():
    topics = Topics()
    join(topics, wish("1", "alice", "t", replay=True))
    assert topics.publish("1", b"x") == [Deliver("alice/t", ("1",), b"x", None)]


def test_round_robin_takes_turns_and_the_first_session_decides():
    topics = Topics()
    join(topics, wish("1", "alice", "t", Direction.PUB, dispatch=Dispatch.ROUND_ROBIN))
    join(topics, wish("2", "alice", "t", Direction.SUB))
    join(topics, wish("3", "alice", "t", Direction.SUB))
    assert [read_by(topics, "1") for _ in range(4)] == [["2"], ["3"], ["2"], ["3"]]


def test_who_is_on_no_topic_publishes_to_nobody():
    assert Topics().publish("nobody", b"x") == []


def test_the_last_pipe_is_cut_when_the_second_last_leaves():
    topics = Topics()
    for session in "123":
        join(topics, wish(session, "alice", "t"))
    assert topics.leave("1") == []
    assert topics.leave("2") == [Cut(("3",))]
    assert topics.leave("3") == []
    assert topics.listing("alice") == []


def test_subscribers_end_with_the_last_publisher_unless_they_keep():
    topics = Topics()
    join(topics, wish("1", "alice", "t", Direction.PUB))
    join(topics, wish("2", "alice", "t", Direction.SUB))
    join(topics, wish("3", "alice", "t", Direction.SUB, keep=True))
    assert topics.leave("1") == [Cut(("2",))]


def test_a_publisher_keeps_a_topic_alive():
    topics = Topics()
    join(topics, wish("1", "alice", "t", Direction.PUB))
    join(topics, wish("2", "alice", "t"))
    join(topics, wish("3", "alice", "t"))
    assert topics.leave("2") == []


def test_a_waiting_publisher_is_told_of_a_reader_and_of_no_other_publisher():
    topics = Topics()
    waits = wish("1", "alice", "t", Direction.PUB)
    topics.wait(waits, topics.resolve(waits))
    assert not topics.has_readers("alice/t")
    publisher = wish("2", "alice", "t", Direction.PUB)
    assert topics.join(publisher, topics.resolve(publisher)) == []
    reader = wish("3", "alice", "t", Direction.SUB)
    assert topics.join(reader, topics.resolve(reader)) == [Ready(("1",))]
    assert topics.has_readers("alice/t")


def test_a_waiting_publisher_that_leaves_is_forgotten():
    topics = Topics()
    waits = wish("1", "alice", "t", Direction.PUB)
    topics.wait(waits, topics.resolve(waits))
    topics.leave("1")
    reader = wish("2", "alice", "t", Direction.SUB)
    assert topics.join(reader, topics.resolve(reader)) == []


def test_wildcards_connect_ones_own_topics_in_both_directions():
    topics = Topics()
    join(topics, wish("all", "alice", "jobs/*"))
    join(topics, wish("one", "alice", "jobs/1"))
    join(topics, wish("deep", "alice", "jobs/1/2"))
    join(topics, wish("bob", "bob", "jobs/1"))
    assert read_by(topics, "one") == ["all"]
    assert read_by(topics, "all") == ["one"]
    assert read_by(topics, "deep") == []
    assert read_by(topics, "bob") == []


def test_attack_wildcards_do_not_find_the_secret_topics_of_other_strangers():
    topics = Topics()
    join(topics, wish("1", "public", "secret"))
    join(topics, wish("2", "public", "*"))
    assert read_by(topics, "1") == []


def test_attack_a_topic_of_any_length_is_refused():
    with pytest.raises(Denied, match="too long"):
        Topics().resolve(wish("1", "alice", "t" * MAX_TOPIC))


def test_a_listing_has_ones_own_topics_by_kind_of_session():
    topics = Topics()
    join(topics, wish("1", "alice", "t", access=("bob",)))
    join(topics, wish("2", "bob", "alice/t", Direction.SUB))
    join(topics, wish("3", "bob", "own"))
    waits = wish("4", "alice", "u", Direction.PUB)
    topics.wait(waits, topics.resolve(waits))
    assert topics.listing("alice") == [
        Listed("alice/t", ("bob",), (("Subs", ("label 2",)), ("Pipes", ("label 1",)))),
        Listed("alice/u", (), (("Waiting Pubs", ("label 4",)),)),
    ]


def test_nothing_is_left_when_everybody_has_left():
    topics = Topics()
    for session, user, topic in (("1", "alice", "t"), ("2", "bob", "alice/t"), ("3", "alice", "x/*")):
        join(topics, wish(session, user, topic, access=("bob",)))
    waits = wish("4", "alice", "u", Direction.PUB)
    topics.wait(waits, topics.resolve(waits))
    for session in "1234":
        topics.leave(session)
    assert not any(vars(topics).values())


def test_attack_nobody_can_close_a_public_topic_that_somebody_is_on():
    topics = Topics()
    join(topics, wish("1", "alice", "lobby", public=True))
    join(topics, wish("2", "bob", "lobby", public=True))
    topics.leave("1")  # and the entry of the first with it
    assert join(topics, wish("3", "eve", "lobby", public=True, access=("eve",))) == "public/lobby"
    assert join(topics, wish("4", "carol", "lobby", public=True)) == "public/lobby"
