"""Whole numbers: right answers by brute force, true steps, strict grading."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace

from tests.tasks import checks

from magister.tasks import numbers, numbers_euclid, numbers_primes
from magister.tasks.phrasebook import Phrasebook, load_book
from magister.tasks.problem import BEYOND, BEYOND_WARNING, Problem, state

LEVELS = (*range(1, numbers.LEVELS + 1), BEYOND)
SLOTS = {
    "gcd": {"a", "b"},
    "lcm": {"a", "b"},
    "prime": {"n"},
    "factor": {"n"},
    "to_base": {"n", "base"},
    "from_base": {"digits", "base"},
}
BARE = Phrasebook(
    "numbers",
    {kind: (" ".join(f"{{{slot}}}" for slot in sorted(slots, reverse=True)),) for kind, slots in SLOTS.items()},
    (),
    {},
)


def _problems(book: Phrasebook, count: int = 400) -> list[Problem]:
    return [numbers.generate(random.Random(n), level, book) for level in LEVELS for n in range(count)]


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % divisor for divisor in range(2, math.isqrt(n) + 1))


def _is_right(problem: Problem) -> bool:
    """Judged from what the bare prompt shows."""
    shown = problem.prompt.split()
    match problem.kind:
        case "gcd":
            return math.gcd(*map(int, shown)) == int(problem.answer)
        case "lcm":
            return math.lcm(*map(int, shown)) == int(problem.answer)
        case "prime":
            return ("Yes" if _is_prime(int(shown[0])) else "No") == problem.answer
        case "factor":
            primes = list(map(int, problem.answer.split(" * ")))
            return math.prod(primes) == int(shown[0]) and all(map(_is_prime, primes)) and primes == sorted(primes)
        case "to_base":
            return int(problem.answer, int(shown[1])) == int(shown[0])
        case _:
            return int(shown[0], int(shown[1])) == int(problem.answer)


def test_answers_are_right() -> None:
    for problem in _problems(BARE):
        assert _is_right(problem), problem


def test_thoughts_are_true_and_short() -> None:
    for problem in _problems(load_book("numbers")):
        assert not checks.wrong_equations(problem.thinking), problem
        assert len(problem.thinking) <= checks.MOST_CHARACTERS
        last = problem.thinking.splitlines()[-1]
        if problem.kind == "prime":
            assert last.endswith(" not prime") == (problem.answer == "No"), problem
        else:
            assert last.replace(" ", "").endswith(("=" if "=" in last else ":") + problem.answer.replace(" ", ""))


def test_grade_takes_the_reply_and_no_other_answer() -> None:
    for problem in _problems(load_book("numbers"), 100):
        assert problem.reply.startswith(BEYOND_WARNING) == (problem.level == BEYOND)
        assert numbers.grade(problem, problem.reply)
        wrong = {"Yes": "No", "No": "Yes"}.get(problem.answer, problem.answer + "1")
        assert not numbers.grade(problem, state(wrong)), problem
        assert not numbers.grade(problem, "")


def test_grade_forms() -> None:
    factor = replace(_problems(BARE, 1)[0], kind="factor", answer="2 * 2 * 3 * 7")
    assert all(numbers.grade(factor, f"**{text}**") for text in ("7*3*2*2", "2^2 × 3 × 7", "84 = 2 * 2 * 3 * 7"))
    assert all(numbers.grade(factor, f"**{text}**") for text in ("2² × 3 × 7", "84 = 2²·3¹·7", "7 × 3 × 2²"))
    assert not any(
        numbers.grade(factor, f"**{text}**") for text in ("2³ × 3 × 7", "2 × 3² × 7", "² × 3 × 7", "2^² × 3 × 7")
    )
    high = replace(factor, answer=" * ".join(["2"] * 11 + ["7"]))
    assert all(numbers.grade(high, f"**{text}**") for text in ("2¹¹ × 7", "2^{11} × 7", "7 * 2^11"))
    assert not numbers.grade(high, "**2¹ × 2 × 7**")
    assert not any(numbers.grade(factor, f"**{text}**") for text in ("2 * 3 * 7", "4 * 21", "2, 2, 3, 7", "84"))
    prime = replace(factor, kind="prime", answer="No")
    assert numbers.grade(prime, "**no**")
    assert not numbers.grade(prime, "**not sure**")
    based = replace(factor, kind="to_base", operands=(11, 2), answer="1011")
    assert all(numbers.grade(based, f"**{text}**") for text in ("1011", "1011_2", "1011 (base 2)"))
    assert not any(numbers.grade(based, f"**{text}**") for text in ("1011 (base 3)", "11", "1101"))


def test_every_kind_occurs_at_every_level() -> None:
    problems = _problems(BARE)
    for level in LEVELS:
        assert {problem.kind for problem in problems if problem.level == level} == set(SLOTS)


def test_beyond_is_past_the_trained_range() -> None:
    for problem in _problems(BARE):
        operands = [int(operand) for operand in problem.operands]
        past = min(operands) if problem.kind in ("gcd", "lcm") else operands[0]
        assert (past >= 10_000) == (problem.level == BEYOND), problem
        assert problem.level == BEYOND or max(operands) <= 9999


def test_primes_and_composites_are_balanced() -> None:
    asked = [problem.answer for problem in _problems(BARE, 1000) if problem.kind == "prime"]
    assert 0.4 < asked.count("Yes") / len(asked) < 0.6


def test_every_number_to_a_thousand_is_factorised() -> None:
    for n in range(2, 1001):
        text, primes = numbers_primes.factorise(n)
        assert math.prod(primes) == n
        assert all(map(_is_prime, primes))
        assert not checks.wrong_equations(text)
        assert numbers_primes.decide_prime(n, 31).endswith(f"{n} is prime") == _is_prime(n)


def test_euclid_on_small_numbers() -> None:
    for a in range(1, 40):
        for b in range(1, 40):
            assert numbers_euclid.gcd(a, b).result == math.gcd(a, b)
            assert not checks.wrong_equations(numbers_euclid.gcd(a, b).text)
            work = numbers_euclid.lcm(a, b)
            assert work.result == math.lcm(a, b)
            assert not checks.wrong_equations(work.text)


def test_rounds_of_euclid_keep_the_divisor_and_take_one_digit_of_a_quotient() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        a, b = rng.randint(1, 999), rng.randint(1, 999)
        lines = numbers_euclid.gcd(a, b).text.splitlines()
        pairs = [tuple(map(int, line.split("=")[0].split()[1:])) for line in lines if line.startswith("gcd ")]
        assert pairs[0] == (a, b)
        assert all(math.gcd(*pair) == math.gcd(a, b) for pair in pairs)
        assert lines[-1] == f"gcd {pairs[-1][0]} {pairs[-1][1]}={math.gcd(a, b)}"
        if all(max(pair) < 100 * min(pair) for pair in pairs[:-1]):
            products = [line for line in lines if re.fullmatch(r"\d+\*\d+=\d+", line)]
            assert all(re.match(r"\d+\*\d0?=", line) for line in products), lines
            assert not any("/" in line for line in lines), lines
        for place, line in enumerate(lines):
            if re.match(r"\d+:10?( |$)", line):
                larger, smaller = map(int, lines[place - 1].split()[1:])
                entries = [tuple(map(int, entry.split(":"))) for entry in line.split()]
                assert all(times * smaller == value for value, times in entries), lines
                assert all(value < larger for value, _ in entries[:-1]), lines
                taken = max(value for value, _ in entries if value <= larger)
                assert lines[place + 1].startswith(f"{larger}-{taken}"), lines


def test_same_seed_gives_the_same_problem() -> None:
    book = load_book("numbers")
    for level in LEVELS:
        assert checks.is_repeatable(lambda rng, level=level: numbers.generate(rng, level, book))  # type: ignore[misc]


def test_book_has_every_kind_and_slot() -> None:
    book = load_book("numbers")
    assert not checks.bad_templates(book, SLOTS)
    assert all(len(book.kinds[kind]) >= 25 for kind in SLOTS)
