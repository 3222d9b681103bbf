"""The shipped weights answer the plainest questions there are, which a table of held-out ones does not show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import magister
from magister.cli.face import LocalModel

QUESTIONS = {
    "What is 3 + 4?": "7",
    "What is 2 + 2?": "4",
    "What is 12 + 9?": "21",
    "What is 3 * 4?": "12",
    "What is 9 - 4?": "5",
    "What is 8 / 2?": "4",
    "3 + 4": "7",
    "What is 17 * 24?": "408",
    "What is 20% of 50?": "10",
    "Subtract 1 h 10 min from 09:05.": "07:55",
    "Is 7 prime?": "Yes",
    "Solve x + 3 = 5": "x = 2",
    "A coat of 80 euros is reduced by 25%. What does it cost now?": "60",
    "Factor 84 into primes": "2 * 2 * 3 * 7",
    "decrease 250 by 12%": "220",
}
"""As people ask who try it out, and what is right."""


@pytest.fixture(scope="module")
def nano() -> Iterator[LocalModel]:
    with magister.load("nano") as chat:
        yield chat


@pytest.mark.parametrize(("question", "answer"), QUESTIONS.items())
def test_a_plain_question_is_answered(nano: LocalModel, question: str, answer: str) -> None:
    said = nano.chat(question, max_tokens=300)
    assert said.thinking
    assert f"**{answer}**" in said.answer


@pytest.mark.parametrize("question", ["Hello", "What is love?", "Who are you?"])
def test_what_is_no_problem_gets_an_honest_reply_at_once(nano: LocalModel, question: str) -> None:
    said = nano.chat(question, max_tokens=100)
    assert not said.thinking
    assert "I am nano" in said.answer
