"""What people do with clusters: nothing that they have is lost by it, and what they are asked can't mislead them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from board_support import make_key, running
from link_support import SHORT, servers
from test_invite import TITLE, come, inviting, key_of, outcome, print_of

from p2p_ipython.board.client.keys import KeyChoice
from p2p_ipython.config import Settings
from p2p_ipython.errors import ConfigError, LinkError, LinkLost, LinkTimeout
from p2p_ipython.members import inviting as owners_end
from p2p_ipython.members import joining, operations
from p2p_ipython.members.invitation_messages import Guest, Welcome
from p2p_ipython.members.inviting import Question
from p2p_ipython.members.owner import admit, found, free_name, roster_of
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.profiles import Profiles
from p2p_ipython.members.way import Way


@pytest.fixture
def profiles(tmp_path: Path) -> Profiles:
    return Profiles(tmp_path / "clusters")


def choice(who: str) -> KeyChoice:
    return KeyChoice(key_of(who), "of a test")


def hosted(owner: str = "alice") -> Profile:
    return found(TITLE, choice(owner), board="localhost:1", host_key="", until=int(time.time()) + 1000)


async def joined(code: Any, mailbox: str, profiles: Profiles, who: str = "bob") -> Profile:
    return await joining.join(
        code.reveal(), key=choice(who), identity=None, name=who, mailbox=mailbox, profiles=profiles, deadline=20
    )


async def test_the_host_hears_that_a_guest_is_in_when_his_profile_is_kept(profiles: Profiles) -> None:
    async with servers() as here, inviting(here.mailbox) as (code, invited):
        profile = await joined(code, here.mailbox, profiles)
        assert profiles.load(TITLE) == profile
        guest = await invited
        assert guest is not None
        assert guest.fingerprint == profile.signer


async def test_a_guest_who_can_not_keep_his_profile_is_not_taken_for_a_member(profiles: Profiles) -> None:
    other = hosted("mallory")
    profiles.save(replace(other, hosting=None))
    async with servers() as here, inviting(here.mailbox) as (code, invited):
        with pytest.raises(ConfigError, match="another cluster called alice/friends"):
            await joined(code, here.mailbox, profiles)
        assert isinstance(await outcome(invited), LinkLost)
    assert profiles.load(TITLE).cluster == other.cluster


async def test_who_hosts_a_cluster_does_not_lose_it_by_joining_it(profiles: Profiles) -> None:
    before = hosted()
    profiles.save(before)
    async with servers() as here, inviting(here.mailbox) as (code, invited):
        with pytest.raises(ConfigError, match="you host alice/friends on this machine"):
            await joined(code, here.mailbox, profiles)
        assert isinstance(await outcome(invited), LinkLost)
    assert profiles.load(TITLE) == before


async def test_who_is_in_a_cluster_does_not_lose_it_by_hosting_one_of_its_title(
    profiles: Profiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = replace(hosted(), hosting=None)
    profiles.save(before)
    monkeypatch.setattr(operations, "my_name", lambda: "alice")
    key = make_key(tmp_path)
    async with running() as server:
        where = server.addresses
        way = Way(board=f"{where.host}:{where.port}", identity=key.path, pin=where.host_key)
        with pytest.raises(ConfigError, match="not hosted from here") as caught:
            await operations.host("friends", way=way, profiles=profiles, settings=Settings())
    assert "--owner" in caught.value.hint
    assert profiles.load(TITLE) == before


def test_a_list_of_members_is_not_forgotten_by_coming_in_again(profiles: Profiles) -> None:
    trusted = frozenset({print_of("carol")})
    profiles.save(replace(hosted(), hosting=None, trusted=trusted))
    before = profiles.load(TITLE)
    by_knocking = Welcome(TITLE, before.cluster, "localhost:1", "", "", "", before.topic, before.key)
    after = joining._keep(profiles, by_knocking, choice("bob"), None)
    assert after.roster == before.roster
    assert after.trusted == trusted


# --- what is asked ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "about",
    [f"x), with the key {print_of('carol')}. (", "Python\n\x1b[2K 3.11", "\u202ecba"],
    ids=["a key", "a line", "backwards"],  # the key is another one in each process
)
async def test_what_a_guest_says_of_himself_can_not_show_another_key(about: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("p2p_ipython.members.invitation.platform.system", lambda: about)
    asked: list[Guest] = []

    async def look(guest: Guest) -> None:
        asked.append(guest)

    async with servers() as here, inviting(here.mailbox, look) as (code, invited):
        await outcome(come(code, here.mailbox))
        assert await invited is None
    (guest,) = asked
    shown = str(Question(TITLE, "bob", guest, own=False))
    assert "SHA256:" in shown
    assert shown.count("SHA256:") == shown.count(guest.fingerprint) == 1
    assert shown.count("\n") == 1
    assert shown.replace("\n", "").isprintable()
    assert shown.count("(") == shown.count(")") == 1


def test_who_asks_for_another_key_of_a_members_says_so(profiles: Profiles) -> None:
    profiles.save(admit(hosted(), choice("alice"), "bob", print_of("bob")))
    stranger = Guest("bob", "", print_of("mallory"))
    called, another = owners_end._called(profiles, TITLE, "bob", stranger)
    assert "bob is in already, by another key" in str(Question(TITLE, called, stranger, False, another))
    called, another = owners_end._called(profiles, TITLE, None, stranger)
    assert (called, another) == ("bob-2", False)


def test_a_guest_gets_no_name_that_somebody_has_got_since_it_was_asked_about_him() -> None:
    key, question = choice("alice"), Question(TITLE, "bob", Guest("bob", "", print_of("bob")), own=False)
    taken = admit(hosted(), key, "bob", print_of("mallory"))
    with pytest.raises(ConfigError, match="somebody else is called bob"):
        owners_end._admit_asked(taken, key, question, "bob")

    def keys(asked: Question, called: str, profile: Profile = taken) -> int:
        member = roster_of(owners_end._admit_asked(profile, key, asked, called)).named(called)
        return len(member.keys) if member is not None else 0

    assert keys(question, "robert") == 1  # he was given another name
    assert keys(replace(question, another_key=True), "bob") == 2  # it was said that both count
    assert keys(question, "bob", admit(hosted(), key, "bob", print_of("bob"))) == 1  # it was he


def test_a_name_that_differs_in_capitals_only_is_not_given_to_another() -> None:
    assert free_name(hosted(), "Alice") == "Alice-2"


async def test_a_question_that_nobody_answers_is_not_taken_for_a_guest_who_does_not_come() -> None:
    asked: list[Guest] = []

    async def think(guest: Guest) -> Welcome | None:
        asked.append(guest)
        return await asyncio.get_running_loop().create_future()

    async with servers() as here:
        for deadline in SHORT:
            guest = None
            try:
                async with inviting(here.mailbox, think, deadline=deadline) as (code, invited):
                    guest = asyncio.create_task(outcome(come(code, here.mailbox)))
                    error = await outcome(invited)
            except LinkError:  # there was not even time for a code
                continue
            finally:
                if guest is not None:
                    guest.cancel()
                    await outcome(guest)
            if asked:
                break
    assert isinstance(error, LinkTimeout)
    assert error.message == "bob is there, and was not admitted in time"


async def test_a_name_that_can_not_be_is_refused_before_there_is_a_code() -> None:
    class Unused:
        profile = hosted()

    def code(*_: object) -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match="can't be a name"):
        await owners_end.invite(Unused(), None, None, name="bob smith", show_code=code, ask=None)  # type: ignore[arg-type]


def test_the_one_cluster_that_is_hosted_is_meant_where_none_is_named(profiles: Profiles) -> None:
    with pytest.raises(ConfigError, match="you host no cluster yet") as nothing:
        operations.find_title(profiles, "", hosted=True)
    assert nothing.value.hint == "Host one: p2p host NAME"
    profiles.save(hosted())
    assert operations.find_title(profiles, "", hosted=True) == TITLE


def test_what_looks_like_a_title_and_is_none_is_answered_by_what_titles_are(profiles: Profiles) -> None:
    with pytest.raises(ConfigError, match="no title of a shared cluster") as wrong:
        operations.find_title(profiles, "Alice/friends")
    assert "small letters" in wrong.value.hint


async def test_who_mistypes_a_title_does_not_knock_at_strangers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2P_DATA", str(tmp_path))
    Profiles().save(hosted())
    with pytest.raises(ConfigError, match="is it alice/friends, which you are in"):
        await joining.knock("alice/freinds", way=Way(), name="bob", settings=Settings(), told=lambda _words: None)


def test_a_guest_whose_key_is_in_under_another_name_is_not_let_in_twice(profiles: Profiles) -> None:
    profiles.save(admit(hosted(), choice("alice"), "bob", print_of("bob")))
    guest = Guest("bob", "ssh-ed25519 AAAA", print_of("bob"))
    assert owners_end._called(profiles, TITLE, None, guest) == ("bob", False)
    assert owners_end._called(profiles, TITLE, "bob", guest) == ("bob", False)
    with pytest.raises(ConfigError, match="is in alice/friends already, as bob"):
        owners_end._called(profiles, TITLE, "robert", guest)
