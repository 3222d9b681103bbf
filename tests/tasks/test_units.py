"""Laws of the units family: right answers against a table of its own, true steps, fair grading."""

from __future__ import annotations

import random
import re
from fractions import Fraction

import pytest
from tests.tasks import checks

from magister.tasks import units
from magister.tasks.phrasebook import load_book
from magister.tasks.problem import BEYOND, Problem

BOOK = load_book("units")
LEVELS = (BEYOND, *range(1, units.LEVELS + 1))
IN_SMALLEST = dict.fromkeys(("mm", "mg", "ml", "s"), 1)
IN_SMALLEST |= {"cm": 10, "m": 1000, "km": 1000000, "g": 1000, "kg": 1000000, "t": 1000000000, "cl": 10, "l": 1000}
IN_SMALLEST |= {"min": 60, "h": 3600, "days": 86400, "weeks": 604800}
SLOTS = {"convert": {"q", "to"}, "sum": {"q1", "q2", "to"}}


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return [units.generate(random.Random(seed), LEVELS[seed % len(LEVELS)], BOOK) for seed in range(2000)]


def smallest(parts: list[str]) -> Fraction:
    total = Fraction(0)
    for value, unit in zip(parts[::2], parts[1::2], strict=True):
        total += Fraction(value) * IN_SMALLEST[unit if unit in IN_SMALLEST else f"{unit}s"]
    return total


def test_the_answer_is_the_same_quantity(problems: list[Problem]) -> None:
    for problem in problems:
        *given, to = map(str, problem.operands)
        assert smallest(problem.answer.split()) == smallest(given), problem
        assert problem.answer.split()[1] in (to, to.removesuffix("s")), problem


def test_every_step_is_true_and_short(problems: list[Problem]) -> None:
    for problem in problems:
        assert not checks.wrong_equations(problem.thinking), problem
        assert len(problem.thinking) <= checks.MOST_CHARACTERS, problem
        assert problem.thinking.splitlines()[-1] == problem.answer, problem
        for line in problem.thinking.splitlines():
            if "." in line and "=" in line and " " not in line and ":" not in line:
                values = {decimal(term) for term in line.split("|")[0].split("=")}
                assert len(values) == 1 or "|" in line, line


def test_the_quantities_of_a_sum_are_taken_in_the_order_of_the_prompt(problems: list[Problem]) -> None:
    for problem in problems:
        if problem.kind == "sum":
            first, second = (f"{problem.operands[at]} {problem.operands[at + 1]}" for at in (0, 2))
            header, *lines = problem.thinking.splitlines()
            named = header.rsplit(" in ", 1)[0].split(" + ")
            singular = {first.removesuffix("s"), second.removesuffix("s"), first, second}
            assert set(named) <= singular, problem
            stands = [lines.index(f"{one} in {problem.operands[-1]}") for one in named]
            assert stands[0] <= stands[1], problem
            for one, place in zip(named, stands, strict=True):
                same = one.split()[1].removesuffix("s") == str(problem.operands[-1]).removesuffix("s")
                assert (lines[place + 1] == "same") == same, problem
            places = [re.search(rf"(?<![\d.]){re.escape(one.split()[0])}(?!\d|\.\d)", problem.prompt) for one in named]
            assert places[0] is not None, problem
            assert places[1] is not None, problem
            if named[0].split()[0] != named[1].split()[0]:
                assert places[0].start() < places[1].start(), problem


def decimal(term: str) -> Fraction:
    value, sign = Fraction(0), "+"
    for piece in term.replace("*", " * ").replace("/", " / ").replace("+", " + ").split():
        if piece in "+*/":
            sign = piece
        elif sign == "+":
            value += Fraction(piece)
        else:
            value = value * Fraction(piece) if sign == "*" else value / Fraction(piece)
    return value


def test_grade_takes_the_answer_and_no_other(problems: list[Problem]) -> None:
    for problem in problems:
        number, unit = problem.answer.split()[:2]
        assert units.grade(problem, problem.reply)
        assert not units.grade(problem, f"The answer is **{int(float(number)) + 1} {unit}**.")
        assert not units.grade(problem, problem.reply + " No, **0 m**.")
        if len(problem.answer.split()) == 2:
            assert units.grade(problem, f"**{number}**")
            other = "kg" if unit != "kg" else "m"
            assert not units.grade(problem, f"**{number} {other}**")


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("**2.5 hours**", True),
        ("**2.5**", True),
        ("**5/2 h**", True),
        ("**2 h 30 min**", True),
        ("**2 hours and 30 minutes**", True),
        ("**2 h 30**", False),
        ("**150 min**", False),
        ("**2.5 min**", False),
        ("**30 min 2 h**", False),
        ("", False),
    ],
)
def test_grade_reads_times(reply: str, right: bool) -> None:
    problem = Problem(
        family="units",
        kind="convert",
        level=2,
        operands=(150, "min", "h"),
        prompt="",
        thinking="",
        answer="2.5 h",
        reply="",
    )
    assert units.grade(problem, reply) is right


def test_trained_and_beyond_do_not_overlap(problems: list[Problem]) -> None:
    for problem in problems:
        *given, to = map(str, problem.operands)
        long = any(len(value.split(".")[0]) >= 6 for value in given[::2])
        far = any({unit, to} in ({"km", "mm"}, {"t", "mg"}) for unit in given[1::2])
        assert (long or far) is (problem.level == BEYOND), problem


def test_the_same_seed_gives_the_same_problem() -> None:
    assert checks.is_repeatable(lambda rng: units.generate(rng, rng.choice(LEVELS), BOOK))
    with pytest.raises(ValueError, match="levels"):
        units.generate(random.Random(0), units.LEVELS + 1, BOOK)


def test_the_book_has_all_kinds_and_slots() -> None:
    assert not checks.bad_templates(BOOK, SLOTS)
    assert all(len(templates) >= 25 for templates in BOOK.kinds.values())
