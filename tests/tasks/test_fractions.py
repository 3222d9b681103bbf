"""Fractions and percentages: right answers, true steps, strict grading."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from fractions import Fraction
from math import gcd

from tests.tasks import checks

from magister.tasks import fractions
from magister.tasks.phrasebook import Phrasebook, load_book
from magister.tasks.problem import BEYOND, BEYOND_WARNING, Problem, state

LEVELS = (*range(1, fractions.LEVELS + 1), BEYOND)
SLOTS = {
    "calc": {"e"},
    "simplify": {"f"},
    "percent_of": {"p", "n"},
    "percent_up": {"n", "p"},
    "percent_down": {"n", "p"},
    "what_percent": {"a", "b"},
}
BARE = Phrasebook(
    "fractions",
    {
        "calc": ("{e}",),
        "simplify": ("{f}",),
        "percent_of": ("{n}*{p}/100",),
        "percent_up": ("{n}+{n}*{p}/100",),
        "percent_down": ("{n}-{n}*{p}/100",),
        "what_percent": ("{a}*100/{b}",),
    },
    (),
    {},
)
WORDS = {" plus ": "+", " minus ": "-", " times ": "*", "×": "*", "·": "*", " x ": "*"}


def _problems(book: Phrasebook, count: int = 400) -> list[Problem]:
    return [fractions.generate(random.Random(n), level, book) for level in LEVELS for n in range(count)]


def _expected(problem: Problem) -> Fraction:
    """The value of what the bare prompt shows; a division of fractions gets its brackets."""
    shown = problem.prompt
    for word, sign in WORDS.items():
        shown = shown.replace(word, sign)
    left, *right = re.split(r"÷|divided by|(?<=\)) / (?=\()|(?<=\)) / (?=\d)|(?<=\d) / (?=\()", shown)
    return checks.evaluate(left) / checks.evaluate(right[0]) if right else checks.evaluate(left)


def _value(answer: str) -> Fraction:
    return Fraction(answer.rstrip("%"))


def test_answers_are_right() -> None:
    for problem in _problems(BARE):
        assert _value(problem.answer) == _expected(problem), problem
        if "/" in problem.answer:
            top, bottom = map(int, problem.answer.split("/"))
            assert gcd(top, bottom) == 1
            assert bottom > 1
        assert problem.answer.endswith("%") == (problem.kind == "what_percent")


def test_thoughts_are_true_and_short() -> None:
    for problem in _problems(load_book("fractions")):
        assert not checks.wrong_equations(problem.thinking), problem
        assert len(problem.thinking) <= (checks.MOST_CHARACTERS if problem.level != BEYOND else 1000), problem
        assert problem.thinking.splitlines()[-1].endswith(f"={problem.answer}"), problem


def test_a_sum_goes_over_the_common_divisor_of_the_bottoms() -> None:
    for problem in _problems(BARE):
        if problem.kind == "calc" and problem.operands[2] in ("+", "-"):
            a, b, sign, c, d = problem.operands
            lines = problem.thinking.splitlines()
            assert lines[:2] == [f"{a}/{b}{sign}{c}/{d}", f"gcd {b} {d}" + ("=1" if d == 1 else "")], problem
            common = gcd(int(b), int(d))
            assert f"{b}/{common}={int(b) // common}" in lines
            assert f"{d}/{common}={int(d) // common}" in lines
            top = int(a) * int(d) // common + int(c) * int(b) // common * (1 if sign == "+" else -1)
            assert f"{top}/{int(b) * int(d) // common}" in lines, problem


def test_grade_takes_the_reply_and_no_other_value() -> None:
    for problem in _problems(load_book("fractions"), 100):
        assert problem.reply.startswith(BEYOND_WARNING) == (problem.level == BEYOND)
        assert fractions.grade(problem, problem.reply)
        assert not fractions.grade(problem, state(str(_value(problem.answer) + 1)))
        assert not fractions.grade(problem, state(f"{_value(problem.answer)}/7"))


def test_grade_wants_lowest_terms_and_frees_the_percent_sign() -> None:
    calc = replace(_problems(BARE, 1)[0], kind="calc", answer="3/4")
    assert fractions.grade(calc, "**3 / 4**")
    assert fractions.grade(calc, "**0.75**")
    assert not fractions.grade(calc, "**6/8**")
    simplify = replace(calc, kind="simplify")
    assert not fractions.grade(simplify, "**0.75**")
    assert not fractions.grade(simplify, "**6/8**")
    share = replace(calc, kind="what_percent", answer="75%")
    assert all(fractions.grade(share, f"**{text}**") for text in ("75%", "75 %", "75", "75 percent"))
    assert not any(fractions.grade(share, f"**{text}**") for text in ("0.75", "3/4", "25%", ""))
    part = replace(calc, kind="percent_of", answer="12.5")
    assert fractions.grade(part, "**12.50**")
    assert not fractions.grade(part, "**12.5%**")


def test_every_kind_occurs_at_every_level() -> None:
    problems = _problems(BARE)
    for level in LEVELS:
        assert {problem.kind for problem in problems if problem.level == level} == set(SLOTS)


def test_beyond_is_past_the_trained_range() -> None:
    for problem in _problems(BARE):
        operands = [operand for operand in problem.operands if isinstance(operand, int)]
        past = min(operands[1], operands[3]) > 99 if problem.kind == "calc" else max(operands) >= 10_000
        assert past == (problem.level == BEYOND), problem


def test_same_seed_gives_the_same_problem() -> None:
    book = load_book("fractions")
    for level in LEVELS:
        assert checks.is_repeatable(lambda rng, level=level: fractions.generate(rng, level, book))  # type: ignore[misc]


def test_book_has_every_kind_and_slot() -> None:
    book = load_book("fractions")
    assert not checks.bad_templates(book, SLOTS)
    assert all(len(book.kinds[kind]) >= 25 for kind in SLOTS)
