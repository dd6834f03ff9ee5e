"""The rules of a board like pico's, without a network: who is let in, and whose turn it is."""

from __future__ import annotations

from test_topics import join, wish

from p2p_ipython.board.pico.quirks import READ, PicoTopics
from p2p_ipython.board.topics import Deliver, Direction


def passed_on(topics: PicoTopics) -> list[tuple[tuple[str, ...], bytes]]:
    """Take all turns that can be taken: who is sent what, in order."""
    found: list[tuple[tuple[str, ...], bytes]] = []
    while (actions := topics.turn()) is not None:
        found += [(a.to, a.data) for a in actions if isinstance(a, Deliver)]
    return found


def three() -> PicoTopics:
    topics = PicoTopics()
    for session in ("1", "2", "3"):
        join(topics, wish(session, "alice", "t"))
    return topics


ALL = ("1", "2", "3")


def test_the_first_session_of_anybody_is_admitted_and_the_second_is_in_the_shadow():
    topics = PicoTopics()
    join(topics, wish("1", "alice", "t", access=("bob",)))
    assert join(topics, wish("2", "eve", "alice/t")) == "alice/t"
    assert join(topics, wish("3", "eve", "alice/t")) == "eve/alice/t"
    assert join(topics, wish("4", "public", "alice/t")) == "alice/t"
    topics.leave("2")
    assert join(topics, wish("5", "eve", "alice/t")) == "alice/t"


def test_somebody_can_close_a_public_topic_once_its_first_session_has_gone():
    topics = PicoTopics()
    join(topics, wish("1", "alice", "lobby", public=True))
    join(topics, wish("2", "bob", "lobby", public=True))
    topics.leave("1")
    assert join(topics, wish("3", "eve", "lobby", public=True, access=("eve",))) == "public/lobby"
    assert join(topics, wish("4", "carol", "lobby", public=True)) == "public/fresh4"


def test_what_is_read_is_cut_at_32_kib_and_writers_take_turns():
    topics = three()
    first, second = b"a" * (READ + 10), b"b" * 20
    topics.read("1", first)
    topics.read("2", second)
    assert passed_on(topics) == [(ALL, b"a" * READ), (ALL, b"b" * 20), (ALL, b"a" * 10)]
    assert topics.turn() is None


def test_a_reader_that_is_behind_gets_its_piece_later_and_holds_up_the_next():
    topics = three()
    topics.fell_behind("3")
    topics.read("1", b"one")
    assert passed_on(topics) == [(("1", "2"), b"one")]
    topics.read("2", b"two")
    assert passed_on(topics) == []
    assert topics.backlog("2") == 3
    assert topics.caught_up("3") == [Deliver("alice/t", ("3",), b"one", None)]
    assert passed_on(topics) == [(ALL, b"two")]
    assert topics.caught_up("3") == []


def test_nobody_waits_for_a_reader_that_has_gone():
    topics = three()
    topics.fell_behind("3")
    topics.read("1", b"one")
    topics.read("1", b"two")
    passed_on(topics)
    topics.read("1", b"three")
    assert passed_on(topics) == []
    topics.leave("3")
    assert passed_on(topics) == [(("1", "2"), b"three")]


def test_a_topic_is_not_held_up_by_the_readers_of_another():
    topics = three()
    join(topics, wish("4", "alice", "u"))
    topics.fell_behind("3")
    topics.read("1", b"one")
    passed_on(topics)
    topics.read("1", b"two")
    topics.read("4", b"elsewhere")
    assert passed_on(topics) == [(("4",), b"elsewhere")]


def test_nobody_waits_for_a_writer_to_take_what_it_is_not_sent():
    topics = three()
    topics.fell_behind("1")  # no -r: its own pieces don't come back to it
    topics.read("1", b"one")
    topics.read("1", b"two")
    assert [data for _, data in passed_on(topics)] == [b"onetwo"]
    topics.read("1", b"three")
    assert [data for _, data in passed_on(topics)] == [b"three"]


def test_what_a_writer_left_behind_goes_with_it_and_an_empty_topic_is_forgotten():
    topics = three()
    topics.read("1", b"one")
    topics.leave("1")
    assert passed_on(topics) == []
    for session in ("2", "3"):
        topics.read(session, b"x")
        topics.leave(session)
    join(topics, wish("5", "alice", "t"))
    join(topics, wish("6", "alice", "t", direction=Direction.SUB))
    topics.read("5", b"anew")
    assert passed_on(topics) == [(("5", "6"), b"anew")]
