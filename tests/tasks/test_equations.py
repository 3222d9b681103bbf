"""Equations: solutions put back into what the prompt shows, true steps, strict grading."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from fractions import Fraction

from tests.tasks import checks

from magister.tasks import Split, equations, equations_linear, equations_system, is_held_out
from magister.tasks.equations_linear import Equation
from magister.tasks.equations_system import System
from magister.tasks.family import draw
from magister.tasks.phrasebook import Phrasebook, load_book
from magister.tasks.problem import BEYOND, BEYOND_WARNING, Problem, state

LEVELS = (*range(1, equations.LEVELS + 1), BEYOND)
SLOTS = {"linear": {"e", "v"}, "system": {"e1", "e2"}}
BARE = Phrasebook("equations", {"linear": ("{e}",), "system": ("{e1};{e2}",)}, (), {})


def _problems(book: Phrasebook, count: int = 400) -> list[Problem]:
    return [equations.generate(random.Random(n), level, book) for level in LEVELS for n in range(count)]


def _solution(problem: Problem) -> dict[str, int]:
    pairs = (part.split(" = ") for part in problem.answer.split(", "))
    return {letter: int(value) for letter, value in pairs}


def _gap(equation: str, values: dict[str, int]) -> Fraction:
    """Left minus right of an equation as shown, with the values put in."""
    shown = equation.replace("·", "*").replace("×", "*")
    for letter, value in values.items():
        shown = re.sub(rf"(\d)\s*{letter}", rf"\1*{letter}", shown)
        shown = shown.replace(letter, f"({value})")
    shown = re.sub(r"(\d)\(", r"\1*(", shown)
    left, right = shown.split("=")
    return checks.evaluate(left) - checks.evaluate(right)


def test_solutions_satisfy_what_is_shown_and_no_other_does() -> None:
    for problem in _problems(BARE):
        values = _solution(problem)
        shown = problem.prompt.split(";")
        assert len(values) == len(shown)
        assert all(_gap(equation, values) == 0 for equation in shown), problem
        for letter in values:
            moved = values | {letter: values[letter] + 1}
            assert any(_gap(equation, moved) != 0 for equation in shown), problem
        if problem.kind == "system":
            a, b, _, c, d, _ = map(int, problem.operands)
            assert a * d != b * c


def test_thoughts_are_true_and_short() -> None:
    for problem in _problems(load_book("equations")):
        assert not checks.wrong_equations(problem.thinking), problem
        assert len(problem.thinking) <= (checks.MOST_CHARACTERS if problem.level != BEYOND else 1000), problem
        assert problem.thinking.startswith("Solve ")
        assert problem.thinking.splitlines()[-1].replace(" ", "") == problem.answer.replace(" ", ""), problem


def test_every_line_of_the_thought_keeps_the_solution() -> None:
    for problem in _problems(BARE, 200):
        values = _solution(problem)
        letters = "".join(values)
        for line in problem.thinking.splitlines()[1:]:
            if re.fullmatch(rf"[\d{letters}+\-*/()=]+", line) and re.search(f"[{letters}]", line):
                assert _gap(line, values) == 0, (problem, line)


def test_one_thought_for_what_is_shown() -> None:
    thoughts: dict[str, str] = {}
    for problem in _problems(BARE, 1500):
        assert thoughts.setdefault(re.sub(r"[ *·×]", "", problem.prompt), problem.thinking) == problem.thinking, problem


def test_what_is_given_as_solved_goes_one_way_whatever_the_row() -> None:
    rows = [
        System(first=(sign * -3, sign, sign * 19), second=(1, 2, -4), x=-6, y=1, solved=(True, False))
        for sign in (1, -1)
    ]
    first, second = (equations_system.work_out(system, ("x", "y")) for system in rows)
    assert first == second
    assert first.splitlines()[:2] == ["Solve y=3x+19; x+2y=-4", "-3x+y=19; x+2y=-4"]


def test_a_system_always_removes_the_second_letter() -> None:
    for problem in _problems(BARE):
        if problem.kind == "system":
            line = next(line for line in problem.thinking.splitlines() if line.startswith("remove "))
            match = re.fullmatch(r"remove ([+-]\d+)(.), ([+-]\d+)\2: row 1 times (\d), row 2 times (-?\d)", line)
            assert match, problem
            assert int(match[1]) * int(match[4]) + int(match[3]) * int(match[5]) == 0, problem
            rows = re.findall(
                r"^(-?\d*)[a-z], (-?\d+) times (-?\d): (-?\d*)[a-z], (-?\d+)$", problem.thinking, re.MULTILINE
            )
            assert [int(row[2]) for row in rows] == [int(match[4]), int(match[5])], problem
            for left, right, times, more, most in rows:
                assert _count(left) * int(times) == _count(more), problem
                assert int(right) * int(times) == int(most), problem
            assert match[2] == problem.answer.split(", ")[1][0]


def _count(sign: str) -> int:
    """How often `-x`, `x`, `7x` has x."""
    return int(f"{sign}1") if sign in ("", "-") else int(sign)


def test_grade_takes_the_reply_and_no_other_value() -> None:
    for problem in _problems(load_book("equations"), 100):
        values = _solution(problem)
        assert problem.reply.startswith(BEYOND_WARNING) == (problem.level == BEYOND)
        assert equations.grade(problem, problem.reply)
        for letter in values:
            wrong = ", ".join(f"{name} = {value + (name == letter)}" for name, value in values.items())
            assert not equations.grade(problem, state(wrong))
        assert equations.grade(problem, state(" and ".join(f"{k}={v}" for k, v in reversed(values.items()))))


def test_grade_of_letters() -> None:
    linear = replace(_problems(BARE, 1)[0], kind="linear", answer="x = -5")
    assert equations.grade(linear, "**-5**")
    assert equations.grade(linear, "So **x = −5**.")
    assert not equations.grade(linear, "**y = -5**")
    system = replace(linear, kind="system", answer="x = 2, y = 5")
    assert equations.grade(system, "**y = 5, x = 2**")
    for wrong in ("x = 5, y = 2", "x = 2", "2, 5", "x = 2, y = 5, z = 1", "x = 2, x = 2", ""):
        assert not equations.grade(system, f"**{wrong}**"), wrong


def test_beyond_is_past_the_trained_range() -> None:
    for problem in _problems(BARE):
        if problem.kind == "linear":
            past = abs(int(problem.operands[1])) > 120
        else:
            past = min(abs(int(problem.operands[place])) for place in (2, 5)) > 400
        assert past == (problem.level == BEYOND), problem


def test_same_seed_gives_the_same_problem() -> None:
    book = load_book("equations")
    for level in LEVELS:
        assert checks.is_repeatable(lambda rng, level=level: equations.generate(rng, level, book))  # type: ignore[misc]


def test_book_has_every_kind_and_slot() -> None:
    book = load_book("equations")
    assert not checks.bad_templates(book, SLOTS, {"linear": {"v"}})
    assert all(len(book.kinds[kind]) >= 25 for kind in SLOTS)


def test_what_is_said_to_be_the_same_is_written_the_same() -> None:
    mirrored = negated = 0
    for seed in range(800):
        equation = equations_linear.draw(random.Random(seed), 3)
        for form, *numbers in equation.same():
            a, b, c, d = map(int, numbers)
            other = Equation(form=str(form), a=a, b=b, c=c, d=d, flipped=not equation.flipped)
            one = replace(equation, last_first=False)
            texts = [equations_linear.write(random.Random(seed), each, "x") for each in (one, other)]
            mirrored += texts[0] == texts[1]
            assert texts[0] == texts[1]
        system = equations_system.draw(random.Random(seed), 3)
        for a, b, c, d, e, f in system.same():
            twin = replace(system, first=(a, b, c), second=(d, e, f))
            texts = [" ".join(equations_system.write(random.Random(seed), each, ("x", "y"))) for each in (system, twin)]
            negated += texts[0] == texts[1]
            assert texts[0] == texts[1]
            assert twin != system
    assert min(mirrored, negated) > 50


def test_a_held_out_equation_is_not_trained_on_with_its_sides_exchanged() -> None:
    kept_apart = set()
    for seed in range(1500):
        problem = draw(equations, random.Random(seed), 3 + seed % 2, BARE, Split.TRAIN)
        assert not any(is_held_out("equations", problem.kind, each) for each in (problem.operands, *problem.same))
        held = draw(equations, random.Random(seed), 3 + seed % 2, BARE, Split.HELD_OUT)
        kept_apart |= {each for each in held.same if not is_held_out("equations", held.kind, each)}
    assert len(kept_apart) > 100
