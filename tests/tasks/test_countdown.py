"""Laws of the countdown family: solutions by an evaluator of its own, honest dead ends, fair grading."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from fractions import Fraction

import pytest
from tests.tasks import checks

from magister.tasks import countdown
from magister.tasks.countdown_search import number, search
from magister.tasks.phrasebook import load_book
from magister.tasks.problem import BEYOND, Problem

BOOK = load_book("countdown")
LEVELS = (BEYOND, *range(1, countdown.LEVELS + 1))
EQUATION = re.compile(r"(?<![\d+*/)-])([\d+*/()-]+)=(\d+)")


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return [countdown.generate(random.Random(seed), LEVELS[seed % len(LEVELS)], BOOK) for seed in range(2000)]


def reachable(numbers: tuple[int, ...]) -> set[int]:
    """Every positive integer that all the numbers make by positive integer steps."""
    if len(numbers) == 1:
        return {numbers[0]}
    made = set()
    for i, j in itertools.permutations(range(len(numbers)), 2):
        rest = tuple(value for at, value in enumerate(numbers) if at not in (i, j))
        a, b = numbers[i], numbers[j]
        for value in (a + b, a - b, a * b, a // b if a % b == 0 else 0):
            if value > 0:
                made |= reachable((*rest, value))
    return made


def test_the_answer_uses_every_number_once_and_reaches_the_target(problems: list[Problem]) -> None:
    for problem in problems:
        *numbers, target = problem.operands
        assert checks.evaluate(problem.answer) == target, problem
        assert Counter(map(int, re.findall(r"\d+", problem.answer))) == Counter(numbers), problem


def test_every_step_is_true_short_and_ends_in_the_solution(problems: list[Problem]) -> None:
    for problem in problems:
        equations = EQUATION.findall(problem.thinking)
        assert len(equations) >= 2, problem
        assert all(checks.evaluate(left) == int(right) for left, right in equations), problem
        assert not checks.wrong_equations(problem.thinking), problem
        assert len(problem.thinking) <= checks.MOST_CHARACTERS, problem
        last = problem.thinking.splitlines()[-1].removesuffix(" yes").split(", ")[-1]
        assert last == f"{problem.answer.replace(' ', '')}={problem.operands[-1]}", problem


def test_each_line_keeps_the_numbers_that_are_left(problems: list[Problem]) -> None:
    for problem in problems:
        for line in problem.thinking.splitlines():
            match = re.fullmatch(r"\d+[-+*/]\d+=(\d+): ([\d,]+) to (\d+)", line)
            if match:
                result, rest, goal = match.groups()
                left = Counter(rest.split(","))
                assert goal == result or left[result], line
            if line.endswith((" no", " yes")) and "to" not in line:
                assert re.fullmatch(r"\d+\+\d+=\d+(, \d+[-*/]\d+=\d+)* (no|yes)", line), line


def test_a_subgoal_left_with_no_is_out_of_reach(problems: list[Problem]) -> None:
    for problem in problems[:400]:
        lines = problem.thinking.splitlines()
        for line, after in itertools.pairwise(lines):
            match = re.search(r": ([\d,]+) to (\d+)$", line)
            if match and after.endswith(" no"):
                a, b = map(int, match.group(1).split(","))
                assert int(match.group(2)) not in reachable((a, b)), problem


def test_search_finds_a_way_wherever_there_is_one() -> None:
    rng = random.Random(3)
    for _ in range(60):
        numbers = tuple(rng.randint(1, 9) for _ in range(rng.choice((3, 3, 4))))
        target = rng.randint(1, 60)
        found = search(rng, [number(value) for value in numbers], target, 100_000)
        assert (found is not None) is (target in reachable(numbers)), (numbers, target)


def test_sizes_tell_the_levels_apart(problems: list[Problem]) -> None:
    for problem in problems:
        count = len(problem.operands) - 1
        assert count in {BEYOND: (5, 6), 1: (3,), 2: (3,), 3: (4,), 4: (4,)}[problem.level], problem


def test_grade_takes_any_right_expression_and_no_other(problems: list[Problem]) -> None:
    for problem in problems:
        assert countdown.grade(problem, problem.reply)
        assert countdown.grade(problem, f"**{problem.answer} = {problem.operands[-1]}**")
        assert not countdown.grade(problem, f"**{problem.answer} + 1**")
        assert not countdown.grade(problem, f"**{problem.operands[-1]}**")


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("**7 × 3 + 25**", True),
        ("**25 + (3*7)**", True),
        (r"\boxed{25 + 3 \times 7}", True),
        ("**25 + 7 * 3 = 46**", True),
        ("**25 + 7 * 3 = 47**", False),
        ("**25 + 21**", False),
        ("**25 + 7 * 3 + 3 - 3**", False),
        ("**25 + 7 3**", False),
        ("**(25 + 7 * 3**", False),
        ("**25 + 7 * 3)**", False),
        ("**25 + 7 ** 3**", False),
        ("**7 / (3 - 3) + 25**", False),
        ("**" + "(" * 500 + "25 + 7 * 3" + ")" * 500 + "**", False),
        ("**7*3 plus 25**", False),
        ("", False),
    ],
)
def test_grade_reads_expressions_exactly(reply: str, right: bool) -> None:
    problem = Problem(
        family="countdown",
        kind="reach",
        level=1,
        operands=(3, 7, 25, 46),
        prompt="",
        thinking="",
        answer="7 * 3 + 25",
        reply="",
    )
    assert countdown.grade(problem, reply) is right
    assert Fraction(46) == checks.evaluate(problem.answer)


def test_the_same_seed_gives_the_same_problem() -> None:
    assert checks.is_repeatable(lambda rng: countdown.generate(rng, rng.choice(LEVELS), BOOK))
    with pytest.raises(ValueError, match="levels"):
        countdown.generate(random.Random(0), countdown.LEVELS + 1, BOOK)


def test_the_book_has_its_kind_and_slots() -> None:
    assert not checks.bad_templates(BOOK, {"reach": {"numbers", "target"}})
    assert len(BOOK.kinds["reach"]) >= 25
