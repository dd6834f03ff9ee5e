"""Nothing secret is shown: not in logs at their finest, errors, results of commands, the process list, or reprs."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from friends_support import Village, code_of, eventually, village

from p2p_ipython.board.client.address import BoardAddress
from p2p_ipython.config import Settings
from p2p_ipython.link.base import Secret
from p2p_ipython.members.access import profile_access
from p2p_ipython.members.host import Host
from p2p_ipython.members.invitation_messages import Welcome
from p2p_ipython.members.joining import LetIn
from p2p_ipython.members.knocking import Granted, Knocking
from p2p_ipython.members.profile import Profile
from p2p_ipython.members.roll_call import Present
from p2p_ipython.members.voice import Voice
from p2p_ipython.members.way import Way
from p2p_ipython.protocol.identity import ClusterSecret, vouch
from p2p_ipython.protocol.membership_machine import Move
from p2p_ipython.protocol.messages import Admission, Rendezvous

TITLE = "alice/friends"
CONNECTED = f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r})"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Village]:
    with village(tmp_path) as made:
        yield made


def secrets_of(profile: Profile) -> dict[str, str]:
    """What of a profile must not be shown, in each way of writing it."""
    found = {"topic": profile.topic.removeprefix("p2p-")}
    for name, value in (("key", profile.key), ("vouch", profile.vouch)):
        if value:
            found |= {f"{name}, hex": value.hex(), f"{name}, repr": repr(value)[2:-1]}
            found[f"{name}, base64"] = base64.b64encode(value).decode().rstrip("=")
    return found


def private_lines(path: Path) -> dict[str, str]:
    """The lines of a key file that have something private."""
    return {f"{path}, line {n}": line for n, line in enumerate(path.read_text().splitlines()[3:-1]) if len(line) > 20}


def shown(text: str, secrets: dict[str, str]) -> set[str]:
    """Names of the secrets that are in a text."""
    return {name for name, secret in secrets.items() if secret in text}


def process_list(here: Village) -> dict[str, str]:
    """Command lines and environments of all that runs for the people, runners too."""
    found = {}
    for program in (program for person in here.people.values() for program in person.programs):
        try:
            first = psutil.Process(program.process.pid)
            for process in (first, *first.children(recursive=True)):
                found[" ".join(process.cmdline())] = str(process.environ())
        except psutil.Error:
            continue
    return found


def test_a_day_of_friends_shows_no_secret_anywhere(here: Village) -> None:
    alice, bob, carol, box = (here.person(name) for name in ("alice", "bob", "carol", "box"))
    secrets: dict[str, str] = {}
    for person in (alice, bob, carol, box):
        secrets |= private_lines(person.key_file)
    listed: dict[str, str] = {}
    host = alice.p2p("-vv", "host", "friends", *here.way, "--owner", "alice", tty=True)
    host.expect("Ctrl-C ends the hosting")
    secrets |= {f"first {name}": value for name, value in secrets_of(alice.profiles.load(TITLE)).items()}

    codes = []
    for guest, *own in ((bob,), (box, "--own")):
        inviting = alice.p2p("-vv", "invite", "friends", *own, tty=True)
        code = code_of(inviting)
        codes.append(re.search(r"\d+-([a-z]+-[a-z]+-[a-z]+)", code)[1])  # type: ignore[index]
        joining = guest.p2p("-vv", "join", *code.split(), "--name", guest.name)
        inviting.expect("[yes/no]")
        listed |= process_list(here)
        inviting.type("yes\n")
        assert (inviting.wait(), joining.wait()) == (0, 0)
        # The one place for a code: two lines, for a terminal and for a notebook.
        assert inviting.text.count(codes[-1]) == 2
        inviting.text = inviting.text.replace(codes[-1], "")
    secrets |= {f"code {number}": code for number, code in enumerate(codes)}
    assert box.profiles.load(TITLE).vouch
    secrets |= {f"box, {name}": value for name, value in secrets_of(box.profiles.load(TITLE)).items()}

    knocking = carol.p2p("-vv", "join", TITLE, *here.way, "--name", "carol", tty=True)
    host.expect("Admit them to")
    host.type("yes\n")
    knocking.expect("Is that right?")
    knocking.type("yes\n")
    assert knocking.wait() == 0

    workers = [person.p2p("-vv", "worker", "--cluster", TITLE) for person in (box, carol)]
    for worker in workers:
        worker.expect("Ctrl-C ends it")
    notebooks = [person.notebook(CONNECTED) for person in (alice, bob)]
    for notebook in notebooks:
        notebook.run("f = c.submit(pow, 2, 10); answer = f.result(60), repr(c), str(c), repr(f), repr(c.members())")
    notebooks[0].run(
        "def wait():\n    import time\n    print('it runs', flush=True)\n    time.sleep(60)\nlong = c.submit(wait)"
    )
    eventually(lambda: "it runs" in notebooks[0].run("answer = long.outputs"), "a task that runs")
    listed |= process_list(here)
    assert any("p2p_ipython.sandbox" in command or "runner" in command for command in listed), listed.keys()
    notebooks[1].fails("c.submit(lambda: 1 / 0).result(60)")

    alice.says("-vv", "revoke", "friends", "bob", "--yes")
    secrets |= {f"second {name}": value for name, value in secrets_of(alice.profiles.load(TITLE)).items()}
    notebooks[1].fails("c.submit(pow, 2, 10).result(60)")
    for person in (alice, bob, carol, box):
        person.says("-vv", "members", "friends")
    listed |= process_list(here)
    assert bob.p2p("-vv", "join", codes[0] + "x", "--mailbox", here.board["mailbox"]).wait() == 1

    # And when things break.
    (keeper,) = here.person("keeper").programs
    keeper.end(signal.SIGTERM)
    for worker in workers:
        worker.expect("reconnecting")
    notebooks[0].fails(f"p2p_ipython.connect({TITLE!r})")
    assert alice.p2p("-vv", "invite", "friends").wait() == 1
    texts = {program: program.text for person in here.people.values() for program in person.programs}
    here.end()

    assert len(secrets) > 20
    for program in texts:
        assert not (found := shown(program.text, secrets)), f"{program.command} shows {found}"
    assert sum("DEBUG p2p_ipython" in program.text for program in texts) > 5, "the logs are at their finest"
    for command, environment in listed.items():
        assert not (found := shown(environment, secrets)), f"the environment of {command} has {found}"
        if " join " not in command:  # its user has typed the code there
            assert not (found := shown(command, secrets)), f"the command line of {command} has {found}"


async def test_reprs_have_no_secrets(here: Village) -> None:
    alice, box = here.person("alice"), here.person("box")
    word = vouch(alice.key.key, cluster=f"{alice.fingerprint}/friends", key=box.fingerprint, now=time.time())
    profile = here.found("bob")
    own = replace(profile, vouch=word, signer=box.fingerprint, hosting=None)
    secrets = {**secrets_of(own), **private_lines(alice.key_file), "code": "sunset-hamburger"}
    secret = ClusterSecret(profile.cluster, profile.topic, profile.key)
    address, settings = BoardAddress.parse(here.where), Settings()
    entries = [
        profile_access(one, address, person.key, me="me", settings=settings, profiles=person.profiles)
        for one, person in ((profile, alice), (own, box))
    ]
    texts = ("board", "host_key", "mailbox", "relay", "topic", "key", "roster", "vouch")
    granted = Granted(alice.fingerprint, secret)
    sessions = [access.session("client") for access in entries]
    memberships = [access.membership(session) for access, session in zip(entries, sessions, strict=True)]
    knocking = Knocking(TITLE, alice.key, entries[0].open_board, name="alice")
    objects: list[Any] = [
        profile,
        own,
        secret,
        *entries,
        *sessions,
        *memberships,
        *(membership.machine for membership in memberships),
        *(access.standing for access in entries),
        Welcome(TITLE, profile.cluster, **{name: getattr(own, name) for name in texts}),
        granted,
        LetIn(TITLE, alice.fingerprint, granted, alice.key, Way(), ""),
        knocking,
        Host(entries[0], profile, alice.profiles),
        Present("bob", "box", "worker", "SHA256:…", profile.topic, 0.0),
        Voice(sessions[0], secret, admit=lambda _c: True, heard=print),
        Admission(profile.cluster, profile.topic, profile.key),
        Rendezvous("4-sunset-hamburger", "ws://h/v1", ""),
        Secret("4-sunset-hamburger"),
        Move(secret),
        alice.key,
    ]
    for one in objects:
        for text in (repr(one), str(one), f"{one!r:>9}"):
            assert not (found := shown(text, secrets)), f"{type(one).__name__} shows {found}"
    knocking._answer.cancel()
    await asyncio.sleep(0)
    assert shown(str(vars(profile)), secrets), "this would be seen"
