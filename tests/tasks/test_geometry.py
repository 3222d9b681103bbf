"""Laws of the geometry family: answers by counting and by other formulas, true steps, fair grading."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from tests.tasks import checks

from magister.tasks import geometry
from magister.tasks.phrasebook import load_book
from magister.tasks.problem import BEYOND, Problem

BOOK = load_book("geometry")
LEVELS = (BEYOND, *range(1, geometry.LEVELS + 1))
SLOTS = {
    "rect_area": {"w", "h"},
    "rect_perimeter": {"w", "h"},
    "square_area": {"s"},
    "square_perimeter": {"s"},
    "rect_side": {"area", "w"},
    "triangle_area": {"b", "h"},
    "trapezoid_area": {"a", "b", "h"},
    "triangle_angle": {"a", "b"},
    "line_angle": {"a"},
    "point_angle": {"a", "b", "c"},
    "polygon_sum": {"n"},
}


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return [geometry.generate(random.Random(seed), LEVELS[seed % len(LEVELS)], BOOK) for seed in range(2000)]


def shoelace(*corners: tuple[int, int]) -> Fraction:
    """The area inside a closed line of corners."""
    pairs = zip(corners, corners[1:] + corners[:1], strict=True)
    return abs(Fraction(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs), 2))


def is_right(problem: Problem) -> bool:
    value, numbers = Fraction(problem.answer), [int(operand) for operand in problem.operands]
    a, b, c = [*numbers, 0, 0][:3]
    match problem.kind:
        case "rect_area":
            return value == shoelace((0, 0), (a, 0), (a, b), (0, b))
        case "square_area":
            return value == shoelace((0, 0), (a, 0), (a, a), (0, a))
        case "triangle_area":
            return value == shoelace((0, 0), (a, 0), (1, b))
        case "trapezoid_area":
            return value == shoelace((0, 0), (a, 0), (b, c), (0, c))
        case "rect_perimeter":
            return value == a + b + a + b
        case "square_perimeter":
            return value == a + a + a + a
        case "rect_side":
            return value * b == a
        case "polygon_sum":
            return value == a * 180 - 360
        case _:
            return value > 0 and value + sum(numbers) == (360 if problem.kind == "point_angle" else 180)


def test_the_answer_is_right(problems: list[Problem]) -> None:
    assert {problem.kind for problem in problems} == set(SLOTS)
    for problem in problems:
        assert is_right(problem), problem


def test_every_step_is_true_and_short(problems: list[Problem]) -> None:
    for problem in problems:
        thought = "\n".join(line for line in problem.thinking.splitlines() if not line.endswith(".5"))
        assert not checks.wrong_equations(thought), problem
        assert len(problem.thinking) <= checks.MOST_CHARACTERS, problem
        assert problem.thinking.endswith(f"={problem.answer}"), problem


def test_trained_and_beyond_do_not_overlap(problems: list[Problem]) -> None:
    for problem in problems:
        if problem.kind == "polygon_sum":
            past = int(problem.operands[0]) >= 50
        elif problem.kind == "rect_side":
            past = int(problem.operands[0]) > 99_999
        else:
            past = max(map(int, problem.operands)) >= 1000
        assert past is (problem.level == BEYOND), problem


def test_grade_takes_the_answer_and_no_other(problems: list[Problem]) -> None:
    for problem in problems:
        assert geometry.grade(problem, problem.reply)
        assert not geometry.grade(problem, f"**{Fraction(problem.answer) + 1}**")
        assert not geometry.grade(problem, f"**{problem.answer} kg**")
        assert not geometry.grade(problem, "")
        if problem.kind.endswith("_angle") or problem.kind == "polygon_sum":
            assert geometry.grade(problem, f"**{problem.answer}°**")
            assert geometry.grade(problem, f"**{problem.answer} degrees**")


@pytest.mark.parametrize(
    ("answer", "right"),
    [("12 m²", True), ("12 square metres", False), ("12 m^2", True), ("12 m", False), ("12 cm²", False)],
)
def test_grade_minds_the_unit_of_the_prompt(answer: str, right: bool) -> None:
    problem = Problem(
        family="geometry",
        kind="rect_area",
        level=1,
        operands=(3, 4),
        prompt="A floor is 3 m by 4 m. Area?",
        thinking="",
        answer="12",
        reply="",
    )
    assert geometry.grade(problem, f"**{answer}**") is right


def test_the_same_seed_gives_the_same_problem() -> None:
    assert checks.is_repeatable(lambda rng: geometry.generate(rng, rng.choice(LEVELS), BOOK))
    with pytest.raises(ValueError, match="levels"):
        geometry.generate(random.Random(0), geometry.LEVELS + 1, BOOK)


def test_the_book_has_all_kinds_and_slots() -> None:
    assert not checks.bad_templates(BOOK, SLOTS)
    assert all(len(templates) >= 20 for templates in BOOK.kinds.values())
