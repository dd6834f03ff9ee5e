"""Questions on a terminal, and what becomes of them where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cli_support import DEADLINE, Terminal

ASK = "from p2p_ipython.cli.terminal import ask; print('answer', ask('Really?', {default}))"
ASKED = """
import asyncio
from p2p_ipython.cli.terminal import asked, run
async def main():
    beating = asyncio.ensure_future(beat())
    print('answer', await asked('Really?'))
    beating.cancel()
async def beat():
    while True:
        await asyncio.sleep(0.01)
        print('the loop goes on', flush=True)
run(main())
"""


TWICE = """
import time
from p2p_ipython.cli.terminal import ask
print('answer', ask('First?'))
while not input():
    pass
print('asking again')
print('answer', ask('Second?'))
"""


def shell(program: str) -> Iterator[Terminal]:
    made = Terminal(sys.executable, "-c", program, environment=os.environ)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def question(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """A program that asks; its parameter is the default."""
    yield from shell(ASK.format(default=getattr(request, "param", None)))


@pytest.mark.parametrize("question", [None, True, False], indirect=True)
@pytest.mark.parametrize(("typed", "answer"), [("yes", True), ("Y", True), (" no ", False), ("n", False)])
def test_yes_is_yes_and_no_is_no(question: Terminal, typed: str, answer: bool) -> None:
    question.expect("Really? [")
    question.type(f"{typed}\n")
    question.expect(f"answer {answer}")


@pytest.mark.parametrize(("question", "answer"), [(True, True), (False, False)], indirect=["question"])
def test_an_empty_answer_is_the_default(question: Terminal, answer: bool) -> None:
    question.expect("[Yes/no]" if answer else "[yes/No]")
    question.type("\n")
    question.expect(f"answer {answer}")


def test_without_a_default_and_after_nonsense_it_is_asked_again(question: Terminal) -> None:
    for nonsense in ("", "perhaps", "y" * 500):
        question.expect("Really? [yes/no] ")
        question.type(f"{nonsense}\n")
    question.expect("Really? [yes/no] ")
    question.type("no\n")
    question.expect("answer False")


def test_the_end_of_a_terminal_is_no_answer(question: Terminal) -> None:
    question.expect("Really?")
    question.type("\x04")
    question.expect("nobody to answer: Really?")
    question.expect("--yes")
    assert question.wait() == 1


def run_without_a_terminal(typed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ASK.format(default=True)],
        input=typed,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=DEADLINE,
        check=False,
    )


def test_without_a_terminal_an_answer_may_be_piped_in() -> None:
    assert run_without_a_terminal("no\n").stdout == "answer False\n"


def test_without_anybody_to_answer_not_even_the_default_is_taken() -> None:
    done = run_without_a_terminal("")
    assert done.returncode == 1
    assert "--yes" in done.stderr
    assert done.stdout == ""


def test_who_asks_from_the_loop_does_not_hold_it_up() -> None:
    for terminal in shell(ASKED):
        terminal.expect("Really? [")
        terminal.expect("the loop goes on")
        terminal.type("yes\n")
        terminal.expect("answer True")
        assert terminal.wait() == 0


def test_ctrl_c_ends_a_program_that_asks_from_the_loop() -> None:
    for terminal in shell(ASKED):
        terminal.expect("Really? [")
        terminal.expect("the loop goes on")
        terminal.type("\x03")
        assert terminal.wait() != 0
        assert "Fatal" not in terminal.text


def test_what_was_typed_before_a_question_is_no_answer_to_it() -> None:
    for terminal in shell(TWICE):
        terminal.expect("First? [")
        terminal.type("yes\nmore\nyes\n")
        terminal.expect("Second? [")
        terminal.type("no\n")
        terminal.expect("answer False")


def test_letters_that_the_output_has_not_are_said_in_other_ones() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from p2p_ipython.cli.terminal import *; any_encoding(); say('\\u0431ob \\xfc knocks')"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=DEADLINE,
        check=True,
    )
    assert done.stdout == b"\\u0431ob \xfc knocks\n"
