"""All that strangers can make a board keep or do, with its bounds: one table. Pure.

``ServerOptions`` extends ``Bounds``, so that a board's starter may choose each of them. The server, the mailbox and the
relay take their bounds from there, and from nowhere else. ``table`` is the part of THREATS.md about them;
tests/board/test_bounds.py compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

KIB, MIB = 1 << 10, 1 << 20


def bound(most: float, unit: str, what: str, beyond: str, test: str) -> Any:
    """Return a field for a bound: so many of ``unit``, what becomes of the rest, and the test that shows it."""
    return field(default=most, metadata={"row": (unit, what, beyond, test)})


_CROWDS = "tests/board/test_crowds.py::test_"
_STRANGERS = "tests/board/test_strangers.py::test_"
_ARRIVALS = "tests/board/test_arrivals.py::test_"
_SERVER = "tests/conformance/test_board_server.py::test_"
_MAILBOX = "tests/board/test_mailbox.py::test_"
_RELAY = "tests/board/test_relay.py::test_"
_PORT = "tests/board/test_one_port.py::test_"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The bounds of a board. Those of bytes, counts and seconds are in these units."""

    # Connections, of each protocol
    connections: int = bound(
        4096, "", "connections of each protocol (fewer, if the process may open fewer files)",
        "the newcomer is refused with a word, unless a connection without a session makes room, or one of a crowd",
        _CROWDS + "a_crowd_at_one_port_is_refused_once_its_share_is_used_and_the_others_stay_open",
    )  # fmt: skip
    crowd: int = bound(
        256, "", "connections of one address that stay when SSH has all of its own",
        "its newest makes room for somebody of another address",
        _ARRIVALS + "when_a_board_is_full_of_one_crowd_its_newest_makes_room",
    )  # fmt: skip
    descriptors: int = bound(
        64, "files", "kept free beside the connections, and one more for refusals",
        "connections are taken and closed at once, and the log says so once a minute",
        _CROWDS + "when_descriptors_are_used_up_all_the_same_newcomers_are_turned_away_and_nothing_spins",
    )  # fmt: skip
    proxy_header: int = bound(
        536, "bytes", "of a PROXY header, which is read from the address of --proxy only",
        "the connection is cut", "tests/board/test_proxy.py::test_a_header_that_does_not_end_is_refused",
    )  # fmt: skip

    undecided_each: int = bound(
        256, "", "of one address that have not said which protocol they speak (in all, as many as each protocol has)",
        "its oldest is cut; in all, the oldest of the largest crowd",
        _PORT + "a_crowd_that_says_nothing_loses_its_oldest_and_others_get_in",
    )  # fmt: skip
    silence: float = bound(
        1, "s", "that a newcomer may say nothing at a port of several protocols", "it is SSH's",
        _PORT + "a_client_that_is_silent_for_a_second_is_sshs",
    )  # fmt: skip
    opening: float = bound(
        5, "s", "until it is known which protocol a connection speaks, a proxy's header included",
        "the connection is cut", _PORT + "a_client_that_stops_in_its_first_word_is_cut",
    )  # fmt: skip

    # SSH, before the key is proved
    half_open: int = bound(
        1024, "", "SSH connections that have not logged in",
        "the oldest of the largest crowd makes room if it is older than 2 s, else the newcomer is refused with a word",
        _ARRIVALS + "half_open_connections_are_bounded_in_all_and_the_largest_crowd_makes_room",
    )  # fmt: skip
    half_open_each: int = bound(
        256, "", "of them from one address (an IPv6 network of 64 bits counts as one)",
        "the oldest makes room if it is older than 2 s, else the newcomer is refused with a word",
        _ARRIVALS + "half_open_connections_of_one_address_are_bounded_and_the_oldest_makes_room",
    )  # fmt: skip
    login_timeout: float = bound(
        10, "s", "for logging in", "the connection is cut", _SERVER + "logging_in_has_a_deadline"
    )
    logins: float = bound(
        20,
        "",
        "connections a second of one address that may begin to log in",
        "they wait for their turn; one whose turn is later than its time is refused with a word",
        _ARRIVALS + "an_address_that_logs_in_too_often_waits_for_its_turn",
    )
    logins_burst: float = bound(
        200,
        "",
        "of these at once",
        "they wait for their turn",
        _STRANGERS + "a_stranger_who_logs_in_all_the_time_waits_and_others_do_not",
    )
    offers: int = bound(
        20, "", "public keys that a client may show or sign with before it is logged in",
        "the connection is cut", _STRANGERS + "a_client_that_shows_key_after_key_is_cut",
    )  # fmt: skip

    # SSH, of each key
    key_connections: int = bound(
        128, "", "connections of a key", "the newcomer is refused with a word",
        _STRANGERS + "a_key_has_so_many_connections",
    )  # fmt: skip
    sessions: int = bound(
        64, "", "sessions of a key, counted from the channel on", "the newcomer is refused with a word",
        _SERVER + "a_key_has_a_limit_of_sessions_and_another_key_has_its_own",
    )  # fmt: skip
    refused_sessions: int = bound(
        64, "", "channels of a key beyond these, each of which gets that word", "no channel is opened",
        _STRANGERS + "channels_that_never_ask_for_anything_are_bounded_too",
    )  # fmt: skip
    all_sessions: int = bound(
        6144, "", "sessions, and so topics, of all keys",
        "the key that has most gives its newest up, or the newcomer is refused with a word",
        _STRANGERS + "sessions_are_bounded_in_all_and_the_key_that_has_most_makes_room",
    )  # fmt: skip
    command_within: float = bound(
        10, "s", "until a channel has asked for a command", "the channel is closed with a word",
        _STRANGERS + "a_channel_that_asks_for_nothing_is_closed",
    )  # fmt: skip
    idle: float = bound(
        60, "s", "without any session, once logged in", "the connection is ended with a word",
        _STRANGERS + "a_connection_without_a_session_is_ended",
    )  # fmt: skip
    keepalive: float = bound(
        5, "s", "between two looks whether a client is there, of which it may miss three", "the connection is cut",
        _STRANGERS + "a_client_that_is_gone_without_a_word_is_cut",
    )  # fmt: skip
    rate: float = bound(
        256 * KIB, "bytes/s", "that a key may write, and that a connection may make the board parse",
        "it is read slower, and loses nothing", _SERVER + "who_writes_too_fast_is_read_slower_and_loses_nothing",
    )  # fmt: skip
    burst: float = bound(
        256 * KIB, "bytes", "of these at once", "it is read slower, and loses nothing",
        _STRANGERS + "a_client_that_sends_many_small_packets_waits_and_others_are_served",
    )  # fmt: skip
    keys: int = bound(
        1000, "", "keys whose rate is remembered while they have no session", "those that are full are forgotten",
        _STRANGERS + "keys_that_are_idle_are_forgotten",
    )  # fmt: skip

    # SSH, what is parsed and kept
    packet: int = bound(
        64 * KIB, "bytes", "of an SSH packet", "the connection is cut",
        _STRANGERS + "a_packet_over_64_kib_ends_the_connection",
    )  # fmt: skip
    slice: int = bound(
        16 * KIB, "bytes", "of a connection that are parsed before another connection has its turn",
        "the rest waits in the kernel", _STRANGERS + "a_connection_is_read_in_slices",
    )  # fmt: skip
    command: int = bound(
        4 * KIB, "bytes", "of a command line", "it is refused with a word, before it is parsed",
        _STRANGERS + "a_command_over_4_kib_is_refused_before_it_is_parsed",
    )  # fmt: skip
    window: int = bound(
        32 * KIB, "bytes", "of a session that wait to be read", "its client may send no more",
        _STRANGERS + "a_session_that_is_read_slower_keeps_no_more_than_its_window",
    )  # fmt: skip
    held: int = bound(
        4 * MIB, "bytes", "of all publishers that wait for a reader", "the publisher is ended with a word",
        _STRANGERS + "waiting_publishers_hold_so_much_in_all",
    )  # fmt: skip
    queue: int = bound(
        256 * KIB, "bytes", "that a reader may leave unread", "it is cut, and nobody waits for it",
        _SERVER + "a_subscriber_that_does_not_read_is_cut_and_holds_nobody_up",
    )  # fmt: skip
    queues: int = bound(
        8 * MIB, "bytes", "that all readers together may leave unread", "the one with most is cut",
        _STRANGERS + "what_all_readers_leave_unread_is_bounded_and_the_one_with_most_is_cut",
    )  # fmt: skip
    say_every: float = bound(
        60, "s", "between two lines of one kind in the log", "they are counted, and the next line says how many",
        _STRANGERS + "refused_connections_are_logged_once_a_minute",
    )  # fmt: skip

    # The mailbox. A quarter of each bound "in all" is kept for addresses that have an SSH session here.
    mailbox_connections: int = bound(
        1024, "", "connections of one address to the mailbox", "the newcomer is refused with a word",
        _MAILBOX + "connections_of_one_address_are_bounded",
    )  # fmt: skip
    mailbox_silence: float = bound(
        660, "s", "that a connection may say nothing and listen to no mailbox", "it is closed",
        _MAILBOX + "a_connection_that_says_nothing_is_closed",
    )  # fmt: skip
    message: int = bound(
        1 * MIB, "bytes", "of a message to the mailbox", "the connection is closed",
        _MAILBOX + "a_message_that_is_too_long_ends_its_connection",
    )  # fmt: skip
    mailbox_rate: float = bound(
        64 * KIB, "bytes/s", "that a connection may send to the mailbox", "the connection is cut",
        _CROWDS + "a_client_that_floods_the_mailbox_is_cut",
    )  # fmt: skip
    mailbox_burst: float = bound(
        2 * MIB, "bytes", "of these at once", "the connection is cut",
        _CROWDS + "a_client_that_floods_the_mailbox_is_cut",
    )  # fmt: skip
    mailboxes_each: int = bound(
        1024, "", "mailboxes that one address has opened", "the newcomer is refused with a word",
        _MAILBOX + "mailboxes_of_one_address_are_bounded",
    )  # fmt: skip
    mailboxes: int = bound(
        4096, "", "mailboxes in all", "the newcomer is refused with a word",
        _MAILBOX + "mailboxes_are_bounded_in_all_and_some_are_kept_for_addresses_with_a_session",
    )  # fmt: skip
    messages: int = bound(
        256, "", "messages in a mailbox", "the message is refused with a word",
        _MAILBOX + "messages_of_a_mailbox_are_bounded",
    )  # fmt: skip
    mailbox_bytes: int = bound(
        2 * MIB, "bytes", "kept in a mailbox", "the message is refused with a word",
        _MAILBOX + "bytes_of_a_mailbox_are_bounded",
    )  # fmt: skip
    mailbox_bytes_each: int = bound(
        8 * MIB, "bytes", "kept for one address", "the message is refused with a word",
        _MAILBOX + "bytes_of_an_address_are_bounded",
    )  # fmt: skip
    mailbox_bytes_all: int = bound(
        16 * MIB, "bytes", "kept in all mailboxes", "the message is refused with a word",
        _MAILBOX + "bytes_are_bounded_in_all_and_some_are_kept_for_addresses_with_a_session",
    )  # fmt: skip
    mailbox_listeners: int = bound(
        2, "", "connections of one side that listen to a mailbox", "the oldest is closed",
        _MAILBOX + "a_side_that_comes_again_and_again_is_heard_twice_at_most",
    )  # fmt: skip
    mailbox_age: float = bound(
        660, "s", "that a mailbox is kept while nobody listens", "it is forgotten",
        _MAILBOX + "a_mailbox_without_a_listener_is_forgotten",
    )  # fmt: skip
    mailbox_life: float = bound(
        48 * 3600, "s", "that a mailbox is kept in any case", "it is forgotten",
        _MAILBOX + "a_mailbox_is_forgotten_after_two_days_in_any_case",
    )  # fmt: skip
    mailbox_queues: int = bound(
        8 * MIB, "bytes", "that all clients of the mailbox may leave unread", "the one with most is cut",
        _MAILBOX + "what_clients_leave_unread_is_bounded",
    )  # fmt: skip

    # The relay. A quarter of each bound "in all" is kept for addresses that have an SSH session here.
    relay_token_within: float = bound(
        10, "s", "until a connection to the relay has said whom it wants to meet", "it is cut",
        _CROWDS + "a_connection_to_the_relay_that_says_nothing_is_cut",
    )  # fmt: skip
    relay_waiting_each: int = bound(
        256, "", "of one address that wait for their partner", "the newcomer is refused with a word",
        _RELAY + "an_address_may_have_so_many_waiting",
    )  # fmt: skip
    relay_waiting: int = bound(
        1024, "", "that wait in all", "the newcomer is refused with a word",
        _RELAY + "when_the_relay_is_full_an_address_with_a_session_still_gets_in",
    )  # fmt: skip
    relay_wait: float = bound(
        900, "s", "of waiting", "the connection is closed with a word", _RELAY + "waiting_has_an_end"
    )
    relay_pairs_each: int = bound(
        256, "", "pairs that one address takes part in", "the newcomer is refused with a word",
        _RELAY + "an_address_may_have_so_many_pairs",
    )  # fmt: skip
    relay_pairs: int = bound(
        512, "", "pairs in all", "the newcomer is refused with a word",
        _RELAY + "pairs_are_bounded_in_all_and_some_are_kept_for_addresses_with_a_session",
    )  # fmt: skip
    relay_silence: float = bound(
        600, "s", "that a pair may say nothing", "both are closed", _RELAY + "a_pair_that_says_nothing_is_closed"
    )
    relay_rate_each: float = bound(
        32 * MIB, "bytes/s", "that an address may send through the relay", "it is read slower, and loses nothing",
        _RELAY + "an_address_that_sends_too_fast_is_read_slower_and_loses_nothing",
    )  # fmt: skip
    relay_rate: float = bound(
        128 * MIB, "bytes/s", "that all may send", "they are read slower; those without an SSH session here first",
        _RELAY + "when_the_relay_is_busy_addresses_without_a_session_wait_first",
    )  # fmt: skip


def table() -> list[str]:
    """Return the rows of the table in THREATS.md: the bound, what it is of, what happens beyond it, its test."""
    rows = ["| At most | of | Beyond it | Test |", "|---|---|---|---|"]
    for each in fields(Bounds):
        unit, what, beyond, test = each.metadata["row"]
        rows.append(f"| {_said(getattr(Bounds, each.name), unit)} | {what} | {beyond} | `{test}` |")
    return rows


def _said(most: float, unit: str) -> str:
    size, _, per = unit.partition("/")
    if size == "bytes":
        most, size = (most / MIB, "MiB") if most >= MIB else (most / KIB, "KiB") if most >= KIB else (most, "bytes")
    elif unit == "s" and most >= 3600:
        most, size = most / 3600, "h"
    return f"{most:,.10g} {size}".strip() + (f"/{per}" if per else "")
