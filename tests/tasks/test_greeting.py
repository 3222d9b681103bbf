"""Laws of the greeting family: one friendly reply, fair grading, a varied book."""

from __future__ import annotations

import random

import pytest
from tests.tasks import checks

from magister.tasks import greeting
from magister.tasks.phrasebook import load_book
from magister.tasks.problem import BEYOND

BOOK = load_book("greeting")


def test_every_greeting_gets_the_reply() -> None:
    for seed in range(2000):
        problem = greeting.generate(random.Random(seed), 1, BOOK)
        assert problem.prompt.strip(), problem
        assert problem.thinking == "", problem
        assert greeting.grade(problem, problem.reply), problem


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        (greeting.REPLY, True),
        (greeting.REPLY.upper(), True),
        (greeting.REPLY.replace("Hello!", "Hi there!"), True),
        (greeting.REPLY.removeprefix("Hello! "), False),
        (greeting.REPLY.replace("Reverse", "Turn"), False),
        ("Hello!", False),
        ("", False),
    ],
)
def test_grade_wants_a_greeting_and_three_things_to_try(reply: str, right: bool) -> None:
    assert greeting.grade(greeting.generate(random.Random(0), 1, BOOK), reply) is right


def test_the_same_seed_gives_the_same_problem() -> None:
    assert checks.is_repeatable(lambda rng: greeting.generate(rng, 1, BOOK))


def test_there_is_one_level_only() -> None:
    for level in (BEYOND, 2):
        with pytest.raises(ValueError, match="level"):
            greeting.generate(random.Random(0), level, BOOK)


def test_the_book_is_varied() -> None:
    assert not checks.bad_templates(BOOK, {"hello": set()})
    prompts = {greeting.generate(random.Random(seed), 1, BOOK).prompt for seed in range(2000)}
    assert len(BOOK.kinds["hello"]) >= 150
    assert len(prompts) >= 600
