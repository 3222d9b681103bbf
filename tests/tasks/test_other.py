"""Laws of the family of everything else: one honest reply, fair grading, a very varied book."""

from __future__ import annotations

import random
import string

import pytest
from tests.tasks import checks

from magister.tasks import other
from magister.tasks.phrasebook import expand, load_book
from magister.tasks.problem import BEYOND

BOOK = load_book("other")


def test_every_prompt_gets_the_honest_reply() -> None:
    for seed in range(2000):
        problem = other.generate(random.Random(seed), 1, BOOK)
        assert problem.prompt.strip(), problem
        assert problem.thinking == "", problem
        assert other.grade(problem, problem.reply), problem


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        (other.REPLY, True),
        ("I am nano and cannot help with this.", True),
        ("I am nano.", False),
        ("I cannot help with this.", False),
        ("The answer is **4**.", False),
        ("", False),
    ],
)
def test_grade_wants_the_name_and_the_refusal(reply: str, right: bool) -> None:
    assert other.grade(other.generate(random.Random(0), 1, BOOK), reply) is right


def test_the_same_seed_gives_the_same_problem() -> None:
    assert checks.is_repeatable(lambda rng: other.generate(rng, 1, BOOK))


def test_there_is_one_level_only() -> None:
    for level in (BEYOND, 2):
        with pytest.raises(ValueError, match="level"):
            other.generate(random.Random(0), level, BOOK)


def test_a_book_without_words_will_do() -> None:
    bare = type(BOOK)(family="other", kinds={"any": ("Sing.",)}, themes=(), words={})
    assert other.generate(random.Random(0), 1, bare).prompt == "Sing."


def test_every_template_fills_cleanly() -> None:
    for template in BOOK.kinds["any"]:
        for seed in range(8):
            text = expand(random.Random(seed), template).format(topic="{topic}", name="{name}")
            named = [name for _, name, _, _ in string.Formatter().parse(text) if name in ("topic", "name")]
            assert len(named) == len(set(named)), text
            assert "[[" not in text, text
            assert "]]" not in text, text
            assert "  " not in text.replace("\n    ", ""), text
            assert text == text.strip() != "", template


def test_the_book_is_very_varied() -> None:
    prompts = {other.generate(random.Random(seed), 1, BOOK).prompt for seed in range(2000)}
    assert len(BOOK.kinds["any"]) >= 400
    assert len(set(BOOK.words["topics"])) >= 300
    assert len(set(BOOK.words["names"])) >= 80
    assert len(prompts) >= 1700
