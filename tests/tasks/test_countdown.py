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
        assert len(equations) >= 2 or problem.level == BEYOND, problem
        assert all(checks.evaluate(left) == int(right) for left, right in equations), problem
        assert len(problem.thinking) <= checks.MOST_CHARACTERS, problem
        last = problem.thinking.splitlines()[-1]
        assert last == f"{problem.answer.replace(' ', '')}={problem.operands[-1]}", problem


def test_each_side_has_its_own_line_before_both_stand_in_one(problems: list[Problem]) -> None:
    sides = 0
    for problem in problems:
        lines = problem.thinking.splitlines()
        for place, line in enumerate(lines):
            if not line.endswith(" yes"):
                continue
            numbers = set(map(int, re.findall(r"\d+", lines[place + 1].split("=")[0])))
            given = set(
                map(int, re.findall(r"\d+", [line for line in lines[:place] if " to " in line][-1].split(" to ")[0]))
            )
            made = {
                int(one.split("=")[1]) for one in lines[place + 2 : place + 4] if re.fullmatch(r"[\d+*/()-]+=\d+", one)
            }
            assert numbers <= given | made, (problem, line)
            sides += 1
    assert sides > 100


def test_every_line_is_of_one_of_five_forms(problems: list[Problem]) -> None:
    fact = r"\d+[-+*/]\d+(=\d+| no)"
    forms = (r"\d+(,\d+)+ to \d+", rf"{fact}(,{fact})*", rf"({fact},)*\d+[-+*/]\d+=\d+ yes", r"[-\d+*/()]+=\d+")
    for problem in problems:
        for line in problem.thinking.splitlines():
            assert any(re.fullmatch(form, line) for form in forms), line


def test_what_is_left_with_no_is_no_whole_number_in_reach(problems: list[Problem]) -> None:
    for problem in problems:
        most = 999 if problem.level == BEYOND else 200
        for left in re.findall(r"(\d+[-+*/]\d+) no", problem.thinking):
            value = checks.evaluate(left)
            assert value.denominator > 1 or not 1 <= value <= most, left


def test_a_block_ends_with_yes_as_soon_as_a_goal_is_among_what_its_pair_makes(problems: list[Problem]) -> None:
    found = 0
    for problem in problems:
        lines = problem.thinking.splitlines()
        for at, line in enumerate(lines[:-2]):
            state = re.fullmatch(r"([\d,]+) to (\d+)", line)
            if not state or " to " in lines[at + 1] or "," not in lines[at + 1]:
                continue
            numbers, target = [int(part) for part in state.group(1).split(",")], int(state.group(2))
            goals = lines[at + (2 if len(numbers) == 3 else 3)]
            made = set(re.findall(r"=(\d+)", lines[at + 1]))
            hits = [right in made for _, right in EQUATION.findall(goals)]
            assert not any(hits[:-1]), problem
            assert goals.endswith(" yes") is any(hits), problem
            if goals.endswith(" yes"):
                found += 1
                step = lines[at + (3 if len(numbers) == 3 else 4)]
                assert checks.evaluate(step.split("=")[0]) == target == int(step.split("=")[1]), problem
    assert found > len(problems) * 0.9


def test_three_or_four_numbers_are_tried_in_every_order_before_anything_else(problems: list[Problem]) -> None:
    for problem in problems:
        if problem.level != BEYOND:
            numbers, target = list(map(str, problem.operands[:-1])), problem.operands[-1]
            orders = (numbers, [*numbers[1:], numbers[0]], [numbers[2], *numbers[:2]])
            if len(numbers) == 4:
                orders = (numbers, [numbers[at] for at in (0, 2, 1, 3)], [numbers[at] for at in (0, 3, 1, 2)])
            states = [line for line in problem.thinking.splitlines() if " to " in line]
            wanted = [f"{','.join(order)} to {target}" for order in orders]
            if len(set(numbers)) < len(numbers):
                wanted = [state for state in dict.fromkeys(wanted) if state in states]
                states = [state for state in states if state in wanted]
            assert states[: len(wanted)] == wanted[: len(states)], problem


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
