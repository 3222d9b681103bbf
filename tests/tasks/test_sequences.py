"""Sequences: the answer continues a rule that the shown terms obey, true steps, a sound book."""

from __future__ import annotations

import random
import re
from fractions import Fraction
from itertools import pairwise

from tests.tasks import branches, checks

from magister.tasks import sequences
from magister.tasks.phrasebook import Phrasebook, load_book
from magister.tasks.problem import BEYOND, BEYOND_WARNING, Problem, state

LEVELS = (*range(1, sequences.LEVELS + 1), BEYOND)
BARE = Phrasebook("sequences", {"next": ("{s}",), "nth": ("{s}; {k}",)}, (), {})


def _problems(book: Phrasebook, count: int = 400) -> list[Problem]:
    return [sequences.generate(random.Random(n * 10 + level), level, book) for level in LEVELS for n in range(count)]


def _differences(terms: list[int], depth: int) -> list[int]:
    for _ in range(depth):
        terms = [b - a for a, b in pairwise(terms)]
    return terms


def _obeys_a_rule(terms: list[int]) -> bool:
    """Whether the terms, the answer among them, are of one of the families taught."""
    level = any(len(set(_differences(terms, depth))) == 1 for depth in (1, 2, 3) if len(terms) > depth + 1)
    ratios = [Fraction(b, a) if a else None for a, b in pairwise(terms)]
    sums = all(c == a + b for a, b, c in zip(terms, terms[1:], terms[2:], strict=False))
    steps = _differences(terms, 1)
    in_turn = any(len({*steps[p::2]}) == 1 and len({*ratios[1 - p :: 2]}) == 1 for p in (0, 1))
    two = all(len(set(_differences(terms[p::2], 1))) == 1 for p in (0, 1))
    return level or len(set(ratios)) == 1 or sums or in_turn or two


def _term(terms: list[int], k: int) -> int:
    value, step = terms[0], terms[1] - terms[0]
    even = terms[2] - terms[1] == step
    for _ in range(k - 1):
        value = value + step if even else value * (terms[1] // terms[0])
    return value


def test_answers_are_right() -> None:
    for problem in _problems(BARE):
        listed, _, k = problem.prompt.partition(";")
        terms = [int(term) for term in listed.split(",")]
        answer = int(problem.answer)
        assert 4 <= len(terms) <= 6, problem
        assert min(*terms, answer) >= 0, problem
        if problem.kind == "next":
            assert _obeys_a_rule([*terms, answer]), problem
            assert problem.operands == tuple(terms)
        else:
            assert _term(terms, int(k)) == answer, problem
            assert problem.operands == (*terms, int(k))


def test_thinking_is_true_and_short() -> None:
    for problem in _problems(load_book("sequences")):
        assert not branches.wrong_sums(problem.thinking), problem
        assert not checks.wrong_equations(problem.thinking), problem
        assert len(problem.thinking) <= 450, problem
        assert problem.thinking.endswith(f"={problem.answer}"), problem


def test_every_decision_follows_from_what_is_written() -> None:
    for problem in _problems(BARE, 200):
        seen: set[int] = set()
        for line in problem.thinking.splitlines():
            step = re.fullmatch(r"-?\d+-\(?-?\d+\)?=(-?\d+)( same| not same)?", line)
            if step is not None:
                value, judged = int(step[1]), step[2]
                assert judged is None or (value in seen) == (judged == " same"), (line, problem)
                seen = {value} if judged == " not same" else seen | {value}
            if line.startswith(("differences", "two")):
                seen = set()
            if re.fullmatch(r"all [+-]\d+", line):
                assert int(line[4:]) in seen, (line, problem)


def test_a_ratio_is_read_off_the_multiples_or_off_the_difference() -> None:
    listed = refused = 0
    for problem in _problems(BARE, 200):
        terms = set(map(int, re.findall(r"-?\d+", problem.thinking.splitlines()[0])))
        found = {int(value) for value in re.findall(r"-\(?-?\d+\)?=(-?\d+)", problem.thinking)}
        differences = found | {-value for value in found}
        for line in problem.thinking.splitlines():
            small = re.fullmatch(r"(-?\d+)<(-?\d+) no", line)
            if small is not None:
                left, right = int(small[1]), int(small[2])
                assert left < right, (line, problem)
                assert (right in terms and left in differences) or (right == 1 and left in terms), (line, problem)
                refused += 1
            if re.fullmatch(r"\d+:2( \d+:\d)*( no)?", line):
                entries = [tuple(map(int, entry.split(":"))) for entry in line.removesuffix(" no").split()]
                base = entries[0][0] // 2
                assert entries == [(times * base, times) for times in range(2, len(entries) + 2)], (line, problem)
                fits = entries[-1][0] in terms
                assert base in terms, (line, problem)
                assert fits or line.endswith(" no"), (line, problem)
                assert any(entries[-1][0] >= term > entries[-1][0] - base for term in terms) or len(entries) == 8
                listed += 1
    assert listed > 50
    assert refused > 50


def test_levels() -> None:
    for problem in _problems(BARE):
        terms = [int(term) for term in problem.prompt.partition(";")[0].split(",")]
        if problem.level == BEYOND:
            assert min(terms) >= 100_000 or len(set(_differences(terms, 3))) == 1, problem
        else:
            assert max(terms) <= 9999, problem
            assert problem.kind == "next" or int(problem.prompt.partition(";")[2]) <= 30, problem


def test_grading() -> None:
    for problem in _problems(load_book("sequences"), 100):
        assert sequences.grade(problem, problem.reply)
        assert problem.reply.startswith(BEYOND_WARNING) == (problem.level == BEYOND)
        assert not sequences.grade(problem, state(str(int(problem.answer) + 1)))


def test_same_seed_same_problem() -> None:
    book = load_book("sequences")
    assert checks.is_repeatable(lambda rng: sequences.generate(rng, rng.choice(LEVELS), book))


def test_book() -> None:
    book = load_book("sequences")
    assert set(book.kinds) == {"next", "nth"}
    assert min(map(len, book.kinds.values())) >= 25
    assert not branches.odd_templates(book.kinds["next"], {"s"})
    assert not branches.odd_templates(book.kinds["nth"], {"s", "k"})
