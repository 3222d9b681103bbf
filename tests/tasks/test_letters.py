"""Laws of the letters family: answers by plain string operations, spellings, fair grading."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from tests.tasks import checks

from magister.tasks import letters
from magister.tasks.phrasebook import load_book
from magister.tasks.problem import BEYOND, Problem

BOOK = load_book("letters")
LEVELS = (BEYOND, *range(1, letters.LEVELS + 1))
SLOTS = {"count": {"letter", "word"}, "reverse": {"word"}, "sort": {"word"}, "length": {"word"}}


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return [letters.generate(random.Random(seed), LEVELS[seed % len(LEVELS)], BOOK) for seed in range(2000)]


def test_the_answer_is_right(problems: list[Problem]) -> None:
    for problem in problems:
        word = str(problem.operands[-1])
        counts = Counter(word)
        expected = {
            "count": str(counts[str(problem.operands[0])]),
            "reverse": "".join(word[-place] for place in range(1, len(word) + 1)),
            "sort": "".join(letter * counts[letter] for letter in sorted(counts)),
            "length": str(sum(counts.values())),
        }
        assert problem.answer == expected[problem.kind], problem
        assert word in problem.prompt.lower(), problem


def test_the_thought_spells_the_word_and_ends_in_the_answer(problems: list[Problem]) -> None:
    for problem in problems:
        lines = problem.thinking.splitlines()
        word = str(problem.operands[-1])
        assert lines[0].split() == ([problem.kind, problem.operands[0]] if problem.kind == "count" else [problem.kind])
        assert lines[1].split("-") == list(word), problem
        assert _read(problem.kind, lines[-1]) == problem.answer, problem
        assert len(problem.thinking) <= checks.MOST_CHARACTERS, problem


def _read(kind: str, line: str) -> str:
    """The answer that stands in the last line of a thought."""
    if kind in ("count", "length"):
        return next(part for part in line.split() if part.isdigit())
    if kind == "reverse":
        return "".join(part[-1] for part in line.split())
    return "".join(part[0] for part in line.split() if part[1:])


def test_a_sorted_word_s_letters_are_marked_with_how_manyth_they_are(problems: list[Problem]) -> None:
    for problem in problems:
        if problem.kind == "sort":
            word, (*_, marks, row) = str(problem.operands[-1]), problem.thinking.splitlines()
            assert marks.split() == [f"{one}{word[: place + 1].count(one)}" for place, one in enumerate(word)], problem
            assert sorted(row.split()) == row.split(), problem
            assert {part[0] for part in row.split()} == set("abcdefghijklmnopqrstuvwxyz"), problem
            assert sorted(part for part in row.split() if part[1:]) == sorted(marks.split()), problem


def test_a_jumbled_word_is_spelled_in_the_reply(problems: list[Problem]) -> None:
    for problem in problems:
        assert problem.spelled == (problem.answer if problem.kind in ("reverse", "sort") else ""), problem


def test_lengths_tell_the_levels_apart(problems: list[Problem]) -> None:
    for problem in problems:
        low, high = {BEYOND: (12, 15), 1: (3, 4), 2: (5, 6), 3: (7, 8), 4: (9, 10)}[problem.level]
        assert low <= len(str(problem.operands[-1])) <= high, problem


def test_grade_takes_the_answer_and_no_other(problems: list[Problem]) -> None:
    for problem in problems:
        assert letters.grade(problem, problem.reply)
        assert letters.grade(problem, f"**{problem.answer.upper()}**")
        if problem.kind in ("count", "length"):
            assert letters.grade(problem, f"**{problem.answer} times**")
            assert not letters.grade(problem, f"**{int(problem.answer) + 1}**")
        else:
            assert not letters.grade(problem, f"**{problem.answer}a**")
            assert not letters.grade(problem, f"**{' '.join(problem.answer)}**")
        assert not letters.grade(problem, "")


def test_the_same_seed_gives_the_same_problem() -> None:
    assert checks.is_repeatable(lambda rng: letters.generate(rng, rng.choice(LEVELS), BOOK))
    with pytest.raises(ValueError, match="levels"):
        letters.generate(random.Random(0), letters.LEVELS + 1, BOOK)


def test_made_up_words_have_the_length_asked_for() -> None:
    rng = random.Random(7)
    words = {letters.pseudo_word(rng, length) for length in range(3, 16) for _ in range(50)}
    assert {len(word) for word in words} == set(range(3, 16))
    assert all(word.isalpha() and word.isascii() and word.islower() for word in words)


def test_the_book_has_all_kinds_slots_and_many_words() -> None:
    assert not checks.bad_templates(BOOK, SLOTS)
    assert all(len(templates) >= 25 for templates in BOOK.kinds.values())
    words = BOOK.words["words"]
    assert len(words) == len(set(words)) >= 400
    assert set("".join(words)) == set("abcdefghijklmnopqrstuvwxyz")
