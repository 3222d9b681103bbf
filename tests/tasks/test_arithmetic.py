"""Arithmetic: right answers, true steps, strict grading, levels that do not overlap."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from tests.tasks import checks

from magister.tasks import arithmetic
from magister.tasks.arithmetic_division import exact_divide, long_divide
from magister.tasks.phrasebook import Phrasebook, load_book
from magister.tasks.problem import BEYOND, BEYOND_WARNING, Problem, state

LEVELS = (*range(1, arithmetic.LEVELS + 1), BEYOND)
SLOTS = {kind: {"a", "b"} for kind in ("add", "sub", "mul", "div", "remainder")} | {"expr": {"e"}}
BARE_KINDS: dict[str, tuple[str, ...]] = {**dict.fromkeys(SLOTS, ("{a} {b}",)), "expr": ("{e}",)}
BARE = Phrasebook("arithmetic", BARE_KINDS, (), {})


def _problems(book: Phrasebook, count: int = 400) -> list[Problem]:
    return [arithmetic.generate(random.Random(n), level, book) for level in LEVELS for n in range(count)]


def _expected(problem: Problem) -> int:
    """Worked out from what the bare prompt shows, without the generator's formulas."""
    if problem.kind == "expr":
        shown = problem.prompt.translate(str.maketrans("×·x÷−", "***/-"))
        value = checks.evaluate(re.sub(r"(\d|\))\s*\(", r"\1*(", shown))
        assert value.denominator == 1
        return int(value)
    a, b = map(int, problem.prompt.split())
    if problem.kind == "div":
        return next(q for q in range(a + 1) if q * b == a) if a < 2000 else int(checks.evaluate(f"{a}/{b}"))
    return {"add": a + b, "sub": a - b, "mul": a * b, "remainder": a % (b or 1)}[problem.kind]


def test_answers_are_right() -> None:
    for problem in _problems(BARE):
        assert problem.answer == str(_expected(problem)), problem


def test_thoughts_are_true_and_short() -> None:
    for problem in _problems(load_book("arithmetic")):
        assert not checks.wrong_equations(problem.thinking), problem
        assert len(problem.thinking) <= checks.MOST_CHARACTERS
        last = problem.thinking.splitlines()[-1]
        assert re.search(rf"(?:=|remainder ){re.escape(problem.answer)}$", last), problem


def test_grade_takes_the_reply_and_no_other_number() -> None:
    for problem in _problems(load_book("arithmetic"), 100):
        assert problem.reply.startswith(BEYOND_WARNING) == (problem.level == BEYOND)
        assert arithmetic.grade(problem, problem.reply)
        assert not arithmetic.grade(problem, state(str(int(problem.answer) + 1)))
        assert not arithmetic.grade(problem, f"**{problem.answer}** no, **{int(problem.answer) - 7}**")
    negative = replace(_problems(BARE, 1)[0], answer="-1234")
    assert arithmetic.grade(negative, "It is **−1,234**.")
    assert not arithmetic.grade(negative, "It is **1234**.")
    assert not arithmetic.grade(negative, "")


def test_every_kind_occurs_at_every_level() -> None:
    problems = _problems(BARE)
    for level in LEVELS:
        assert {problem.kind for problem in problems if problem.level == level} == set(SLOTS)


def test_beyond_is_past_the_trained_range() -> None:
    for problem in _problems(BARE):
        if problem.kind == "expr":
            operations = sum(operand in ("+", "-", "*", "/") for operand in problem.operands)
            long = operations > 4 or any(isinstance(part, int) and part > 999 for part in problem.operands)
            assert long == (problem.level == BEYOND)
            continue
        a, b = map(int, problem.operands)
        trained = max(a, b) <= (999 if problem.kind == "mul" else 9999)
        assert trained == (problem.level != BEYOND), problem


def test_same_seed_gives_the_same_problem() -> None:
    book = load_book("arithmetic")
    for level in LEVELS:
        assert checks.is_repeatable(lambda rng, level=level: arithmetic.generate(rng, level, book))  # type: ignore[misc]


def test_book_has_every_kind_and_slot() -> None:
    book = load_book("arithmetic")
    assert not checks.bad_templates(book, SLOTS)
    assert all(len(book.kinds[kind]) >= 25 for kind in SLOTS)


def test_division_lists_the_multiples_of_a_long_divisor() -> None:
    assert (
        long_divide(312, 47).text == "312/47:\n47:1 94:2 141:3 188:4 235:5 282:6 329:7\n312: 282:6|6\n312-282:\n"
        "2-2=0|0\n1-8+10=3|30\n3-2-1=0|030\n312-282=30\n312/47=6 remainder 30"
    )
    header, _, *steps = long_divide(1470, 14).text.splitlines()
    assert [header, *steps] == [
        "1470/14:",
        "14: 14:1|1",
        "14-14=0",
        "7: 0:0|10",
        "70: 70:5|105",
        "70-70=0",
        "1470/14=105",
    ]
    assert long_divide(94, 47).text == "94/47:\n47:1 94:2\n94/47=2"
    assert exact_divide(-84, 12) == ("84/12:\n84-7*12=0|7\n84/12=7\n(-84)/12=-7", -7)


def test_exact_division_refuses_a_rest() -> None:
    with pytest.raises(ValueError, match="multiple"):
        exact_divide(7, 2)
