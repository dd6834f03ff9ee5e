"""The lender's yes to each task: what an answer counts for, and what can grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from p2p_ipython.cli.consent import _card
from p2p_ipython.lending.policy import Refusal
from p2p_ipython.protocol.identity import Certificate
from p2p_ipython.protocol.questions import Answer
from p2p_ipython.protocol.task_frames import Task
from p2p_ipython.worker import consent
from p2p_ipython.worker.consent import MAX_QUESTIONS, MAX_QUESTIONS_OF_A_MEMBER, Consent, Question


def client(sid: str, member: str) -> Certificate:
    return Certificate("c", sid.encode(), b"", b"", "client", 0.0, member, b"")


CAROL, CAROL_TOO, DAVE = client("c", "carol"), client("c2", "carol"), client("d", "dave")


class Lender:
    """Answers questions when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.answers: asyncio.Queue[Answer] = asyncio.Queue()
        self.heard: asyncio.Queue[None] = asyncio.Queue()

    async def ask(self, question: Question) -> Answer:
        self.asked.append(question)
        return await self.answers.get()

    async def says(self, answer: Answer) -> None:
        self.answers.put_nowait(answer)
        await asyncio.wait_for(self.heard.get(), 30)


@asynccontextmanager
async def asking() -> AsyncIterator[tuple[Consent, Lender]]:
    lender = Lender()
    made = Consent(lender.ask, lambda: lender.heard.put_nowait(None))
    running = asyncio.ensure_future(made.run())
    try:
        yield made, lender
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def task(name: str = "t", source: str = "1 + 1", ref: str | None = None) -> Task:
    return Task(name, 1, "cell", ((2, ref),), source=source, label=name)


def why(made: Consent, it: Task, whose: Certificate = CAROL, body: bytes = b"ab") -> str:
    refusal = made.check(whose, "carol", it, body)
    return refusal.why if refusal is not None else ""


async def test_once_is_once_and_for_what_was_shown() -> None:
    async with asking() as (made, lender):
        assert why(made, task()) == "asking"
        await lender.says("once")
        assert lender.asked[0].source == "1 + 1"
        assert why(made, task(source="evil")) == "asking"  # the same id, another source
        assert why(made, task(), body=b"xx") == "asking"
        assert why(made, task(), DAVE) == "asking"
        assert why(made, task()) == ""
        assert why(made, task()) == "asking"


async def test_a_yes_to_packages_is_another_one_than_to_a_members_tasks() -> None:
    async with asking() as (made, lender):
        assert why(made, task()) == "asking"
        await lender.says("member")
        assert why(made, task("u")) == ""
        wants = replace(task("v"), packages=("numpy>=2", "pandas"))
        assert why(made, wants) == "asking"
        await lender.says("same")
        assert "has numpy>=2, pandas installed here" in "\n".join(_card(lender.asked[-1]))
        assert why(made, wants) == ""
        assert why(made, replace(wants, packages=("numpy>=2", "polars"))) == "asking"  # not the same
        await lender.says("member")
        assert why(made, replace(wants, id="w", packages=("six",))) == ""


async def test_no_is_no_for_that_task() -> None:
    async with asking() as (made, lender):
        assert why(made, task()) == "asking"
        await lender.says("no")
        assert [why(made, task()) for _ in range(3)] == ["no"] * 3
        assert made.check(CAROL, "carol", task(), b"ab") == Refusal("no", "its lender has said no")
        assert why(made, task("u")) == "asking"


async def test_always_is_for_the_member_or_for_the_same_bytes() -> None:
    async with asking() as (made, lender):
        why(made, task())
        await lender.says("same")
        assert [why(made, task(name), whose) for name, whose in (("t", CAROL), ("u", CAROL_TOO))] == ["", ""]
        assert why(made, task("u", source="other")) == "asking"
        await lender.says("member")
        assert why(made, task("v", source="anything"), CAROL_TOO) == ""
        assert why(made, task(), DAVE) == "asking"


async def test_a_yes_answers_the_questions_that_wait_and_ask_the_same() -> None:
    async with asking() as (made, lender):
        for number in range(4):
            assert why(made, task(f"t{number}")) == "asking"
        assert why(made, task("d"), DAVE) == "asking"
        assert why(made, task("t9", source="other")) == "asking"
        await lender.says("same")
        assert [question.key for question in made._waiting.values()] == ["dave", "carol"]
        await lender.says("member")
        assert [why(made, task("e"), DAVE), why(made, task("t5"))] == ["", ""]
        assert [question.source for question in made._waiting.values()] == ["other"]
        await lender.says("member")
        assert not made._waiting
        assert len(lender.asked) == 3


async def test_the_same_code_is_the_same_with_other_data() -> None:
    def some(name: str, data: tuple[int, str | None], around: int = 2) -> Task:
        return replace(task(name), data=(data,), around=((around, None),))

    async with asking() as (made, lender):
        assert why(made, some("t", (3, None)), body=b"ab123xy") == "asking"
        await lender.says("same")
        assert why(made, some("u", (4, None)), body=b"ab4567xy") == ""
        assert why(made, some("v", (1 << 30, "big")), body=b"abxy") == ""  # its bytes are yet to come
        for number, (its, body) in enumerate(
            [
                (some("w", (3, None)), b"aX123xy"),
                (some("w", (3, None)), b"ab123xX"),
                (some("w", (2, None), around=3), b"ab123xy"),  # the data's last byte would be code
                (replace(some("w", (3, None)), data=()), b"abxy"),
                (replace(some("w", (3, None)), source="2 + 2"), b"ab123xy"),
                (replace(some("w", (3, None)), around=((2, "modules"),)), b"ab123"),
            ]
        ):
            assert why(made, replace(its, id=f"w{number}"), body=body) == "asking", number


async def test_nothing_is_the_same_as_a_task_whose_bytes_are_yet_to_come() -> None:
    async with asking() as (made, lender):
        assert why(made, task(ref="r")) == "asking"
        await lender.says("same")
        assert "this [t]ask" not in "".join(_card(lender.asked[0]))
        assert why(made, task(ref="r")) == ""  # once
        assert why(made, task("u", ref="r")) == "asking"


async def test_no_answer_and_an_error_are_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consent, "PATIENCE", 0.05)
    async with asking() as (made, lender):
        assert why(made, task()) == "asking"
        await asyncio.wait_for(lender.heard.get(), 30)
        assert made.check(CAROL, "carol", task(), b"ab") == Refusal("no", "its lender has not answered")


async def test_one_member_can_not_take_all_questions() -> None:
    async with asking() as (made, _lender):
        for number in range(100):
            assert why(made, task(f"t{number}")) == "asking"
        assert len(made._waiting) == MAX_QUESTIONS_OF_A_MEMBER
        assert why(made, task(), DAVE) == "asking"
        assert len(made._waiting) == MAX_QUESTIONS_OF_A_MEMBER + 1
        for number in range(100):
            why(made, task(), client(f"x{number}", f"m{number}"))
        assert len(made._waiting) == MAX_QUESTIONS


def test_a_card_shows_a_strangers_text_as_text() -> None:
    source = "print(1)\x1b[2J\n\u202egnp.exe\r\n" + "x\n" * 100
    card = _card(Question("carol", "SHA256:c", "\x1b]0;title\x07label", "cell", source, 3000))
    assert "\x1b" not in "".join(card)
    assert "\u202e" not in "".join(card)
    assert card[1] == "  | print(1)[2J"
    assert card[2] == "  | gnp.exe"
    assert len(card) < 70
    assert "Data can carry code: the sandbox is what holds it." in card


def test_a_card_hides_nothing_in_a_long_line() -> None:
    card = _card(Question("carol", "SHA256:c", "label", "cell", f"x = 1{' ' * 300}; evil()\ny = 2", 3000))
    assert card[1].endswith("…")
    assert card[3] == "  (1 line cut where … stands)"


async def test_what_a_task_brings_and_binds_is_said() -> None:
    async with asking() as (made, lender):
        brings = Task(
            "t", 1, "cell", ((2048, "r"), (2, None)), source="x", label="t", bind=("a", "b"), around=((1024, "m"),)
        )
        assert why(made, brings) == "asking"
        await lender.says("no")
        assert lender.asked[0].options == (
            "1 KiB of modules, files and settings; 3 KiB that come after your yes; binds a, b"
        )
