"""Friends at their terminals: they host, invite, knock, lend, compute, take somebody out, and come again next day."""

from __future__ import annotations

import signal
from pathlib import Path

from friends_support import Person, Program, Village, code_of, eventually, pid_in, runs

TITLE = "alice/friends"

LONG = """
def stopped_or_told_to_go_on(folder):
    import os, pathlib, time
    try:
        (folder / "runs").write_text(f"{os.getpid()}\\n")
        while not (folder / "go").exists():
            time.sleep(0.02)
        return "went on"
    except BaseException:
        (folder / "stopped").write_text("")
        raise
"""
"""A task that runs until it is told to go on."""


def hosting(here: Village, *arguments: str, tty: bool = True) -> Program:
    host = here.person("alice").p2p("host", "friends", *here.way, "--owner", "alice", *arguments, tty=tty)
    host.expect("Ctrl-C ends the hosting")
    return host


def same_secret(one: Person, other: Person) -> None:
    """Wait until the files of the two have the same topic and key: programs write them beside their work."""

    def kept(person: Person) -> tuple[str, bytes]:
        profile = person.profiles.load(TITLE)
        return profile.topic, profile.key

    eventually(lambda: kept(one) == kept(other), f"the new key in the files of {one.name}")


CONNECTED = f"import p2p_ipython; c = p2p_ipython.connect({TITLE!r})"


def test_friends_come_in_work_together_and_one_of_them_has_to_leave(here: Village, tmp_path: Path) -> None:
    alice, bob, carol = here.person("alice"), here.person("bob"), here.person("carol")
    host = hosting(here)

    inviting = alice.p2p("invite", "friends", "bob", tty=True)
    joining = bob.p2p("join", *code_of(inviting).split())
    joining.expect(f"alice/friends invites you; its owner has the key {alice.fingerprint}")
    inviting.expect(f"with the key {bob.fingerprint}.\nAdmit them to {TITLE} as bob?")
    inviting.type("yes\n")
    assert (inviting.wait(), joining.wait()) == (0, 0)
    joining.expect(f"p2p worker --cluster {TITLE}")
    host.expect("bob is in")

    knocking = carol.p2p("join", TITLE, *here.way, "--name", "carol", tty=True)
    host.expect(f"carol knocks, with the key {carol.fingerprint}. Admit them to {TITLE} as carol?")
    host.type("y\n")
    host.expect("carol is in")
    knocking.expect(f"{TITLE} admits you. Its owner has the key {alice.fingerprint}.\nIs that right?")
    knocking.type("yes\n")
    assert knocking.wait() == 0

    worker = carol.worker("friends", "--slots", "2", "--name", "box")
    notebooks = [person.notebook(LONG + CONNECTED) for person in (alice, bob)]
    folders = [tmp_path / "of-alice", tmp_path / "of-bob"]
    for notebook, folder in zip(notebooks, folders, strict=True):
        folder.mkdir()
        notebook.run(f"import pathlib; f = c.submit(stopped_or_told_to_go_on, pathlib.Path({str(folder)!r}))")
    of_alice, of_bob = (pid_in(folder / "runs") for folder in folders)
    assert "carol (box)" in notebooks[0].run("answer = str(c)")
    assert [member.name for member in _roster(alice).members] == ["alice", "bob", "carol"]
    for person in (alice, bob, carol):
        assert person.fingerprint in carol.says("members", "friends")

    before = alice.profiles.load(TITLE)
    revoking = alice.p2p("revoke", "friends", "bob", tty=True)
    revoking.expect("Revoke bob's membership of alice/friends?")
    revoking.type("y\n")
    assert revoking.wait() == 0
    revoking.expect("bob is out of alice/friends")

    eventually(lambda: not runs(of_bob) or (folders[1] / "stopped").exists(), "the end of bob's task")
    assert "NotAdmitted" in (failure := notebooks[1].fails("f.result(60)"))
    assert "alice has revoked your membership of alice/friends" in failure
    assert "NotAdmitted" in notebooks[1].fails("c.submit(pow, 2, 3).result(60)")
    assert runs(of_alice)
    assert not (folders[0] / "stopped").exists()
    (folders[0] / "go").write_text("")
    assert notebooks[0].run("answer = f.result(60)") == "'went on'"
    assert notebooks[0].run("answer = c.submit(pow, 2, 10).result(60)") == "1024"
    assert worker.process.poll() is None
    same_secret(carol, alice)
    after = carol.profiles.load(TITLE)
    assert after.topic != before.topic
    assert after.key != before.key
    # A revoked member still has the files, which know it by now; nobody is admitted by them.
    eventually(lambda: bob.profiles.load(TITLE).roster == carol.profiles.load(TITLE).roster, "the list in bob's files")
    later = bob.notebook(CONNECTED)
    assert "No worker" not in (shown := later.run("answer = c.status().note"))
    assert "no longer in alice/friends" in shown
    again = bob.p2p("join", TITLE)
    again.expect("your membership of alice/friends was revoked; asking to be admitted again")
    host.expect(f"knocks, with the key {bob.fingerprint}. Admit them to {TITLE} as")
    host.type("no\n")
    again.expect("alice does not want you in alice/friends")
    assert again.wait() == 1

    # The next day: nobody hosts, and everything works from what is on disk.
    assert (host.end(), worker.end(signal.SIGTERM)) == (0, 0)
    here.end()
    carol.worker(TITLE)
    notebook = alice.notebook(CONNECTED)
    assert notebook.run("answer = c.submit(pow, 3, 4).result(60)") == "81"
    carols = carol.notebook(CONNECTED)
    assert carols.run("answer = c.submit(pow, 3, 5).result(60)") == "243"


def test_who_was_away_while_the_key_was_changed_finds_the_others_when_somebody_hosts(here: Village) -> None:
    alice, carol = here.person("alice"), here.person("carol")
    here.found("bob", "carol")
    said = alice.says("revoke", "friends", "bob", "--yes")
    assert "bob is out of alice/friends" in said
    before = carol.profiles.load(TITLE)
    assert before.topic != alice.profiles.load(TITLE).topic
    notebook = alice.notebook(CONNECTED)
    notebook.run("f = c.submit(pow, 2, 10)")
    worker = carol.worker(TITLE)
    away = carol.notebook(CONNECTED)
    assert "No worker" in away.run("answer = c.status().note")
    alice.p2p("host", "friends").expect("Ctrl-C ends the hosting")
    assert notebook.run("answer = f.result(60)") == "1024"
    assert away.run("answer = c.submit(pow, 2, 11).result(60)") == "2048"
    same_secret(carol, alice)
    assert worker.process.poll() is None


def test_who_has_just_come_in_is_not_put_out_by_the_old_list_of_somebody_who_was_away(here: Village) -> None:
    alice, bob, carol = here.person("alice"), here.person("bob"), here.person("carol")
    here.found("bob")
    host = hosting(here, "--users", f"carol={carol.fingerprint}")
    assert "you are in" in carol.says("join", TITLE, *here.way, "--owner", alice.fingerprint)
    host.end()
    worker = carol.worker(TITLE)
    away = bob.notebook(CONNECTED)  # whose list doesn't have carol yet: she is handed it
    away.run("f = c.submit(pow, 2, 10)")
    hosting(here)
    assert away.run("answer = f.result(60), f.worker.split()[0]") == "(1024, 'carol')"
    assert worker.process.poll() is None


# -- answers --


def test_a_guest_whom_the_host_declines_is_told_and_keeps_nothing(here: Village) -> None:
    alice, bob = here.person("alice"), here.person("bob")
    here.found()
    inviting = alice.p2p("invite", "friends", tty=True)
    joining = bob.p2p("join", *code_of(inviting).split())
    inviting.expect("Admit them to")
    inviting.type("perhaps\n")
    inviting.expect("[yes/no]")
    inviting.expect("[yes/no]")
    inviting.type("n\n")
    assert (inviting.wait(), joining.wait()) == (1, 1)
    inviting.expect("not admitted")
    joining.expect("p2p: the owner of alice/friends said no")
    assert bob.profiles.all() == []
    assert bob.fingerprint not in alice.says("members", "friends")


def test_without_a_terminal_an_invitation_needs_yes(here: Village) -> None:
    alice, bob = here.person("alice"), here.person("bob")
    here.found()
    inviting = alice.p2p("invite", "friends")
    joining = bob.p2p("join", *code_of(inviting).split())
    assert (inviting.wait(), joining.wait()) == (1, 1)
    assert "answer beforehand with --yes" in inviting.text
    assert "the host has left" in joining.text
    inviting = alice.p2p("invite", "friends", "--yes")
    joining = bob.p2p("join", *code_of(inviting).split())
    assert (inviting.wait(), joining.wait()) == (0, 0)


def test_the_end_of_input_at_a_terminal_is_no_answer(here: Village) -> None:
    alice, bob = here.person("alice"), here.person("bob")
    here.found()
    inviting = alice.p2p("invite", "friends", tty=True)
    joining = bob.p2p("join", *code_of(inviting).split())
    inviting.expect("[yes/no]")
    inviting.type("\x04")
    assert (inviting.wait(), joining.wait()) == (1, 1)
    assert bob.fingerprint not in alice.says("members", "friends")


def test_who_doubts_the_owners_key_stays_outside(here: Village) -> None:
    carol = here.person("carol")
    host = hosting(here, "--users", f"carol={carol.fingerprint}")
    knocking = carol.p2p("join", TITLE, *here.way, "--name", "carol", tty=True)
    knocking.expect("Is that right?")
    knocking.type("no\n")
    assert knocking.wait() == 1
    knocking.expect("nothing was kept")
    assert carol.profiles.all() == []
    assert "--owner SHA256:…" in carol.says("join", TITLE, *here.way, status=1)
    owner = here.person("alice").fingerprint
    assert "you are in alice/friends" in carol.says("join", TITLE, *here.way, "--owner", owner)
    host.end()


def test_who_is_told_no_at_the_door_hears_it(here: Village) -> None:
    host = hosting(here)
    knocking = here.person("mallory").p2p("join", TITLE, *here.way, "--name", "mallory")
    host.expect("mallory knocks")
    host.type("n\n")
    host.expect("mallory is refused")
    assert knocking.wait() == 1
    knocking.expect("p2p: alice does not want you in alice/friends")
    assert here.person("mallory").profiles.all() == []


def test_a_host_that_nobody_sits_at_says_how_to_let_somebody_in_and_then_does(here: Village) -> None:
    carol, alice = here.person("carol"), here.person("alice")
    host = hosting(here, tty=False)
    knocking = carol.p2p("join", TITLE, *here.way, "--name", "carol", "--owner", alice.fingerprint)
    host.expect("Nobody can answer here; admit them by:\n  p2p ")
    command = host.expect("\n").split()
    said = alice.says(*command)
    assert "carol may come in" in said
    assert knocking.wait() == 0
    assert [m.name for m in _roster(alice).members] == ["alice", "carol"]


def test_a_question_that_was_settled_elsewhere_does_not_stop_the_next(here: Village) -> None:
    carol, alice, dave = here.person("carol"), here.person("alice"), here.person("dave")
    host = hosting(here)
    first = carol.p2p("join", TITLE, *here.way, "--name", "carol", "--owner", alice.fingerprint)
    host.expect("carol knocks")
    assert "carol may come in" in alice.says("host", "friends", "--users", f"carol={carol.fingerprint}")
    assert first.wait() == 0
    host.type("yes\n")
    host.expect("carol is in already")
    second = dave.p2p("join", TITLE, *here.way, "--name", "dave", "--owner", alice.fingerprint)
    host.expect("dave knocks")
    host.type("yes\n")
    assert second.wait() == 0


def test_one_process_hosts_and_another_says_so(here: Village) -> None:
    hosting(here)
    said = here.person("alice").says("host", "friends", status=1)
    assert "another process of yours hosts alice/friends already" in said
    assert "p2p invite friends" in said
    said = here.person("alice").says("host", "friends", "--users", "erin")
    assert "erin is expected" in said
    assert "until" in here.person("alice").says("host", "friends", "--duration", "30d")


# -- keys and codes --


def test_a_guest_without_any_key_is_offered_one(here: Village) -> None:
    alice, guests = here.person("alice"), [here.person(name) for name in ("bob", "carol", "dave")]
    here.found()
    for guest in guests:
        guest.key_file.unlink()
    bob, carol, dave = guests
    inviting = alice.p2p("invite", "friends", "bob", "--yes")
    code = code_of(inviting).split()
    assert "there is no SSH key" in dave.says("join", *code, status=1)  # nobody to ask, and the code is still good
    joining = bob.p2p("join", *code, tty=True)
    joining.expect(f"Make one now, {bob.key_file}?")
    joining.type("\n")
    assert joining.line(f"made {bob.key_file}; its fingerprint is ") == bob.fingerprint
    assert (inviting.wait(), joining.wait()) == (0, 0)
    assert bob.key_file.stat().st_mode & 0o777 == 0o600

    declining = carol.p2p("join", *code, tty=True)
    declining.expect("Make one now")
    declining.type("n\n")
    assert declining.wait() == 1
    assert not carol.key_file.exists()

    inviting = alice.p2p("invite", "friends", "dave", "--yes")
    assert dave.p2p("join", *code_of(inviting).split(), "--yes").wait() == 0
    assert dave.key_file.exists()
    assert bob.fingerprint in (said := alice.says("members", "friends"))
    assert dave.fingerprint in said


def test_a_wrong_code_burns_the_invitation_and_a_mistyped_one_does_not(here: Village) -> None:
    from wormhole._wordlist import odd_words_lowercase

    alice, bob = here.person("alice"), here.person("bob")
    here.found()
    inviting = alice.p2p("invite", "friends", "--yes")
    code, *where = code_of(inviting).split()
    number, *words = code.split("-")
    mistyped = "-".join([number, words[0] + "x", *words[1:]])
    said = bob.says("join", mistyped, *where, status=1)
    assert f"Is it {words[0]!r}? Nothing has been sent; the code is still good." in said
    other = next(word for word in sorted(odd_words_lowercase) if word != words[0])
    assert "used up" in bob.says("join", "-".join([number, other, *words[1:]]), *where, status=1)
    assert inviting.wait() == 1
    inviting.expect("somebody used a wrong code, so this one is used up")
    assert bob.profiles.all() == []


def test_a_code_works_once(here: Village) -> None:
    alice, bob, eve = here.person("alice"), here.person("bob"), here.person("eve")
    here.found()
    inviting = alice.p2p("invite", "friends", "bob", tty=True)
    code = code_of(inviting).split()
    joining = bob.p2p("join", *code)
    inviting.expect("[yes/no]")
    late = eve.python(
        "import sys, p2p_ipython.members.invitation as invitation; invitation.ARRIVAL = 3\n"
        "from p2p_ipython.cli import main\n"
        f"sys.exit(main(['join', *{code!r}]))"
    )
    assert late.wait() == 1
    said = late.text
    assert "nobody waits for a guest with this code" in said
    assert "If somebody else has used it, tell the host" in said
    assert eve.profiles.all() == []
    inviting.type("yes\n")
    assert (inviting.wait(), joining.wait()) == (0, 0)
    assert [member.name for member in _roster(alice).members] == ["alice", "bob"]


# -- what is on disk --


def test_a_damaged_profile_is_said_and_kept_aside(here: Village) -> None:
    bob = here.person("bob")
    here.found("bob")
    (path,) = (Path(bob.environment["P2P_DATA"]) / "clusters").glob("*.json")
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    said = bob.notebook("import p2p_ipython").fails(f"p2p_ipython.connect({TITLE!r})")
    assert "DamagedProfile: the profile of alice/friends is damaged" in said
    assert "join the cluster again" in said
    (aside,) = [found for found in path.parent.iterdir() if found.name.startswith(path.name + ".")]
    assert aside.read_text() == text[: len(text) // 2]
    assert str(aside) in said


def test_a_cluster_is_left_and_then_unknown(here: Village) -> None:
    bob = here.person("bob")
    here.found("bob")
    assert TITLE in bob.says("members")
    assert "is forgotten" in bob.says("leave", "friends")
    assert "no clusters yet" in bob.says("members")
    assert "you are not a member of alice/friends yet" in bob.says("worker", "--cluster", TITLE, status=1)


def test_trust_is_said_and_taken_back(here: Village) -> None:
    alice = here.person("alice")
    here.found("bob")
    assert "run code in your notebooks in alice/friends" in alice.says("trust", "friends", "bob")
    assert "(trusted)" in alice.says("members", "friends")
    assert "plain data again" in alice.says("trust", "friends", "bob", "--revoke")
    assert "trusted" not in alice.says("members", "friends")
    assert "Its members: alice, bob." in alice.says("trust", "friends", "zoe", status=1)


def test_who_is_no_owner_is_told_whom_to_ask(here: Village) -> None:
    bob = here.person("bob")
    here.found("bob")
    for command in (["invite", TITLE], ["revoke", TITLE, "alice", "--yes"], ["host", TITLE]):
        said = bob.says(*command, status=1)
        assert "alice" in said
        assert "hosted" in said or "own" in said


def _roster(person: Person):
    from p2p_ipython.members.owner import roster_of

    return roster_of(person.profiles.load(TITLE))


def test_the_bench_measures_a_cluster_of_friends(here: Village) -> None:
    here.found("bob")
    here.person("bob").worker(TITLE)
    measured = (
        here.person("alice")
        .notebook("from p2p_ipython.bench import Effort, measure")
        .run(
            "effort = Effort(warm_up=2, roundtrips=3, tasks=5, transfers=1, size=10_000)\n"
            f"answer = measure({TITLE!r}, repeats=1, effort=effort).as_json()"
        )
    )
    assert "'tasks_per_s':" in measured
    assert "'workers': 1" in measured
